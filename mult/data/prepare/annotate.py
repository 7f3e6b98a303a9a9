"""Frames of RGB-D -> buildings in Taskonomy's layout, with every label that depth and colour give.

Labels are computed from the depth as it was measured, before it is rounded to the 1/512 m of Taskonomy's files. The point
number of a view is its frame's position among all frames of its building, so that the ranges of several calls do not collide;
once given it is kept, in the building's record, whatever frames are added later.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mult.data.disk.camera import check_depth_scale, check_intrinsics
from mult.data.disk.derived import DERIVABLE, warn_if_implausible
from mult.data.disk.encodings import DEPTH_LIMITS_M
from mult.data.disk.images import Array, Mask
from mult.data.disk.origin import building_record, describe_origin, require_same_origin
from mult.data.disk.splits import SPLITS, check_building, read_splits, record_building
from mult.data.parallel import map_with_progress
from mult.data.prepare.depth_scale import require_plausible_scale
from mult.data.prepare.derive import Geometry, derive
from mult.data.prepare.frames import read_frame
from mult.data.prepare.layouts import Layout, find_frames, name_building
from mult.data.prepare.measure import DepthFacts, measure, summarise
from mult.data.prepare.pairs import Frame
from mult.data.taskonomy.write import has_views, is_view_complete, read_facts, remove_building, write_view
from mult.errors import UserError, pluralize
from mult.files import hold_lock, read_json, write_json
from mult.labels import Intrinsics

_CHUNK = 4
"""Views that a process takes at a time: it starts as long as four views of 640 x 480 take, 2.4 s of a core."""


@dataclass(frozen=True)
class Annotated:
    """Of one building: how many views were written, and skipped because they were complete, what the depth of all of them
    shows, and how many pixels of the written ones have a depth that Taskonomy's files cannot hold."""

    written: int
    skipped: int
    depth: DepthFacts | None
    unencodable_pixels: int


class _View(NamedTuple):
    building: str
    point: int
    frame: Frame


def annotate(
    source: str | Path,
    layout: Layout,
    root: str | Path,
    building: str | None = None,
    *,
    split: str | None = None,
    frames: tuple[int, int | None] = (0, None),
    workers: int | None = None,
    again: bool = False,
) -> dict[str, Annotated]:
    """Write the frames below `source`, which lie there as `layout` says, as buildings of `root`; {building: what was done}.

    `building` takes all frames; without it each scene is one, named by its folders. `split`: of the buildings, by default the
    one that they have in `splits.csv`, or train. frames: the range [start, stop) of the frames, in natural order.

    Depth is none where it is 0, negative or not finite, at 65535 of 16 bits and outside the mask. Depth that Taskonomy's 16
    bits cannot hold becomes invalid, as does a pixel whose neighbours give it no normal.

    Complete views are skipped, so that an interrupted call can be repeated; a building that was made from something else is
    refused, or with `again` removed first. Warns of files without a partner, of depth out of range and of an implausible median
    depth. Raises UserError, naming the file or the argument, for what cannot be used, and, before anything is written, for a
    depth scale that cannot be right (depth_scale.py).
    """
    source, root = Path(source), Path(root)
    check_depth_scale("depth-scale", layout.depth_scale)
    if isinstance(layout.intrinsics, list | tuple):
        check_intrinsics("intrinsics", layout.intrinsics)
    all_frames = find_frames(source, layout)
    first, last = _check_range(frames, len(all_frames))
    of_building: dict[str, list[tuple[int, Frame]]] = {}
    for frame in all_frames:
        of_name = of_building.setdefault(building or name_building(frame, layout, source), [])
        of_name.append((len(of_name), frame))
    in_range = set(all_frames[first:last])
    of_building = {name: [each for each in of_name if each[1] in in_range] for name, of_name in of_building.items()}
    of_building = {name: of_name for name, of_name in of_building.items() if of_name}
    splits = _choose_splits(root, of_building, split)
    require_plausible_scale([frame for of_name in of_building.values() for _, frame in of_name], source, layout)
    made_from = describe_origin(_describe(layout, source.resolve()))
    views = [
        _View(name, point, frame)
        for name, of_name in of_building.items()
        for point, frame in _number(root, name, of_name, made_from, again)
    ]
    missing = [view for view in views if not is_view_complete(root, view.building, view.point, 0)]
    write = partial(_write_frame, source=source, layout=layout, root=root)
    unencodable, left = Counter[str](), Counter(view.building for view in missing)
    _record_complete(root, splits, left)
    for name, pixels in map_with_progress(write, missing, workers, building or source.name, "view", chunk=_CHUNK):
        unencodable[name] += pixels
        left[name] -= 1
        if not left[name]:
            _record_complete(root, {name: splits[name]}, left)
    written, results = Counter(view.building for view in missing), {}
    for name, of_name in of_building.items():
        depth = _record_depth(root, name, made_from)
        warn_if_implausible(depth and depth.median_m, f"is the depth scale of {layout.depth_scale} units a metre right?")
        results[name] = Annotated(written[name], len(of_name) - written[name], depth, unencodable[name])
    _warn_of_range(sum(unencodable.values()))
    return results


def _record_complete(root: Path, splits: Mapping[str, str], left: Mapping[str, int]) -> None:
    """Enter the buildings of which no view is left to write, so that readers see whole buildings alone."""
    for building, split in splits.items():
        if not left[building]:
            record_building(root / "splits.csv", building, split)


def _describe(layout: Layout, source: Path) -> dict[str, Any]:
    """The layout as the record has it: what labels depend on, with whole paths."""
    options = {key: value for key, value in asdict(layout).items() if key not in ("building", "note")}
    options["pairs"] = [str(source / path) for path in layout.pairs]
    for key in ("rgb", "depth", "mask", "intrinsics"):
        if isinstance(options[key], str) and options[key]:
            options[key] = str(source / options[key])
    return options


def _warn_of_range(pixels: int) -> None:
    if pixels:
        nearest_m, farthest_m = DEPTH_LIMITS_M
        warnings.warn(
            f"{pluralize(pixels, 'pixel')} with depth outside {nearest_m:.4f} to {farthest_m:.2f} m, all that Taskonomy's "
            "files can hold, now invalid",
            stacklevel=3,
        )


def _choose_splits(root: Path, buildings: Iterable[str], split: str | None) -> dict[str, str]:
    """{building: its split}; UserError for a name that no folder can have, or a building of another split."""
    path = root / "splits.csv"
    recorded = read_splits(path) if path.exists() else {}
    splits = {}
    for building in buildings:
        if not re.fullmatch(r"\w[\w.-]*", building):
            raise UserError(f"building: got {building!r}; expected letters, digits, '_', '-' and '.'; choose another name")
        splits[building] = split or recorded.get(building, SPLITS[0])
        check_building(path, building, splits[building])
    return splits


def _check_range(limits: tuple[int, int | None], count: int) -> tuple[int, int]:
    start, stop = limits[0], count if limits[1] is None else limits[1]
    if not 0 <= start < stop <= count:
        raise UserError(
            f"start, stop: got {start}, {stop}; expected 0 <= start < stop <= {count}, the number of pairs; change the range"
        )
    return start, stop


def _number(
    root: Path, building: str, frames: Sequence[tuple[int, Frame]], made_from: dict[str, Any], again: bool
) -> list[tuple[int, Frame]]:
    """The frames with their point numbers: those of the building's record, else their positions if these are free.

    Holds the building that is there against `made_from`, and writes the record of what is to come.
    """
    path = building_record(root, building)
    with hold_lock(path.with_name(f".{building}.lock")):
        if again:
            remove_building(root, building)
            path.unlink(missing_ok=True)
        record = read_json(path, "write the building anew with --again") if path.exists() else None
        if has_views(root, building):
            require_same_origin(f"{root}: {building}", record and record["made_from"], made_from)
        elif record is not None and record["made_from"] != made_from:
            record = None  # of a call that failed before it wrote a view
        points: dict[str, int] = {} if record is None else record["frames"]
        taken = set(points.values())
        for position, frame in frames:
            if frame.id not in points:
                points[frame.id] = position if position not in taken else max(taken) + 1
                taken.add(points[frame.id])
        write_json(path, {**(record or {}), "made_from": made_from, "frames": points})
    return [(points[frame.id], frame) for _, frame in frames]


def _record_depth(root: Path, building: str, made_from: dict[str, Any]) -> DepthFacts | None:
    """What the depth of all views of a building shows, entered in its record.

    UserError if another process has begun to write the building from something else.
    """
    path = building_record(root, building)
    with hold_lock(path.with_name(f".{building}.lock")):
        record = read_json(path)
        require_same_origin(f"{root}: {building}", record["made_from"], made_from)
        views = [point for point in record["frames"].values() if is_view_complete(root, building, point, 0)]
        facts = [DepthFacts(*values) for point in views if (values := read_facts(root, building, point, 0))]
        depth = summarise(facts)
        write_json(path, record | ({} if depth is None else depth._asdict()))
    return depth


def _write_frame(view: _View, *, source: Path, layout: Layout, root: Path) -> tuple[str, int]:
    """Write one view; its building and how many pixels could not be encoded."""
    frame = read_frame(view.frame, source, layout)
    nearest_m, farthest_m = DEPTH_LIMITS_M
    # Half a unit beyond the limits still rounds to a code.
    encodable = frame.measured & (frame.depth_m > nearest_m / 2) & (frame.depth_m < farthest_m + nearest_m / 2)
    measured = Geometry(frame.depth_m, encodable, frame.depth_intrinsics)
    normal = derive(["normal"], frame.image, measured)["normal"]
    height, width = frame.image.shape[:2]
    geometry = _resize_geometry(measured, normal, (height, width), frame.intrinsics)
    labels = derive(DERIVABLE, frame.image, geometry)
    write_view(
        root,
        view.building,
        view.point,
        0,
        image=frame.image,
        targets={
            "depth_zbuffer": geometry.depth_m[None].astype(np.float32),
            **{task: target for task, (target, _) in labels.items()},
        },
        # The files of depth, normals and reshading share one mask: that of the normals, which is the smallest.
        valid=labels["normal"][1],
        intrinsics=frame.intrinsics,
        origin={
            "rgb": str(view.frame.rgb),
            "depth": str(view.frame.depth),
            "depth_scale": layout.depth_scale,
            "depth_kind": layout.depth_kind,
            **describe_origin({}),
            "depth_facts": measure(frame.depth_m, encodable, frame.depth_intrinsics, normal[1]),
        },
    )
    return view.building, int((frame.measured & ~encodable).sum())


def _resize_geometry(depth: Geometry, labels: tuple[Array, Mask], size: tuple[int, int], intrinsics: Intrinsics) -> Geometry:
    """Depth with normals (target, mask), on the pixels of an image of another (height, width) and its intrinsics.

    A pixel belongs to the surface of the depth pixel whose area holds its centre, and is where its ray meets that one's plane:
    so that planes stay planes, and steps steps. Where they meet a tenth nearer or farther it has that pixel's depth.
    """
    height, width = depth.depth_m.shape
    if (height, width) == size:
        return Geometry(depth.depth_m, depth.valid, intrinsics, labels)
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)[:, None]
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    normal, mask = labels[0][:, rows, columns], labels[1][rows, columns]
    towards = (normal * _rays(depth.intrinsics, rows, columns)).sum(0)
    new_towards = (normal * _rays(intrinsics, np.arange(size[0])[:, None], np.arange(size[1]))).sum(0)
    ratio = np.divide(towards, new_towards, out=np.ones(size), where=mask & (new_towards != 0))
    depth_m = depth.depth_m[rows, columns]
    ratio[(np.abs(ratio - 1) > 0.1) | (depth_m * ratio > DEPTH_LIMITS_M[1]) | (depth_m * ratio < DEPTH_LIMITS_M[0])] = 1
    return Geometry(depth_m * ratio, depth.valid[rows, columns], intrinsics, (normal, mask))


def _rays(intrinsics: Intrinsics, rows: Array, columns: Array) -> Array:
    """Where the rays of pixels meet the plane one metre from the camera, (3, rows, columns)."""
    fx, fy, cx, cy = intrinsics
    return np.stack(np.broadcast_arrays((columns - cx) / fx, (rows - cy) / fy, 1.0))
