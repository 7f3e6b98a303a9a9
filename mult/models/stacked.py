"""Layers of several tasks side by side: parameters with the tasks as their first axis, and one product for all of them.

Tokens are (T, ..., C); task t's tokens meet the t-th slice of the parameters and no other, as if every task had a layer of its
own. A GPU gets one large kernel in place of T small ones.

What a layer norm or a GELU gives to a linear layer is not kept for the backward pass but computed again: it is cheap, and it
would be most of what the decoders keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPSILON = 1e-5
Before = Literal["nothing", "norm", "gelu"]


class Stack(nn.Module):
    """A layer a task. `tasks` says whose the slices along the first axis of its parameters are."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)


def stacked_tasks(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """Name of each stacked parameter in a module -> whose its slices are."""
    return {
        f"{path}.{name}": stack.tasks
        for path, stack in module.named_modules()
        if isinstance(stack, Stack)
        for name, _ in stack.named_parameters(recurse=False)
    }


@dataclass(frozen=True, eq=False)
class Part:
    """A parameter, or one task's slice of a stacked one."""

    parameter: nn.Parameter
    index: int | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """The same part of a tensor of the parameter's shape, as a view."""
        return tensor if self.index is None else tensor[self.index]

    def numel(self) -> int:
        return self.of(self.parameter).numel()


def split_parameters(module: nn.Module) -> list[Part]:
    """All parameters of a module, the stacked ones in a part for each task."""
    stacked = stacked_tasks(module)
    return [
        Part(parameter, index)
        for name, parameter in module.named_parameters()
        for index in (range(len(stacked[name])) if name in stacked else [None])
    ]


class LayerNorm(Stack):
    """(T, ..., C) -> the same shape, normed over C."""

    def __init__(self, tasks: Sequence[str], dim: int) -> None:
        super().__init__(tasks)
        self.weight = nn.Parameter(torch.ones(len(tasks), dim))
        self.bias = nn.Parameter(torch.zeros(len(tasks), dim))

    def forward(self, tokens: Tensor) -> Tensor:
        shape = (len(self.tasks), *[1] * (tokens.ndim - 2), tokens.shape[-1])
        return torch.addcmul(self.bias.view(shape), F.layer_norm(tokens, shape[-1:], eps=EPSILON), self.weight.view(shape))


class Linear(Stack):
    """(T, ..., C) -> (T, ..., out), after nothing, a layer norm or a GELU."""

    def __init__(self, tasks: Sequence[str], dim: int, out_dim: int, bias: bool = True) -> None:
        super().__init__(tasks)
        self.weight = nn.Parameter(torch.empty(len(tasks), out_dim, dim))
        self.bias = nn.Parameter(torch.zeros(len(tasks), out_dim)) if bias else None
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)  # Swin's deviation of 0.02 suits its widths, and starts narrow decoders slowly

    def forward(self, tokens: Tensor) -> Tensor:
        return _linear("nothing", tokens, self.weight, self.bias)

    def after_gelu(self, tokens: Tensor) -> Tensor:
        return _linear("gelu", tokens, self.weight, self.bias)

    def after_norm(self, norm: LayerNorm, tokens: Tensor) -> Tensor:
        """W (n * g + b) + c, with n the tokens normed and g, b the norm's own scale and bias.

        As (W g) n + (W b + c) it passes over the tokens less often, and over the weights more often: for many tokens, and in an
        exported graph, which must not depend on the batch's size: there the number of tokens is a symbol.
        """
        count = tokens.numel()
        if isinstance(count, int) and count < self.weight.numel():
            return self(norm(tokens))
        with torch.autocast(tokens.device.type, enabled=False):  # rounded once, as a sum
            offset, own = norm.bias[:, :, None], self.bias
            bias = self.weight @ offset if own is None else torch.baddbmm(own[:, :, None], self.weight, offset)
        return _linear("norm", tokens, self.weight * norm.weight[:, None], bias.squeeze(-1))


def _linear(before: Before, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """In the type of autocast, where that is on."""
    device = tokens.device.type
    if torch.is_autocast_enabled(device):
        weight = weight.to(torch.get_autocast_dtype(device))
    result: Tensor = _Linear.apply(before, tokens.flatten(1, -2), weight, bias)
    return result.view(*tokens.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    """y = f(x) W^T + b for f of `before`, with x and not f(x) kept. x (T, N, C), W (T, out, C), b (T, out) or None."""

    @staticmethod
    def forward(ctx: Any, before: Before, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.before, ctx.bias_dtype = before, None if bias is None else bias.dtype
        ctx.save_for_backward(tokens, weight)
        inputs = _apply(before, tokens)[0].to(weight.dtype)
        if bias is None:
            return torch.bmm(inputs, weight.transpose(1, 2))
        return torch.baddbmm(bias[:, None].to(weight.dtype), inputs, weight.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight = ctx.saved_tensors
        inputs, *statistics = _apply(ctx.before, tokens)
        of_weight = torch.bmm(gradient.transpose(1, 2), inputs.to(weight.dtype))
        of_inputs = torch.bmm(gradient, weight).to(tokens.dtype)
        if ctx.before == "norm":
            shape, wanted = tokens.shape[-1:], [True, False, False]
            backward = torch.ops.aten.native_layer_norm_backward
            of_tokens = backward(of_inputs, tokens, shape, *statistics, None, None, wanted)[0]
        elif ctx.before == "gelu":
            of_tokens = torch.ops.aten.gelu_backward(of_inputs, tokens)
        else:
            of_tokens = of_inputs
        return None, of_tokens, of_weight, gradient.sum(1, dtype=ctx.bias_dtype) if ctx.bias_dtype else None


def _apply(before: Before, tokens: Tensor) -> tuple[Tensor, ...]:
    """f(x), and of a norm the mean and the inverse deviation."""
    if before == "norm":
        return torch.native_layer_norm(tokens, tokens.shape[-1:], None, None, EPSILON)
    return (F.gelu(tokens) if before == "gelu" else tokens,)
