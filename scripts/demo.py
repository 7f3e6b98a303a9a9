"""`mult demo`, from a checkout: see mult/commands/demo.py."""

from mult.commands.demo import main

if __name__ == "__main__":
    main()
