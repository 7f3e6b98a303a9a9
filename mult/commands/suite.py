"""Train, evaluate and compare variants: mult suite configs/suites/X.yaml [section.key=value ...] [--out suites].

Call it again to go on after an interruption: what is done is not done again. Overrides are for every member. Exit status 1
says that an evaluation is missing, and the tables say why.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mult.cli import exit_on_user_error, separate_overrides
from mult.errors import UserError, pluralize
from mult.suite import run_suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", help="a YAML of configs/suites/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--out", default="suites", help="where the suite's folder is made")
    parser.add_argument("--seeds", nargs="+", metavar="SEED", help="in place of the suite's own")
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error():
        words, after_seeds = separate_overrides(arguments.seeds)
        seeds = None if words is None else [_read_seed(word) for word in words]
        overrides = [*arguments.overrides, *after_seeds]
        text, missing = run_suite(Path(arguments.suite), Path(arguments.out), overrides, seeds=seeds)
        print(text)
        if missing:
            print(
                f"incomplete: missing {pluralize(missing, 'evaluation')}; the tables say why; mend that and call it again",
                file=sys.stderr,
            )
            sys.exit(1)


def _read_seed(word: str) -> int:
    if not word.isdecimal():
        raise UserError(f"--seeds: got {word!r}; expected whole numbers of at least 0; write e.g. --seeds 0 1 2")
    return int(word)
