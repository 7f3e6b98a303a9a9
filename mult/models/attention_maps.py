"""Recording of attention maps, to draw them: at each decoder stage the map that all tasks share, or those of all tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mult.models.decoder import Decoder
from mult.models.windows import Windows


@dataclass(frozen=True)
class AttentionMap:
    """The attention map of one decoder stage's second block.

    owner: the task whose query and key it is computed from, or LEARNED for the mix of the maps of all. stride: image pixels a
    token. weights: (B * windows, heads, N, N), [query, key], as they are multiplied with the values; a row sums to 1.
    """

    owner: str
    stride: int
    windows: Windows
    weights: Tensor

    def select(self, row: int, column: int, image: int = 0) -> tuple[Tensor, Tensor]:
        """What the token at (row, column) attends to: weights (heads, H, W) over the stage's map, and visible (H, W) bool.

        visible: the tokens that it may attend to, which are those of its window that are not masked out. The weights sum to 1,
        less the weight of padding with `decoder: released`.
        """
        tokens = self._number_tokens()
        window, query = (int(i) for i in (tokens == row * self.windows.size[1] + column + 1).nonzero()[0])
        weights = self.weights[image * len(tokens) + window, :, query]
        mask = self.windows.mask(weights.device)
        visible = torch.ones_like(weights[0]) if mask is None else (mask[window, query] == 0).to(weights.dtype)
        height, width = self.windows.size
        maps = weights.new_zeros(len(weights) + 1, height * width + 1)
        maps.index_add_(1, tokens[window], torch.cat([weights, visible[None]]))
        maps = maps[:, 1:].view(-1, height, width)
        return maps[:-1], maps[-1] > 0

    def _number_tokens(self) -> Tensor:
        """Which token is at each position of each window, (windows, N): 1 + its index in the map, 0 for padding."""
        height, width = self.windows.size
        numbers = torch.arange(1, height * width + 1, device=self.weights.device).view(1, 1, height, width, 1)
        return self.windows.cut(numbers, 1, 1, 1)[0, 0, :, 0, :, 0]


@contextmanager
def record_attention(decoder: Decoder) -> Iterator[list[AttentionMap]]:
    """A list to which every forward pass inside the `with` appends its maps: one a stage and owner, H/32 first."""
    maps: list[AttentionMap] = []

    def append(owners: list[str], stride: int, module: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, Any]) -> None:
        for owner, weights in zip(owners, outputs[0].detach(), strict=True):
            maps.append(AttentionMap(owner, stride, inputs[1].windows, weights))

    hooks = []
    for stride, query_key in decoder.query_keys().items():
        hooks.append(query_key.register_forward_hook(partial(append, query_key.map_owners, stride)))
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()
