"""`mult report`, from a checkout: see mult/commands/report.py."""

from mult.commands.report import main

if __name__ == "__main__":
    main()
