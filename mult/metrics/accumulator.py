"""What all metrics share: sums over pixels, kept for the dataset and, compact, for every image, and divided once.

An accumulator adds up `sums` (on the CPU) and divides in `compute`, so the numbers depend neither on the batch size nor on
the number of processes (which add up `sums`, tensor by tensor). Counts are int64 and exact; other sums are float64, of
differences taken in the precision of the prediction. `update` gives back what each image added; `divide` makes metrics of
such sums with any leading axes, so that the resamples of a bootstrap go through the same formulas as the dataset.
Fractions are in [0, 1]; all thresholds are strict.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.errors import UserError

Kind = tuple[str | None, Literal["higher", "lower"]]
"""A metric's unit ("" a plain number, None the task's own) and which direction is better."""

Constant = int | NDArray[np.float64]
"""A constant prediction: a class id, or one number a channel (C,)."""

Sums = Mapping[str, NDArray[Any]]
"""{sum: array}; the leading axes are whatever was measured apart: images, resamples, or none for a dataset."""


class Accumulator(ABC):
    """Sums of one task's errors over as many batches as come; PRIMARY is the metric that delta_m compares.

    NEEDS says which sums a metric is made of: the total and the count it is divided by, unless `_figure` knows better.
    TOTALS names sums that are kept for the dataset alone, being too large to keep for every image.
    """

    METRICS: Mapping[str, Kind]
    NEEDS: Mapping[str, tuple[str, ...]]
    PRIMARY: str
    TOTALS: Collection[str] = ()
    sums: dict[str, Tensor]

    def update(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, NDArray[Any]]:
        """Add a batch: decoded, at the target's size; (B, H, W) int64 or (B, C, H, W), valid (B, 1, H, W) bool.

        Returns what each image added, {sum: (B, ...)}, counts as int32. UserError where shapes disagree.
        """
        expected_valid = (target.shape[0], 1, *target.shape[-2:])
        if prediction.shape != target.shape or valid.shape != expected_valid or valid.dtype != torch.bool:
            raise UserError(
                f"{type(self).__name__}.update: got prediction {tuple(prediction.shape)}, target "
                f"{tuple(target.shape)}, valid {tuple(valid.shape)} {valid.dtype}; expected equal shapes and valid "
                f"(B, 1, H, W) torch.bool; resize the prediction to the target's size"
            )
        with torch.no_grad():
            measures = self._measure(prediction, target, valid)
            measured = {name: measures[name]().cpu() for name in self.sums}
        for name, amount in measured.items():
            self.sums[name] += amount if name in self.TOTALS else amount.sum(0)
        return {
            name: amount.numpy() if amount.is_floating_point() else amount.numpy().astype(np.int32)
            for name, amount in measured.items()
            if name not in self.TOTALS
        }

    def merge(self, other: Accumulator) -> None:
        """Add what another accumulator of the same kind has seen."""
        if type(other) is not type(self) or other.METRICS != self.METRICS:
            raise UserError(
                f"{type(self).__name__}.merge: got {type(other).__name__} with {sorted(other.METRICS)}; "
                f"expected {sorted(self.METRICS)}; merge accumulators of the same task and classes"
            )
        for name, amount in other.sums.items():
            self.sums[name] += amount

    def compute(self) -> dict[str, float | None]:
        """Every metric over all pixels so far; None where no pixel defines it, NaN where the sums are not finite."""
        sums = {name: amount.numpy() for name, amount in self.sums.items()}
        is_broken = not all(np.isfinite(amount).all() for amount in sums.values())
        values = {metric: float(value) for metric, value in self.divide(sums).items()}
        return {metric: None if math.isnan(value) and not is_broken else value for metric, value in values.items()}

    def divide(self, sums: Sums) -> dict[str, NDArray[np.float64]]:
        """{metric: (...)} of sums (..., *shape of the sum); NaN where no pixel defines it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {metric: self._figure(metric, sums) for metric in self.METRICS}

    def only(self, metrics: Collection[str]) -> Accumulator:
        """An empty accumulator of the same kind that measures no more than these metrics need."""
        restricted = copy.copy(self)
        restricted.METRICS = {metric: kind for metric, kind in self.METRICS.items() if metric in metrics}
        needed = {"pixels"}.union(*(self.NEEDS[metric] for metric in restricted.METRICS))
        restricted.sums = {name: torch.zeros_like(amount) for name, amount in self.sums.items() if name in needed}
        return restricted

    @property
    def pixels(self) -> int:
        """How many pixels have counted."""
        return int(self.sums["pixels"])

    def notes(self) -> dict[str, Any]:
        """What a reader of the numbers should know beside them, as JSON."""
        return {}

    def totals(self) -> dict[str, NDArray[Any]]:
        """What is worth keeping of the whole dataset beside the metrics: a confusion matrix, a histogram and its edges."""
        return {}

    @staticmethod
    @abstractmethod
    def constants(values: NDArray[Any]) -> dict[str, Constant]:
        """The trivial baseline: for each metric the best constant prediction of pixels `values` (N, C), N > 0."""

    @abstractmethod
    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        """{sum: a function that gives what each image adds to it (B, ...), or, of TOTALS, the batch}; of all sums there are."""

    def _figure(self, metric: str, sums: Sums) -> NDArray[np.float64]:
        """One metric of sums with any leading axes; by default a quotient, or the root of one where a sum is of squares."""
        total, count = self.NEEDS[metric]
        quotient = sums[total] / sums[count]
        return np.sqrt(quotient) if total.endswith("squared") else quotient


def per_image(values: Tensor) -> Tensor:
    """(B, ...) -> (B,): int64 counts of bools, float64 sums of the rest."""
    # Tensor.sum with a dtype is several times slower than these.
    return values.flatten(1).count_nonzero(1) if values.dtype == torch.bool else values.flatten(1).double().sum(1)


def zeros(counts: Collection[str], totals: Collection[str]) -> dict[str, Tensor]:
    return {name: torch.zeros((), dtype=torch.int64) for name in counts} | {
        name: torch.zeros((), dtype=torch.float64) for name in totals
    }
