"""`mult pack`, from a checkout: see mult/commands/pack.py."""

from mult.commands.pack import main

if __name__ == "__main__":
    main()
