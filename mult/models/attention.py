"""Window attention whose map may be made by one task and applied to many: the shared attention of MulT (paper, Section 3).

A block runs the streams of all tasks side by side. Who owns the maps and what they are made from is all in which the variants
differ:

    ordinary self-attention (T1)         every task its own map,  source "stream"
    shared attention (T2)                one map for all tasks,   source "context" (the encoder map x_sa)
    shared, with a learned reference     one map for all tasks, mixed of every task's own,  source "context"
    the ablation `independent`           every task its own map,  source "context"
    block 1 of the released code         one map for all tasks,   source "stream" (the reference's)

For a head, a task t with its stream x_t, and r the owner of its map (t itself, or the reference):

    q, k = linear_r(norm_r(x_sa)) or linear_r(norm1_r(x_r))         v_t = value_t(norm1_t(x_t))
    A_r  = softmax(q k^T / sqrt(d) + B_r)
    A    = sum_t g_t A_t, g = softmax(logits)                       in place of A_r, where the reference is learned
    y_t  = x_t + proj_t(A_r v_t)
    z_t  = y_t + fc2_t(GELU(fc1_t(norm2_t(y_t))))                   the block's result
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mult.models.stacked import LayerNorm, Linear, Stack
from mult.models.windows import Layout

Source = Literal["context", "stream"]
LEARNED = "learned"
"""The value of `reference` with which the maps of all tasks are mixed into one, by shares that are learnt (`Gate`)."""


class PositionBias(Stack):
    """Swin's relative position bias B: a value for each task, offset between two tokens and head."""

    def __init__(self, tasks: Sequence[str], window: int, heads: int) -> None:
        super().__init__(tasks)
        self.table = nn.Parameter(torch.empty(len(tasks), (2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, offsets: Tensor) -> Tensor:
        """Numbers of offsets (N, N) -> (T, heads, N, N), [query, key]."""
        return self.table.index_select(1, offsets.flatten()).unflatten(1, offsets.shape).permute(0, 3, 1, 2)


class Gate(Stack):
    """Mixes the tasks' maps into one, by shares that are learnt: the softmax of a number a task, equal at the start."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.logits = nn.Parameter(torch.zeros(len(tasks)))

    def shares(self) -> Tensor:
        """(T,), above 0, of sum 1."""
        return self.logits.softmax(0)

    def forward(self, maps: Tensor) -> Tensor:
        """(T, ...) float32 -> (1, ...).

        Not in the type of autocast: what moves a share is by how much the gradients of the maps differ, and these are sums over
        all pairs of tokens, of which a rounding to bfloat16 would leave little.
        """
        with torch.autocast(maps.device.type, enabled=False):
            return (self.shares()[None] @ maps.flatten(1)).view(1, *maps.shape[1:])


def find_leader(shares: Collection[Mapping[str, float]]) -> str:
    """The task with the largest mean share over several maps, {task: share} of each; the first of equal ones."""
    return max(next(iter(shares)), key=lambda task: sum(of_map[task] for of_map in shares))


class QueryKey(nn.Module):
    """Makes a map for each of `owners`, or, where it `mixes`, one map of all theirs.

    One linear layer gives query and key, and where `with_value` the owner's value too, from `dim` to `width` channels each.
    """

    def __init__(
        self,
        owners: Sequence[str],
        dim: int,
        width: int,
        heads: int,
        window: int,
        norm: bool,
        with_value: bool,
        mixes: bool = False,
    ) -> None:
        super().__init__()
        self.owners, self.heads = list(owners), heads
        self.gate = Gate(owners) if mixes else None
        self.parts = 3 if with_value else 2
        self.norm = LayerNorm(owners, dim) if norm else None
        self.linear = Linear(owners, dim, self.parts * width)
        self.position_bias = PositionBias(owners, window, heads)

    @property
    def map_owners(self) -> list[str]:
        """Whose the maps are: LEARNED where it is one that all have a share of."""
        return self.owners if self.gate is None else [LEARNED]

    def forward(self, tokens: Tensor, layout: Layout, norm: LayerNorm | None) -> tuple[Tensor, Tensor | None]:
        """tokens (owners, B, H, W, C), which `norm` norms first -> the maps, and the values, cut, or None.

        Maps: (owners, or 1 where it mixes, B * windows, heads, N, N), [query, key]; they sum to 1 over the keys.
        """
        made = self.linear(tokens) if norm is None else self.linear.after_norm(norm, tokens)
        query, key, *value = layout.cut(made, self.parts, len(tokens), self.heads, self.linear.bias)
        bias = self.position_bias(layout.offsets)[:, None]
        if layout.mask is not None:
            bias = bias + layout.mask[:, None]  # (owners, windows, heads, N, N)
        scores = (query @ key.transpose(-2, -1)).unflatten(1, (-1, bias.shape[1]))
        scores = torch.add(bias[:, None], scores, alpha=query.shape[-1] ** -0.5)
        maps = scores.softmax(dim=-1).flatten(1, 2)
        if self.gate is not None:
            maps = self.gate(maps)
        return maps.to(key.dtype), value[0] if value else None


class WindowAttention(nn.Module):
    """Window attention of every task's stream, pre-normed, with maps from the streams or from a context.

    owners: the tasks that own a map: all of `tasks`, each for itself, or one for all. With `mixes` the maps of all are mixed
    into one for all. A map is multiplied with the values of all its tasks in one product: no second softmax and no copy of it.
    dim: channels of the streams, and of query, key and value. context_dim: channels of the context.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        owners: Sequence[str],
        source: Source,
        dim: int,
        context_dim: int,
        heads: int,
        window: int,
        context_norm: bool,
        mixes: bool,
    ) -> None:
        super().__init__()
        self.tasks, self.owners, self.source, self.heads = list(tasks), list(owners), source, heads
        is_self_attention = source == "stream" and self.owners == self.tasks
        norm = source == "context" and context_norm
        source_dim = context_dim if source == "context" else dim
        self.norm1 = LayerNorm(tasks, dim)
        self.query_key = QueryKey(owners, source_dim, dim, heads, window, norm, is_self_attention, mixes)
        self.value = None if is_self_attention else Linear(tasks, dim, dim)
        self.proj = Linear(tasks, dim, dim)

    def attend(self, streams: Tensor, context: Tensor, layout: Layout) -> Tensor:
        """streams (T, B, H, W, dim) and the context (B, H, W, context_dim) -> what is to be added to the streams."""
        maps, values = self._make_maps(streams, context, layout)
        return self.proj(layout.windows.join(maps @ values, len(self.tasks)))

    def _make_maps(self, streams: Tensor, context: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """The maps A, as `QueryKey` makes them, and all tasks' values v, cut."""
        if self.value is None:
            return self.query_key(streams, layout, self.norm1)
        if self.source == "context":
            maps, _ = self.query_key(context.expand(len(self.owners), *context.shape), layout, self.query_key.norm)
            values = self.value.after_norm(self.norm1, streams)
        else:
            normed, owner = self.norm1(streams), self.tasks.index(self.owners[0])
            maps, _ = self.query_key(normed[owner : owner + 1], layout, None)
            values = self.value(normed)
        return maps, layout.cut(values, 1, len(maps), self.heads, self.value.bias).squeeze(0)


class Mlp(nn.Module):
    """Linear to four times the channels, GELU, Linear back."""

    def __init__(self, tasks: Sequence[str], dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(tasks, dim, 4 * dim)
        self.fc2 = Linear(tasks, 4 * dim, dim)

    def forward(self, tokens: Tensor, norm: LayerNorm) -> Tensor:
        """(T, ..., C), which `norm` norms first -> the same shape."""
        return self.fc2.after_gelu(self.fc1.after_norm(norm, tokens))


class WindowBlock(WindowAttention):
    """One block of every task's decoder: window attention and MLP, each pre-normed and residual."""

    def __init__(
        self,
        tasks: Sequence[str],
        owners: Sequence[str],
        source: Source,
        dim: int,
        heads: int,
        window: int,
        context_norm: bool,
        drop_path: float,
        mixes: bool = False,
    ) -> None:
        super().__init__(tasks, owners, source, dim, dim, heads, window, context_norm, mixes)
        self.drop_path = drop_path
        self.norm2 = LayerNorm(tasks, dim)
        self.mlp = Mlp(tasks, dim)

    def forward(self, streams: Tensor, context: Tensor, layout: Layout) -> Tensor:
        """streams (T, B, H, W, C) and the context (B, H, W, C) -> the updated streams."""
        streams = streams + self._drop(self.attend(streams, context, layout))
        return streams + self._drop(self.mlp(streams, self.norm2))

    def _drop(self, branch: Tensor) -> Tensor:
        """Drop path, drawn for each task, branch and image."""
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        return branch * branch.new_empty(*branch.shape[:2], 1, 1, 1).bernoulli_(keep).div_(keep)
