"""Weights that the first version of the library saved, in which every task had modules of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mult.models.stacked import stacked_tasks


def stack_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first version's state dict of a model -> that of this version, with the tasks' weights stacked.

    Names that mean nothing here stay as they are, for `load_state_dict` to refuse. Raises KeyError where a weight is missing.
    """
    left, names = dict(weights), model.state_dict().keys()
    for name, weight in weights.items():
        value = name.replace(".query_key.linear.", ".value.")
        if value not in weights and re.sub(r"\.streams\.[^.]+\.", ".", value) in names:
            # In the second block of `decoder: released` the reference's query, key and value were one layer.
            left[name], left[value] = weight.split(len(weight) // 3 * 2)
    stacked = {name: torch.stack([_take(left, name, task) for task in tasks]) for name, tasks in stacked_tasks(model).items()}
    return left | stacked


def _take(left: dict[str, Tensor], name: str, task: str) -> Tensor:
    old = re.sub(r"(\.blocks\.\d+)\.", rf"\1.streams.{task}.", name)
    old = re.sub(r"(\.upsamples\.\d+)\.", rf"\1.{task}.", old)
    return left.pop(old)
