"""TODOC"""

from __future__ import annotations

import math
from collections.abc import Callable

from mult.config import OptimConfig


def build_schedule(optim: OptimConfig) -> Callable[[int], float]:
    """Step -> factor of every learning rate. A function of the step alone, so that a resumed run may be made longer."""
    last = max(1, optim.steps - optim.warmup)

    def factor(step: int) -> float:
        if optim.schedule == "onecycle":
            return _one_cycle(step, optim.warmup, optim.steps)
        if step < optim.warmup:
            return (step + 1) / optim.warmup
        left = 1 - min(1.0, (step - optim.warmup) / last)
        if optim.schedule == "poly":
            return left**optim.power
        return 1.0 if optim.schedule == "constant" else 0.5 * (1 - math.cos(math.pi * left))

    return factor


def _one_cycle(step: int, warmup: int, steps: int) -> float:
    """torch's OneCycleLR with its defaults, but that the betas stay: a cosine from 1 / 25 up to 1 at the last step of the
    warmup, another down to 1 / 250,000 at the last of all.
    """
    start, end, top = 1 / 25, 1 / 250_000, max(0, warmup - 1)
    if step < top:
        return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * step / top))
    down = min(1.0, (step - top) / max(1, steps - 1 - top))
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * down))
