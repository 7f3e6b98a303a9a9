"""CocoDoom, and other frames in its layout, such as those of `mult make-doom` (formats: mult/data/README.md).

`run1/map01/{rgb,depth,objects}/000123.png` with COCO's JSON at the root, `{run,map}[-full]-{train,val,test}.json`. An
image's id says where its files are: 10^9 run + 10^7 map + tic. Depth is 16-bit, 64 units a unit of the map, which has no
metric scale unless the user gives one. `objects` says what a pixel shows: 2^23 sky, 2^23 + 1 floor or ceiling, 2^23 + 2 wall,
smaller numbers an object.

The engine's field of view is 90 degrees, its pixels are taken as square. A JSON with `intrinsics` [fx, fy, cx, cy] in its
`info`, as make_doom.py writes, overrides this.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from mult.data.cocodoom.annotations import Annotations
from mult.data.disk.array_cache import time_stamp
from mult.data.disk.camera import check_intrinsics
from mult.data.disk.derived import FROM_DEPTH, DerivedLabels, explain_absence
from mult.data.disk.images import GRAY_16_BIT, Array, read_pixels
from mult.data.disk.splits import check_split_name
from mult.data.sample import Camera, Sample, wrap_index
from mult.errors import UserError
from mult.labels import Intrinsics
from mult.tasks import IGNORE, TASKS

UNITS_PER_MAP_UNIT = 64
NO_DEPTH = 65535
SKY, FLAT, WALL = 1 << 23, (1 << 23) + 1, (1 << 23) + 2
"""Values of `objects` where there is no object; FLAT is floor or ceiling."""
_SURFACES = {WALL: "wall", FLAT: "floor or ceiling", SKY: "sky"}
_RUN, _MAP = 10**9, 10**7  # factors of run and map in an image's id


class CocoDoom(Dataset[Sample]):
    """Map-style dataset of Doom's frames; `dataset[i]` is a `Sample` at the files' own size.

    by: whether the splits are by run or by map. full: whether to read the full archive's JSON, which lists other frames than
    the standard archive's; by default it is read if it is there. The classes are "background" and the categories; with
    `surfaces`, which needs the full archive, "wall", "floor or ceiling" and "sky" in place of "background".

    depth: "8bit" for files of relative depth, 8 bits times 256, in which 0 is invalid. map_units_per_metre makes 16-bit depth
    metric (characters are 56 units tall); without it depth is in units of the map and `metric_depth` False. intrinsics:
    (fx, fy, cx, cy) in pixel indices, in place of the JSON's or the engine's.

    tasks: by default all with labels (`available`). Raises UserError for other tasks, with the reason, for wrong options, for a
    JSON that is damaged or does not fit its files and, on access, for a damaged file.
    """

    metric_arguments: Mapping[str, Mapping[str, float]] = {}
    benchmark_splits: frozenset[str] = frozenset()
    border = 0

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        tasks: Iterable[str] | None = None,
        *,
        by: Literal["run", "map"] = "run",
        full: bool | None = None,
        surfaces: bool = False,
        depth: Literal["16bit", "8bit"] = "16bit",
        map_units_per_metre: float | None = None,
        intrinsics: Intrinsics | None = None,
        max_depth_m: float | None = None,
    ) -> None:
        check_split_name(split)
        for option, value, allowed in (
            ("data.options.by", by, ("run", "map")),
            ("data.options.depth", depth, ("16bit", "8bit")),
        ):
            if value not in allowed:
                raise UserError(f"{option}: got {value!r}; expected one of {', '.join(allowed)}; choose one of them")
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(
                f"data.root: got {str(root)!r}, which is no folder; expected CocoDoom's root, which holds run1 and the JSON; "
                "correct the path, download the data, or make some with `mult make-doom`"
            )
        self.metric_depth = map_units_per_metre is not None
        self._depth, self._max_depth_m = depth, max_depth_m
        self._check_scale(map_units_per_metre)
        self._step = 1 / 256 if depth == "8bit" else 1 / UNITS_PER_MAP_UNIT / (map_units_per_metre or 1)
        self._annotations = Annotations(self.root, self._find_json(by, full, split), self._check_files)
        self._folders = _folders(self._annotations.ids)
        stored = self._annotations.info.get("intrinsics")
        self._intrinsics = (
            check_intrinsics("data.options.intrinsics", intrinsics)
            if intrinsics is not None
            else None
            if stored is None
            else check_intrinsics(f"{self._annotations.path}: info.intrinsics", stored)
        )
        self._surfaces = surfaces
        if surfaces and not self._has("objects"):
            raise UserError(
                f"{self.root}: got data.options.surfaces without objects folders; expected the full archive; set it to false"
            )
        self._derived = DerivedLabels(self.root)
        self.labelled = frozenset({"segment_semantic"} | ({"depth_zbuffer"} if self._has("depth") else set()))
        self.underivable: Mapping[str, str] = self._underivable()
        self.available = tuple(
            task
            for task in TASKS
            if task in self.labelled or (task not in self.underivable and self._derived.covers(task, self._folders))
        )
        self.tasks = self._check_tasks(tasks)
        names = [*(_SURFACES.values() if surfaces else ["background"]), *self._annotations.names]
        self.classes = {task: names for task in self.tasks if task == "segment_semantic"}

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, i: int) -> Sample:
        i = wrap_index(i, len(self))
        size = self._size(i)
        pixels = read_pixels(self._path(i, "rgb"), ("P", "RGB"), size, convert="RGB")
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() / 255
        native = {}
        for task in self.native(i).intersection(self.tasks):
            target, valid = self._read_depth(i, size) if task == "depth_zbuffer" else self._read_classes(i, size)
            native[task] = torch.from_numpy(target), torch.from_numpy(valid)[None]
        return self._derived.build_sample(self.name(i), image, native, self.tasks)

    def name(self, i: int) -> str:
        """The id of the i-th sample, which is in the paths of its files: run1/map01/000123."""
        folder, tic = _parse_id(int(self._annotations.ids[wrap_index(i, len(self))]))
        return f"{folder}/{tic:06d}"

    def group(self, i: int) -> str:
        """The map of the i-th frame, whichever run it is of: map01."""
        return self.name(i).split("/")[1]

    def native(self, i: int) -> frozenset[str]:
        """The tasks of which the dataset itself has a label of the i-th frame, whether or not it is read."""
        has_depth = "depth_zbuffer" in self.labelled and self._path(i, "depth").exists()
        return frozenset({"segment_semantic"} | ({"depth_zbuffer"} if has_depth else set()))

    def camera(self, i: int) -> Camera:
        """A frame's intrinsics (fx, fy, cx, cy) in pixel indices and its (height, width)."""
        height, width = size = self._size(wrap_index(i, len(self)))
        return Camera(self._intrinsics or (width / 2, width / 2, (width - 1) / 2, (height - 1) / 2), size)

    # --- One frame ---

    def _size(self, i: int) -> tuple[int, int]:
        height, width = self._annotations.sizes[i]
        return int(height), int(width)

    def _path(self, i: int, kind: str) -> Path:
        folder, tic = _parse_id(int(self._annotations.ids[wrap_index(i, len(self))]))
        return self.root / folder / kind / f"{tic:06d}.png"

    def _read_depth(self, i: int, size: tuple[int, int]) -> tuple[Array, Array]:
        stored = read_pixels(self._path(i, "depth"), GRAY_16_BIT, size)
        valid = stored > 0 if self._depth == "8bit" else (stored > 0) & (stored != NO_DEPTH)
        depth = stored.astype(np.float32) * np.float32(self._step)
        if self._max_depth_m is not None:
            valid &= depth <= self._max_depth_m
        return (depth * valid)[None], valid

    def _read_classes(self, i: int, size: tuple[int, int]) -> tuple[Array, Array]:
        if not self._surfaces:
            target = np.zeros(size, np.int64)
        else:
            stored = read_pixels(self._path(i, "objects"), ("RGB",), size).astype(np.int64)
            codes = stored @ np.array([1, 1 << 8, 1 << 16])
            # An object without an annotation has no class.
            target = np.select([codes == code for code in _SURFACES], range(len(_SURFACES)), default=IGNORE)
        self._annotations.paint(i, target, first=len(_SURFACES) if self._surfaces else 1)
        return target, target != IGNORE

    # --- The dataset ---

    def _find_json(self, by: str, full: bool | None, split: str) -> Path:
        paths = {is_full: self.root / f"{by}{'-full' if is_full else ''}-{split}.json" for is_full in (True, False)}
        for is_full, path in paths.items():
            if full in (None, is_full) and path.is_file():
                return path
        present = ", ".join(sorted(path.name for path in self.root.glob("*.json"))) or "none"
        expected = " or ".join(path.name for is_full, path in paths.items() if full in (None, is_full))
        raise UserError(
            f"{self.root}: got the JSON files {present}; expected {expected}; change data.split, or by and full in data.options"
        )

    def _has(self, kind: str) -> bool:
        return any((self.root / folder / kind).is_dir() for folder in self._folders)

    def _check_scale(self, map_units_per_metre: float | None) -> None:
        if map_units_per_metre is not None and not (math.isfinite(map_units_per_metre) and map_units_per_metre > 0):
            raise UserError(
                f"data.options.map_units_per_metre: got {map_units_per_metre}; expected a number above 0; leave it out for "
                "relative depth"
            )
        if self.metric_depth and self._depth == "8bit":
            raise UserError(
                f"data.options.map_units_per_metre: got {map_units_per_metre} for 8-bit depth; expected none, as that has no "
                "known unit; leave it out"
            )
        if self._max_depth_m is not None and not (self.metric_depth and self._max_depth_m > 0):
            raise UserError(
                f"data.max_depth_m: got {self._max_depth_m}; expected metres above 0 and metric depth; leave it out, or give "
                "data.options.map_units_per_metre"
            )

    def _underivable(self) -> dict[str, str]:
        """The tasks for which the depth is not good enough, and why."""
        if self._depth == "8bit":
            return dict.fromkeys(FROM_DEPTH, "8 bits of depth are too coarse: a wall's slope is lost in their steps")
        if not self.metric_depth:
            return {"reshading": "its fall-off needs metres and depth is relative; give data.options.map_units_per_metre"}
        return {}

    def _check_tasks(self, tasks: Iterable[str] | None) -> tuple[str, ...]:
        requested = self.available if tasks is None else tuple(tasks)
        for task in requested:
            if task not in self.available:
                reason = explain_absence(self, task) if task in TASKS else "no task has this name"
                expected = ", ".join(self.available)
                raise UserError(f"{self.root}: got task {task}: {reason}; expected some of {expected}; leave the task out")
        return tuple(task for task in TASKS if task in requested)

    def _check_files(self, ids: Array, files: Sequence[str]) -> dict[str, int]:
        """Check that every image of the JSON has the file that its id says; returns the time stamps of the folders."""
        where = self.root
        for identity, file in zip(ids.tolist(), files, strict=True):
            path = PurePosixPath(file)
            if path.is_absolute() or ".." in path.parts:
                raise UserError(
                    f"{where}: got an image in {file!r}, outside the root; expected run1/map01/rgb/000123.png; do not trust "
                    "this JSON"
                )
            folder, tic = _parse_id(identity)
            if file != f"{folder}/rgb/{tic:06d}.png":
                raise UserError(
                    f"{where}: got image id {identity} with the file {file!r}; expected {folder}/rgb/{tic:06d}.png, as "
                    "10^9 run + 10^7 map + tic says; fetch or make the JSON again"
                )
        folders = _folders(ids)
        subfolders = [f"{folder}{kind}" for folder in folders for kind in ("", "/rgb", "/depth", "/objects")]
        stamps = {each: time_stamp(self.root / each) for each in subfolders if (self.root / each).is_dir()}
        present = {f"{folder}/rgb/{path.name}" for folder in folders for path in (self.root / folder / "rgb").glob("*.png")}
        missing = [file for file in files if file not in present]
        if missing:
            raise UserError(
                f"{where}: got {len(missing)} of {len(files)} images of the JSON without a file, the first {missing[0]}; "
                "expected all; unpack the whole archive, or choose another JSON by data.options.full"
            )
        return stamps


def _parse_id(identity: int) -> tuple[str, int]:
    """The folder and the tic of an image's id."""
    run, rest = divmod(identity, _RUN)
    level, tic = divmod(rest, _MAP)
    return f"run{run}/map{level:02d}", tic


def _folders(ids: Array) -> list[str]:
    return [_parse_id(int(first) * _MAP)[0] for first in np.unique(ids // _MAP)]
