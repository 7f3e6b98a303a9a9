"""Runs side by side: mult compare RUN_OR_JSON ... [--eval rooms-test] [--baseline JSON ...] [--out FOLDER].

The others are compared with the first. All must be evaluations (`mult eval`) of the same images.

    mult compare RUN_OF_SEED_0 RUN_OF_SEED_1 RUN_OF_SEED_2 --eval test --row shared.json [--name shared] [--baseline JSON ...]
    mult compare --rows ROW_OR_FOLDER ... [--published nyud4] [--out FOLDER]

The first writes a row of a leaderboard from the runs of one config, the second the table of such rows. A row with fewer than
three seeds, of a checkpoint selected on the test split or of another metric version is refused, with the reason: status 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mult.cli import add_baselines, check_distinct, exit_on_user_error, require_used
from mult.errors import UserError
from mult.evaluation import compare
from mult.evaluation.results import SavedEvaluation, find_evaluation, read_evaluation
from mult.evaluation.tables import format_comparison, format_comparison_as_csv, format_comparison_as_markdown
from mult.files import check_output, write_json, write_text
from mult.leaderboard.check import find_refusals, read_row
from mult.leaderboard.rows import build_row
from mult.leaderboard.table import format_costs, format_leaderboard, read_published

USED = {
    "rows": ("rows", "published", "out"),
    "row": ("runs", "eval", "baseline", "row", "name"),
    "runs": ("runs", "eval", "baseline", "out"),
}
"""The argument that tells a kind of call, by the first that is given -> the arguments that such a call uses."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN_OR_JSON", type=Path)
    parser.add_argument("--eval", help="which of a run's evaluations, such as rooms-test or rooms-test-blur2")
    add_baselines(parser, ": adds a column delta_m")
    parser.add_argument(
        "--out", type=Path, help="a folder for comparison.md and .csv, which has every metric; or leaderboard.md"
    )
    parser.add_argument("--row", type=Path, metavar="JSON", help="write a row of a leaderboard from these runs, a seed each")
    parser.add_argument("--name", help="of the row; by default that of its file")
    parser.add_argument("--rows", nargs="+", default=[], type=Path, metavar="ROW_OR_FOLDER", help="print the table of rows")
    parser.add_argument(
        "--published", type=Path, metavar="YAML", help="rows of others to stand beside, or a name: nyud4, pascal5"
    )
    arguments = parser.parse_args()
    with exit_on_user_error():
        if bool(arguments.runs) == bool(arguments.rows):
            raise UserError(
                f"compare: got {len(arguments.runs)} runs and {len(arguments.rows)} rows; expected one or the other; give "
                "runs, or --rows"
            )
        require_used(arguments, USED, next(call for call in USED if getattr(arguments, call)))
        if arguments.eval is not None and all(path.is_file() for path in arguments.runs):
            raise UserError(
                f"compare: got --eval {arguments.eval} and only files; expected a run's folder to find it in; leave it out"
            )
        if arguments.out:
            for name in ["leaderboard.md"] if arguments.rows else ["comparison.md", "comparison.csv"]:
                check_output(arguments.out / name, "--out")
        if arguments.row:
            check_output(arguments.row, "--row")
        if arguments.rows:
            _print_leaderboard(arguments.rows, arguments.published, arguments.out)
            return
        files = [find_evaluation(path, arguments.eval) for path in arguments.runs]
        check_distinct("compare", files)
        evaluations = [read_evaluation(file) for file in files]
        baselines = [[read_evaluation(path) for path in arguments.baseline]] if arguments.baseline else []
        if arguments.row:
            row = build_row(arguments.name or arguments.row.stem, evaluations, baselines * len(evaluations))
            write_json(arguments.row, row)
            refusals = find_refusals(row)
            print(f"{arguments.row}: {format_costs([row])}\n" + "\n".join(f"would be refused: {why}" for why in refusals))
            return
        _print_comparison(arguments.runs, evaluations, baselines, arguments.out)


def _print_comparison(
    paths: Sequence[Path],
    evaluations: Sequence[SavedEvaluation],
    baselines: Sequence[Sequence[SavedEvaluation]],
    out: Path | None,
) -> None:
    names = [path.name if path.is_dir() else path.stem for path in paths]
    rows = []
    for name, evaluation in zip(names, evaluations, strict=True):
        unique = name if names.count(name) == 1 else str(evaluation.path)
        rows.append(compare.Row(unique, [evaluation], baselines=baselines))
    comparison = compare.compare(rows)
    print(format_comparison(comparison))
    if out:
        write_text(out / "comparison.md", format_comparison_as_markdown(comparison))
        write_text(out / "comparison.csv", format_comparison_as_csv(comparison))


def _print_leaderboard(paths: Sequence[Path], published: Path | None, out: Path | None) -> None:
    """Print the table of rows, and exit with status 1 where one is refused."""
    files = [file for path in paths for file in (sorted(path.rglob("*.json")) if path.is_dir() else [path])]
    if not files:
        raise UserError(
            f"--rows: got {', '.join(map(str, paths))} without a JSON; expected rows; give a suite's rows/<evaluation>"
        )
    check_distinct("--rows", files)
    rows = [read_row(file) for file in files]
    others = None if published is None else read_published(published)
    print(format_leaderboard(rows, others), end="")
    if out:
        write_text(out / "leaderboard.md", format_leaderboard(rows, others, markdown=True))
    if any(find_refusals(row) for row in rows):
        sys.exit(1)
