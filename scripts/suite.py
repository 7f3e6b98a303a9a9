"""Train, evaluate and compare variants: python scripts/suite.py configs/suites/X.yaml [section.key=value ...] [--out runs].

Call it again to go on after an interruption: what is done is not done again. Overrides are for every member.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mult.cli import exit_on_user_error
from mult.suite import run_suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", help="a YAML of configs/suites/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--out", default="runs", help="where the suite's folder is made")
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error():
        print(run_suite(Path(arguments.suite), Path(__file__).parent, Path(arguments.out), arguments.overrides))


if __name__ == "__main__":
    main()
