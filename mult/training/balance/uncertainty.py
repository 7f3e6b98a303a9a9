"""Weights from learnt uncertainties: Kendall, Gal and Cipolla, "Multi-task learning using uncertainty" (CVPR 2018)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.amp import GradScaler

from mult.config.sections import Positive
from mult.training.balance.balance import Setup
from mult.training.balance.weighted_sum import WeightedSum


@dataclass(frozen=True, kw_only=True)
class UncertaintyOptions:
    """`balance.options` of uncertainty."""

    lr: Positive | None = None
    """Of the log-variances; None: optim.lr. It follows the schedule."""


class Uncertainty(WeightedSum):
    """The sum of loss_t / (k sigma_t^2) + log sigma_t, with k = 1 for a task of classes and 2 for one of values.

    The log-variances s = log sigma^2 are learnt and start at 0. In a step where no pixel has a label of the task, the gradient
    of its s is 0.
    """

    def __init__(self, setup: Setup, options: UncertaintyOptions) -> None:
        super().__init__(setup)
        self.lr = options.lr
        self._scales = {
            task: weight * (1.0 if task in setup.categorical else 0.5) for task, weight in setup.task_weights.items()
        }
        self.log_variances = nn.Parameter(torch.zeros(len(self._scales)))
        self._log_variances = [0.0] * len(self._scales)

    def start_step(self, step: int) -> None:
        super().start_step(step)
        # Read once a step: on a GPU the CPU waits here.
        self._log_variances = self.log_variances.tolist()

    def weights(self) -> dict[str, float]:
        pairs = zip(self._scales.items(), self._log_variances, strict=True)
        return {task: scale * math.exp(-log_variance) for (task, scale), log_variance in pairs}

    def learn(self, losses: Mapping[str, float], scaler: GradScaler) -> None:
        # d/ds of weight * loss + s / 2, by hand: the losses are those of the whole step, so that every process computes the
        # same gradient and log sigma is counted once a step instead of once a micro-batch.
        slopes = [0.5 - weight * losses[task] if losses[task] else 0.0 for task, weight in self.weights().items()]
        self.log_variances.grad = torch.tensor(slopes).to(self.log_variances, non_blocking=True) * scaler.get_scale()
