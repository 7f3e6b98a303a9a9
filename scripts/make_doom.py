"""`mult make-doom`, from a checkout: see mult/commands/make_doom.py."""

from mult.commands.make_doom import main

if __name__ == "__main__":
    main()
