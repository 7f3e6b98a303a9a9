"""Windows: how a map (B, H, W, C) is cut for attention and put back, and the mask that says who may attend to whom.

Swin's scheme (Liu et al., ICCV 2021). `decoder: paper` deviates in two ways: a window shrinks to a map that is smaller, and
padding is masked out of the attention, so that neither changes a result. `decoder: released` does neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """How one map is cut; all numbers in tokens, all pairs (height, width).

    The map is padded at the bottom and right to whole windows, rolled by `-shift` and cut. `barrier` is what is added to the
    score of a pair of tokens that must not see each other: tokens that only the roll made neighbours, and, with
    `masks_padding`, padding and the rest.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    masks_padding: bool
    barrier: float

    @classmethod
    def paper(cls, size: tuple[int, int], window: int, shifted: bool) -> Windows:
        """Windows no larger than the map, not shifted along a side that one window covers, blind to padding."""
        fitted = (min(window, size[0]), min(window, size[1]))
        shift = tuple(w // 2 if shifted and w < s else 0 for w, s in zip(fitted, size, strict=True))
        return cls(size, fitted, (shift[0], shift[1]), masks_padding=True, barrier=-torch.inf)

    @classmethod
    def released(cls, size: tuple[int, int], window: int, shifted: bool) -> Windows:
        """The released code's: always full windows, always shifted, padding attended to like any token."""
        shift = window // 2 if shifted else 0
        return cls(size, (window, window), (shift, shift), masks_padding=False, barrier=-100.0)

    @property
    def grid(self) -> tuple[int, int]:
        """How many windows down and across."""
        return -(-self.size[0] // self.window[0]), -(-self.size[1] // self.window[1])

    @property
    def padded(self) -> tuple[int, int]:
        return self.grid[0] * self.window[0], self.grid[1] * self.window[1]

    def pad(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, *padded, C), zeros at the bottom and right; a map of that size already is returned as it is."""
        lack = self.padded[0] - tokens.shape[1], self.padded[1] - tokens.shape[2]
        return tokens if lack == (0, 0) else F.pad(tokens, (0, 0, 0, lack[1], 0, lack[0]))

    def cut(self, tokens: Tensor, parts: int, heads: int) -> Tensor:
        """(B, H, W, parts * heads * d) -> a view (parts, B, rows, columns, heads, window height, window width, d)."""
        tokens = self.pad(tokens)
        if self.shift != (0, 0):
            tokens = tokens.roll((-self.shift[0], -self.shift[1]), dims=(1, 2))
        return self._partition(tokens, parts, heads)

    def _partition(self, tokens: Tensor, parts: int, heads: int) -> Tensor:
        """`cut` of tokens that are padded and rolled already."""
        (rows, columns), (window_height, window_width) = self.grid, self.window
        tokens = tokens.unflatten(-1, (parts, heads, -1)).unflatten(2, (columns, window_width))
        return tokens.unflatten(1, (rows, window_height)).permute(5, 0, 1, 3, 6, 2, 4, 7)

    def join(self, windows: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B * rows * columns, heads, N, parts * d) -> `parts` maps (B, H, W, heads * d): the way back from `cut`."""
        heads = windows.shape[1]
        tokens = windows.view(-1, *self.grid, heads, *self.window, parts, windows.shape[-1] // parts)
        tokens = tokens.permute(6, 0, 1, 4, 2, 5, 3, 7).reshape(parts, -1, *self.padded, heads * tokens.shape[-1])
        if self.shift != (0, 0):
            tokens = tokens.roll(self.shift, dims=(2, 3))
        return tokens[:, :, : self.size[0], : self.size[1]].unbind(0)

    def mask(self, device: torch.device) -> Tensor | None:
        """0 where a pair of tokens may see each other and `barrier` elsewhere, (windows, N, N); None where all may.

        Padding is a region of its own that sees itself: no row is empty, so none becomes NaN.
        """
        padding = self.masks_padding and self.size != self.padded
        if self.shift == (0, 0) and not padding:
            return None
        row, column = (torch.arange(n, device=device).roll(-s) for n, s in zip(self.padded, self.shift, strict=True))
        region = 2 * (row < self.shift[0]).long()[:, None] + (column < self.shift[1]).long()
        if padding:
            region = region.masked_fill((row >= self.size[0])[:, None] | (column >= self.size[1]), 4)
        region = self._partition(region[None, :, :, None], 1, 1).reshape(-1, self.window[0] * self.window[1])
        apart = region[:, :, None] != region[:, None, :]
        return torch.zeros(apart.shape, device=device).masked_fill(apart, self.barrier)
