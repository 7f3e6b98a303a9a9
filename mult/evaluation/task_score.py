"""One task's metrics while views stream by: of the model and of the best constants over the same pixels, and of every image.

An image keeps the sums that its metrics are made of, not its pixels: 208 bytes for segmentation of 17 classes, 116 for
depth, 1,476 for normals, 20 each for keypoints, edges and reshading, 1.9 kB for all six. Predictions are compared at the
labels' own size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.evaluation import bootstrap
from mult.evaluation.results import NOT_FINITE, Entries
from mult.runtime import distributed
from mult.tasks import Task

PIXELS = 2**20
"""Pixels scored at a time: the intermediate maps of four images of 512 x 512 stay in a few tens of megabytes."""

Columns = dict[str, NDArray[Any]]
"""{sum: (images, ...)}: what each image added, a row an image."""


class Score:
    """The metrics of one task; `metric_depth` False says that the dataset's labels have no known unit of length."""

    def __init__(
        self, task: Task, classes: Sequence[str] | None, constants: Mapping[str, Any], metric_depth: bool = True
    ) -> None:
        self.task = task
        self.model = task.metric(classes) if metric_depth or task.relative is None else task.relative()
        # Metrics whose best constants are equal share an accumulator; one of no constant of its own has the primary's.
        self.constants = constants and {name: constants.get(name, constants[task.primary]) for name in self.model.METRICS}
        sharing: dict[str, list[str]] = {}
        for name, constant in self.constants.items():
            sharing.setdefault(repr(constant), []).append(name)
        self.trivial = {constant: self.model.only(names) for constant, names in sharing.items()}
        self.images = torch.zeros(1, dtype=torch.int64)
        self.seen = 0
        self.added: list[tuple[NDArray[np.int64], Columns]] = []

    def update(self, output: Tensor, targets: Sequence[Tensor], valid: Sequence[Tensor]) -> None:
        """Raw outputs (B, C, h, w) of a batch, and each view's target and mask at their own size."""
        for places in _of_one_size(valid):
            target, mask = (torch.stack([maps[i] for i in places]).to(output.device) for maps in (targets, valid))
            prediction = self.task.predict(output[places], (mask.shape[-2], mask.shape[-1]))
            self.added.append((self.seen + np.array(places), self.model.update(prediction, target, mask)))
            self.images += len(places)
            values = {repr(value): value for value in self.constants.values()}
            for key, accumulator in self.trivial.items():
                accumulator.update(self._constant(values[key], target), target, mask)
        self.seen += len(targets)

    def _constant(self, value: Any, target: Tensor) -> Tensor:
        if self.task.categorical:
            return torch.full_like(target, value)
        return torch.tensor(value, dtype=target.dtype, device=target.device).view(1, -1, 1, 1).expand_as(target)

    def reduce(self) -> Columns:
        """Add up what all processes have seen; returns the columns of all their images, in the order of the dataset."""
        distributed.add(self.images)
        for accumulator in (self.model, *self.trivial.values()):
            for amount in accumulator.sums.values():
                distributed.add(amount)
        columns = {}
        for name, amount in self.model.sums.items():
            if name not in self.model.TOTALS:
                dtype = np.float64 if amount.is_floating_point() else np.int32
                column = np.zeros((self.seen, *amount.shape), dtype)
                for places, added in self.added:
                    column[places] = added[name]
                columns[name] = interleave([part.numpy() for part in distributed.gather(torch.from_numpy(column))])
        return columns

    def entries(self, columns: Columns, unit_of: NDArray[np.int64]) -> Entries:
        """{metric: entry}, as the JSON of an evaluation has them; columns and the unit that each image is drawn with."""
        values, notes = self.model.compute(), self.model.notes()
        number = int(unit_of.max()) + 1
        resampled = self.model.divide(bootstrap.resample(columns, unit_of)) if self.model.pixels else {}
        entries: Entries = {}
        if self.task.primary != self.model.PRIMARY:
            entries[self.task.primary] = {"value": None, "reason": "the unit of the dataset's labels is unknown"}
        for metric, (unit, better) in self.model.METRICS.items():
            value = values[metric]
            if value is None or not math.isfinite(value):
                undefined = "no valid pixel" if self.model.pixels == 0 else "no pixel defines it"
                entries[metric] = {"value": None, "reason": undefined if value is None else NOT_FINITE}
                continue
            entries[metric] = {
                "value": value,
                "unit": self.task.unit if unit is None else unit,
                "better": better,
                "trivial": self._trivial(metric),
                "pixels": self.model.pixels,
                "images": int(self.images),
            }
            if interval := bootstrap.interval(resampled[metric], number):
                entries[metric]["interval"] = interval
        entries[self.model.PRIMARY] |= notes
        return entries

    def _trivial(self, metric: str) -> float | None:
        """The score of the constant that is best for the metric; a metric of one class is scored with the whole task's."""
        return self.trivial[repr(self.constants[metric])].compute()[metric] if self.constants else None


def _of_one_size(valid: Sequence[Tensor]) -> Iterator[list[int]]:
    """The places in a batch of the views that have a valid pixel, those of one size together, in parts of at most PIXELS."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i, mask in enumerate(valid):
        if mask.any():
            sizes.setdefault(tuple(mask.shape), []).append(i)
    for size, places in sizes.items():
        step = max(1, PIXELS // math.prod(size))
        yield from (places[start : start + step] for start in range(0, len(places), step))


def interleave(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """What processes have of views rank, rank + world, ... -> all views in order."""
    whole = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), np.result_type(*parts))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole
