"""What an interrupted check of a dataset had read: kept on the disk, so that the next call reads the other views only.

A folder has a file a block of views. Blocks in which a problem was found are not kept: their files may be repaired meanwhile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """The views of a check that are done, and those that remain.

    `folder` is None where nothing is to be kept; `call` says in values that JSON can hold what is checked, and how.
    """

    def __init__(self, folder: Path | None, call: Sequence[Any], indices: Sequence[int]) -> None:
        key = hashlib.sha256(json.dumps(call).encode()).hexdigest()[:16]
        self._folder = folder and folder / key
        self._blocks = [list(indices[start : start + BLOCK]) for start in range(0, len(indices), BLOCK)]
        self._block_of = {index: number for number, block in enumerate(self._blocks) for index in block}
        self._done = {number: views for number in range(len(self._blocks)) if (views := self._load(number)) is not None}
        self.remaining = [index for number, block in enumerate(self._blocks) if number not in self._done for index in block]

    def keep(self, new: Iterable[ViewReport]) -> Iterator[ViewReport]:
        """The reports of the views that are done, then the new ones, in any order, which are kept block by block."""
        for views in self._done.values():
            yield from views
        waiting: dict[int, list[ViewReport]] = {}
        for view in new:
            number = self._block_of[view.index]
            of_block = waiting.setdefault(number, [])
            of_block.append(view)
            if len(of_block) == len(self._blocks[number]):
                self._save(number, waiting.pop(number))
            yield view

    def remove(self) -> None:
        """Forget all: the check has ended."""
        if self._folder is not None:
            remove_folder(self._folder)

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
        return views if {view.index for view in views} == set(self._blocks[number]) else None


def _parse(content: Mapping[str, Any]) -> ViewReport:
    labels = {task: (bool(derived), float(valid)) for task, (derived, valid) in content["labels"].items()}
    warnings = [Problem(**warning) for warning in content["warnings"]]
    return ViewReport(int(content["index"]), labels, [], warnings, content["median_depth"])
