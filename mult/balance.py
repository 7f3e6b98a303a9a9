"""Task losses -> one update. Here: a weighted sum, whose gradient is the weighted sum of the tasks' gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Balance = Callable[[Mapping[str, Tensor]], Tensor]
"""{task: scalar loss} -> the scalar to differentiate."""


def fixed(weights: Mapping[str, float]) -> Balance:
    """The sum of the losses, each times its task's weight (the paper's weights are unknown: 1.0 each by default)."""
    return lambda losses: torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()
