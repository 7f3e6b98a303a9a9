"""Runs side by side: python scripts/compare.py RUN_OR_JSON ... [--eval rooms-test] [--baseline JSON ...] [--out FOLDER].

The others are compared with the first. All must be evaluations (scripts/eval.py) of the same images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mult.cli import exit_on_user_error
from mult.evaluation import compare
from mult.evaluation.results import find_evaluation, read_evaluation
from mult.evaluation.tables import format_comparison, format_comparison_as_csv, format_comparison_as_markdown
from mult.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN_OR_JSON", type=Path)
    parser.add_argument("--eval", help="which of a run's evaluations, such as rooms-test or rooms-test-blur2")
    parser.add_argument(
        "--baseline",
        nargs="+",
        default=[],
        type=Path,
        metavar="JSON",
        help="evaluations of single-task runs: adds a column delta_m",
    )
    parser.add_argument("--out", type=Path, help="a folder for comparison.md and comparison.csv, which has every metric")
    arguments = parser.parse_args()
    with exit_on_user_error():
        evaluations = [read_evaluation(find_evaluation(path, arguments.eval)) for path in arguments.runs]
        baselines = [[read_evaluation(path) for path in arguments.baseline]] if arguments.baseline else []
        names = [path.name if path.is_dir() else path.stem for path in arguments.runs]
        rows = []
        for name, evaluation in zip(names, evaluations, strict=True):
            unique = name if names.count(name) == 1 else str(evaluation.path)
            rows.append(compare.Row(unique, [evaluation], baselines=baselines))
        comparison = compare.compare(rows)
        print(format_comparison(comparison))
        if arguments.out:
            write_text(arguments.out / "comparison.md", format_comparison_as_markdown(comparison))
            write_text(arguments.out / "comparison.csv", format_comparison_as_csv(comparison))
