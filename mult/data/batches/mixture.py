"""Datasets as training sees them: one after the other as one, whose samples all have the same tasks.

A sample of which a file is bad is an error or, by `data.on_bad_file`, skipped: it keeps its place, so that all others are the
same as without it on any number of workers and processes, but nothing of it is valid, so that no loss and no metric counts
it. Never is another sample put in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from mult.data.sample import BadFileError, Sample, empty_target
from mult.errors import UserError
from mult.tasks import TASKS

DEPTH = "depth_zbuffer"
BLANK = (32, 32)
"""Height and width of a skipped sample, which transforms bring to the network's size as they do all others."""


class Reader(Protocol):
    """What a mixture needs of a dataset: samples, their tasks, class names, groups (buildings) and the unit of depth."""

    @property
    def metric_depth(self) -> bool: ...
    @property
    def tasks(self) -> Sequence[str]: ...
    @property
    def classes(self) -> dict[str, list[str]]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Sample: ...
    def name(self, i: int, /) -> str: ...
    def group(self, i: int, /) -> str: ...


class Mixture(Dataset[Sample]):
    """Map-style dataset of all samples of some readers, in their order; how often each is drawn is the sampler's business.

    Every sample has all of `tasks`, in their order, valid nowhere where its reader lacks one. `classes`: names of the
    categorical tasks, as `label_spaces` finds them. With `skip_bad_files` a sample of which a file is bad is valid nowhere and
    says so in `bad`; without, the reader's BadFileError goes on.
    """

    def __init__(
        self, readers: Sequence[Reader], tasks: Iterable[str], classes: dict[str, list[str]], skip_bad_files: bool = False
    ) -> None:
        self.readers, self.tasks, self.classes = list(readers), tuple(tasks), classes
        self.skip_bad_files = skip_bad_files
        self.metric_depth = all(reader.metric_depth for reader in readers)
        self.lengths = [len(reader) for reader in readers]
        self._starts = [0, *accumulate(self.lengths)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i: int) -> Sample:
        reader, place = self._find(i)
        try:
            sample = reader[place]
        except BadFileError as error:
            if not self.skip_bad_files:
                raise
            blank = torch.zeros(3, *BLANK)
            sample = {"image": blank, "targets": {}, "valid": {}, "id": reader.name(place), "derived": (), "bad": str(error)}
        height, width = sample["image"].shape[-2:]
        targets, valid = {}, {}
        for task in self.tasks:
            if task in sample["targets"]:
                targets[task], valid[task] = sample["targets"][task], sample["valid"][task]
            else:
                targets[task], valid[task] = empty_target(TASKS[task], height, width)
        return {**sample, "targets": targets, "valid": valid}

    def group(self, i: int) -> str:
        """The building of a sample."""
        reader, place = self._find(i)
        return reader.group(place)

    def _find(self, i: int) -> tuple[Reader, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        source = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.readers[source], i - self._starts[source]


def label_spaces(readers: Sequence[Reader], names: Sequence[str]) -> dict[str, list[str]]:
    """The class names of each categorical task that a reader has; `names` say in messages which reader is which.

    Raises UserError where two readers give different classes to one task, and for depth in metres beside relative depth.
    """
    units = {reader.metric_depth: name for reader, name in zip(readers, names, strict=True) if DEPTH in reader.tasks}
    if len(units) == 2:
        raise UserError(
            f"data: got two units of {DEPTH}: {units[True]} has metres, {units[False]} has depth of no known scale; expected "
            "one; give the latter its scale in data.options, or train without it"
        )
    found: dict[str, tuple[str, list[str]]] = {}
    for reader, name in zip(readers, names, strict=True):
        for task, classes in reader.classes.items():
            other, expected = found.setdefault(task, (name, classes))
            if classes != expected:
                raise UserError(
                    f"data: got two label spaces of {task}: {other} has {_some(expected)}, {name} has {_some(classes)}; "
                    "expected one; map the classes of one to the other's with data.class_map in its section"
                )
    return {task: classes for task, (_, classes) in found.items()}


def _some(classes: list[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:4])}{', ...' if len(classes) > 4 else ''})"
