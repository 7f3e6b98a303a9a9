"""Window attention whose map may be made by one stream and applied to many: the shared attention of MulT (paper, Section 3).

A block runs all tasks' streams side by side. `owners` says whose query and key serve a task and `source` what they are made
from, and that is all in which the variants differ:

    ordinary self-attention (T1)         every task its own map,  source "stream"
    shared attention (T2)                one map for all tasks,   source "context" (the encoder map x_sa)
    the ablation `independent`           every task its own map,  source "context"
    block 1 of the released code         one map for all tasks,   source "stream" (the reference's)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from mult.models.windows import Windows

Layout = Callable[[tuple[int, int], int, bool], Windows]
Source = Literal["context", "stream"]


class PositionBias(nn.Module):
    """Swin's relative position bias: one value a head and offset, ((2 w - 1)^2, heads)."""

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.window = window
        self.table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, window: tuple[int, int]) -> Tensor:
        """-> (heads, N, N), [query, key], for a window (height, width) no larger than the table's."""
        side = 2 * self.window - 1
        row, column = (torch.arange(n, device=self.table.device) for n in window)
        row_offset = (row[:, None] - row + self.window - 1) * side
        column_offset = column[:, None] - column + self.window - 1
        index = (row_offset[:, None, :, None] + column_offset[None, :, None, :]).flatten()
        tokens = window[0] * window[1]
        return self.table.index_select(0, index).view(tokens, tokens, -1).permute(2, 0, 1)


class QueryKey(nn.Module):
    """Makes an attention map. One linear layer gives query and key, and where `with_value` the owner's own value too."""

    def __init__(self, dim: int, heads: int, window: int, norm: bool, with_value: bool) -> None:
        super().__init__()
        self.heads = heads
        self.parts = 3 if with_value else 2
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()
        self.linear = nn.Linear(dim, self.parts * dim)
        self.position_bias = PositionBias(window, heads)

    def forward(self, tokens: Tensor, windows: Windows, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """tokens (B, H, W, C) -> map (B * windows, heads, N, N) that sums to 1 over the keys, and the value, cut, or None."""
        parts = windows.cut(self.linear(self.norm(tokens)), self.parts, self.heads)
        query, key = parts[:2].reshape(2, -1, self.heads, windows.window[0] * windows.window[1], parts.shape[-1])
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        bias = self.position_bias(windows.window)
        if mask is None:
            scores += bias
        else:
            scores.view(-1, mask.shape[0], *scores.shape[1:]).add_(bias + mask[:, None])
        return scores.softmax(dim=-1), parts[2] if self.parts == 3 else None


class Stream(nn.Module):
    """What one task owns of a block: norms, value, output projection, MLP, and the query and key if it makes a map."""

    def __init__(self, dim: int, drop_path: float, query_key: QueryKey | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.query_key = query_key
        self.value = nn.Linear(dim, dim) if query_key is None or query_key.parts == 2 else None
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)

    def update(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """The residual half of the block: tokens, and what attention gathered for them, both (B, H, W, C) -> (B, H, W, C)."""
        tokens = tokens + self.drop_path(self.proj(attended))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class WindowBlock(nn.Module):
    """One block of every task's decoder: window attention and MLP, each pre-normed and residual.

    owners: task -> the task whose query and key make its map. For each owner one map is computed and multiplied with the
    values of all its tasks in one product: no second softmax and no copy of the map.
    """

    def __init__(
        self,
        owners: Mapping[str, str],
        source: Source,
        dim: int,
        heads: int,
        window: int,
        layout: Layout,
        shifted: bool,
        context_norm: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.source, self.heads, self.window, self.layout, self.shifted = source, heads, window, layout, shifted
        self.groups = {owner: [task for task in owners if owners[task] == owner] for owner in owners.values()}
        norm = source == "context" and context_norm
        self.streams: Any = nn.ModuleDict()  # of Stream, whose methods nn.Module does not declare
        for task in owners:
            query_key = QueryKey(dim, heads, window, norm, source == "stream") if task in self.groups else None
            self.streams[task] = Stream(dim, drop_path, query_key)

    def forward(self, streams: Mapping[str, Tensor], context: Tensor) -> dict[str, Tensor]:
        """streams task -> (B, H, W, C) and the context (B, H, W, C) -> the updated streams."""
        windows = self.layout((context.shape[1], context.shape[2]), self.window, self.shifted)
        mask = windows.mask(context.device)
        updated = {}
        for owner, tasks in self.groups.items():
            normed = {task: self.streams[task].norm1(streams[task]) for task in tasks}
            tokens = context if self.source == "context" else normed[owner]
            if not windows.masks_padding:
                # Padding that is attended to has the biases of query, key and value; it is padded before their layers.
                tokens, normed = windows.pad(tokens), {task: windows.pad(value) for task, value in normed.items()}
            attention, owners_value = self.streams[owner].query_key(tokens, windows, mask)
            values = []
            for task in tasks:
                linear = self.streams[task].value
                values.append(owners_value if linear is None else windows.cut(linear(normed[task]), 1, self.heads)[0])
            attended = windows.join(attention @ self._stack(values, attention), len(tasks))
            for task, gathered in zip(tasks, attended, strict=True):
                updated[task] = self.streams[task].update(streams[task], gathered)
        return {task: updated[task] for task in streams}

    @staticmethod
    def _stack(values: Sequence[Tensor], attention: Tensor) -> Tensor:
        """Cut values of T tasks -> (B * windows, heads, N, T * d), in one copy."""
        return torch.cat(tuple(values), dim=-1).reshape(*attention.shape[:3], -1)
