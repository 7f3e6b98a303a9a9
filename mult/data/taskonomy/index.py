"""Which views a Taskonomy-like tree holds: one scan, kept in a cache (data.md, "Taskonomy": layouts and file-name
exceptions).

The four layouts in use are told apart by looking: a task's folder holds the views, or buildings, or collections of
buildings (`taskonomy`, `replica`), or stands inside `<building>_<task>`. The index is one row of a NumPy array a
view, memory-mapped from the cache so that workers share it, and small tables from which a file's path is made. Names
inside the tree are parsed by whole folders: a Python object a file would cost minutes and gigabytes on the full data.

The cache lies in `$XDG_CACHE_HOME/mult/index/<hash of the root>`. It holds for as long as no scanned folder changed,
which costs one `stat` a folder to know.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mult.errors import UserError
from mult.files import cache_folder, map_array, read_json, write_file, write_text


class Domain(NamedTuple):
    """The folder names a kind of file is found under, and its name's endings after `_domain_` (None: any JSON)."""

    folders: tuple[str, ...]
    endings: tuple[str, ...] | None


DOMAINS = {
    "rgb": Domain(("rgb",), ("rgb.png",)),
    "segment_semantic": Domain(("segment_semantic",), ("segmentsemantic.png", "segment_semantic.png")),
    "depth_zbuffer": Domain(("depth_zbuffer",), ("depth_zbuffer.png",)),
    "normal": Domain(("normal",), ("normal.png",)),
    "keypoints2d": Domain(("keypoints2d",), ("keypoints2d.png",)),
    "edge_texture": Domain(("edge_texture",), ("edge_texture.png",)),
    "reshading": Domain(("reshading",), ("reshading.png",)),
    "mask_valid": Domain(("mask_valid",), ("mask_valid.png", "depth_zbuffer.png")),
    "point_info": Domain(("point_info", "points"), None),
}
_BITS = {name: 1 << position for position, name in enumerate(DOMAINS)}
_DOMAIN_OF_FOLDER = {folder: name for name, domain in DOMAINS.items() for folder in domain.folders}

VIEW = np.dtype([("building", "<i4"), ("point", "<i4"), ("view", "<i4"), ("domains", "<u4")])
"""A row of the index; `domains` has a bit for each of DOMAINS, in their order."""

_VERSION = 1
_TICK_NS = 20_000_000  # no coarser than file systems' clocks, so that two changes a tick apart differ in mtime
_VIEW_NAMES = re.compile(r"(?:point_\d{1,9}_view_\d{1,9}(?:\n|\Z))*")
_VIEW_NAME = re.compile(r"^point_\d{1,9}_view_\d{1,9}$", re.MULTILINE)


class Index:
    """The views of a tree, sorted by building, point and view; only views with an rgb file count.

    `buildings` are sorted names; `flat` is the name given to the building of a tree that names none (the root's own).
    Raises UserError where there is no such folder and where it holds no views or one view twice.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(
                f"data.root: got {str(root)!r}, which is no folder; expected the root of a tree in Taskonomy's layout; "
                "correct the path or download the data"
            )
        self._folder = cache_folder(self.root)
        if not self._load():
            tables, views = _scan(self.root)
            self._tables, self._views = tables, views
            self._save()
        self.buildings: list[str] = self._tables["buildings"]
        self.flat: str | None = self._tables["flat"]

    def __len__(self) -> int:
        return len(self._views)

    def rows(self, building: str) -> range:
        """The rows of one building, which are contiguous; empty if the tree does not hold it."""
        if building not in self.buildings:
            return range(0)
        position = self.buildings.index(building)
        return range(self._tables["starts"][position], self._tables["starts"][position + 1])

    def domains(self, building: str) -> set[str]:
        """What at least one view of the building has a file of."""
        bits = self._tables["domains"][self.buildings.index(building)]
        return {name for name, bit in _BITS.items() if bits & bit}

    def view(self, row: int) -> tuple[str, int, int]:
        """Building, point and view number of a row."""
        building, point, view, _ = self._views[row].item()
        return self.buildings[building], point, view

    def path(self, row: int, domain: str) -> Path | None:
        """The file of a domain for a row, None where the view has none."""
        building, point, view, domains = self._views[row].item()
        if not domains & _BITS[domain]:
            return None
        folder, endings = self._tables["files"][domain][self.buildings[building]]
        paths = [self.root / folder / f"point_{point}_view_{view}_domain_{ending}" for ending in endings]
        # A folder that mixes endings is rare: only then is the disk asked which of them this view has.
        return paths[0] if len(paths) == 1 else next((path for path in paths if path.exists()), paths[0])

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if isinstance(self._views, np.memmap):
            state["_views"] = None  # a worker maps the file again instead of getting a copy of it
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._views is None:
            self._views = map_array(self._folder / self._tables["views"])

    def _load(self) -> bool:
        """Map the cached index, if there is one for this state of the tree."""
        try:
            tables = read_json(self._folder / "tables.json")
            if tables["version"] != _VERSION or tables["root"] != str(self.root.resolve()):
                return False
            if any(os.stat(self.root / folder).st_mtime_ns != stamp for folder, stamp in tables["stamps"].items()):
                return False
            self._views = map_array(self._folder / tables["views"])
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return False  # absent, damaged, or a folder is gone: the scan that follows says what is wrong, if anything
        self._tables = tables
        return self._views.dtype == VIEW and len(self._views) == tables["starts"][-1]

    def _save(self) -> None:
        """Write the cache and map it, the table that names the array last; without one, the index stays in memory."""
        path = self._folder / self._tables["views"]
        try:
            for old in set(self._folder.glob("views-*.npy")) - {path}:  # another process may be mapping that one
                old.unlink(missing_ok=True)
            write_file(path, lambda file: np.save(file, self._views))
            write_text(self._folder / "tables.json", json.dumps(self._tables))
            self._views = map_array(path)
        except OSError as error:
            warnings.warn(
                f"the index of {self.root} cannot be kept in {self._folder} ({error}): the tree is scanned again "
                "at every start; set XDG_CACHE_HOME to a folder that can be written",
                stacklevel=3,
            )


@dataclass
class _Folder:
    """A folder on the way to the views of one domain, and after `read` what was found in it."""

    path: str  # relative to the root
    domain: str
    building: str
    depth: int  # how many more folders may lie between here and the views
    stamp: int = 0
    views: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # ending -> sorted point << 32 | view
    inner: list[_Folder] = field(default_factory=list)

    def read(self, root: Path) -> None:
        self.stamp, names = _list(root / self.path)
        endings = DOMAINS[self.domain].endings
        if endings is None:
            endings = tuple(sorted({name.partition("_domain_")[2] for name in names if name.endswith(".json")}))
        for ending in endings:
            keys = _view_keys(names, f"_domain_{ending}")
            if len(keys):
                self.views[ending] = keys
        if self.depth:
            others = sorted(name for name in names if not name.startswith((".", "point_")))
            for name in others:
                if (root / self.path / name).is_dir():
                    self.inner.append(_Folder(f"{self.path}/{name}", self.domain, name, self.depth - 1))


def _list(folder: Path) -> tuple[int, list[str]]:
    """A folder's names and an mtime that any later change will move."""
    stamp = os.stat(folder).st_mtime_ns
    if abs(time.time_ns() - stamp) < _TICK_NS:
        time.sleep(_TICK_NS / 1e9)
    return stamp, os.listdir(folder)


def _view_keys(names: list[str], ending: str) -> NDArray[np.int64]:
    """Of the files `point_P_view_V<ending>`: P << 32 | V, sorted. Anything else is passed over."""
    text = "\n".join([name for name in names if name.endswith(ending)]).replace(ending, "")
    if not _VIEW_NAMES.fullmatch(text):
        text = "\n".join(_VIEW_NAME.findall(text))
    numbers = np.fromstring(text.replace("point_", "").replace("_view_", " "), dtype=np.int64, sep=" ")
    return np.sort(numbers[0::2] << 32 | numbers[1::2])


def _layout_folders(root: Path, names: list[str]) -> Iterator[tuple[str, str, str]]:
    """The folders directly under the root that belong to a layout: (name, its domain's folder, building or "")."""
    for name in names:
        for folder in _DOMAIN_OF_FOLDER:
            if (name == folder or name.endswith(f"_{folder}")) and (root / name).is_dir():
                yield name, folder, name.removesuffix(folder).removesuffix("_")


def _scan(root: Path) -> tuple[dict[str, Any], NDArray[np.void]]:
    stamp, names = _list(root)
    stamps, folders = {".": stamp}, []
    for name, kind, building in _layout_folders(root, names):
        if not building:
            folders.append(_Folder(name, _DOMAIN_OF_FOLDER[kind], root.resolve().name, depth=2))
            continue
        stamps[name], inner = _list(root / name)
        if kind in inner:
            folders.append(_Folder(f"{name}/{kind}", _DOMAIN_OF_FOLDER[kind], building, depth=0))
    found: dict[str, dict[str, _Folder]] = {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        while folders:
            list(pool.map(lambda folder: folder.read(root), folders))
            for folder in folders:
                stamps[folder.path] = folder.stamp
                if folder.views:
                    other = found.setdefault(folder.building, {}).setdefault(folder.domain, folder)
                    if other is not folder:
                        raise UserError(
                            f"{root}: got {other.path} and {folder.path}, both {folder.domain} of {folder.building}; "
                            "expected one folder a building; move one of them out of the tree"
                        )
            folders = [inner for folder in folders for inner in folder.inner]
    buildings = sorted(building for building, domains in found.items() if "rgb" in domains)
    if not buildings:
        raise UserError(
            f"{root}: got no file rgb/.../point_P_view_V_domain_rgb.png; expected a tree in one of Taskonomy's "
            "four layouts (<task>/point_..., <building>_<task>/<task>/point_..., <task>/<building>/point_..., "
            "<task>/taskonomy/<building>/point_...); give the folder that holds the task folders"
        )
    return _tables(root, stamps, buildings, found)


def _tables(
    root: Path, stamps: dict[str, int], buildings: list[str], found: dict[str, dict[str, _Folder]]
) -> tuple[dict[str, Any], NDArray[np.void]]:
    parts = []
    for number, building in enumerate(buildings):
        present = {name: np.unique(np.concatenate([*folder.views.values()])) for name, folder in found[building].items()}
        keys = present["rgb"]
        part = np.zeros(len(keys), VIEW)
        part["building"], part["point"], part["view"] = number, keys >> 32, keys & 0xFFFFFFFF
        for name, others in present.items():
            nearest = np.minimum(np.searchsorted(others, keys), len(others) - 1)
            part["domains"] |= np.where(others[nearest] == keys, _BITS[name], 0).astype(np.uint32)
        parts.append(part)
    state = hashlib.sha256(json.dumps([_VERSION, stamps]).encode()).hexdigest()[:16]
    tables = {
        "version": _VERSION,
        "root": str(root.resolve()),
        "stamps": stamps,
        "views": f"views-{state}.npy",
        "buildings": buildings,
        "starts": [0, *np.cumsum([len(part) for part in parts]).tolist()],
        "domains": [int(np.bitwise_or.reduce(part["domains"])) for part in parts],
        "flat": next((name for name in buildings if found[name]["rgb"].path == "rgb"), None),
        "files": {
            name: {
                building: [found[building][name].path, list(found[building][name].views)]
                for building in buildings
                if name in found[building]
            }
            for name in DOMAINS
        },
    }
    return tables, np.concatenate(parts)
