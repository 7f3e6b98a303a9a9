"""Make labels from depth and colour: of any RGB-D folder, or of what a dataset lacks.

A folder: python scripts/annotate.py --rgb FOLDER --depth FOLDER --depth-scale UNITS_PER_METRE --intrinsics FX FY CX CY
--out ROOT --building NAME [--split train|val|test] [--start I] [--stop J]. Writes the frames as one building in Taskonomy's
layout, with all labels that depth and colour give, and its split into ROOT/splits.csv. Call it once for every building.

A dataset: python scripts/annotate.py --dataset NAME --root ROOT [key=value ...] [--split SPLIT ...] [--tasks TASK ...].
Writes the labels that its views lack and that depth and colour give into ROOT/derived, from where every reader takes them.
Overrides are keys of the section `data` of a config: subset=medium, options.space=40.

An interrupted call continues when it is repeated.
"""

from __future__ import annotations

import argparse
from functools import partial

from mult.build import build_dataset
from mult.cli import exit_on_user_error
from mult.config import build_data_config
from mult.data.disk.derived import DERIVABLE
from mult.data.disk.splits import SPLITS
from mult.data.prepare.derive import fill
from mult.data.prepare.rgbd import annotate_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = parser.add_argument_group("a folder of RGB-D")
    folder.add_argument("--rgb", help="folder of jpg or png, paired with depth by stem")
    folder.add_argument("--depth", help="folder of 16-bit png (0 and 65535: none) or npy (H, W)")
    folder.add_argument("--depth-scale", type=float, help="depth units a metre: 1000 for millimetres")
    folder.add_argument(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help="in pixels, the centre of the first pixel being 0",
    )
    folder.add_argument("--out", help="the root to write to; may hold other buildings")
    folder.add_argument("--building")
    folder.add_argument("--start", type=int, default=0, help="first frame, counted over the sorted pairs from 0")
    folder.add_argument("--stop", type=int, help="the frame after the last; default: all")
    dataset = parser.add_argument_group("a dataset")
    dataset.add_argument("--dataset", help="data.dataset of a config")
    dataset.add_argument("--root", help="data.root of a config")
    dataset.add_argument(
        "--tasks", nargs="+", metavar="TASK", help=f"default: those that can be derived of {', '.join(DERIVABLE)}"
    )
    dataset.add_argument("overrides", nargs="*", metavar="key=value", help="of a config's section data, e.g. subset=medium")
    parser.add_argument("--split", nargs="+", choices=SPLITS, help="default: train for a folder, all for a dataset")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    arguments = parser.parse_intermixed_args()
    mode, required = (
        ("dataset", ("root",))
        if arguments.dataset
        else ("folder", ("rgb", "depth", "depth_scale", "intrinsics", "out", "building"))
    )
    missing = [f"--{name.replace('_', '-')}" for name in required if getattr(arguments, name) is None]
    if missing:
        parser.error(f"to annotate a {mode}, these are needed too: {', '.join(missing)} (for a dataset: --dataset, --root)")
    if mode == "folder" and arguments.split and len(arguments.split) > 1:
        parser.error(f"to annotate a folder, --split takes one name, got {' '.join(arguments.split)}")
    with exit_on_user_error():
        annotate_dataset(arguments) if mode == "dataset" else annotate_building(arguments)


def annotate_building(arguments: argparse.Namespace) -> None:
    result = annotate_folder(
        arguments.rgb,
        arguments.depth,
        arguments.depth_scale,
        tuple(arguments.intrinsics),
        arguments.out,
        arguments.building,
        split=arguments.split[0] if arguments.split else "train",
        frames=(arguments.start, arguments.stop),
        workers=arguments.workers,
    )
    median = "" if result.median_depth_m is None else f", median depth {result.median_depth_m:.2f} m"
    print(f"{arguments.out}: {arguments.building}: {result.written} views written, {result.skipped} were there{median}")


def annotate_dataset(arguments: argparse.Namespace) -> None:
    data = build_data_config(arguments.dataset, arguments.root, arguments.overrides)
    splits = arguments.split or SPLITS
    for split in splits:
        build_dataset(data, (), split)  # an error in any split ends the call before it writes anything
    for split in splits:
        filled = fill(partial(build_dataset, data, split=split), arguments.tasks, arguments.workers)
        print(f"{arguments.root}, {split}:\n{filled}")
