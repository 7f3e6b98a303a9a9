"""The decoders of all tasks, run side by side from H/32 to H/4: four stages of two blocks, an upsampler between stages, a head.

`layout: paper` is the paper's wiring (T1 self-attention, then T2 shared attention with the encoder map of the same
resolution), `layout: released` that of the released code; README.md in this folder lists where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mult.models.attention import Source, WindowBlock
from mult.models.windows import Windows

Attention = Literal["shared", "independent", "self"]
Wiring = Literal["paper", "released"]


class Upsample(nn.Module):
    """Bilinear to a given size, LayerNorm, Linear to the channels of the next stage."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.reduction = nn.Linear(dim, out_dim, bias=False)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, h, w, dim) -> (B, *size, out_dim)."""
        image = F.interpolate(tokens.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
        return self.reduction(self.norm(image.permute(0, 2, 3, 1)))


class Head(nn.Module):
    """Dropout of whole channels, a linear layer a token (a 1x1 convolution), bilinear to the image."""

    def __init__(self, dim: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.linear = nn.Linear(dim, channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, H/4, W/4, dim) -> (B, channels, H, W); tokens stand for 4 x 4 pixels, the last ones possibly for fewer."""
        tokens = self.linear(self.dropout(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        image = tokens.permute(0, 3, 1, 2).contiguous()
        covered = (4 * image.shape[2], 4 * image.shape[3])
        return F.interpolate(image, size=covered, mode="bilinear", align_corners=False)[:, :, : size[0], : size[1]]


class Stage(nn.Module):
    """The two blocks of one resolution, with the norm of the encoder map where the wiring has one."""

    def __init__(
        self,
        tasks: Sequence[str],
        reference: str,
        attention: Attention,
        wiring: Wiring,
        dim: int,
        heads: int,
        window: int,
        drop_path: Sequence[float],
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        shared = {task: reference if attention == "shared" else task for task in tasks}
        own = {task: task for task in tasks}
        second: Source = "stream" if attention == "self" or wiring == "released" else "context"
        blocks: list[tuple[dict[str, str], Source]] = (
            [(own, "stream"), (shared, second)] if wiring == "paper" else [(shared, "context"), (shared, second)]
        )
        self.context_norm = nn.LayerNorm(dim) if wiring == "released" else nn.Identity()
        self.blocks = nn.ModuleList(
            WindowBlock(
                owners,
                source,
                dim,
                heads,
                window,
                layout=Windows.paper if wiring == "paper" else Windows.released,
                shifted=index == 1,
                context_norm=wiring == "paper",
                drop_path=drop_path[index],
            )
            for index, (owners, source) in enumerate(blocks)
        )

    def forward(self, streams: Mapping[str, Tensor], context: Tensor) -> Mapping[str, Tensor]:
        """streams task -> (B, h, w, dim), context (B, h, w, dim) as returned by `context_norm` -> the updated streams."""
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                streams = checkpoint(block, streams, context, use_reentrant=False)
            else:
                streams = block(streams, context)
        return streams


class Decoder(nn.Module):
    """Encoder maps -> outputs of every task.

    dims and heads are the encoder's, fine to coarse. drop_path is the rate of the last of the eight blocks; the first,
    at H/32, has none and the rest lie on a line between.
    """

    def __init__(
        self,
        tasks: Mapping[str, int],
        reference: str,
        attention: Attention,
        wiring: Wiring,
        dims: Sequence[int],
        heads: Sequence[int],
        window: int,
        drop_path: float,
        dropout: float,
    ) -> None:
        super().__init__()
        dims, heads = list(dims)[::-1], list(heads)[::-1]
        rates = [drop_path * block / (2 * len(dims) - 1) for block in range(2 * len(dims))]
        self.stages: Any = nn.ModuleList(
            Stage(list(tasks), reference, attention, wiring, dim, heads[i], window, rates[2 * i : 2 * i + 2])
            for i, dim in enumerate(dims)
        )
        self.upsamples: Any = nn.ModuleList(
            nn.ModuleDict({task: Upsample(dim, finer) for task in tasks}) for dim, finer in pairwise(dims)
        )
        self.heads = nn.ModuleDict({task: Head(dims[-1], channels, dropout) for task, channels in tasks.items()})
        self.apply(_initialise)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Four maps (B, C_s, H_s, W_s), fine to coarse, and the image's size -> task -> (B, channels, *size)."""
        streams: Mapping[str, Tensor] = {}
        for index, (stage, feature) in enumerate(zip(self.stages, reversed(features), strict=True)):
            context = stage.context_norm(feature.permute(0, 2, 3, 1).contiguous())
            if index == 0:
                streams = dict.fromkeys(self.heads, context)
            else:
                upsample, finer = self.upsamples[index - 1], (context.shape[1], context.shape[2])
                streams = {task: upsample[task](tokens, finer) for task, tokens in streams.items()}
            streams = stage(streams, context)
        return {task: self.heads[task](tokens, size) for task, tokens in streams.items()}


def _initialise(module: nn.Module) -> None:
    """Xavier uniform and zero biases: Swin's fixed deviation of 0.02 suits its widths, and starts narrow decoders slowly."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
