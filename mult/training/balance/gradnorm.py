"""Weights that equalise gradient norms: Chen et al., "GradNorm: gradient normalization for adaptive loss balancing in deep
multitask networks" (ICML 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mult.config.sections import NonNegative, Positive
from mult.training.balance.balance import Setup
from mult.training.balance.gradient_method import GradientMethod

MIN_WEIGHT = 0.01


@dataclass(frozen=True, kw_only=True)
class GradNormOptions:
    """`balance.options` of gradnorm."""

    alpha: NonNegative = 1.5
    """How strongly tasks whose loss falls slowly are favoured; 0: all gradients get the same norm."""
    lr: Positive = 0.025
    """Of the weights, under Adam; it follows no schedule."""


class GradNorm(GradientMethod):
    """Learns weights w, whose sum is the number of tasks, such that slower tasks have larger gradients.

    Let G_i be the norm of task i's weighted gradient, G their mean, and r_i the task's loss over its first one, divided by the
    mean of that over tasks. Then w descends sum_i |G_i - G r_i^alpha|, with the target G r_i^alpha held constant, by Adam at
    rate `lr`, and is scaled back to its sum. Deviations from the paper: norms are over all shared parameters instead of one
    layer; a weight is at least MIN_WEIGHT; tasks without a label in a step are left out of it.
    """

    def __init__(self, setup: Setup, options: GradNormOptions) -> None:
        super().__init__(setup)
        self.alpha = options.alpha
        self._first_losses: dict[str, float] = {}
        # Not a parameter of the module: it stays on the CPU, and every process computes the same numbers.
        self._factors = torch.ones(len(self.task_weights), dtype=torch.float64)
        self._optimizer = torch.optim.Adam([self._factors], lr=options.lr)

    def weights(self) -> dict[str, float]:
        pairs = zip(self.task_weights.items(), self._factors.tolist(), strict=True)
        return {task: weight * factor for (task, weight), factor in pairs}

    def combine(self, matrix: Tensor, losses: Mapping[str, float]) -> tuple[Tensor, dict[str, float]]:
        norms = matrix.norm(dim=1).double().cpu()
        labelled = norms > 0
        self._first_losses = {task: loss for task, loss in losses.items() if loss} | self._first_losses
        ratios = [loss / self._first_losses.get(task, 1.0) for task, loss in losses.items()]
        progress = torch.tensor(ratios, dtype=torch.float64)
        target = norms[labelled].mean() * (progress / progress[labelled].mean()) ** self.alpha
        self._factors.grad = torch.where(labelled, (norms - target).sign() * norms / self._factors, 0.0)
        self._optimizer.step()
        self._factors.clamp_(min=MIN_WEIGHT).mul_(len(norms) / self._factors.sum())
        return matrix.sum(0), dict.fromkeys(self.gradients.tasks, 1.0)

    def get_extra_state(self) -> Any:
        return {"first": self._first_losses, "weights": self._factors, "optimizer": self._optimizer.state_dict()}

    def set_extra_state(self, state: Any) -> None:
        self._first_losses = dict(state["first"])
        self._factors.copy_(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
