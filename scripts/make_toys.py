"""`mult make-toys`, from a checkout: see mult/commands/make_toys.py."""

from mult.commands.make_toys import main

if __name__ == "__main__":
    main()
