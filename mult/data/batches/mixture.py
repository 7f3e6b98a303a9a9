"""The training dataset: several datasets one after the other, all of whose samples have the same tasks.

A sample with a missing or damaged file is an error or, with `data.on_bad_file: skip`, has no valid pixel, so that no loss and
no metric counts it. It keeps its index: the other samples, and the batches that they are in, are the same as without the
damage, on any number of workers and processes. No other sample replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch.utils.data import Dataset

from mult.data.sample import BadFileError, Reader, Sample, empty_target
from mult.errors import UserError, pluralize
from mult.tasks import TASKS

SKIPPED_SIZE = (32, 32)
"""Height and width of a skipped sample, which transforms resize to the network's size as they do all others."""


class Mixture(Dataset[Sample]):
    """Map-style dataset of all samples of some readers, in their order; how often each is drawn is up to the sampler.

    Every sample has all of `tasks`, in their order; a task that its reader lacks is valid nowhere. `classes`: the class names
    of the categorical tasks, from `merge_label_spaces`. With `skip_bad_files` a sample with a missing or damaged file is valid
    nowhere and has the message in `bad`; without, the reader's BadFileError is raised.
    """

    def __init__(
        self, readers: Sequence[Reader], tasks: Iterable[str], classes: dict[str, list[str]], skip_bad_files: bool = False
    ) -> None:
        self.readers, self.tasks, self.classes = list(readers), tuple(tasks), classes
        self.skip_bad_files = skip_bad_files
        self.metric_depth = all(reader.metric_depth for reader in readers)
        self.metric_arguments = readers[0].metric_arguments  # a mixture is evaluated on its first dataset
        self.lengths = [len(reader) for reader in readers]
        self._starts = [0, *accumulate(self.lengths)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i: int) -> Sample:
        reader, position = self._find(i)
        try:
            sample = reader[position]
        except BadFileError as error:
            if not self.skip_bad_files:
                raise
            black = torch.zeros(3, *SKIPPED_SIZE)
            sample = {"image": black, "targets": {}, "valid": {}, "id": reader.name(position), "derived": (), "bad": str(error)}
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
        reader, position = self._find(i)
        return reader.group(position)

    def _find(self, i: int) -> tuple[Reader, int]:
        """The reader that sample `i` comes from, and its index there."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        source = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.readers[source], i - self._starts[source]


def merge_label_spaces(readers: Sequence[Reader], names: Sequence[str]) -> dict[str, list[str]]:
    """The class names of each categorical task that a reader has; `names` are what error messages call the readers.

    Raises UserError where two readers give different classes to one task, and for depth in metres beside relative depth.
    """
    of_depth = {task.name for task in TASKS.values() if task.unitless_metric is not None}
    units = {reader.metric_depth: name for reader, name in zip(readers, names, strict=True) if of_depth & set(reader.tasks)}
    if len(units) == 2:
        raise UserError(
            f"data: got two units of depth: {units[True]} has metres, {units[False]} has depth of no known scale; expected "
            "one; give the latter its scale in data.options, or train without it"
        )
    spaces: dict[str, tuple[str, list[str]]] = {}
    for reader, name in zip(readers, names, strict=True):
        for task, classes in reader.classes.items():
            other, expected = spaces.setdefault(task, (name, classes))
            if classes != expected:
                raise UserError(
                    f"data: got two label spaces of {task}: {other} has {_describe(expected)}, {name} has "
                    f"{_describe(classes)}; expected one; map the classes of one to the other's with data.class_map in its "
                    "section"
                )
    return {task: classes for task, (_, classes) in spaces.items()}


def _describe(classes: list[str]) -> str:
    return f"{pluralize(len(classes), 'class')} ({', '.join(classes[:4])}{', ...' if len(classes) > 4 else ''})"
