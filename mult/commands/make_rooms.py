"""Render the Rooms dataset: `mult make-rooms --out ROOT [--buildings N] [--views N] [--size PX] [--seed S]`."""

from __future__ import annotations

import argparse
import time

from mult.cli import exit_on_user_error
from mult.data.rooms.dataset import PARAMETERS, render_missing
from mult.errors import pluralize


def main() -> None:
    parser = argparse.ArgumentParser(description="Render furnished rooms with six labels, in Taskonomy's layout.")
    parser.add_argument("--out", required=True, help="the dataset's folder; what it already holds is kept")
    for name, description in (
        ("buildings", "rooms, at least 3"),
        ("views", "views of every room"),
        ("size", "pixels on a side"),
        ("seed", "other seeds, other rooms"),
    ):
        parser.add_argument(
            f"--{name}", type=int, help=f"{description} (default: what the folder holds, else {PARAMETERS[name].default})"
        )
    parser.add_argument("--workers", type=int, help="processes (default: one a processor)")
    arguments = vars(parser.parse_args())
    out = arguments.pop("out")
    with exit_on_user_error():
        start = time.perf_counter()
        rendered = render_missing(out, **arguments)
        seconds = time.perf_counter() - start
        rate = f" at {rendered / seconds:.1f} views/s" if rendered else ""
        print(f"{out}: rendered {pluralize(rendered, 'view')}{rate}; read it with mult.data.Rooms or mult.data.Taskonomy")
