"""A folder of RGB-D -> a building in Taskonomy's layout, with every label that depth and colour give.

Labels are computed by `mult.labels` from the depth as it was measured, before it is rounded to Taskonomy's 1/512 m. A view
is named by its frame's place among all pairs of the folders, so ranges of one folder never collide.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from mult.data.disk.camera import Camera
from mult.data.disk.derived import DERIVABLE, warn_of_median
from mult.data.disk.encodings import DEPTH_UNITS_PER_M, NO_GEOMETRY
from mult.data.disk.images import GRAY_16_BIT, UNREADABLE, Mask, read_npy, read_pixels
from mult.data.disk.splits import _check_split, _record_split
from mult.data.parallel import in_processes
from mult.data.prepare.derive import Geometry, derive
from mult.data.taskonomy.write import view_complete, write_view
from mult.errors import UserError

RGB_SUFFIXES = (".jpg", ".jpeg", ".png")
DEPTH_SUFFIXES = (".png", ".npy")


@dataclass(frozen=True)
class Frame:
    """One pair of files and the point number it gets."""

    point: int
    rgb: Path
    depth: Path


@dataclass(frozen=True)
class Annotated:
    """What was done: views written now and found complete, and of the written ones the depth read, in metres."""

    written: int
    skipped: int
    median_depth_m: float | None
    unencodable_pixels: int


def annotate_folder(
    rgb: str | Path,
    depth: str | Path,
    camera: Camera,
    root: str | Path,
    building: str,
    *,
    split: str = "train",
    frames: tuple[int, int | None] = (0, None),
    workers: int | None = None,
) -> Annotated:
    """Write the frames [start, stop) of a folder of RGB-D as one building of `root`, and record its split in `splits.csv`.

    Files are paired by stem, in natural order: rgb jpg or png; depth 16-bit png, where 0 and 65535 mean none, or npy (H, W),
    where NaN, infinite and non-positive values do too. Depth that Taskonomy's 16 bits cannot hold becomes invalid, and
    so does a pixel whose neighbours give it no normal. Complete views are left alone, so an interrupted call can be
    repeated. Warns of files without partner, of depth that was out of range and of an implausible median depth. Raises
    UserError, naming the file, for what cannot be used.
    """
    if not re.fullmatch(r"\w[\w.-]*", building):
        raise UserError(f"building: got {building!r}; expected letters, digits, '_', '-' and '.'; choose another name")
    splits = Path(root, "splits.csv")
    _check_split(splits, building, split)
    chosen = _in_range(pair_frames(rgb, depth), frames)
    missing = [frame for frame in chosen if not view_complete(root, building, frame.point, 0)]
    annotate = partial(_annotate_frame, camera=camera, root=root, building=building)
    workers = min(workers or os.cpu_count() or 1, len(missing))
    done = list(tqdm(in_processes(annotate, missing, workers), desc=building, total=len(missing), unit="view"))
    _record_split(splits, building, split)

    medians = [median for median, _ in done if median is not None]
    result = Annotated(
        written=len(done),
        skipped=len(chosen) - len(missing),
        median_depth_m=float(np.median(medians)) if medians else None,
        unencodable_pixels=sum(pixels for _, pixels in done),
    )
    _warn_of_depth(result, camera)
    return result


def pair_frames(rgb: str | Path, depth: str | Path) -> list[Frame]:
    """The files of two folders that share a stem, in natural order (2 before 10); warns of those without partner."""
    images, depths = _by_stem("rgb", Path(rgb), RGB_SUFFIXES), _by_stem("depth", Path(depth), DEPTH_SUFFIXES)
    stems = sorted(images.keys() & depths.keys(), key=_natural)
    if not stems:
        examples = [next(iter(sorted(files, key=_natural)), "none") for files in (images, depths)]
        raise UserError(
            f"{rgb}, {depth}: got {len(images)} rgb files (first stem {examples[0]!r}) and {len(depths)} depth files (first "
            f"stem {examples[1]!r}) without a pair; expected pairs of one stem, rgb {RGB_SUFFIXES}, depth {DEPTH_SUFFIXES}; "
            "rename them"
        )
    alone = [str(files[stem]) for files in (images, depths) for stem in files if stem not in stems]
    if alone:
        warnings.warn(f"{len(alone)} files without a partner of the same stem are left out, e.g. {min(alone)}", stacklevel=3)
    return [Frame(point, images[stem], depths[stem]) for point, stem in enumerate(stems)]


def _by_stem(what: str, folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{what}: got {str(folder)!r}; expected a folder of {suffixes}; correct the path")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            if path.stem in files:
                raise UserError(f"{path}: got a second file beside {files[path.stem].name}; expected one a stem; remove one")
            files[path.stem] = path
    return files


def _natural(stem: str) -> list[tuple[str, int]]:
    return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", stem)]


def _in_range(frames: list[Frame], limits: tuple[int, int | None]) -> list[Frame]:
    start, stop = limits[0], len(frames) if limits[1] is None else limits[1]
    if not 0 <= start < stop <= len(frames):
        raise UserError(
            f"start, stop: got {start}, {stop}; expected 0 <= start < stop <= {len(frames)}, the number of pairs; "
            "change the range"
        )
    return frames[start:stop]


def _annotate_frame(frame: Frame, *, camera: Camera, root: str | Path, building: str) -> tuple[float | None, int]:
    """Write one view; its median depth in metres (None without depth) and how many pixels could not be encoded."""
    image = _read_rgb(frame.rgb)
    depth_m, measured = _read_depth(frame.depth, camera.depth_scale)
    if depth_m.shape != image.shape[:2]:
        raise UserError(
            f"{frame.depth}: got {depth_m.shape} pixels (height, width); expected {image.shape[:2]}, as {frame.rgb} has; "
            "bring depth and colour to one camera"
        )
    code = np.rint(depth_m * DEPTH_UNITS_PER_M)
    encodable = measured & (code >= 1) & (code < NO_GEOMETRY)
    # A pixel without a normal has no reshading either, and the files can only say so through the mask they share.
    derived = derive(DERIVABLE, image, Geometry(depth_m, encodable, camera.intrinsics))
    valid = derived["normal"][1]
    write_view(
        root,
        building,
        frame.point,
        0,
        image=image,
        targets={
            "depth_zbuffer": depth_m[None].astype(np.float32),
            **{task: target for task, (target, _) in derived.items()},
        },
        valid=valid,
        intrinsics=camera.intrinsics,
    )
    median_m = float(np.median(depth_m[measured])) if measured.any() else None
    return median_m, int((measured & ~encodable).sum())


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except UNREADABLE as error:
        raise UserError(f"{path}: got no image ({error}); expected a whole jpg or png; fetch it again") from error


def _read_depth(path: Path, scale: float) -> tuple[NDArray[np.float64], Mask]:
    """Metres (H, W), 0 where there is no measurement, and where there is one."""
    if path.suffix.lower() == ".npy":
        stored = read_npy(path)
        if stored.ndim != 2:
            raise UserError(f"{path}: got {stored.dtype} {stored.shape}; expected (H, W) numbers; save one depth map")
    else:
        stored = read_pixels(path, GRAY_16_BIT)
    measured = np.isfinite(stored) & (stored > 0)
    if stored.dtype.kind != "f":
        measured &= stored != NO_GEOMETRY
    return np.where(measured, stored, 0).astype(np.float64) / scale, measured


def _warn_of_depth(result: Annotated, camera: Camera) -> None:
    if result.unencodable_pixels:
        warnings.warn(
            f"{result.unencodable_pixels} pixels with depth outside {1 / DEPTH_UNITS_PER_M:.4f} to "
            f"{(NO_GEOMETRY - 1) / DEPTH_UNITS_PER_M:.2f} m, all that Taskonomy's files can hold, are now invalid",
            stacklevel=3,
        )
    warn_of_median(result.median_depth_m, f"is the depth scale of {camera.depth_scale} units a metre right?")
