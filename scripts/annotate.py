"""Annotate RGB-D: python scripts/annotate.py --rgb FOLDER --depth FOLDER --depth-scale UNITS_PER_METRE
--intrinsics FX FY CX CY --out ROOT --building NAME [--split train|val|test] [--start I] [--stop J].

Writes the frames as one building in Taskonomy's layout, with all labels that depth and colour give, and its split into
ROOT/splits.csv. Call it once for every building of a root; an interrupted call continues when it is repeated.
"""

from __future__ import annotations

import argparse

from mult.cli import exit_on_user_error
from mult.data.annotate import Camera, annotate_folder
from mult.data.taskonomy import SPLITS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rgb", required=True, help="folder of jpg or png, paired with depth by stem")
    parser.add_argument("--depth", required=True, help="folder of 16-bit png (0 and 65535: none) or npy (H, W)")
    parser.add_argument("--depth-scale", type=float, required=True, help="depth units a metre: 1000 for millimetres")
    parser.add_argument(
        "--intrinsics",
        type=float,
        nargs=4,
        required=True,
        metavar=("FX", "FY", "CX", "CY"),
        help="in pixels, the centre of the first pixel being 0",
    )
    parser.add_argument("--out", required=True, help="the root to write to; may hold other buildings")
    parser.add_argument("--building", required=True)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--start", type=int, default=0, help="first frame, counted over the sorted pairs from 0")
    parser.add_argument("--stop", type=int, help="the frame after the last; default: all")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    arguments = parser.parse_args()
    with exit_on_user_error():
        done = annotate_folder(
            arguments.rgb,
            arguments.depth,
            Camera(arguments.depth_scale, tuple(arguments.intrinsics)),
            arguments.out,
            arguments.building,
            split=arguments.split,
            frames=(arguments.start, arguments.stop),
            workers=arguments.workers,
        )
        median = "" if done.median_depth_m is None else f", median depth {done.median_depth_m:.2f} m"
        print(f"{arguments.out}: {arguments.building}: {done.written} views written, {done.skipped} were there{median}")


if __name__ == "__main__":
    main()
