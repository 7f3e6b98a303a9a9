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

MAX_PIXELS = 2**20
"""Pixels scored at a time: the intermediate maps of four images of 512 x 512 stay in a few tens of megabytes."""

Columns = dict[str, NDArray[Any]]
"""{sum: (images, ...)}: what each image added, a row an image."""


class TaskScore:
    """The metrics of one task; `metric_depth` False says that the unit of length of the dataset's labels is unknown.

    `metric_arguments` are what the dataset fixes of the task's metric.
    """

    def __init__(
        self,
        task: Task,
        classes: Sequence[str] | None,
        constants: Mapping[str, Any],
        metric_depth: bool = True,
        **metric_arguments: float,
    ) -> None:
        self.task = task
        if metric_depth or task.unitless_metric is None:
            self.model = task.metric(classes, **metric_arguments)
        else:
            self.model = task.unitless_metric()
        # Metrics whose best constants are equal share an accumulator; a metric without a constant has the primary's.
        self.constants = constants and {name: constants.get(name, constants[task.primary]) for name in self.model.METRICS}
        metrics_of: dict[str, list[str]] = {}
        for name, constant in self.constants.items():
            metrics_of.setdefault(repr(constant), []).append(name)
        self.trivial = {constant: self.model.restrict(names) for constant, names in metrics_of.items()}
        self.labelled_images = torch.zeros(1, dtype=torch.int64)
        self.views = 0
        self.parts: list[tuple[NDArray[np.int64], Columns]] = []
        """(numbers of the views, what each of them added)."""

    def update(self, outputs: Sequence[Tensor], targets: Sequence[Tensor], valid: Sequence[Tensor]) -> None:
        """The raw output (C, h, w) of each view of a batch without padding, and its target and mask at their own size."""
        for places in _group_by_size(valid):
            output, target, mask = (
                torch.stack([maps[i].to(outputs[0].device, non_blocking=True) for i in places])
                for maps in (outputs, targets, valid)
            )
            prediction = self.task.predict(output, (mask.shape[-2], mask.shape[-1]))
            self.parts.append((self.views + np.array(places), self.model.update(prediction, target, mask)))
            self.labelled_images += len(places)
            values = {repr(value): value for value in self.constants.values()}
            for key, accumulator in self.trivial.items():
                accumulator.update(self._fill(values[key], target), target, mask)
        self.views += len(targets)

    def _fill(self, constant: Any, target: Tensor) -> Tensor:
        """The constant as a prediction of the target's shape."""
        if self.task.categorical:
            return torch.full_like(target, constant)
        return torch.tensor(constant, dtype=target.dtype, device=target.device).view(1, -1, 1, 1).expand_as(target)

    def reduce(self) -> Columns:
        """Add up the sums of all processes; returns the columns of all their images, in the order of the dataset."""
        distributed.all_reduce_sum(self.labelled_images)
        for accumulator in (self.model, *self.trivial.values()):
            for amount in accumulator.sums.values():
                distributed.all_reduce_sum(amount)
        columns = {}
        for name, amount in self.model.sums.items():
            if name not in self.model.DATASET_SUMS:
                dtype = np.float64 if amount.is_floating_point() else np.int32
                column = np.zeros((self.views, *amount.shape), dtype)
                for places, part in self.parts:
                    column[places] = part[name]
                columns[name] = interleave([rows.numpy() for rows in distributed.all_gather_rows(torch.from_numpy(column))])
        return columns

    def build_entries(self, columns: Columns, units: bootstrap.Units) -> Entries:
        """{metric: entry}, as the JSON of an evaluation has them; columns as `reduce` returned them."""
        values, notes = self.model.compute(), self.model.notes
        resamples = self.model.divide(bootstrap.resample(columns, units)) if self.model.pixels else {}
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
                "trivial": self._score_constant(metric),
                "pixels": self.model.pixels,
                "images": int(self.labelled_images),
            }
            if interval := bootstrap.estimate_interval(resamples[metric], units.number):
                entries[metric]["interval"] = list(interval)
        entries[self.model.PRIMARY] |= notes
        return entries

    def _score_constant(self, metric: str) -> float | None:
        """The score of the constant that is best for the metric; a metric of one class is scored with the whole task's."""
        return self.trivial[repr(self.constants[metric])].compute()[metric] if self.constants else None


def _group_by_size(valid: Sequence[Tensor]) -> Iterator[list[int]]:
    """The places in a batch of the views that have a valid pixel, by size, in parts of at most MAX_PIXELS."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i, mask in enumerate(valid):
        if mask.any():
            sizes.setdefault(tuple(mask.shape), []).append(i)
    for size, places in sizes.items():
        step = max(1, MAX_PIXELS // math.prod(size))
        yield from (places[start : start + step] for start in range(0, len(places), step))


def interleave(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Rows of the views rank, rank + world, ... of each process -> rows of all views in order."""
    rows = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), np.result_type(*parts))
    for rank, part in enumerate(parts):
        rows[rank :: len(parts)] = part
    return rows
