"""Shared attention in a feature pyramid: fpn.py's convolutions with one attention map for all tasks at each level.

What MulT is about is kept: query and key come from the encoder map by the reference's layers, and every task's values meet the
same map. What the paper's decoders lack is added: the finer encoder maps enter the streams, and convolutions look at neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mult.models.attention import QueryKey
from mult.models.decoder import Attention
from mult.models.stacked import LayerNorm, Linear, Stack
from mult.models.windows import Layout, Windows

WIDTH = 64
GROUPS = 8


class Convolution(Stack):
    """3x3 with zeros around, GroupNorm, ReLU, a task."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.weight = nn.Parameter(torch.empty(len(tasks), WIDTH, WIDTH, 3, 3))
        for weight in self.weight:
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        self.scale = nn.Parameter(torch.ones(len(tasks), WIDTH))
        self.bias = nn.Parameter(torch.zeros(len(tasks), WIDTH))

    def forward(self, streams: Tensor) -> Tensor:
        """(T, B, C, h, w) -> the same shape."""
        images = [
            F.relu(F.group_norm(F.conv2d(x, w, padding=1), GROUPS, s, b))
            for x, w, s, b in zip(streams, self.weight, self.scale, self.bias, strict=True)
        ]
        return torch.stack(images)


class Level(nn.Module):
    """One resolution: the encoder map is added to the streams, shared attention, convolution."""

    def __init__(self, tasks: Sequence[str], owners: Sequence[str], source: str, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.window, self.source, self.owners, self.tasks = window, source, list(owners), list(tasks)
        self.lateral_norm = LayerNorm(tasks, dim)
        self.lateral = Linear(tasks, dim, WIDTH)
        self.attends = source != "none"
        self.heads = heads
        if self.attends:
            self.query_key = QueryKey(owners, dim if source == "context" else WIDTH, heads, window, source == "context", False)
            self.norm = LayerNorm(tasks, WIDTH)
            self.value = Linear(tasks, WIDTH, WIDTH)
            self.proj = Linear(tasks, WIDTH, WIDTH)
            nn.init.zeros_(self.proj.weight)
        self.convolution = Convolution(tasks)
        self._layouts: tuple[Any, Layout | None] = (None, None)

    def forward(self, streams: Tensor | None, context: Tensor) -> Tensor:
        """streams (T, B, C, h', w') of the coarser level, context (B, h, w, dim) -> (T, B, C, h, w)."""
        size = (context.shape[1], context.shape[2])
        tokens = self.lateral.after_norm(self.lateral_norm, context.expand(len(self.tasks), *context.shape))
        if streams is not None:
            finer = F.interpolate(streams.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
            tokens = tokens + finer.unflatten(0, streams.shape[:2]).permute(0, 1, 3, 4, 2)
        if self.attends:
            layout = self._layout(size, context.device)
            if self.source == "context":
                maps, _ = self.query_key(context.expand(len(self.owners), *context.shape), layout, self.query_key.norm)
            else:
                maps, _ = self.query_key(tokens, layout, self.norm)
            values = self.value.after_norm(self.norm, tokens)
            values = layout.cut(values, 1, len(self.owners), self.heads, self.value.bias).squeeze(0)
            tokens = tokens + self.proj(layout.windows.join(maps @ values, len(self.tasks)))
        return self.convolution(tokens.permute(0, 1, 4, 2, 3))

    def _layout(self, size: tuple[int, int], device: torch.device) -> Layout:
        if self._layouts[0] != (size, device):
            self._layouts = (size, device), Layout.build(Windows.paper(size, self.window, True), device)
        return self._layouts[1]  # type: ignore[return-value]


class PyramidDecoder(nn.Module):
    """dims and heads: the encoder's, fine to coarse."""

    stages = ()

    def __init__(
        self,
        tasks: Mapping[str, int],
        reference: str,
        attention: Attention,
        dims: Sequence[int],
        heads: Sequence[int],
        window: int,
        dropout: float,
    ) -> None:
        super().__init__()
        owners = [reference] if attention == "shared" else list(tasks)
        source = {"shared": "context", "independent": "context", "self": "stream", "none": "none"}[attention]
        self.levels = nn.ModuleList(
            Level(list(tasks), owners, source, dim, n, window) for dim, n in zip(dims[::-1], heads[::-1], strict=True)
        )
        self.heads = nn.ModuleDict(
            {task: nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(WIDTH, channels, 1)) for task, channels in tasks.items()}
        )

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Four maps (B, C_s, H_s, W_s), fine to coarse, and the image's size -> task -> (B, channels, *size)."""
        streams: Any = None
        for level, feature in zip(self.levels, reversed(features), strict=True):
            streams = level(streams, feature.permute(0, 2, 3, 1).contiguous())
        outputs = {}
        for (task, head), image in zip(self.heads.items(), streams, strict=True):
            image = head(image)
            covered = (4 * image.shape[2], 4 * image.shape[3])
            image = F.interpolate(image, size=covered, mode="bilinear", align_corners=False)
            outputs[task] = image[:, :, : size[0], : size[1]]
        return outputs
