"""A part of a dataset's training split that is not trained on, to choose by where a benchmark has no validation split."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

from torch.utils.data import Dataset

from mult.data.sample import Reader, Sample, wrap_index
from mult.errors import UserError

HELD_OUT = "held_out"
"""The name of the split that `data.hold_out` takes from the training split."""


class PartOfSplit(Dataset[Sample]):
    """The views of a reader that are held out, or all others; every other attribute is the reader's.

    Scenes are held out whole, and views one by one where the reader names no scene. Which ones is a function of their names
    alone, so that runs of all seeds hold out the same, and a view more or less leaves the others where they are. Raises
    UserError where one of the two parts would be empty.
    """

    def __init__(self, reader: Reader, share: float, held_out: bool) -> None:
        self.reader = reader
        units = [reader.group(i) or reader.name(i) for i in range(len(reader))]
        sizes = Counter(units)
        selection: set[str] = set()
        views = 0
        for unit in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
            if views >= share * len(units):
                break
            selection.add(unit)
            views += sizes[unit]
        if len(selection) in (0, len(sizes)):
            raise UserError(
                f"data.hold_out: got {share} of {len(sizes)} scenes ({len(units)} views) of {reader.root}; expected some to "
                "hold out and some to train on; choose a smaller share, or leave it out"
            )
        self._indices = [i for i, unit in enumerate(units) if (unit in selection) == held_out]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> Sample:
        return self.reader[self._index(i)]

    def name(self, i: int) -> str:
        return self.reader.name(self._index(i))

    def group(self, i: int) -> str:
        return self.reader.group(self._index(i))

    def native(self, i: int) -> frozenset[str]:
        return self.reader.native(self._index(i))

    def camera(self, i: int) -> Any:
        return self.reader.camera(self._index(i))

    def _index(self, i: int) -> int:
        return self._indices[wrap_index(i, len(self))]

    def __getattr__(self, name: str) -> Any:
        if name == "reader":  # pickle asks for attributes before it has set any: without this the next line has no end
            raise AttributeError(name)
        return getattr(self.reader, name)
