"""`mult eval`, from a checkout: see mult/commands/eval.py."""

from mult.commands.eval import main

if __name__ == "__main__":
    main()
