"""Unpack NYU Depth v2: `mult prepare-nyu --mat nyu_depth_v2_labeled.mat --out ROOT`.

Needs h5py (pip install "mult-dense[nyu]") and about 1 GB of disk beside the .mat's 2.8 GB; the .mat is not needed afterwards.
An interrupted call is continued when it is repeated.
"""

from __future__ import annotations

import argparse

from mult.cli import exit_on_user_error
from mult.data.nyu.unpack import prepare
from mult.errors import pluralize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mat", required=True, help="nyu_depth_v2_labeled.mat, from the dataset's home page")
    parser.add_argument("--out", required=True, help="the folder to write to: data.root of a config with data.dataset nyu")
    arguments = parser.parse_args()
    with exit_on_user_error():
        counts = prepare(arguments.mat, arguments.out)
        print(f"{arguments.out}: {pluralize(counts.written, 'view')} written, {counts.present} there before")
