"""`mult check-data`, from a checkout: see mult/commands/check_data.py."""

from mult.commands.check_data import main

if __name__ == "__main__":
    main()
