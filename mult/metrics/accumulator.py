"""What all metrics share: sums of errors over pixels, for the dataset and for every image, divided once at the end.

An accumulator adds up `sums` on the CPU and divides in `compute`, so that a metric depends neither on the batch size nor on
the number of processes, which add up their `sums` tensor by tensor. Counts are int64 and exact; other sums are float64, of
differences taken in the precision of the prediction. `update` returns what each image added, and `divide` computes metrics
from such sums with any leading axes: resamples of a bootstrap go through the same formulas as the dataset. Fractions are in
[0, 1], and a threshold itself does not pass.

mult/metrics/README.md defines every metric and says how to add one.
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

UnitAndDirection = tuple[str | None, Literal["higher", "lower"]]
"""A metric's unit ("" for a plain number, None for the task's own) and which values are better."""

Constant = int | NDArray[np.float64]
"""A constant prediction: a class id, or one number a channel (C,)."""

Sums = Mapping[str, NDArray[Any]]
"""{sum: array}; the leading axes are images or resamples, and there are none for a dataset."""


class Accumulator(ABC):
    """The sums of one task's errors over any number of batches, and the metrics computed from them.

    A subclass defines, in one file:

    - METRICS: each metric -> its unit and direction; PRIMARY: the metric that delta_m compares.
    - NEEDS: each metric -> the names of the sums it is computed from. With (total, count) it is their quotient, or the root
      of it if the name of the total ends with "squared"; for another formula the subclass overrides `_divide`.
    - `sums`, made in `__init__` (see `zeros`): a tensor of zeros for each sum; "pixels", the number that counted, is one.
    - DATASET_SUMS: names of sums that are too large to store for every image; `update` does not return them.
    - `_measure`: what a batch adds to each sum.
    - `fit_constants`: the best constant prediction for each metric.
    """

    METRICS: Mapping[str, UnitAndDirection]
    NEEDS: Mapping[str, tuple[str, ...]]
    PRIMARY: str
    DATASET_SUMS: Collection[str] = ()
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
            amounts = {name: measures[name]().cpu() for name in self.sums}
        for name, amount in amounts.items():
            self.sums[name] += amount if name in self.DATASET_SUMS else amount.sum(0)
        return {
            name: amount.numpy() if amount.is_floating_point() else amount.numpy().astype(np.int32)
            for name, amount in amounts.items()
            if name not in self.DATASET_SUMS
        }

    def merge(self, other: Accumulator) -> None:
        """Add the sums of another accumulator of the same class and metrics."""
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
        is_finite = all(np.isfinite(amount).all() for amount in sums.values())
        values = {metric: float(value) for metric, value in self.divide(sums).items()}
        return {metric: None if math.isnan(value) and is_finite else value for metric, value in values.items()}

    def divide(self, sums: Sums) -> dict[str, NDArray[np.float64]]:
        """{metric: (...)} from sums (..., *shape of the sum); NaN where no pixel defines it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {metric: self._divide(metric, sums) for metric in self.METRICS}

    def restrict(self, metrics: Collection[str]) -> Accumulator:
        """An empty accumulator of the same class that measures only the sums that these metrics need."""
        restricted = copy.copy(self)
        restricted.METRICS = {metric: kind for metric, kind in self.METRICS.items() if metric in metrics}
        needs = {"pixels"}.union(*(self.NEEDS[metric] for metric in restricted.METRICS))
        restricted.sums = {name: torch.zeros_like(amount) for name, amount in self.sums.items() if name in needs}
        return restricted

    @property
    def pixels(self) -> int:
        """The number of pixels that counted."""
        return int(self.sums["pixels"])

    @property
    def notes(self) -> dict[str, Any]:
        """Facts, as JSON, that an evaluation writes beside the primary metric."""
        return {}

    @property
    def diagnostics(self) -> dict[str, NDArray[Any]]:
        """Arrays over the whole dataset that a report draws: a confusion matrix, a histogram and its edges."""
        return {}

    @staticmethod
    @abstractmethod
    def fit_constants(values: NDArray[Any]) -> dict[str, Constant]:
        """The trivial baseline: for each metric the best constant prediction of pixels `values` (N, C), N > 0."""

    @abstractmethod
    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        """{sum: a function that returns what each image adds to it, (B, ...)}, for every sum that the class has.

        For DATASET_SUMS the function returns what the batch adds. `update` calls only the functions of the sums in `sums`.
        """

    def _divide(self, metric: str, sums: Sums) -> NDArray[np.float64]:
        """One metric from sums with any leading axes."""
        total, count = self.NEEDS[metric]
        quotient = sums[total] / sums[count]
        return np.sqrt(quotient) if total.endswith("squared") else quotient


def sum_per_image(values: Tensor) -> Tensor:
    """(B, ...) -> (B,): int64 counts of bools, float64 sums of the rest."""
    # Tensor.sum with a dtype is several times slower than these.
    return values.flatten(1).count_nonzero(1) if values.dtype == torch.bool else values.flatten(1).double().sum(1)


def zeros(counts: Collection[str], totals: Collection[str]) -> dict[str, Tensor]:
    """Scalar sums to start from: int64 for `counts`, float64 for `totals`."""
    return {name: torch.zeros((), dtype=torch.int64) for name in counts} | {
        name: torch.zeros((), dtype=torch.float64) for name in totals
    }
