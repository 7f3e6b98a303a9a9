"""`mult suite`, from a checkout: see mult/commands/suite.py."""

from mult.commands.suite import main

if __name__ == "__main__":
    main()
