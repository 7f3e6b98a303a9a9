"""The exception for a user's mistake, and what messages are made of: the remedy for a misspelt name, a number of things."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A wrong config, path, file or shape of the user's: the message says what was got, what was expected and what to do.

    The commands print it alone and end with exit status 2. Every other exception is a fault of ours, or of a library, and
    keeps its traceback.
    """


def suggest(name: str, names: Iterable[str], otherwise: str) -> str:
    """The remedy for a name that is none of `names`: "did you mean 'x'?" for the nearest one, or `otherwise` if none is near.

    Upper and lower case count as equal.
    """
    by_lower = {each.lower(): each for each in names}
    nearest = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"did you mean {by_lower[nearest[0]]!r}?" if nearest else otherwise


def pluralize(number: int, noun: str) -> str:
    """A number of things, as messages say it: "1 view", "2 views", "3 classes"."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"
