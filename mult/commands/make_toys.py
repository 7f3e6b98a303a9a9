"""Write a toy tree in a benchmark's layout: `mult make-toys --benchmark nyu --out data/toy_nyud`.

Rendered rooms with labels that stand in for the benchmark's, such as parts of chairs for parts of people: to try
configs/nyud4_smoke.yaml, configs/pascal5_smoke.yaml and the suites without the data. No number that comes of it means anything.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mult.cli import exit_on_user_error
from mult.data.prepare.toys import BENCHMARKS, write_toys
from mult.errors import pluralize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", required=True, help=f"the dataset that shall read it: {', '.join(BENCHMARKS)}")
    parser.add_argument("--out", required=True, type=Path, help="a new folder")
    parser.add_argument("--train", type=int, default=8, help="images to train on (default: 8)")
    parser.add_argument("--val", type=int, default=4, help="images to evaluate on (default: 4)")
    parser.add_argument("--size", type=int, nargs=2, default=(72, 96), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0, help="other seeds, other rooms")
    arguments = parser.parse_args()
    with exit_on_user_error():
        height, width = arguments.size
        write_toys(arguments.out, arguments.benchmark, arguments.train, arguments.val, (height, width), arguments.seed)
        images = pluralize(arguments.train, "image")
        print(f"{arguments.out}: {images} to train on, {arguments.val} to evaluate on; toys, not the benchmark")
