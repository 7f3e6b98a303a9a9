"""A part of a dataset's training split that is not trained on, to choose by where a benchmark has no validation split."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from mult.data.sample import Reader, Sample, wrap_index
from mult.errors import UserError, pluralize

HELD_OUT = "held_out"
"""The name of the split that `data.hold_out` takes from the training split."""


class PartOfSplit(Dataset[Sample]):
    """The views of a reader that are held out, or all others; every other attribute is the reader's.

    Scenes are held out whole, and views one by one where the reader names no scene. Which ones is a function of their names
    alone, so that runs of all seeds hold out the same, and a view more or less leaves the others where they are. Of a view
    four bytes are kept. Raises UserError where one of the two parts would be empty.
    """

    def __init__(self, reader: Reader, share: float, held_out: bool) -> None:
        self.reader = reader
        views = len(reader)
        hashes = np.fromiter((_hash(reader.group(i) or reader.name(i)) for i in range(views)), np.uint64, views)
        scenes, sizes = np.unique(hashes, return_counts=True)
        views_before = sizes.cumsum() - sizes
        number = int(np.searchsorted(views_before, share * views))
        if number in (0, len(scenes)):
            raise UserError(
                f"data.hold_out: got {share} of {pluralize(len(scenes), 'scene')} ({pluralize(views, 'view')}) of "
                f"{reader.root}; expected some to hold out and some to train on; choose a smaller share, or leave it out"
            )
        self._indices = np.flatnonzero((hashes < scenes[number]) == held_out).astype(np.int32)

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
        return int(self._indices[wrap_index(i, len(self))])

    def __getattr__(self, name: str) -> Any:
        if name == "reader":  # pickle asks for attributes before it has set any: without this the next line has no end
            raise AttributeError(name)
        return getattr(self.reader, name)


def _hash(name: str) -> int:
    """The place of a scene in the order in which scenes are held out."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
