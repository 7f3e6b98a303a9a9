"""Which views a Taskonomy-like tree holds, kept in a cache between runs.

The index is a NumPy array with a row a view, mapped into memory from the cache so that all processes share it, and small
tables from which a file's path is made. `scan.py` makes both.

The cache is in `$XDG_CACHE_HOME/mult/index/<hash of the root>`: `tables.json`, which names the array's file, and
`views-<checksum>.npy`. It is used as long as no scanned folder has changed, which one `stat` a folder tells, and as its
checksums are right; otherwise the tree is scanned again. An array is never changed, and is kept for KEPT_DAYS after a process
last opened it, as a process that uses it starts loader workers, which open it by its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mult.data.taskonomy.scan import BITS, DOMAINS, VIEW, Tables, scan
from mult.errors import UserError
from mult.files import cache_folder, map_array, read_json, write_array, write_text

KEPT_DAYS = 30

_FORMAT = json.dumps([2, DOMAINS])
"""The version of the cache's files, and what the bits of a view's `domains` mean: an index of other domains is not used."""


class Index:
    """The views of a tree, sorted by building, point and view; only views with an rgb file count.

    `buildings` are sorted names; `flat` is the name given to the building of a tree that names none: the root's own. Raises
    UserError where there is no such folder, and as `scan` does.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(
                f"data.root: got {str(root)!r}, which is no folder; expected the root of a tree in Taskonomy's layout; "
                "correct the path or download the data"
            )
        self._cache = cache_folder(self.root)
        if not self._load():
            self._tables, self._views = scan(self.root)
            self._name = _name_views(self._views)
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
        """The kinds of files (DOMAINS) that at least one view of the building has."""
        bits = self._tables["domains"][self.buildings.index(building)]
        return {name for name, bit in BITS.items() if bits & bit}

    def view(self, row: int) -> tuple[str, int, int]:
        """Building, point and view number of a row."""
        building, point, view, _ = self._views[row].item()
        return self.buildings[building], point, view

    def path(self, row: int, domain: str) -> Path | None:
        """The file of a domain for a row, None where the view has none."""
        building, point, view, domains = self._views[row].item()
        if not domains & BITS[domain]:
            return None
        folder, endings = self._tables["files"][domain][self.buildings[building]]
        paths = [self.root / folder / f"point_{point}_view_{view}_domain_{ending}" for ending in endings]
        # Few folders mix endings: only there is the disk asked which of them this view has.
        return paths[0] if len(paths) == 1 else next((path for path in paths if path.exists()), paths[0])

    # --- Workers of a loader ---

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if isinstance(self._views, np.memmap):
            state["_views"] = None  # a worker maps the file again instead of getting a copy of it
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._views is None:
            views = self._map()
            self._views = self._scan_again() if views is None else views

    def _scan_again(self) -> NDArray[np.void]:
        """The views of the tree, if they are those that the process has which sent this index."""
        _, views = scan(self.root)
        if _name_views(views) != self._name:
            raise UserError(
                f"{self.root}: got a tree that changed while it was in use, and {self._cache / self._name} is gone; expected "
                "the list of its files in the cache; start again, and do not clear the cache meanwhile"
            )
        return views

    # --- The cache ---

    def _load(self) -> bool:
        """Take tables and views from the cache; False where it is absent, damaged or of another state of the tree."""
        try:
            content = read_json(self._cache / "tables.json")
            checksum = content.pop("checksum", None)
            if checksum != _checksum(json.dumps(content).encode()):
                return False
            if content["format"] != _FORMAT or content["root"] != str(self.root.resolve()):
                return False
            tables = cast(Tables, content["tables"])
            if any(os.stat(self.root / folder).st_mtime_ns != stamp for folder, stamp in tables["stamps"].items()):
                return False
        except (OSError, UserError, RecursionError):
            return False
        self._tables, self._name = tables, content["views"]
        views = self._map()
        if views is None:
            return False
        self._views = views
        return True

    def _save(self) -> None:
        """Write the cache, the tables last as they name the array, and map it. Where that fails the index stays in memory."""
        content = {"format": _FORMAT, "root": str(self.root.resolve()), "views": self._name, "tables": self._tables}
        checksum = _checksum(json.dumps(content).encode())
        try:
            if self._map() is None:
                write_array(self._cache / self._name, self._views)
            write_text(self._cache / "tables.json", json.dumps({**content, "checksum": checksum}))
        except OSError as error:
            warnings.warn(
                f"the index of {self.root} cannot be kept in {self._cache} ({error}): the tree is scanned again "
                "at every start; set XDG_CACHE_HOME to a folder that can be written",
                stacklevel=3,
            )
            return
        views = self._map()
        self._views = self._views if views is None else views
        self._remove_old_views()

    def _map(self) -> NDArray[np.void] | None:
        """The array in the cache; None where it is missing or damaged."""
        path = self._cache / self._name
        try:
            views = map_array(path)
        except UserError:
            return None
        if views.dtype != VIEW or _name_views(views) != self._name:
            return None
        with suppress(OSError):  # a cache that this process may only read
            os.utime(path)
        return views

    def _remove_old_views(self) -> None:
        for path in set(self._cache.glob("views-*.npy")) - {self._cache / self._name}:
            with suppress(OSError):  # removed by another process, or on Windows in use by one
                if path.stat().st_mtime < time.time() - KEPT_DAYS * 24 * 60 * 60:
                    path.unlink()


def _name_views(views: NDArray[np.void]) -> str:
    return f"views-{_checksum(views.view(np.uint8))[:32]}.npy"


def _checksum(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()
