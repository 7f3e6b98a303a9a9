"""Windows: how a map (B, H, W, C) is cut for attention and put back, and the mask that says who may attend to whom.

Swin's scheme (Liu et al., ICCV 2021). `decoder: paper` deviates in two ways: a window shrinks to a map that is smaller, and
padding is masked out of the attention, so that neither changes a result. `decoder: released` does neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """How one map is cut; all numbers in tokens, all pairs (height, width).

    The map is padded at the bottom and right to whole windows, rolled by `-shift` and cut. `barrier` is what is added to the
    score of a pair of tokens that must not see each other: tokens that only the roll made neighbours, and, with
    `masks_padding`, padding and the rest. `span` is the side of a window on a map that is not smaller.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    masks_padding: bool
    barrier: float
    span: int

    @classmethod
    def paper(cls, size: tuple[int, int], window: int, shifted: bool) -> Windows:
        """Windows no larger than the map, not shifted along a side that one window covers, blind to padding."""
        fitted = (min(window, size[0]), min(window, size[1]))
        shift = tuple(w // 2 if shifted and w < s else 0 for w, s in zip(fitted, size, strict=True))
        return cls(size, fitted, (shift[0], shift[1]), masks_padding=True, barrier=-torch.inf, span=window)

    @classmethod
    def released(cls, size: tuple[int, int], window: int, shifted: bool) -> Windows:
        """The released code's: always full windows, always shifted, padding attended to like any token."""
        shift = window // 2 if shifted else 0
        return cls(size, (window, window), (shift, shift), masks_padding=False, barrier=-100.0, span=window)

    @property
    def grid(self) -> tuple[int, int]:
        """How many windows down and across."""
        return -(-self.size[0] // self.window[0]), -(-self.size[1] // self.window[1])

    @property
    def padded(self) -> tuple[int, int]:
        return self.grid[0] * self.window[0], self.grid[1] * self.window[1]

    def pad(self, tokens: Tensor, value: Tensor | None = None) -> Tensor:
        """(..., H, W, C) -> (..., *padded, C); `value` (..., C), or zeros, stands in the padding, at the bottom and right."""
        if self.size == self.padded:
            return tokens
        height, width = self.size
        padded = F.pad(tokens, (0, 0, 0, self.padded[1] - width, 0, self.padded[0] - height))
        if value is not None:
            padded[..., height:, :, :] = padded[..., width:, :] = value[..., None, None, :]
        return padded

    def cut(self, tokens: Tensor, parts: int, maps: int, heads: int, padding: Tensor | None = None) -> Tensor:
        """(T, B, H, W, parts * heads * d) -> (parts, maps, B * windows, heads, N, T / maps * d), in one copy.

        N: the tokens of a window. The tasks of one attention map lie side by side, so that one product takes all their values.
        padding: (T, parts * heads * d), what stands in the padding; None: zeros.
        """
        tokens = self.pad(tokens, None if padding is None else padding[:, None])
        if self.shift != (0, 0):
            tokens = tokens.roll((-self.shift[0], -self.shift[1]), dims=(2, 3))
        return self._partition(tokens, parts, maps, heads)

    def _partition(self, tokens: Tensor, parts: int, maps: int, heads: int) -> Tensor:
        """`cut` of tokens that are padded and rolled already."""
        (rows, columns), (height, width) = self.grid, self.window
        tasks, batch, depth = tokens.shape[0], tokens.shape[1], tokens.shape[-1] // (parts * heads)
        tokens = tokens.view(maps, tasks // maps, batch, rows, height, columns, width, parts, heads, depth)
        tokens = tokens.permute(7, 0, 2, 3, 5, 8, 4, 6, 1, 9)
        return tokens.reshape(parts, maps, batch * rows * columns, heads, height * width, tasks // maps * depth)

    def join(self, windows: Tensor, tasks: int) -> Tensor:
        """(maps, B * rows * columns, heads, N, tasks / maps * d) -> (tasks, B, H, W, heads * d): the way back from `cut`."""
        maps, heads, depth = windows.shape[0], windows.shape[2], windows.shape[0] * windows.shape[-1] // tasks
        tokens = windows.view(maps, -1, *self.grid, heads, *self.window, tasks // maps, depth)
        tokens = tokens.permute(0, 7, 1, 2, 5, 3, 6, 4, 8).reshape(tasks, -1, *self.padded, heads * depth)
        if self.shift != (0, 0):
            tokens = tokens.roll(self.shift, dims=(2, 3))
        return tokens[:, :, : self.size[0], : self.size[1]]

    def mask(self, device: torch.device) -> Tensor | None:
        """0 where a pair of tokens may see each other and `barrier` elsewhere, (rows * columns, N, N); None where all may.

        Padding is a region of its own that sees itself: no row is empty, so none becomes NaN.
        """
        padding = self.masks_padding and self.size != self.padded
        if self.shift == (0, 0) and not padding:
            return None
        row, column = (torch.arange(n, device=device).roll(-s) for n, s in zip(self.padded, self.shift, strict=True))
        region = 2 * (row < self.shift[0]).long()[:, None] + (column < self.shift[1]).long()
        if padding:
            region = region.masked_fill((row >= self.size[0])[:, None] | (column >= self.size[1]), 4)
        region = self._partition(region[None, None, :, :, None], 1, 1, 1)[0, 0, :, 0, :, 0]
        apart = region[:, :, None] != region[:, None, :]
        return torch.zeros(apart.shape, device=device).masked_fill(apart, self.barrier)

    def offsets(self, device: torch.device) -> Tensor:
        """(N, N) int64, [query, key]: the number, below (2 span - 1)^2, of the offset between two tokens of a window."""
        row, column = (torch.arange(n, device=device) for n in self.window)
        down, right = (position[:, None] - position + self.span - 1 for position in (row, column))
        return (down[:, None, :, None] * (2 * self.span - 1) + right[None, :, None, :]).flatten(0, 1).flatten(1)


class Layout(NamedTuple):
    """Windows with the tensors that follow from them, which are made once for a size of images and not in every pass."""

    windows: Windows
    mask: Tensor | None
    offsets: Tensor

    @classmethod
    def build(cls, windows: Windows, device: torch.device) -> Layout:
        with torch.inference_mode(False):  # training may be next to use them, and autograd saves no tensor of inference mode
            return cls(windows, windows.mask(device), windows.offsets(device))

    def cut(self, tokens: Tensor, parts: int, maps: int, heads: int, bias: Tensor | None) -> Tensor:
        """`Windows.cut` of what a layer of this bias made. Padding that is attended to is padded before it: there it is 0."""
        return self.windows.cut(tokens, parts, maps, heads, None if self.windows.masks_padding else bias)
