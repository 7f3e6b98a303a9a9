"""`mult push`, from a checkout: see mult/commands/push.py."""

from mult.commands.push import main

if __name__ == "__main__":
    main()
