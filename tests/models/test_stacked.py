"""Stacked layers against a layer for each task, of torch's own modules and in a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mult.models.stacked import LayerNorm, Linear, Part, split_parameters, stacked_tasks

TASKS = ("a", "b", "c")
DIM, OUT = 6, 5


def drawn(*modules: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for module in modules:
        for parameter in module.double().parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def alone(stack: Any, task: int) -> Any:
    """A task's own layer of torch, with the task's weights."""
    parameters = {name: p[task].detach() for name, p in stack.named_parameters()}
    if isinstance(stack, LayerNorm):
        module: nn.Module = nn.LayerNorm(DIM)
    else:
        module = nn.Linear(DIM, OUT, bias="bias" in parameters)
    module.double().load_state_dict(parameters)
    return module


def after_nothing(linear: Linear, norm: LayerNorm, tokens: Tensor) -> Tensor:
    return linear(tokens)


def after_norm(linear: Linear, norm: LayerNorm, tokens: Tensor) -> Tensor:
    return linear.after_norm(norm, tokens)


def after_gelu(linear: Linear, norm: LayerNorm, tokens: Tensor) -> Tensor:
    return linear.after_gelu(tokens)


def norm_alone(linear: Linear, norm: LayerNorm, tokens: Tensor) -> Tensor:
    return norm(tokens)


CASES: list[tuple[Callable[[Linear, LayerNorm, Tensor], Tensor], Callable[[Any, Any, Tensor], Tensor]]] = [
    (after_nothing, lambda linear, norm, tokens: linear(tokens)),
    (after_norm, lambda linear, norm, tokens: linear(norm(tokens))),
    (after_gelu, lambda linear, norm, tokens: linear(nn.functional.gelu(tokens))),
    (norm_alone, lambda linear, norm, tokens: norm(tokens)),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 4, 3), (1, 2, 1)], ids=["many tokens", "few tokens"])
@pytest.mark.parametrize(("ours", "theirs"), CASES, ids=[case[0].__name__ for case in CASES])
def test_values_and_gradients_are_those_of_a_layer_for_each_task(
    ours: Any, theirs: Any, shape: tuple[int, ...], bias: bool
) -> None:
    linear, norm = Linear(TASKS, DIM, OUT, bias), LayerNorm(TASKS, DIM)
    drawn(linear, norm)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(len(TASKS), *shape, DIM, dtype=torch.float64, generator=generator).requires_grad_()
    result = ours(linear, norm, tokens)
    gradient = torch.randn(result.shape, dtype=torch.float64, generator=generator)
    result.backward(gradient)
    for task in range(len(TASKS)):
        own_linear, own_norm, own_tokens = alone(linear, task), alone(norm, task), tokens[task].detach().requires_grad_()
        expected = theirs(own_linear, own_norm, own_tokens)
        torch.testing.assert_close(result[task], expected, rtol=1e-12, atol=1e-12)
        expected.backward(gradient[task])
        assert tokens.grad is not None
        torch.testing.assert_close(tokens.grad[task], own_tokens.grad, rtol=1e-11, atol=1e-12)
        for stack, own in ((linear, own_linear), (norm, own_norm)):
            for name, parameter in own.named_parameters():
                stacked = getattr(stack, name).grad
                assert (stacked is None) == (parameter.grad is None)
                if stacked is not None:
                    torch.testing.assert_close(stacked[task], parameter.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("ours", [after_nothing, after_norm, after_gelu])
def test_one_task_s_loss_gives_another_s_weights_exactly_no_gradient(ours: Any) -> None:
    linear, norm = Linear(TASKS, DIM, OUT), LayerNorm(TASKS, DIM)
    tokens = torch.randn(len(TASKS), 20, DIM, requires_grad=True)
    ours(linear, norm, tokens)[1].sum().backward()
    for gradient in (tokens.grad, linear.weight.grad, linear.bias.grad if linear.bias is not None else None):
        assert gradient is not None
        assert gradient[1].any()
        assert not gradient[0].any()
        assert not gradient[2].any()


@pytest.mark.parametrize("ours", [after_norm, after_gelu])
def test_of_a_norm_or_a_gelu_and_its_layer_the_input_alone_is_kept(ours: Any) -> None:
    linear, norm = Linear(TASKS, DIM, OUT), LayerNorm(TASKS, DIM)
    tokens = torch.randn(len(TASKS), 200, DIM, requires_grad=True)
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ours(linear, norm, tokens)
    assert {tensor.data_ptr() for tensor in kept if tensor.numel() >= tokens.numel()} == {tokens.data_ptr()}


@pytest.mark.parametrize("ours", [after_nothing, after_norm, after_gelu])
@pytest.mark.parametrize("tokens", [2, 200])
def test_autocast_multiplies_in_its_type_and_gradients_keep_theirs(ours: Any, tokens: int) -> None:
    linear, norm = Linear(TASKS, DIM, OUT), LayerNorm(TASKS, DIM)
    images = torch.randn(len(TASKS), tokens, DIM, requires_grad=True)
    exact = ours(linear, norm, images).detach()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = ours(linear, norm, images)
    assert rounded.dtype == torch.bfloat16
    assert 0 < float((rounded.detach() - exact).abs().max()) < 0.03 * float(exact.abs().max())
    rounded.sum().backward()
    assert images.grad is not None
    assert linear.weight.grad is not None
    assert images.grad.dtype == linear.weight.grad.dtype == torch.float32


def test_parameters_are_split_by_task() -> None:
    module = nn.ModuleDict({"stack": Linear(TASKS, DIM, OUT), "plain": nn.Linear(2, 3)})
    assert stacked_tasks(module) == {"stack.weight": TASKS, "stack.bias": TASKS}
    parts = split_parameters(module)
    named = dict(module.named_parameters())
    expected: list[tuple[Tensor, int | None]] = [(named[f"stack.{name}"], i) for name in ("weight", "bias") for i in range(3)]
    expected += [(named["plain.weight"], None), (named["plain.bias"], None)]
    assert [part.index for part in parts] == [index for _, index in expected]
    assert all(part.parameter is parameter for part, (parameter, _) in zip(parts, expected, strict=True))
    assert [part.numel() for part in parts] == [30, 30, 30, 5, 5, 5, 6, 3]
    tensor = torch.arange(12).view(3, 4)
    assert Part(named["stack.bias"], 1).of(tensor).tolist() == [4, 5, 6, 7]
    assert Part(named["plain.bias"]).of(tensor) is tensor
