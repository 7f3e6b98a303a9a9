"""Make labels from depth and colour: of anyone's RGB-D, or of what a dataset lacks.

RGB-D: mult annotate --rgb PATTERN --depth PATTERN --depth-scale UNITS_PER_METRE --intrinsics FX FY CX CY --out ROOT
--building NAME [--split train|val|test]. Writes the frames as a building in Taskonomy's layout, with all labels that depth and
colour give, and its split into ROOT/splits.csv. A pattern is a folder, or a path in which * stands for text and a folder ** for
folders; colour and depth are a pair where the wildcards stand for the same. Without --building each scene, named by the
folders of the pattern, is a building. --pairs takes lists with time stamps in place of --rgb and --depth.

A known layout: mult annotate --from NAME FOLDER --out ROOT. The other options replace what the layout says.

A dataset: mult annotate --dataset NAME --root ROOT [key=value ...] [--split SPLIT ...] [--tasks TASK ...].
Writes the labels that its views lack and that depth and colour give into ROOT/derived, from where every reader takes them.
Overrides are keys of the section `data` of a config: subset=medium, options.space=40.

An interrupted call continues when it is repeated. A call with other options than those that the labels there were made from is
refused, or with --again writes them anew.
"""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mult.build import build_dataset
from mult.cli import exit_on_user_error, name_option, require_counts, require_used, separate_overrides
from mult.config import build_data_config
from mult.data.disk.derived import DERIVABLE
from mult.data.disk.splits import SPLITS
from mult.data.prepare.annotate import annotate
from mult.data.prepare.derive import fill, remove_derived
from mult.data.prepare.layouts import LAYOUTS, Layout
from mult.errors import UserError, pluralize, suggest

_ANY = ("split", "again", "workers")
_OF_RGBD = (
    *("depth_scale", "depth_kind", "depth_key", "rotated_bits", "intrinsics", "intrinsics_of", "grid", "mask", "mask_min"),
    *("out", "building", "start", "stop"),
)
USED = {
    "dataset": ("dataset", "root", "tasks", "overrides", *_ANY),
    "from_": ("from_", "rgb", "depth", "pairs", "max_gap", *_OF_RGBD, *_ANY),
    "pairs": ("pairs", "max_gap", *_OF_RGBD, *_ANY),
    "rgb": ("rgb", "depth", *_OF_RGBD, *_ANY),
}
"""The argument that tells a kind of call, by the first that is given -> the arguments that such a call uses."""
_OF_FOLDER = ("depth_scale", "intrinsics", "out", "building")
NEEDED = {
    "dataset": ("root",),
    "from_": ("out",),
    "pairs": _OF_FOLDER,
    "rgb": ("rgb", "depth", *_OF_FOLDER),
}
"""Kind of call -> the arguments that it needs; for `building` see `list_missing`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = parser.add_argument_group("RGB-D")
    folder.add_argument("--from", nargs=2, dest="from_", metavar=("NAME", "FOLDER"), help=f"one of {', '.join(LAYOUTS)}")
    folder.add_argument("--rgb", metavar="PATTERN", help="colour: jpg, png, ppm, bmp, tiff or webp")
    folder.add_argument("--depth", metavar="PATTERN", help="png, pgm or tiff of 16 bits, pfm, tiff, npy, npz, hdf5 or exr")
    folder.add_argument(
        "--pairs", nargs="+", metavar="FILE", help="lines 'time colour time depth', or two files of lines 'time file'"
    )
    folder.add_argument("--max-gap", type=float, metavar="S", help="between the time stamps of a pair; default: 0.02")
    folder.add_argument("--depth-scale", type=float, help="depth units a metre: 1000 for millimetres")
    folder.add_argument("--depth-kind", choices=("z", "ray"), help="along the optical axis (default), or from the camera")
    folder.add_argument("--depth-key", help="of the array in npz, hdf5 or exr")
    folder.add_argument("--rotated-bits", type=int, help="rotate 16-bit depth to the right by so many bits: SUN RGB-D's 3")
    folder.add_argument(
        "--intrinsics",
        nargs="+",
        metavar="FX FY CX CY",
        help="in pixels, the centre of the first pixel being 0; or the pattern of files: text, npy or JSON, a scene or a frame",
    )
    folder.add_argument("--intrinsics-of", choices=("depth", "rgb"), help="needed where colour and depth differ in size")
    folder.add_argument("--grid", choices=("depth", "rgb"), help="whose pixels the labels have; the other is resized")
    folder.add_argument("--mask", metavar="PATTERN", help="masks or maps of confidence, of depth's size")
    folder.add_argument("--mask-min", type=float, help="the lowest value of the mask at which depth counts; default: 1")
    folder.add_argument("--out", help="the root to write to; may hold other buildings")
    folder.add_argument("--building")
    folder.add_argument("--start", type=int, help="first frame, counted over the sorted pairs from 0; default: 0")
    folder.add_argument("--stop", type=int, help="the frame after the last; default: all")
    dataset = parser.add_argument_group("a dataset")
    dataset.add_argument("--dataset", help="data.dataset of a config")
    dataset.add_argument("--root", help="data.root of a config")
    dataset.add_argument(
        "--tasks", nargs="+", metavar="TASK", help=f"default: those that can be derived of {', '.join(DERIVABLE)}"
    )
    dataset.add_argument("overrides", nargs="*", metavar="key=value", help="of a config's section data, e.g. subset=medium")
    parser.add_argument(
        "--split", nargs="+", metavar="SPLIT", help="train, val, test; default: train for RGB-D, all for a dataset"
    )
    parser.add_argument("--again", action="store_true", help="remove the building, or the derived labels, and write them anew")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    arguments = parser.parse_intermixed_args()
    for name in ("split", "tasks"):
        names, overrides = separate_overrides(getattr(arguments, name))
        setattr(arguments, name, names)
        arguments.overrides += overrides
    with exit_on_user_error():
        check_options(arguments)
        annotate_rgbd(arguments) if arguments.dataset is None else annotate_dataset(arguments)


def check_options(arguments: argparse.Namespace) -> None:
    """UserError for options that are missing, that the call makes no use of, or that no call can have."""
    call = next((call for call in USED if getattr(arguments, call) is not None), None)
    if call is None:
        raise UserError("annotate: got no data; expected --rgb and --depth, --pairs, --from or --dataset; give one of these")
    require_used(arguments, USED, call)
    require_counts(arguments, "workers")
    if missing := list_missing(arguments, call):
        raise UserError(f"annotate: got {name_option(call)} without {', '.join(missing)}; expected all of these; give them too")
    if call != "dataset" and arguments.split and len(arguments.split) > 1:
        raise UserError(f"--split: got {' '.join(arguments.split)}; expected one for RGB-D; call once for each")
    if arguments.rotated_bits is not None and not 0 < arguments.rotated_bits < 16:
        raise UserError(f"--rotated-bits: got {arguments.rotated_bits}; expected 1 to 15; leave it out for depth as it is")
    for name in ("max_gap", "mask_min"):
        if (number := getattr(arguments, name)) is not None and not (math.isfinite(number) and number >= 0):
            raise UserError(f"{name_option(name)}: got {number}; expected a number from 0 on; leave it out for the default")


def list_missing(arguments: argparse.Namespace, call: str) -> list[str]:
    """The options that a call needs and that are not given."""
    needed = list(NEEDED[call])
    folders = [os.path.dirname(pattern) for pattern in (arguments.rgb, *(arguments.pairs or ())) if pattern]
    if "building" in needed and any("*" in text or "?" in text for text in folders):
        needed.remove("building")  # each folder that the pattern stands for is one
    return [name_option(name) for name in needed if getattr(arguments, name) is None]


def build_layout(arguments: argparse.Namespace) -> tuple[Path, Layout]:
    """The folder to read, and how it lies there."""
    names = ("rgb", "depth", "pairs", "intrinsics", "mask")
    given: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    if given["intrinsics"] is not None:
        given["intrinsics"] = parse_intrinsics(given["intrinsics"])
    if given["pairs"] is not None:
        if len(given["pairs"]) > 2:
            raise UserError(f"--pairs: got {len(given['pairs'])} files; expected one or two; give lists of colour and depth")
        given["pairs"] = tuple(os.path.abspath(path) for path in given["pairs"])
    for name in ("rgb", "depth", "intrinsics", "mask"):
        if isinstance(given[name], str):
            given[name] = os.path.abspath(given[name])  # so that the record of the labels says which files they are of
    for name in ("depth_scale", "depth_kind", "depth_key", "rotated_bits", "intrinsics_of", "grid", "mask_min"):
        given[name] = getattr(arguments, name)
    given["max_gap_s"] = arguments.max_gap
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.from_ is None:
        source, layout = Path.cwd().anchor, Layout(**{"rgb": "", "depth": "", **given})
    else:
        name, source = arguments.from_
        if name not in LAYOUTS:
            remedy = suggest(name, LAYOUTS, "choose one of them, or give --rgb and --depth")
            raise UserError(f"--from: got {name!r}; expected one of {', '.join(LAYOUTS)}; {remedy}")
        if not Path(source).is_dir():
            raise UserError(f"--from: got {source!r}; expected the folder that holds the scenes; correct the path")
        layout = replace(LAYOUTS[name], **given)
    for option, other in (("max_gap", "pairs"), ("mask_min", "mask")):
        if (value := getattr(arguments, option)) is not None and not getattr(layout, other):
            options = name_option(option), name_option(other)
            raise UserError(
                f"{options[0]}: got {value} without {options[1]}; expected both; leave it out, or give {options[1]}"
            )
    for option in ("rgb", "depth"):
        if layout.pairs and option in given:
            raise UserError(f"--{option}: got {given[option]} beside lists of pairs; expected one or the other; leave it out")
    return Path(source), layout


def parse_intrinsics(texts: list[str]) -> tuple[float, ...] | str:
    """Four numbers, or one pattern."""
    if len(texts) == 1:
        return texts[0]
    try:
        return tuple(float(text) for text in texts)
    except ValueError as error:
        raise UserError(f"--intrinsics: got {' '.join(texts)}; expected four numbers or one pattern; correct it") from error


def annotate_rgbd(arguments: argparse.Namespace) -> None:
    source, layout = build_layout(arguments)
    results = annotate(
        source,
        layout,
        arguments.out,
        arguments.building,
        split=arguments.split[0] if arguments.split else None,
        frames=(arguments.start or 0, arguments.stop),
        workers=arguments.workers,
        again=arguments.again,
    )
    for building, result in results.items():
        depth = "" if result.depth is None else f"; {result.depth}"
        print(f"{arguments.out}: {building}: {pluralize(result.written, 'view')} written, {result.skipped} there before{depth}")
    if layout.note:
        print(f"note: {layout.note}")


def annotate_dataset(arguments: argparse.Namespace) -> None:
    data = build_data_config(arguments.dataset, arguments.root, arguments.overrides)
    splits = arguments.split or SPLITS
    for split in splits:
        build_dataset(data, (), split)  # an error in any split ends the call before it writes anything
    options = {"dataset": data.dataset, "max_depth_m": data.max_depth_m, **data.options}
    if arguments.again:
        remove_derived(Path(arguments.root), arguments.tasks or DERIVABLE)
    for split in splits:
        filled = fill(partial(build_dataset, data, split=split), arguments.tasks, arguments.workers, options)
        print(f"{arguments.root}, {split}:\n{filled}")
