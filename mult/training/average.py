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
    # All tensors in one call: on a GPU a kernel for each would take longer to launch than to run.
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    torch._foreach_copy_(list(average.buffers()), list(model.buffers()))
