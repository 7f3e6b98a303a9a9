"""The reader of Taskonomy's trees, and of our own in the same layout (mult/data/README.md has the layouts and the codes)."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from mult.data.disk.camera import check_intrinsics
from mult.data.disk.derived import DerivedLabels
from mult.data.disk.encodings import CLASSES, ENCODINGS, NO_GEOMETRY
from mult.data.disk.images import GRAY, GRAY_16_BIT, Array, Mask, read_image, read_pixels, read_size
from mult.data.disk.splits import check_split_name, published_list, read_splits
from mult.data.disk.stored import read_stored
from mult.data.sample import Camera, Sample, wrap_index
from mult.data.taskonomy.index import Index
from mult.errors import UserError, suggest
from mult.tasks import TASKS

SUBSETS = ("tiny", "medium", "full", "fullplus")


class Taskonomy(Dataset[Sample]):
    """Map-style dataset of a tree in any of Taskonomy's layouts; `dataset[i]` is a `Sample` at the files' own size.

    Buildings are split by `splits.csv` at the root if there is one, else by the published list of `subset`. A flat tree, which
    names no building, serves every split unless its folder's name is in a list. A label that a view has no file of is taken
    from the derived labels beside the tree (disk/derived.py), if it is there. Depth beyond `max_depth_m` becomes invalid.

    Warns once of the buildings of the split that are not on the disk. Raises UserError for unknown names, an empty split, a
    task that no view of the split labels and, on access, for a file that is damaged or not in Taskonomy's encoding, naming it.
    """

    metric_depth = True
    metric_arguments: Mapping[str, Mapping[str, float]] = {}
    benchmark_splits: frozenset[str] = frozenset()
    border = 0
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
            _check_name("tasks", task, ENCODINGS)
        check_split_name(split)
        _check_name("data.subset", subset, SUBSETS)
        if max_depth_m is not None and not max_depth_m > 0:
            raise UserError(f"data.max_depth_m: got {max_depth_m}; expected metres above 0; leave it out for no cut-off")
        self.tasks = tuple(task for task in TASKS if task in requested)
        self.classes = {task: list(CLASSES) for task in self.tasks if task == "segment_semantic"}
        self.index = Index(root)
        self.root = self.index.root
        self.buildings = self._find_buildings()
        self._rows = [self.index.rows(building) for building in self.buildings]
        self._ends = np.cumsum([len(rows) for rows in self._rows])
        self._derived = DerivedLabels(self.root)
        domains = set().union(*(self.index.domains(building) for building in self.buildings))
        self.labelled = frozenset(domains.intersection(ENCODINGS))
        self.available = self._derived.list_available(self.tasks, self.labelled, self.buildings, f"split {split!r}")

    def _find_buildings(self) -> list[str]:
        """The buildings of the split that are on the disk."""
        own = self.root / "splits.csv"
        if own.is_file():
            source, splits = str(own), read_splits(own)
        else:
            source, splits = self._read_published()
        if self.index.flat is not None and not _is_listed(self.index.flat, splits):
            warnings.warn(
                f"{self.root} names no building and {self.index.flat!r} is in no list: its views are used for split "
                f"{self.split!r}, whichever that is; a splits.csv at the root would say which",
                stacklevel=3,
            )
            return [self.index.flat]
        expected = sorted(building for building, its_split in splits.items() if its_split == self.split)
        present = [building for building in expected if len(self.index.rows(building))]
        if not present:
            remedy = (
                f"correct that file, or annotate another building with --split {self.split}"
                if own.is_file()
                else "choose another data.subset, or write splits.csv (id,train,val,test)"
            )
            raise UserError(
                f"{self.root}: got no view of split {self.split!r}; expected at least one of the buildings "
                f"{_shorten(expected)} ({source}), the tree holds {_shorten(self.index.buildings)}; {remedy}"
            )
        missing = sorted(set(expected) - set(present))
        if missing:
            warnings.warn(
                f"{self.root}: {len(missing)} of {len(expected)} buildings of split {self.split!r} ({source}) "
                f"are not there: {', '.join(missing)}",
                stacklevel=3,
            )
        return present

    def _read_published(self) -> tuple[str, dict[str, str]]:
        """What messages call the published list of splits, and {building: its split}."""
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
            geometry = self._read_geometry(row, stored, geometry)
        native = {}
        for task, path in files.items():
            if path is None:
                continue
            target, mask = ENCODINGS[task].decode(stored[task], geometry, path)
            if task == "depth_zbuffer" and self.max_depth_m is not None:
                mask = mask & (target[0] <= self.max_depth_m)
                target *= mask
            native[task] = torch.from_numpy(target), torch.from_numpy(mask)[None]
        return self._derived.build_sample(self.name(i), torch.from_numpy(image), native, self.tasks)

    def name(self, i: int) -> str:
        """The id of the i-th view."""
        building, point, view = self.index.view(self._row(i))
        return f"{building}/point_{point}_view_{view}"

    def group(self, i: int) -> str:
        """The building of the i-th view."""
        return self.index.view(self._row(i))[0]

    def native(self, i: int) -> frozenset[str]:
        """The tasks of which the i-th view has a file of its own, whether or not they are read."""
        row = self._row(i)
        return frozenset(task for task in ENCODINGS if self.index.path(row, task) is not None)

    def _read_geometry(self, row: int, stored: Mapping[str, Array], everywhere: Mask) -> Mask:
        """Where there is a surface: according to mask_valid, without it to depth, without either everywhere."""
        path = self.index.path(row, "mask_valid")
        if path is not None:
            return read_pixels(path, GRAY, everywhere.shape) > 0
        if "depth_zbuffer" in stored:
            return stored["depth_zbuffer"] != NO_GEOMETRY
        path = self.index.path(row, "depth_zbuffer")
        return everywhere if path is None else read_pixels(path, GRAY_16_BIT, everywhere.shape) != NO_GEOMETRY

    def camera(self, i: int) -> Camera:
        """The camera of the i-th view, from its point_info; UserError where there is none."""
        row = self._row(i)
        path = self.index.path(row, "point_info")
        if path is None:
            raise UserError(
                f"{self.root}: got no point_info of {self.index.view(row)}; "
                "expected one to know the camera; add the point_info folder"
            )
        content = read_stored(path, "expected JSON with the camera; fetch or make it again")
        try:
            info = json.loads(content)
            if "intrinsics" in info:
                height, width = (int(value) for value in info["size"])
                return Camera(check_intrinsics("intrinsics", info["intrinsics"]), (height, width))
            fov = float(info["field_of_view_rads"])
            if not 0 < fov < math.pi:
                raise ValueError(f"a field of view of {fov} rads")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{path}: got no camera ({error!r:.300}); "
                "expected JSON with field_of_view_rads, or intrinsics and size; fetch or make it again"
            ) from error
        rgb = self.index.path(row, "rgb")
        assert rgb is not None
        height, width = read_size(rgb)
        if height != width:
            raise UserError(
                f"{path}: got a field of view of an image of {(height, width)} pixels (height, width); "
                "expected square ones or intrinsics; write intrinsics [fx, fy, cx, cy] and size into the file"
            )
        focal = width / 2 / math.tan(fov / 2)
        return Camera((focal, focal, (width - 1) / 2, (height - 1) / 2), (height, width))

    def is_from_depth(self, i: int) -> bool:
        """Whether the i-th view's normals and reshading were computed from its depth, as its point_info says (`origin`)."""
        path = self.index.path(self._row(i), "point_info")
        try:
            info = json.loads(read_stored(path, "fetch or make it again")) if path else {}
        except (ValueError, RecursionError):
            return False
        return isinstance(info, dict) and isinstance(info.get("origin"), dict) and "depth" in info["origin"]

    def _row(self, i: int) -> int:
        """The index row of the i-th view of the split."""
        i = wrap_index(i, len(self))
        position = int(np.searchsorted(self._ends, i, side="right"))
        return self._rows[position][i - int(self._ends[position])]


def _check_name(where: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        remedy = suggest(name, names, "choose one of them")
        raise UserError(f"{where}: got {name!r}; expected one of {', '.join(names)}; {remedy}")


def _is_listed(building: str, splits: Mapping[str, str]) -> bool:
    return building in splits or any(building in read_splits(published_list(f"taskonomy_{subset}")) for subset in SUBSETS)


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "(none)"
