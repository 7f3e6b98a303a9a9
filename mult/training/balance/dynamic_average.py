"""Weights from how fast losses fall: dynamic weight average, Liu, Johns and Davison, "End-to-end multi-task learning with
attention" (CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.amp import GradScaler

from mult.config.sections import Count, Positive
from mult.training.balance.balance import Setup
from mult.training.balance.weighted_sum import WeightedSum


@dataclass(frozen=True, kw_only=True)
class DynamicAverageOptions:
    """`balance.options` of dwa."""

    temperature: Positive = 2.0
    period: Count | None = None
    """The number of steps over which losses are averaged; None: the steps of an epoch, rounded."""


class DynamicAverage(WeightedSum):
    """The slower a task's loss fell from one period to the next, the larger its weight.

    The weights are (number of tasks) * softmax(r / temperature), with r the task's mean loss of the last period over that of
    the period before, and 1 during the first two periods. A mean is over the steps that have labels of the task; without two
    means r is 1. Deviation: the paper's period is an epoch, here it is `period` steps.
    """

    def __init__(self, setup: Setup, options: DynamicAverageOptions) -> None:
        super().__init__(setup)
        self.temperature, self.period = options.temperature, options.period or setup.steps_per_epoch
        self._means: list[dict[str, float]] = []
        self._start_period()

    def _start_period(self) -> None:
        self._step, self._sums, self._counts = 0, dict.fromkeys(self.task_weights, 0.0), dict.fromkeys(self.task_weights, 0)

    def weights(self) -> dict[str, float]:
        if len(self._means) < 2:
            return self.task_weights
        before, last = self._means
        ratios = [last[task] / before[task] if before.get(task) and task in last else 1.0 for task in self.task_weights]
        shares = torch.softmax(torch.tensor(ratios, dtype=torch.float64) / self.temperature, 0).tolist()
        return {
            task: weight * share * len(ratios) for (task, weight), share in zip(self.task_weights.items(), shares, strict=True)
        }

    def learn(self, losses: Mapping[str, float], scaler: GradScaler) -> None:
        self._step += 1
        for task, loss in losses.items():
            self._sums[task] += loss
            self._counts[task] += loss != 0
        if self._step == self.period:
            means = {task: self._sums[task] / count for task, count in self._counts.items() if count}
            self._means = [*self._means, means][-2:]
            self._start_period()

    def get_extra_state(self) -> Any:
        return {"step": self._step, "sums": self._sums, "counts": self._counts, "means": self._means}

    def set_extra_state(self, state: Any) -> None:
        self._step, self._sums = state["step"], dict(state["sums"])
        self._counts, self._means = dict(state["counts"]), list(state["means"])
