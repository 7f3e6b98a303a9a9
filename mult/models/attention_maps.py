"""Attention maps kept for looking at: the one that the reference shares with all tasks, at each decoder stage."""

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
    """The map of one decoder stage's second block, as it was multiplied with the values.

    owner: the task whose query and key made it. stride: image pixels a token. weights: (B * windows, heads, N, N), [query,
    key], a row sums to 1.
    """

    owner: str
    stride: int
    windows: Windows
    weights: Tensor

    def of(self, row: int, column: int, image: int = 0) -> tuple[Tensor, Tensor]:
        """What the token at (row, column) attends to: weights (heads, H, W) over the stage's map, seen (H, W) bool.

        seen: the tokens that it may attend to, those of its window that are not masked out. The weights sum to 1, less what
        `decoder: released` spends on padding.
        """
        places = self._places()
        window, query = (int(i) for i in (places == row * self.windows.size[1] + column + 1).nonzero()[0])
        weights = self.weights[image * len(places) + window, :, query]
        mask = self.windows.mask(weights.device)
        visible = torch.ones_like(weights[0]) if mask is None else (mask[window, query] == 0).to(weights.dtype)
        height, width = self.windows.size
        spread = weights.new_zeros(len(weights) + 1, height * width + 1)
        spread.index_add_(1, places[window], torch.cat([weights, visible[None]]))
        spread = spread[:, 1:].view(-1, height, width)
        return spread[:-1], spread[-1] > 0

    def _places(self) -> Tensor:
        """The token that each place of each window holds, (windows, N): 1 + its index in the map, 0 for padding."""
        height, width = self.windows.size
        numbers = torch.arange(1, height * width + 1, device=self.weights.device).view(1, 1, height, width, 1)
        return self.windows.cut(numbers, 1, 1, 1)[0, 0, :, 0, :, 0]


@contextmanager
def record_attention(decoder: Decoder) -> Iterator[list[AttentionMap]]:
    """A list that fills with the maps of the passes made meanwhile: H/32 first, one a stage and owner of a map."""
    maps: list[AttentionMap] = []

    def keep(owners: list[str], stride: int, module: Any, given: tuple[Any, ...], made: tuple[Tensor, Any]) -> None:
        maps.extend(
            AttentionMap(owner, stride, given[1].windows, weights)
            for owner, weights in zip(owners, made[0].detach(), strict=True)
        )

    hooks = []
    for index, stage in enumerate(reversed(decoder.stages)):
        second = stage.blocks[1]
        hooks.append(second.query_key.register_forward_hook(partial(keep, second.owners, 4 * 2**index)))
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()
