"""Two tasks whose gradients are known numbers, and every balance method on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mult.models.stacked import Part
from mult.training.balance.balance import Balance, Setup
from mult.training.balance.choose import METHODS
from mult.training.balance.gradients import SharedGradients, reached_parts
from mult.training.balance.torchjd import TorchJDMethod, find_aggregators

UNSCALED = torch.amp.GradScaler("cpu", enabled=False)
ONES = {"a": 1.0, "b": 1.0}
OPTIONS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.4},
    "FairGrad": {"alpha": 1.0},
    "Krum": {"n_byzantine": 0},
    "NashMTL": {"update_weights_every": 3},
    "TrimmedMean": {"trim_number": 0},
}
"""The options without which an aggregator cannot be made, or whose memory would have little effect."""


def list_aggregators() -> list[str]:
    """TorchJD's aggregators that two tasks are enough for (Krum takes three); none where it is not installed."""
    try:
        return sorted(set(find_aggregators()) - {"Krum"})
    except ImportError:
        return []


class Toy:
    """The loss of a task is row . shared + slope * own + a given value, at shared = own = 0.

    As in the decoders, what the tasks own is stacked in one parameter.
    """

    def __init__(self, a: Sequence[float] = (1.0, 0.0), b: Sequence[float] = (-1.0, 1.0)) -> None:
        self.rows = {"a": torch.tensor(a), "b": torch.tensor(b)}
        self.shared = nn.Parameter(torch.zeros(len(a)))
        self.own = nn.Parameter(torch.zeros(2))
        self.slopes = {"a": 2.0, "b": 3.0}
        parts = [Part(self.shared), Part(self.own, 0), Part(self.own, 1)]
        self.gradients = SharedGradients(reached_parts(self.losses({"a": 0, "b": 0}), parts))

    def losses(self, values: Mapping[str, float], share: float = 1.0) -> dict[str, Tensor]:
        """A value of 0 is a task without labels, which has no gradient either. `share`: the part of the step's gradient."""
        return {
            task: share * (value != 0) * (row @ self.shared + self.slopes[task] * own) + value
            for (task, value), row, own in zip(values.items(), self.rows.values(), self.own, strict=True)
        }

    def build(
        self,
        method: str,
        weights: Mapping[str, float] = ONES,
        categorical: Collection[str] = (),
        measure_every: int = 0,
        **options: Any,
    ) -> Balance:
        """A balance method by its name, ours or TorchJD's."""
        setup = Setup(weights, categorical, lambda: self.gradients, measure_every, steps_per_epoch=1)
        if method in METHODS:
            build, options_class = METHODS[method]
            return build(setup, options_class(**options))
        return TorchJDMethod(setup, method, find_aggregators()[method], OPTIONS.get(method, {}) | options)

    def step(
        self, balance: Balance, values: Mapping[str, float], parts: int = 1, scaler: Any = UNSCALED, step: int = 0
    ) -> dict[str, float]:
        """One step as the loop takes it, in equal micro-batches -> what is logged."""
        self.shared.grad = self.own.grad = None
        balance.start_step(step)
        for _ in range(parts):
            balance.backward(self.losses({task: value / parts for task, value in values.items()}, 1 / parts), scaler)
        return balance.finish_step(values, scaler)

    def grad(self, task: str | None = None) -> list[float]:
        """The gradient of the shared parameter, or of what a task owns."""
        gradient = self.shared.grad if task is None else self.own.grad
        assert gradient is not None
        numbers: list[float] = gradient.tolist()
        return numbers if task is None else [numbers[list(self.rows).index(task)]]
