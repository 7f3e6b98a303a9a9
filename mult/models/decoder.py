"""The decoders of all tasks, run side by side from H/32 to H/4: four stages of two blocks, an upsampler between stages, a head.

`decoder: paper` is the paper's wiring (T1 self-attention, then T2 shared attention with the encoder map of the same
resolution), `decoder: released` that of the released code; mult/models/README.md lists where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mult.models.attention import LEARNED, QueryKey, Source, WindowBlock
from mult.models.stacked import LayerNorm, Linear
from mult.models.windows import Layout, Windows

Attention = Literal["shared", "independent", "self", "none"]
Wiring = Literal["paper", "released"]
Skip = Literal["none", "add"]


class Upsample(nn.Module):
    """Bilinear to a given size, LayerNorm, Linear to the channels of the next stage, a task."""

    def __init__(self, tasks: Sequence[str], dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(tasks, dim)
        self.reduction = Linear(tasks, dim, out_dim, bias=False)

    def forward(self, streams: Tensor, size: tuple[int, int]) -> Tensor:
        """(T, B, h, w, dim) -> (T, B, *size, out_dim)."""
        images = streams.flatten(0, 1).permute(0, 3, 1, 2)
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return self.reduction.after_norm(self.norm, images.permute(0, 2, 3, 1).unflatten(0, streams.shape[:2]))


class AddSkip(nn.Module):
    """x^t + Linear(LayerNorm(x_sa)): the encoder map of the same resolution enters every stream, by the task's own layers."""

    def __init__(self, tasks: Sequence[str], dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(tasks, dim)
        self.linear = Linear(tasks, dim, dim)

    def forward(self, streams: Tensor, feature: Tensor) -> Tensor:
        """streams (T, B, h, w, dim), feature (B, h, w, dim) -> the streams."""
        return streams + self.linear.after_norm(self.norm, feature.expand(len(streams), *feature.shape))


class Head(nn.Module):
    """Dropout of whole channels, a linear layer a token (a 1x1 convolution), bilinear to the image."""

    def __init__(self, dim: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.linear = nn.Linear(dim, channels)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

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
        self.window = window
        self.make_windows = Windows.paper if wiring == "paper" else Windows.released
        self._layouts: tuple[Any, list[Layout]] = (None, [])
        is_learned = reference == LEARNED
        shared = [reference] if attention == "shared" and not is_learned else tasks
        second: Source = "stream" if attention == "self" or wiring == "released" else "context"
        blocks: list[tuple[Sequence[str], Source]] = (
            [(tasks, "stream"), (shared, second)] if wiring == "paper" else [(shared, "context"), (shared, second)]
        )
        self.context_norm = nn.LayerNorm(dim) if wiring == "released" else nn.Identity()
        self.blocks = nn.ModuleList(
            WindowBlock(tasks, owners, source, dim, heads, window, wiring == "paper", rate, mixes=is_learned and index == 1)
            for index, ((owners, source), rate) in enumerate(zip(blocks, drop_path, strict=True))
        )

    def forward(self, streams: Tensor, context: Tensor) -> Tensor:
        """streams (T, B, h, w, dim), context (B, h, w, dim) as returned by `context_norm` -> the updated streams."""
        layouts = self._layouts_for((context.shape[1], context.shape[2]), context.device)
        for block, layout in zip(self.blocks, layouts, strict=True):
            if self.grad_checkpointing and torch.is_grad_enabled():
                streams = checkpoint(block, streams, context, layout, use_reentrant=False)
            else:
                streams = block(streams, context, layout)
        return streams

    def _layouts_for(self, size: tuple[int, int], device: torch.device) -> list[Layout]:
        """The first block's windows are not shifted, the second's are. Those of the last size are kept."""
        if self._layouts[0] != (size, device):
            windows = [self.make_windows(size, self.window, shifted) for shifted in (False, True)]
            self._layouts = (size, device), [Layout.build(each, device) for each in windows]
        return self._layouts[1]


class Decoder(nn.Module):
    """Encoder maps -> outputs of every task.

    reference: a task, or LEARNED, which goes with shared attention in the paper's wiring.
    skip: "none", the paper's, or "add": after each upsampling the encoder map is added (`AddSkip`), whatever the wiring.
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
        skip: Skip = "none",
    ) -> None:
        super().__init__()
        dims, heads = list(dims)[::-1], list(heads)[::-1]
        rates = [drop_path * block / (2 * len(dims) - 1) for block in range(2 * len(dims))]
        self.stages: Any = nn.ModuleList(
            Stage(list(tasks), reference, attention, wiring, dim, heads[i], window, rates[2 * i : 2 * i + 2])
            for i, dim in enumerate(dims)
        )
        self.upsamples = nn.ModuleList(Upsample(list(tasks), dim, finer) for dim, finer in pairwise(dims))
        self.skips = nn.ModuleList(AddSkip(list(tasks), dim) for dim in (dims[1:] if skip == "add" else []))
        self.heads = nn.ModuleDict({task: Head(dims[-1], channels, dropout) for task, channels in tasks.items()})

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Four maps (B, C_s, H_s, W_s), fine to coarse, and the image's size -> task -> (B, channels, *size)."""
        maps = [feature.permute(0, 2, 3, 1).contiguous() for feature in reversed(features)]
        streams: Any = None
        for index, stage in enumerate(self.stages):
            context = stage.context_norm(maps[index])
            if index == 0:
                streams = context.expand(len(self.heads), *context.shape)
            else:
                streams = self.upsamples[index - 1](streams, (context.shape[1], context.shape[2]))
                if len(self.skips) > 0:
                    streams = self.skips[index - 1](streams, maps[index])
            streams = stage(streams, context)
        return {task: head(tokens, size) for (task, head), tokens in zip(self.heads.items(), streams, strict=True)}

    def list_blocks(self) -> list[nn.Module]:
        """The blocks of all stages, each of which is compiled by itself."""
        return [block for stage in self.stages for block in stage.blocks]

    def set_grad_checkpointing(self, enable: bool) -> None:
        """See `MulT.set_grad_checkpointing`."""
        for stage in self.stages:
            stage.grad_checkpointing = enable

    def query_keys(self) -> dict[int, QueryKey]:
        """Stride -> what makes the maps of that stage's second block, which are shared where any are; H/32 first."""
        return {32 // 2**index: stage.blocks[1].query_key for index, stage in enumerate(self.stages)}
