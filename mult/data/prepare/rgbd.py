"""A folder of RGB-D frames -> a building in Taskonomy's layout, with every label that depth and colour give.

Labels are computed from the depth as it was measured, before it is rounded to the 1/512 m of Taskonomy's files. The point
number of a view is its frame's position among all frames of the folder, so that the ranges of several calls do not collide.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mult.data.disk.camera import check_depth_scale, check_intrinsics
from mult.data.disk.derived import DERIVABLE, warn_if_implausible
from mult.data.disk.encodings import DEPTH_LIMITS_M, DEPTH_UNITS_PER_M, NO_GEOMETRY
from mult.data.disk.images import GRAY_16_BIT, Mask, read_npy, read_photograph, read_pixels
from mult.data.disk.splits import check_building, record_building
from mult.data.parallel import map_with_progress
from mult.data.prepare.derive import Geometry, derive
from mult.data.taskonomy.write import is_view_complete, write_view
from mult.errors import UserError
from mult.labels import Intrinsics

RGB_SUFFIXES = (".jpg", ".jpeg", ".png")
DEPTH_SUFFIXES = (".png", ".npy")


@dataclass(frozen=True)
class Frame:
    """A pair of files, and the point number of the view that is made of it."""

    point: int
    rgb: Path
    depth: Path


@dataclass(frozen=True)
class Annotated:
    """How many views were written, and skipped because they were complete; of the written ones the median of the depth, and
    how many pixels have a depth that Taskonomy's files cannot hold."""

    written: int
    skipped: int
    median_depth_m: float | None
    unencodable_pixels: int


def annotate_folder(
    rgb: str | Path,
    depth: str | Path,
    depth_scale: float,
    intrinsics: Intrinsics,
    root: str | Path,
    building: str,
    *,
    split: str = "train",
    frames: tuple[int, int | None] = (0, None),
    workers: int | None = None,
) -> Annotated:
    """Write the frames [start, stop) of a folder of RGB-D as one building of `root`, and record its split in `splits.csv`.

    Files are paired by stem, in natural order: rgb jpg or png; depth 16-bit png, where 0 and 65535 mean none, or npy (H, W),
    where NaN, infinite and non-positive values do too. depth_scale: depth units a metre; intrinsics (fx, fy, cx, cy) in pixel
    indices. Depth that Taskonomy's 16 bits cannot hold becomes invalid, as does a pixel whose neighbours give it no normal.

    Complete views are skipped, so that an interrupted call can be repeated. Warns of files without a partner, of depth out of
    range and of an implausible median depth. Raises UserError, naming the file or the argument, for what cannot be used.
    """
    check_depth_scale("depth-scale", depth_scale)
    intrinsics = check_intrinsics("intrinsics", intrinsics)
    if not re.fullmatch(r"\w[\w.-]*", building):
        raise UserError(f"building: got {building!r}; expected letters, digits, '_', '-' and '.'; choose another name")
    splits = Path(root, "splits.csv")
    check_building(splits, building, split)
    selected = _select(pair_frames(rgb, depth), frames)
    missing = [frame for frame in selected if not is_view_complete(root, building, frame.point, 0)]
    annotate = partial(_annotate_frame, depth_scale=depth_scale, intrinsics=intrinsics, root=root, building=building)
    written = list(map_with_progress(annotate, missing, workers, building, "view"))
    record_building(splits, building, split)

    medians = [median for median, _ in written if median is not None]
    result = Annotated(
        written=len(written),
        skipped=len(selected) - len(missing),
        median_depth_m=float(np.median(medians)) if medians else None,
        unencodable_pixels=sum(pixels for _, pixels in written),
    )
    if result.unencodable_pixels:
        nearest_m, farthest_m = DEPTH_LIMITS_M
        warnings.warn(
            f"{result.unencodable_pixels} pixels with depth outside {nearest_m:.4f} to {farthest_m:.2f} m, all that "
            "Taskonomy's files can hold, are now invalid",
            stacklevel=2,
        )
    warn_if_implausible(result.median_depth_m, f"is the depth scale of {depth_scale} units a metre right?")
    return result


def pair_frames(rgb: str | Path, depth: str | Path) -> list[Frame]:
    """The files of two folders that share a stem, in natural order (2 before 10); warns of those without a partner."""
    images, depths = _list_by_stem("rgb", Path(rgb), RGB_SUFFIXES), _list_by_stem("depth", Path(depth), DEPTH_SUFFIXES)
    stems = sorted(images.keys() & depths.keys(), key=_natural_key)
    if not stems:
        examples = [min(files, key=_natural_key, default="none") for files in (images, depths)]
        raise UserError(
            f"{rgb}, {depth}: got {len(images)} rgb files (first stem {examples[0]!r}) and {len(depths)} depth files (first "
            f"stem {examples[1]!r}) without a pair; expected pairs of one stem, rgb {RGB_SUFFIXES}, depth {DEPTH_SUFFIXES}; "
            "rename them"
        )
    alone = [str(files[stem]) for files in (images, depths) for stem in files if stem not in stems]
    if alone:
        warnings.warn(f"{len(alone)} files without a partner of the same stem are left out, e.g. {min(alone)}", stacklevel=3)
    return [Frame(point, images[stem], depths[stem]) for point, stem in enumerate(stems)]


def _list_by_stem(what: str, folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{what}: got {str(folder)!r}; expected a folder of {suffixes}; correct the path")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            if path.stem in files:
                raise UserError(f"{path}: got a second file beside {files[path.stem].name}; expected one a stem; remove one")
            files[path.stem] = path
    return files


def _natural_key(stem: str) -> list[tuple[str, int]]:
    return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", stem)]


def _select(frames: list[Frame], limits: tuple[int, int | None]) -> list[Frame]:
    start, stop = limits[0], len(frames) if limits[1] is None else limits[1]
    if not 0 <= start < stop <= len(frames):
        raise UserError(
            f"start, stop: got {start}, {stop}; expected 0 <= start < stop <= {len(frames)}, the number of pairs; "
            "change the range"
        )
    return frames[start:stop]


def _annotate_frame(
    frame: Frame, *, depth_scale: float, intrinsics: Intrinsics, root: str | Path, building: str
) -> tuple[float | None, int]:
    """Write one view; its median depth in metres (None without depth) and how many pixels could not be encoded."""
    image = np.asarray(read_photograph(frame.rgb, upright=False))  # the depth file has no EXIF orientation
    depth_m, measured = _read_depth(frame.depth, depth_scale)
    if depth_m.shape != image.shape[:2]:
        raise UserError(
            f"{frame.depth}: got {depth_m.shape} pixels (height, width); expected {image.shape[:2]}, as {frame.rgb} has; "
            "bring depth and colour to one camera"
        )
    code = np.rint(depth_m * DEPTH_UNITS_PER_M)
    encodable = measured & (code >= 1) & (code < NO_GEOMETRY)
    # The files of depth, normals and reshading share one mask, so that of the normals, which is the smallest, is used for all.
    derived = derive(DERIVABLE, image, Geometry(depth_m, encodable, intrinsics))
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
        intrinsics=intrinsics,
    )
    median_m = float(np.median(depth_m[measured])) if measured.any() else None
    return median_m, int((measured & ~encodable).sum())


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
