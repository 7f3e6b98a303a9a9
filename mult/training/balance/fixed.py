"""The weights of the config, the same at every step."""

from __future__ import annotations

from dataclasses import dataclass

from mult.training.balance.balance import Setup
from mult.training.balance.weighted_sum import WeightedSum


@dataclass(frozen=True, kw_only=True)
class FixedOptions:
    """`balance.options` of fixed: none."""


class Fixed(WeightedSum):
    """sum_t w_t * loss_t with the weights w of the config's `tasks`."""

    def __init__(self, setup: Setup, options: FixedOptions) -> None:
        super().__init__(setup)
