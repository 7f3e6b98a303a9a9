"""`mult export`, from a checkout: see mult/commands/export.py."""

from mult.commands.export import main

if __name__ == "__main__":
    main()
