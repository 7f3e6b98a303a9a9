"""Runs side by side: python scripts/compare.py RUN_OR_JSON ... [--eval rooms-test] [--baseline JSON ...] [--out FOLDER].

The first is what the others are compared with. All must be evaluations (scripts/eval.py) of the same images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mult.cli import exit_on_user_error
from mult.evaluation import compare
from mult.evaluation.results import load, load_baseline
from mult.evaluation.tables import as_csv, as_markdown, as_text
from mult.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN_OR_JSON")
    parser.add_argument("--eval", help="which of a run's evaluations, such as rooms-test or rooms-test-blur2")
    parser.add_argument(
        "--baseline", nargs="+", default=[], metavar="JSON", help="evaluations of single-task runs: adds a column delta_m"
    )
    parser.add_argument("--out", help="a folder for comparison.md and comparison.csv, which has every metric")
    arguments = parser.parse_args()
    with exit_on_user_error():
        found = [load(path, arguments.eval) for path in arguments.runs]
        names = [one.name for one in found]
        baselines = [[load_baseline(path) for path in arguments.baseline]] if arguments.baseline else []
        # Two files of one name are told apart by their whole path.
        rows = [
            compare.Row(one.name if names.count(one.name) == 1 else str(one.path), [one], baselines=baselines) for one in found
        ]
        comparison = compare.compare(rows)
        print(as_text(comparison))
        if arguments.out:
            write_text(Path(arguments.out) / "comparison.md", as_markdown(comparison))
            write_text(Path(arguments.out) / "comparison.csv", as_csv(comparison))


if __name__ == "__main__":
    main()
