"""What an interrupted check of a dataset had read: kept on the disk, so that the next call reads the other views only.

A folder has a file a block of views. Blocks in which a problem was found are not kept: their files may be repaired meanwhile.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mult.errors import UserError
from mult.files import read_json, remove_folder, write_json

BLOCK = 512
"""Views a file: half a minute of reading."""


@dataclass(frozen=True)
class Problem:
    """One finding: its kind (that of a BadFileError, or "constant") and a message that names the file or view."""

    kind: str
    text: str


@dataclass(frozen=True)
class ViewReport:
    """What was found in one view: {task: (is derived, fraction of valid pixels)}, and its median depth, None without depth."""

    index: int
    labels: Mapping[str, tuple[bool, float]]
    problems: Sequence[Problem]
    warnings: Sequence[Problem]
    median_depth: float | None


class Progress:
    """The reports of the views of a check, those of an interrupted one among them. Of a million views it holds few at a time.

    `folder` is None where nothing is to be kept; `call` says in values that JSON can hold what is checked, and how. indices:
    the views to check, ascending.
    """

    def __init__(self, folder: Path | None, call: Sequence[Any], indices: Sequence[int]) -> None:
        key = hashlib.sha256(json.dumps(call).encode()).hexdigest()[:16]
        self._folder = folder and folder / key
        self._indices = indices

    def reports(self, read: Callable[[Sequence[int]], Iterable[ViewReport]]) -> Iterator[ViewReport]:
        """The reports that were kept, then those that `read` makes of the other views, in any order, kept block by block."""
        remaining = array("q")
        for number in range(-(-len(self._indices) // BLOCK)):
            views = self._load(number)
            if views is None:
                remaining.extend(self._block(number))
            else:
                yield from views
        waiting: dict[int, list[ViewReport]] = {}
        for view in read(remaining):
            number = bisect_left(self._indices, view.index) // BLOCK
            of_block = waiting.setdefault(number, [])
            of_block.append(view)
            if len(of_block) == len(self._block(number)):
                self._save(number, waiting.pop(number))
            yield view

    def remove(self) -> None:
        """Forget all: the check has ended."""
        if self._folder is not None:
            remove_folder(self._folder)

    def _block(self, number: int) -> Sequence[int]:
        return self._indices[number * BLOCK : (number + 1) * BLOCK]

    def _path(self, number: int) -> Path | None:
        return self._folder and self._folder / f"views-{number:06d}.json"

    def _save(self, number: int, views: Sequence[ViewReport]) -> None:
        path = self._path(number)
        if path is not None and not any(view.problems for view in views):
            write_json(path, {"views": [asdict(view) for view in views]})

    def _load(self, number: int) -> list[ViewReport] | None:
        path = self._path(number)
        if path is None or not path.exists():
            return None
        try:
            views = [_parse(content) for content in read_json(path)["views"]]
        except (UserError, KeyError, TypeError, ValueError):
            return None  # damaged: it is read again
        return views if {view.index for view in views} == set(self._block(number)) else None


def _parse(content: Mapping[str, Any]) -> ViewReport:
    labels = {task: (bool(derived), float(valid)) for task, (derived, valid) in content["labels"].items()}
    warnings = [Problem(**warning) for warning in content["warnings"]]
    return ViewReport(int(content["index"]), labels, [], warnings, content["median_depth"])
