"""`mult compare`, from a checkout: see mult/commands/compare.py."""

from mult.commands.compare import main

if __name__ == "__main__":
    main()
