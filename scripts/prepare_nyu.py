"""Unpack NYU Depth v2: python scripts/prepare_nyu.py --mat nyu_depth_v2_labeled.mat --out ROOT.

Needs h5py (pip install -e ".[nyu]") and about 1 GB beside the 2.8 GB of the .mat, which can go afterwards. An interrupted call
continues when it is repeated.
"""

from __future__ import annotations

import argparse

from mult.cli import exit_on_user_error
from mult.data.nyu.unpack import prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mat", required=True, help="nyu_depth_v2_labeled.mat, from the dataset's home page")
    parser.add_argument("--out", required=True, help="the folder to write to: data.root of a config with data.dataset nyu")
    arguments = parser.parse_args()
    with exit_on_user_error():
        done = prepare(arguments.mat, arguments.out)
        print(f"{arguments.out}: {done.written} views written, {done.there} were there")


if __name__ == "__main__":
    main()
