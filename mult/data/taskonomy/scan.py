"""One look at a Taskonomy-like tree: which views it holds, and which files each of them has.

Four layouts are in use (mult/data/README.md) and told apart by looking: a task's folder holds the views, or buildings, or
collections of buildings (`taskonomy`, `replica`), or is inside a folder `<building>_<task>`. The names in a folder are parsed
together: with a Python object a file, the 40 million files of the full data would take minutes and gigabytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from mult.data.disk.array_cache import NO_STAMP, time_stamp
from mult.data.disk.encodings import ENCODINGS
from mult.errors import UserError


class Domain(NamedTuple):
    """The folders that hold a kind of file, and what may follow `_domain_` in its names (None: anything that ends in .json)."""

    folders: tuple[str, ...]
    endings: tuple[str, ...] | None


DOMAINS = {
    "rgb": Domain(("rgb",), ("rgb.png",)),
    **{task: Domain((task,), tuple(f"{ending}.png" for ending in of.endings)) for task, of in ENCODINGS.items()},
    "mask_valid": Domain(("mask_valid",), ("mask_valid.png", "depth_zbuffer.png")),
    "point_info": Domain(("point_info", "points"), None),
}
BITS = {name: 1 << position for position, name in enumerate(DOMAINS)}
_DOMAIN_OF_FOLDER = {folder: name for name, domain in DOMAINS.items() for folder in domain.folders}

VIEW = np.dtype([("building", "<i4"), ("point", "<i4"), ("view", "<i4"), ("domains", "<u4")])
"""A row of the index: the building's number, and in `domains` one of BITS for each kind of file that the view has."""

_VIEW_NAMES = re.compile(r"(?:point_\d{1,9}_view_\d{1,9}(?:\n|\Z))*")
_VIEW_NAME = re.compile(r"^point_\d{1,9}_view_\d{1,9}$", re.MULTILINE)


class Tables(TypedDict):
    """What a scan gives beside the array of views.

    buildings: sorted names; starts: the row at which each one's views begin, and the number of rows; domains: BITS of each
    one's views together. flat: the name given to the building of a tree that names none. files: {domain: {building: (folder,
    endings of the files' names)}}.
    """

    buildings: list[str]
    starts: list[int]
    domains: list[int]
    flat: str | None
    files: dict[str, dict[str, tuple[str, list[str]]]]


@dataclass
class _Folder:
    """A folder on the way to the views of one domain; `read` lists it."""

    path: str  # relative to the root
    domain: str
    building: str
    depth: int  # how many more folders may lie between here and the views
    stamp: int = NO_STAMP
    views: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # ending -> sorted point << 32 | view
    inner: list[_Folder] = field(default_factory=list)

    def read(self, root: Path) -> None:
        self.stamp, names = list_folder(root / self.path)
        endings = DOMAINS[self.domain].endings
        if endings is None:
            endings = tuple(sorted({name.partition("_domain_")[2] for name in names if name.endswith(".json")}))
        for ending in endings:
            keys = _parse_views(names, f"_domain_{ending}")
            if len(keys):
                self.views[ending] = keys
        if self.depth:
            others = sorted(name for name in names if not name.startswith((".", "point_")))
            for name in others:
                if (root / self.path / name).is_dir():
                    self.inner.append(_Folder(f"{self.path}/{name}", self.domain, name, self.depth - 1))


def scan(root: Path) -> tuple[dict[str, int], Tables, NDArray[np.void]]:
    """{folder: its time stamp}, the tables and the array of views (VIEW), sorted by building, point and view.

    Only views with an rgb file count. Raises UserError for a tree that holds no views, or the same domain of a building in two
    folders.
    """
    stamp, names = list_folder(root)
    stamps, folders = {".": stamp}, []
    for name, kind, building in _find_layout_folders(root, names):
        if not building:
            folders.append(_Folder(name, _DOMAIN_OF_FOLDER[kind], root.resolve().name, depth=2))
            continue
        stamps[name], inner = list_folder(root / name)
        if kind in inner:
            folders.append(_Folder(f"{name}/{kind}", _DOMAIN_OF_FOLDER[kind], building, depth=0))
    by_building: dict[str, dict[str, _Folder]] = {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        while folders:
            list(pool.map(lambda folder: folder.read(root), folders))
            for folder in folders:
                stamps[folder.path] = folder.stamp
                if folder.views:
                    other = by_building.setdefault(folder.building, {}).setdefault(folder.domain, folder)
                    if other is not folder:
                        raise UserError(
                            f"{root}: got {other.path} and {folder.path}, both {folder.domain} of {folder.building}; "
                            "expected one folder a building; move one of them out of the tree"
                        )
            folders = [inner for folder in folders for inner in folder.inner]
    by_building = {name: by_building[name] for name in sorted(by_building) if "rgb" in by_building[name]}
    if not by_building:
        raise UserError(
            f"{root}: got no file rgb/.../point_P_view_V_domain_rgb.png; expected a tree in one of Taskonomy's "
            "four layouts (<task>/point_..., <building>_<task>/<task>/point_..., <task>/<building>/point_..., "
            "<task>/taskonomy/<building>/point_...); give the folder that holds the task folders"
        )
    return stamps, *_build_tables(by_building)


def list_folder(folder: Path) -> tuple[int, list[str]]:
    """A folder's time stamp and the names in it."""
    return time_stamp(folder), os.listdir(folder)


def _find_layout_folders(root: Path, names: list[str]) -> Iterator[tuple[str, str, str]]:
    """The folders directly under the root that belong to a layout: (name, the domain's folder, building or "")."""
    for name in names:
        for folder in _DOMAIN_OF_FOLDER:
            if (name == folder or name.endswith(f"_{folder}")) and (root / name).is_dir():
                yield name, folder, name.removesuffix(folder).removesuffix("_")


def _parse_views(names: list[str], ending: str) -> NDArray[np.int64]:
    """Of the names `point_P_view_V<ending>` the numbers P << 32 | V, sorted; other names are ignored."""
    text = "\n".join([name for name in names if name.endswith(ending)]).replace(ending, "")
    if not _VIEW_NAMES.fullmatch(text):
        text = "\n".join(_VIEW_NAME.findall(text))
    numbers = np.fromstring(text.replace("point_", "").replace("_view_", " "), dtype=np.int64, sep=" ")
    return np.sort(numbers[0::2] << 32 | numbers[1::2])


def _build_tables(by_building: dict[str, dict[str, _Folder]]) -> tuple[Tables, NDArray[np.void]]:
    parts = []
    for number, folders in enumerate(by_building.values()):
        keys_of = {domain: np.unique(np.concatenate([*folder.views.values()])) for domain, folder in folders.items()}
        keys = keys_of["rgb"]
        part = np.zeros(len(keys), VIEW)
        part["building"], part["point"], part["view"] = number, keys >> 32, keys & 0xFFFFFFFF
        for domain, others in keys_of.items():
            nearest = np.minimum(np.searchsorted(others, keys), len(others) - 1)
            part["domains"] |= np.where(others[nearest] == keys, BITS[domain], 0).astype(np.uint32)
        parts.append(part)
    tables: Tables = {
        "buildings": list(by_building),
        "starts": [0, *np.cumsum([len(part) for part in parts]).tolist()],
        "domains": [int(np.bitwise_or.reduce(part["domains"])) for part in parts],
        "flat": next((building for building, folders in by_building.items() if folders["rgb"].path == "rgb"), None),
        "files": {
            domain: {
                building: (folders[domain].path, list(folders[domain].views))
                for building, folders in by_building.items()
                if domain in folders
            }
            for domain in DOMAINS
        },
    }
    return tables, np.concatenate(parts)
