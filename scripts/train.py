"""`mult train`, from a checkout: see mult/commands/train.py."""

from mult.commands.train import main

if __name__ == "__main__":
    main()
