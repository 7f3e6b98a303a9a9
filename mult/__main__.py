"""`python -m mult COMMAND ...`, for torchrun and where the command `mult` is not on the path."""

from mult.commands import main

if __name__ == "__main__":
    main()
