"""Shared attention in a feature pyramid: a pyramid a task, whose coarse levels attend by one map that the reference makes.

What MulT is about is kept: at each attending level query and key are made from the encoder map by the reference's layers, and
every task's values meet the same map. What the paper's decoders lack is added: the finer encoder maps enter the streams,
convolutions look at neighbours, and the head predicts below the size of a token. With `attention: none` it is a plain pyramid.

The streams of all tasks are one image (B, T * WIDTH, h, w), so that a convolution of every task is one of T groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mult.models.attention import LEARNED, QueryKey, Source, WindowAttention
from mult.models.decoder import Attention
from mult.models.encoder import STRIDES
from mult.models.stacked import Stack
from mult.models.windows import Layout, Windows

WIDTH = 64
"""Channels of a task's stream at every level."""
GROUPS = 8
"""Of a task's GroupNorm."""
HEADS = 4
"""Of the attention, where `num_heads` does not say."""
FINEST_ATTENTION = 8
"""The stride of the finest level that attends: H/4 alone has three times as many tokens as the other three together."""


class Convolution(Stack):
    """A convolution a task with zeros around, of one image for all tasks (`shared`) or of each task's own channels."""

    def __init__(self, tasks: Sequence[str], channels: int, size: int, shared: bool, bias: bool) -> None:
        super().__init__(tasks)
        self.weight = nn.Parameter(torch.empty(len(tasks), WIDTH, channels, size, size))
        self.bias = nn.Parameter(torch.zeros(len(tasks), WIDTH)) if bias else None
        self.groups = 1 if shared else len(tasks)
        for weight in self.weight:
            nn.init.kaiming_uniform_(weight, a=5**0.5)  # as nn.Conv2d

    def forward(self, image: Tensor) -> Tensor:
        """(B, channels, h, w), or (B, T * channels, h, w) where not shared -> (B, T * WIDTH, h, w)."""
        bias = None if self.bias is None else self.bias.flatten()
        return F.conv2d(image, self.weight.flatten(0, 1), bias, padding=self.weight.shape[-1] // 2, groups=self.groups)


class GroupNorm(Stack):
    """(B, T * WIDTH, h, w) -> the same shape, each task's channels normed in GROUPS groups."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.weight = nn.Parameter(torch.ones(len(tasks), WIDTH))
        self.bias = nn.Parameter(torch.zeros(len(tasks), WIDTH))

    def forward(self, streams: Tensor) -> Tensor:
        return F.group_norm(streams, len(self.tasks) * GROUPS, self.weight.flatten(), self.bias.flatten())


class Level(nn.Module):
    """One resolution: the encoder map is added to the streams, they attend where the level does, and are convolved."""

    def __init__(self, tasks: Sequence[str], dim: int, attention: WindowAttention | None) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self.lateral = Convolution(tasks, dim, 1, shared=True, bias=True)
        self.attention = attention
        self.convolution = Convolution(tasks, WIDTH, 3, shared=False, bias=False)
        self.norm = GroupNorm(tasks)

    def forward(self, streams: Tensor | None, feature: Tensor, layout: Layout | None) -> Tensor:
        """streams (B, T * WIDTH, h', w') of the coarser level, feature (B, dim, h, w) -> (B, T * WIDTH, h, w)."""
        image = self.lateral(feature)
        if streams is not None:
            image = image + F.interpolate(streams, size=image.shape[-2:], mode="bilinear", align_corners=False)
        if self.attention is not None and layout is not None:
            tokens = image.unflatten(1, (len(self.tasks), WIDTH)).permute(1, 0, 3, 4, 2)
            tokens = tokens + self.attention.attend(tokens, feature.permute(0, 2, 3, 1), layout)
            image = tokens.permute(1, 0, 4, 2, 3).flatten(1, 2)
        return F.relu(self.norm(self.convolution(image)))


class SubpixelHead(nn.Module):
    """Dropout of whole channels; a value a token, bilinear to the image, plus 4 x 4 values a token (Shi et al., CVPR 2016).

    The second sum alone would do, but learns what the pixels of a token have in common late, above all classes.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.token = nn.Conv2d(WIDTH, channels, 1)
        self.pixels = nn.Conv2d(WIDTH, STRIDES[0] ** 2 * channels, 1, bias=False)
        nn.init.zeros_(self.pixels.weight)

    def forward(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, WIDTH, H/4, W/4) -> (B, channels, *size); the last tokens possibly stand for fewer pixels."""
        image = self.dropout(image)
        pixels = F.pixel_shuffle(self.pixels(image), STRIDES[0])
        pixels = pixels + F.interpolate(self.token(image), size=pixels.shape[-2:], mode="bilinear", align_corners=False)
        return pixels[:, :, : size[0], : size[1]]


class PyramidDecoder(nn.Module):
    """Encoder maps -> outputs of every task. dims: the encoder's channels, fine to coarse. heads: of the attention.

    The levels to FINEST_ATTENTION attend, in shifted windows, as the paper's shared blocks do, none larger than the map.
    """

    def __init__(
        self,
        tasks: Mapping[str, int],
        reference: str,
        attention: Attention,
        dims: Sequence[int],
        heads: int,
        window: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.window = window
        self.grad_checkpointing = False
        mixes = reference == LEARNED
        owners = [reference] if attention == "shared" and not mixes else list(tasks)
        source: Source = "stream" if attention == "self" else "context"
        self.levels: Any = nn.ModuleList()
        for stride, dim in zip(STRIDES[::-1], dims[::-1], strict=True):
            attends = attention != "none" and stride >= FINEST_ATTENTION
            block = WindowAttention(list(tasks), owners, source, WIDTH, dim, heads, window, True, mixes) if attends else None
            if block is not None:  # a plain pyramid at first: of the map of a new network the streams learn nothing
                nn.init.zeros_(block.proj.weight)
            self.levels.append(Level(list(tasks), dim, block))
        self.heads = nn.ModuleDict({task: SubpixelHead(channels, dropout) for task, channels in tasks.items()})
        self._layouts: tuple[Any, list[Layout | None]] = (None, [])

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Four maps (B, C_s, H_s, W_s), fine to coarse, and the image's size -> task -> (B, channels, *size)."""
        maps = features[::-1]
        streams: Any = None
        for level, feature, layout in zip(self.levels, maps, self._layouts_for(maps), strict=True):
            if self.grad_checkpointing and torch.is_grad_enabled():
                streams = checkpoint(level, streams, feature, layout, use_reentrant=False)
            else:
                streams = level(streams, feature, layout)
        images = streams.unflatten(1, (len(self.heads), WIDTH)).unbind(1)
        return {task: head(image, size) for (task, head), image in zip(self.heads.items(), images, strict=True)}

    def list_blocks(self) -> list[nn.Module]:
        """The levels, each of which is compiled by itself."""
        return list(self.levels)

    def set_grad_checkpointing(self, enable: bool) -> None:
        """See `MulT.set_grad_checkpointing`."""
        self.grad_checkpointing = enable

    def query_keys(self) -> dict[int, QueryKey]:
        """Stride -> what makes the maps of that level, H/32 first; none of a level that does not attend."""
        levels = {
            stride: level for stride, level in zip(STRIDES[::-1], self.levels, strict=True) if level.attention is not None
        }
        return {stride: level.attention.query_key for stride, level in levels.items()}

    def _layouts_for(self, maps: Sequence[Tensor]) -> list[Layout | None]:
        """The windows of each map (B, C, h, w) whose level attends; those of the last sizes are kept."""
        key = [each.shape[-2:] for each in maps], maps[0].device
        if self._layouts[0] != key:
            layouts = [
                None if level.attention is None else Layout.build(Windows.paper((height, width), self.window, True), key[1])
                for level, (height, width) in zip(self.levels, key[0], strict=True)
            ]
            self._layouts = key, layouts
        return self._layouts[1]
