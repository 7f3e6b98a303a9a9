"""Render Doom: `mult make-doom --out ROOT [--maps N] [--views N] [--seed S]`.

Frames of the Doom engine with Freedoom's free maps, in CocoDoom's layout, split train/val/test by map. Needs the extra `doom`.
An interrupted call is continued when it is repeated.
"""

from __future__ import annotations

import argparse

from mult.cli import exit_on_user_error
from mult.data.cocodoom.make import PARAMETERS, render_missing
from mult.errors import pluralize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the dataset's folder; what it already holds is kept")
    for name, description in (
        ("maps", "maps, 4 to 32: of every four two are for training, one for validation, one to test"),
        ("views", "views of every map"),
        ("seed", "other seeds, other views"),
    ):
        default = f"default: what the folder holds, else {PARAMETERS[name].default}"
        parser.add_argument(f"--{name}", type=int, help=f"{description} ({default})")
    parser.add_argument("--workers", type=int, help="processes (default: one a processor)")
    arguments = vars(parser.parse_args())
    out = arguments.pop("out")
    with exit_on_user_error():
        rendered = render_missing(out, **arguments)
        print(f"{out}: rendered {pluralize(rendered, 'map')}; read it with mult.data.CocoDoom(root, split, by='map')")
