"""Which views a Taskonomy-like tree holds, kept in a cache between runs (disk/array_cache.py).

The index is a NumPy array with a row a view, and small tables from which a file's path is made. `scan.py` makes both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mult.data.disk.array_cache import ArrayCache, mapped_file
from mult.data.taskonomy.scan import BITS, DOMAINS, Tables, scan
from mult.errors import UserError

_VERSION = json.dumps([3, DOMAINS])
"""Of the cache: an index of other domains, which the bits of a view's `domains` stand for, is not used."""


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
        self._cache = ArrayCache(self.root, "taskonomy", _VERSION)
        stored = self._cache.load()
        if stored is None:
            stamps, self._tables, views = scan(self.root)
            self._views = self._cache.save(stamps, self._tables, {"views": views})["views"]
        else:
            self._tables, self._views = cast(Tables, stored[0]), stored[1]["views"]
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
        # A worker maps the file again instead of getting a copy of it.
        state["_views"] = mapped_file(self._views) or self._views
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(file := state["_views"], str):
            views = self._cache.open(file)
            self._views = self._scan_again(file) if views is None else views

    def _scan_again(self, file: str) -> NDArray[np.void]:
        """The views of the tree, if they are those that the process has which sent this index."""
        _, _, views = scan(self.root)
        if self._cache.file_name("views", views) != file:
            raise UserError(
                f"{self.root}: got a tree that changed while it was in use, and {self._cache.folder / file} is gone; expected "
                "the list of its files in the cache; start again, and do not clear the cache meanwhile"
            )
        return views
