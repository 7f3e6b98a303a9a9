"""The commands: `mult NAME ...`, the same as `python -m mult NAME ...` and, in a checkout, `python scripts/NAME.py ...`.

A module of this folder has one command, and is imported when that is called: `mult` alone, which lists them, needs no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module

from mult.cli import exit_on_user_error
from mult.errors import UserError, suggest

COMMANDS = {
    "train": "train a model, or go on with a run",
    "eval": "evaluate a checkpoint",
    "predict": "predict the maps of photographs",
    "demo": "look at a model in the browser: maps, values, attention",
    "export": "write a model as ONNX and .pt2",
    "push": "write a model to hand over, and upload it",
    "report": "make a page of one run or several",
    "compare": "compare evaluations, with intervals",
    "suite": "train, evaluate and compare variants",
    "check-data": "check a dataset before training",
    "annotate": "make labels of depth and colour",
    "make-rooms": "render the Rooms dataset",
    "make-toys": "write a toy tree in a benchmark's layout",
    "make-doom": "render Doom with Freedoom's maps",
    "pack": "store a dataset at the network's size, for fast reading",
    "prepare-nyu": "unpack NYU Depth v2",
}
"""Name -> what it does; the module of make-rooms is make_rooms."""


def main() -> None:
    """Run the command that the first argument names, with the others; list the commands where there is none."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    with exit_on_user_error():
        if name in ("-h", "--help"):
            print(describe())
            return
        if name not in COMMANDS:
            remedy = suggest(name, COMMANDS, "`mult --help` lists them")
            raise UserError(f"command: got {name!r}; expected one of {', '.join(COMMANDS)}; {remedy}")
    sys.argv = [f"mult {name}", *sys.argv[2:]]  # as argparse names the program, and a run's provenance the command
    import_module(f"mult.commands.{name.replace('-', '_')}").main()


def describe() -> str:
    """The list of the commands, for the terminal."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {description}" for name, description in COMMANDS.items()]
    return "\n".join(["usage: mult COMMAND ...", "", *lines, "", "`mult COMMAND --help` says what a command takes."])
