"""The learning rate over the steps: `optim.schedule` -> a factor of every group's rate."""

from __future__ import annotations

import math
from collections.abc import Callable

from mult.config import OptimConfig


def build_schedule(optim: OptimConfig) -> Callable[[int], float]:
    """Step -> factor of every learning rate. It depends on the step alone, so that a resumed run can be given more steps."""
    decay_steps = max(1, optim.steps - optim.warmup)

    def factor(step: int) -> float:
        if optim.schedule == "onecycle":
            return _one_cycle(step, optim.warmup, optim.steps)
        if step < optim.warmup:
            return (step + 1) / optim.warmup
        remaining = 1 - min(1.0, (step - optim.warmup) / decay_steps)
        if optim.schedule == "poly":
            return remaining**optim.power
        return 1.0 if optim.schedule == "constant" else 0.5 * (1 - math.cos(math.pi * remaining))

    return factor


def _one_cycle(step: int, warmup: int, steps: int) -> float:
    """torch's OneCycleLR with its default factors and constant betas.

    A cosine rises from 1 / 25 to 1 at the last step of the warmup, another falls to 1 / 250,000 at the last step of all.
    """
    start, end, top = 1 / 25, 1 / 250_000, max(0, warmup - 1)
    if step < top:
        return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * step / top))
    progress = min(1.0, (step - top) / max(1, steps - 1 - top))
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress))
