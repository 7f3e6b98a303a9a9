"""`mult make-rooms`, from a checkout: see mult/commands/make_rooms.py."""

from mult.commands.make_rooms import main

if __name__ == "__main__":
    main()
