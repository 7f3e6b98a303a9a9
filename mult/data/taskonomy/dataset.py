"""Taskonomy (data.md, "Taskonomy"): the reader, and the writer that gives our own views the same layout.

`write_view` is used by Rooms and `annotate.py`; its `point_info` also carries `intrinsics` and `size`, so that images
need not be square.
"""

from __future__ import annotations

import difflib
import json
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from mult.data.disk.derived import Cache
from mult.data.disk.encodings import CLASSES, ENCODINGS, NO_GEOMETRY
from mult.data.disk.images import GRAY, GRAY_16_BIT, Array, Mask, read_image, read_pixels
from mult.data.disk.splits import SPLITS, published_list, read_splits
from mult.data.sample import Sample
from mult.data.taskonomy.index import Index
from mult.errors import UserError
from mult.tasks import TASKS

SUBSETS = ("tiny", "medium", "full", "fullplus")


class Taskonomy(Dataset[Sample]):
    """Map-style dataset of a tree in any of Taskonomy's layouts; `dataset[i]` is a `Sample` at the files' own size.

    Views are split by building: by `splits.csv` (id,train,val,test) at the root if there is one, else by the
    published `subset`. A flat tree, which names no building, serves any split unless its folder's name is in a list.
    `classes` holds the class names of each categorical task. Labels that a view has no file of are taken from the cache
    of derived ones beside the tree (derived.py), if they are there. `available` are all tasks that can be asked for. Depth
    beyond `max_depth_m` becomes invalid. Buildings of the split that are not on disk are named in one warning. Raises
    UserError for unknown names, an empty split, a task that no view of the split labels and, on access, for a file that is
    damaged or not in Taskonomy's encoding, naming it.
    """

    metric_depth = True
    underivable: Mapping[str, str] = {}

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        subset: str = "tiny",
        tasks: Iterable[str] = tuple(ENCODINGS),
        *,
        max_depth_m: float | None = None,
    ) -> None:
        self.split, self.subset, self.max_depth_m = split, subset, max_depth_m
        requested = list(tasks)
        for task in requested:
            _known("tasks", task, ENCODINGS)
        _known("split", split, SPLITS)
        _known("data.subset", subset, SUBSETS)
        if max_depth_m is not None and not max_depth_m > 0:
            raise UserError(f"data.max_depth_m: got {max_depth_m}; expected metres above 0; leave it out for no cut-off")
        self.tasks = tuple(task for task in TASKS if task in requested)
        self.classes: dict[str, list[str]] = {task: list(CLASSES) for task in self.tasks if TASKS[task].categorical}
        self.index = Index(root)
        self.root = self.index.root
        self.buildings = self._buildings()
        self._rows = [self.index.rows(building) for building in self.buildings]
        self._ends = np.cumsum([len(rows) for rows in self._rows])
        self.cache = Cache(self.root)
        domains = set().union(*(self.index.domains(building) for building in self.buildings))
        self.labelled = frozenset(domains.intersection(ENCODINGS))
        self.available = self.cache.require(self.tasks, self.labelled, self.buildings, f"split {split!r}")

    def _buildings(self) -> list[str]:
        """The buildings of the split that are on disk."""
        own = self.root / "splits.csv"
        if own.is_file():
            source, listed = str(own), read_splits(own)
        else:
            source, listed = self._published()
        if self.index.flat is not None and not _is_listed(self.index.flat, listed):
            warnings.warn(
                f"{self.root} names no building and {self.index.flat!r} is in no list: its views are used for split "
                f"{self.split!r}, whichever that is; a splits.csv at the root would say which",
                stacklevel=3,
            )
            return [self.index.flat]
        wanted = sorted(building for building, splits in listed.items() if self.split in splits)
        present = [building for building in wanted if len(self.index.rows(building))]
        if not present:
            remedy = (
                "correct that file" if own.is_file() else "choose another data.subset, or write splits.csv (id,train,val,test)"
            )
            raise UserError(
                f"{self.root}: got no view of split {self.split!r}; expected at least one of the buildings "
                f"{_some(wanted)} ({source}), the tree holds {_some(self.index.buildings)}; {remedy}"
            )
        missing = sorted(set(wanted) - set(present))
        if missing:
            warnings.warn(
                f"{self.root}: {len(missing)} of {len(wanted)} buildings of split {self.split!r} ({source}) "
                f"are not there: {', '.join(missing)}",
                stacklevel=3,
            )
        return present

    def _published(self) -> tuple[str, dict[str, set[str]]]:
        """What to call the published list of splits, and building -> its splits."""
        return f"subset {self.subset!r}", read_splits(published_list(f"taskonomy_{self.subset}"))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, i: int) -> Sample:
        row = self._row(i)
        rgb = self.index.path(row, "rgb")
        assert rgb is not None  # only views with rgb are in the index
        image = read_image(rgb)
        height, width = image.shape[1:]

        files = {task: self.index.path(row, task) for task in self.tasks}
        stored: dict[str, Array] = {
            task: read_pixels(path, ENCODINGS[task].modes, (height, width)) for task, path in files.items() if path
        }
        geometry = np.ones((height, width), np.bool_)
        if any(ENCODINGS[task].needs_geometry for task in stored):
            geometry = self._geometry(row, stored, geometry)
        native = {}
        for task, path in files.items():
            if path is None:
                continue
            target, mask = ENCODINGS[task].decode(stored[task], geometry, path)
            if task == "depth_zbuffer" and self.max_depth_m is not None:
                mask = mask & (target[0] <= self.max_depth_m)
                target *= mask
            native[task] = torch.from_numpy(target), torch.from_numpy(mask)[None]
        return self.cache.complete(self.name(i), torch.from_numpy(image), native, self.tasks)

    def name(self, i: int) -> str:
        """The id of the i-th sample."""
        building, point, view = self.index.view(self._row(i))
        return f"{building}/point_{point}_view_{view}"

    def group(self, i: int) -> str:
        """The building of the i-th view."""
        return self.index.view(self._row(i))[0]

    def native(self, i: int) -> frozenset[str]:
        """The tasks of which the i-th view has a file of its own, whether or not they are read."""
        row = self._row(i)
        return frozenset(task for task in ENCODINGS if self.index.path(row, task) is not None)

    def _geometry(self, row: int, stored: Mapping[str, Array], everywhere: Mask) -> Mask:
        """Where there is a surface: as mask_valid says, without one as depth does, without either everywhere."""
        path = self.index.path(row, "mask_valid")
        if path is not None:
            return read_pixels(path, GRAY, everywhere.shape) > 0
        if "depth_zbuffer" in stored:
            return stored["depth_zbuffer"] != NO_GEOMETRY
        path = self.index.path(row, "depth_zbuffer")
        return everywhere if path is None else read_pixels(path, GRAY_16_BIT, everywhere.shape) != NO_GEOMETRY

    def camera(self, i: int) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
        """A view's intrinsics (fx, fy, cx, cy) in pixel indices and its (height, width); UserError without point_info."""
        row = self._row(i)
        path = self.index.path(row, "point_info")
        if path is None:
            raise UserError(
                f"{self.root}: got no point_info of {self.index.view(row)}; "
                "expected one to know the camera; add the point_info folder"
            )
        try:
            info = json.loads(path.read_text())
            if "intrinsics" in info:
                fx, fy, cx, cy = (float(value) for value in info["intrinsics"])
                height, width = (int(value) for value in info["size"])
                return (fx, fy, cx, cy), (height, width)
            fov = float(info["field_of_view_rads"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: got no camera ({error!r}); "
                "expected JSON with field_of_view_rads, or intrinsics and size; fetch or make it again"
            ) from error
        rgb = self.index.path(row, "rgb")
        assert rgb is not None
        with Image.open(rgb) as image:
            width, height = image.size
        if height != width:
            raise UserError(
                f"{path}: got a field of view of an image of {(height, width)} pixels (height, width); "
                "expected square ones or intrinsics; write intrinsics [fx, fy, cx, cy] and size into the file"
            )
        focal = width / 2 / math.tan(fov / 2)
        return (focal, focal, (width - 1) / 2, (height - 1) / 2), (height, width)

    def _row(self, i: int) -> int:
        """The index row of the i-th view of the split."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"view {i} of {len(self)}")
        i %= len(self)
        position = int(np.searchsorted(self._ends, i, side="right"))
        return self._rows[position][i - int(self._ends[position])]


def _known(what: str, name: object, names: Iterable[str]) -> None:
    if name not in list(names):
        near = difflib.get_close_matches(str(name), list(names), n=1)
        raise UserError(
            f"{what}: got {name!r}; expected one of {list(names)}; "
            + (f"did you mean {near[0]!r}?" if near else "choose one of them")
        )


def _is_listed(building: str, listed: Mapping[str, object]) -> bool:
    return building in listed or any(building in read_splits(published_list(f"taskonomy_{subset}")) for subset in SUBSETS)


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "(none)"
