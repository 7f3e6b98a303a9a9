"""The one exception for a user's mistake."""


class UserError(ValueError):
    """A wrong config, path, file or shape of the user's: the message says what was got, what was expected and what to do.

    The commands print it alone and end with exit status 2. Every other exception is a fault of ours, or of a library, and
    keeps its traceback.
    """
