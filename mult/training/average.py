"""An exponential moving average of the weights, which is evaluated and saved in place of the newest weights (`optim.ema`)."""

from __future__ import annotations

import torch

from mult.models import MulT


@torch.no_grad()
def update_average(average: MulT, model: MulT, max_decay: float, step: int) -> None:
    """average <- decay * average + (1 - decay) * model, after `step` steps.

    decay = min(max_decay, (1 + step) / (10 + step)), as in TensorFlow's ExponentialMovingAverage, so that the average soon
    forgets the initial weights. Buffers, which are statistics of the data (batch norm), are copied.
    """
    decay = min(max_decay, (1 + step) / (10 + step))
    for averaged, parameter in zip(average.parameters(), model.parameters(), strict=True):
        averaged.lerp_(parameter, 1 - decay)
    for copied, buffer in zip(average.buffers(), model.buffers(), strict=True):
        copied.copy_(buffer)
