"""`mult annotate`, from a checkout: see mult/commands/annotate.py."""

from mult.commands.annotate import main

if __name__ == "__main__":
    main()
