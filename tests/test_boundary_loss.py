"""The balanced cross-entropy against a loop in plain Python, torch's own, and its gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mult.errors import UserError
from mult.losses import balanced_cross_entropy


def make_case(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits, targets 0 or 1 and valid; an invalid target is not a number."""
    generator = torch.Generator().manual_seed(seed)
    output = 4 * torch.randn(3, 1, 5, 7, generator=generator)
    target = (torch.rand(output.shape, generator=generator) < 0.3).float()
    valid = torch.rand(output.shape, generator=generator) < 0.7
    return output, target.where(valid, math.nan), valid


@pytest.mark.parametrize("weight", [0.95, 0.8, 0.5])
def test_equals_a_loop(weight: float) -> None:
    output, target, valid = make_case()
    terms = []
    for logit, truth in zip(output[valid].tolist(), target[valid].tolist(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        terms.append(-weight * math.log(probability) if truth else -(1 - weight) * math.log(1 - probability))
    loss = balanced_cross_entropy(output, target, valid, positive_weight=weight)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_half_the_weight_is_half_of_torch_s() -> None:
    output, target, valid = make_case(1)
    expected = F.binary_cross_entropy_with_logits(output[valid], target[valid]) / 2
    torch.testing.assert_close(balanced_cross_entropy(output, target, valid, positive_weight=0.5), expected)


def test_the_usual_weight_is_0_95() -> None:
    case = make_case(2)
    assert balanced_cross_entropy(*case) == balanced_cross_entropy(*case, positive_weight=0.95)


def test_gradients_are_those_of_the_formula_and_exactly_zero_where_invalid() -> None:
    output, target, valid = make_case(3)
    output[~valid] = math.inf
    output.requires_grad_()
    balanced_cross_entropy(output, target, valid).backward()
    assert output.grad is not None
    assert (output.grad[~valid] == 0).all()
    logits, truth = output.detach()[valid], target[valid]
    weight = torch.where(truth > 0, 0.95, 0.05)
    torch.testing.assert_close(output.grad[valid], weight * (logits.sigmoid() - truth) / valid.sum())


def test_nothing_valid_is_zero_with_a_gradient_of_zero() -> None:
    output, target, valid = make_case(4)
    output.requires_grad_()
    loss = balanced_cross_entropy(output, torch.full_like(target, math.nan), torch.zeros_like(valid))
    loss.backward()
    assert loss.item() == 0
    assert output.grad is not None
    assert (output.grad == 0).all()


@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_huge_logits_stay_finite(truth: float, dtype: torch.dtype) -> None:
    output = torch.tensor([[[[-1e4, 1e4]]]]).to(dtype).requires_grad_()
    valid = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    loss = balanced_cross_entropy(output, torch.full((1, 1, 1, 2), truth), valid)
    loss.backward()
    size = output.detach().max().item()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((0.95 if truth else 0.05) * size / 2)
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()


def test_parts_with_a_common_count_add_up_to_the_whole() -> None:
    output, target, valid = make_case(5)
    count = valid.sum()
    parts = [balanced_cross_entropy(output[i : i + 1], target[i : i + 1], valid[i : i + 1], count) for i in range(3)]
    torch.testing.assert_close(torch.stack(parts).sum(), balanced_cross_entropy(output, target, valid))


def test_shapes_that_would_broadcast_are_refused() -> None:
    output, target, valid = make_case()
    for bad in ((output[:1], target, valid), (output, target[:, 0], valid), (output, target, valid.byte())):
        with pytest.raises(UserError, match=r"balanced_cross_entropy: got output .*; resize the output to the target"):
            balanced_cross_entropy(*bad)
