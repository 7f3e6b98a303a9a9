"""`mult prepare-nyu`, from a checkout: see mult/commands/prepare_nyu.py."""

from mult.commands.prepare_nyu import main

if __name__ == "__main__":
    main()
