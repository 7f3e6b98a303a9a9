"""Arrays that were computed from a dataset's files and take long to compute: kept between runs, mapped into memory.

They are in `$XDG_CACHE_HOME/mult/index/<hash of the root>`: a file `<name>-<key>-<checksum>.npy` for each array and
`<name>.json`, which names these files. They are used as long as no file or folder that they were computed from has changed,
which one `stat` each tells, and as all checksums are right. The file of an array is never changed, and is kept for KEPT_DAYS
after a process last opened it, as a process that uses it starts loader workers, which open it by its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.errors import UserError
from mult.files import cache_folder, map_array, read_json, write_array, write_text

KEPT_DAYS = 30

STAMP_STEP_NS = 3 * 10**9
"""Two changes less than this apart may leave the same time stamp: file systems round it down to up to 2 s (FAT), and the clock
of a file server may differ from ours."""
NO_STAMP = -1
"""In place of a time stamp that the next change might leave as it is; equal to no stamp."""


class ArrayCache:
    """The arrays that are called `name` of the dataset at `root`.

    `version` says what the arrays and facts mean; those of another version are not used.
    """

    def __init__(self, root: Path, name: str, version: str) -> None:
        self.folder = cache_folder(root)
        self._root, self._name = root, name
        self._state = [version, str(root.resolve())]

    def load(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """The facts and the arrays; None if they are missing, damaged, of another version or older than the dataset's files."""
        try:
            content = read_json(self.folder / f"{self._name}.json")
            checksum = content.pop("checksum", None)
            if checksum != _checksum(json.dumps(content).encode()) or content["state"] != self._state:
                return None
            if any(os.stat(self._root / path).st_mtime_ns != stamp for path, stamp in content["stamps"].items()):
                return None
        except (OSError, UserError, RecursionError):
            return None
        arrays = {}
        for key, file in content["files"].items():
            array = self.open(file)
            if array is None or self.file_name(key, array) != file:
                return None
            arrays[key] = array
        return content["facts"], arrays

    def save(
        self, stamps: Mapping[str, int], facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Keep facts, which JSON can hold, and arrays; returns the arrays, mapped into memory.

        `stamps`: {file or folder, relative to the root: its `time_stamp` from before it was read}. Where the cache cannot be
        written, it warns and returns the arrays as they are.
        """
        files = {key: self.file_name(key, array) for key, array in arrays.items()}
        content = {"state": self._state, "stamps": dict(stamps), "files": files, "facts": dict(facts)}
        content["checksum"] = _checksum(json.dumps(content).encode())
        try:
            for key, array in arrays.items():
                stored = self.open(files[key])
                if stored is None or self.file_name(key, stored) != files[key]:
                    write_array(self.folder / files[key], array)
            write_text(self.folder / f"{self._name}.json", json.dumps(content))
        except OSError as error:
            warnings.warn(
                f"the index of {self._root} cannot be kept in {self.folder} ({error}): it is made again at every start; set "
                "XDG_CACHE_HOME to a folder that can be written",
                stacklevel=4,
            )
            return dict(arrays)
        self._remove_old(files)
        return {key: array if (mapped := self.open(files[key])) is None else mapped for key, array in arrays.items()}

    def file_name(self, key: str, array: NDArray[Any]) -> str:
        """The name of an array's file, with a checksum of its type, shape and values."""
        values = array.reshape(-1).view(np.uint8)
        return f"{self._name}-{key}-{_checksum(repr((array.dtype.descr, array.shape)).encode(), values)[:32]}.npy"

    def open(self, file: str) -> NDArray[Any] | None:
        """The array in a file, mapped into memory; None if it is missing or no array."""
        path = self.folder / file
        try:
            array = map_array(path)
        except UserError:
            return None
        with suppress(OSError):  # a cache that this process may only read
            os.utime(path)
        return array

    def _remove_old(self, files: Mapping[str, str]) -> None:
        for path in self.folder.glob(f"{self._name}-*.npy"):
            with suppress(OSError):  # removed by another process, or on Windows in use by one
                if path.name not in files.values() and path.stat().st_mtime < time.time() - KEPT_DAYS * 24 * 60 * 60:
                    path.unlink()


def mapped_file(array: NDArray[Any]) -> str | None:
    """The name of the file that an array of a cache is mapped from; None for an array in memory."""
    return Path(array.filename).name if isinstance(array, np.memmap) and array.filename else None


def time_stamp(path: Path) -> int:
    """When a file or folder last changed, in nanoseconds; NO_STAMP if its next change might leave the same time."""
    stamp = os.stat(path).st_mtime_ns
    # A stamp far in the future, of a wrong clock, is fit for use: the next change sets it to now.
    return NO_STAMP if abs(time.time_ns() - stamp) < STAMP_STEP_NS else stamp


def _checksum(*contents: Any) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
