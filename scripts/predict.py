"""`mult predict`, from a checkout: see mult/commands/predict.py."""

from mult.commands.predict import main

if __name__ == "__main__":
    main()
