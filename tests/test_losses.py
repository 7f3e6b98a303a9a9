"""Losses against loops in plain Python, their gradients, masks and denominators."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult import losses
from mult.draw import Classes
from mult.errors import UserError
from mult.losses import (
    LOSSES,
    TARGETS,
    balanced_cross_entropy,
    binary_cross_entropy,
    count_images,
    count_pixels,
    cross_entropy,
    l1,
    rotate_l1,
)
from mult.metrics import segmentation
from mult.tasks import IGNORE, TASKS

BATCH, CLASSES, HEIGHT, WIDTH = 3, 4, 5, 7
SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
Case = tuple[Tensor, Tensor, Tensor]


def make_case(name: str, channels: int = 2, seed: int = 0) -> Case:
    """Random output, target and valid of small, asymmetric sizes; image 1 has no valid interior pixel."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(BATCH, 1, HEIGHT, WIDTH, generator=generator) < 0.6
    valid[1, :, 1:-1, 1:-1] = False
    valid[1, 0, 0, 2] = True
    if name == "cross_entropy":
        output = 3 * torch.randn(BATCH, CLASSES, HEIGHT, WIDTH, generator=generator)
        return output, torch.randint(CLASSES, (BATCH, HEIGHT, WIDTH), generator=generator), valid
    if "binary" in name or "balanced" in name:
        output = 3 * torch.randn(BATCH, 1, HEIGHT, WIDTH, generator=generator)
        return output, torch.randint(2, (BATCH, 1, HEIGHT, WIDTH), generator=generator).float(), valid
    output = torch.randn(BATCH, channels, HEIGHT, WIDTH, generator=generator)
    return output, torch.randn(BATCH, channels, HEIGHT, WIDTH, generator=generator), valid


def reference_cross_entropy(output: NDArray[Any], target: NDArray[Any], valid: NDArray[Any]) -> float:
    terms = []
    for b, y, x in np.ndindex(target.shape):
        if valid[b, 0, y, x] and target[b, y, x] != 255:
            logits = output[b, :, y, x]
            terms.append(math.log(sum(math.exp(v) for v in logits)) - logits[target[b, y, x]])
    return sum(terms) / len(terms)


def reference_l1(output: NDArray[Any], target: NDArray[Any], valid: NDArray[Any]) -> float:
    terms = []
    for b, y, x in np.ndindex(valid[:, 0].shape):
        if valid[b, 0, y, x]:
            terms.append(np.mean([abs(o - t) for o, t in zip(output[b, :, y, x], target[b, :, y, x], strict=True)]))
    return float(sum(terms) / len(terms))


def reference_rotate_l1(output: NDArray[Any], target: NDArray[Any], valid: NDArray[Any]) -> float:
    images = []
    _, channels, height, width = output.shape
    for b in range(len(output)):
        shifted = []
        for dy, dx in SHIFTS:
            terms = [
                abs(output[b, c, y + dy, x + dx] - target[b, c, y, x])
                for c in range(channels)
                for y in range(1, height - 1)
                for x in range(1, width - 1)
                if valid[b, 0, y, x]
            ]
            if terms:
                shifted.append(sum(terms) / len(terms))
        if shifted:
            images.append(min(shifted))
    return float(sum(images) / len(images))


def reference_binary_cross_entropy(
    output: NDArray[Any], target: NDArray[Any], valid: NDArray[Any], weights: tuple[float, float] = (1.0, 1.0)
) -> float:
    """`weights` are those of a negative and of a positive pixel."""
    terms = []
    for b, y, x in np.ndindex(valid[:, 0].shape):
        if valid[b, 0, y, x]:
            probability = 1 / (1 + math.exp(-output[b, 0, y, x]))
            positive = target[b, 0, y, x]
            terms.append(
                -weights[1] * positive * math.log(probability) - weights[0] * (1 - positive) * math.log(1 - probability)
            )
    return sum(terms) / len(terms)


REFERENCES: dict[str, Any] = {
    "cross_entropy": reference_cross_entropy,
    "balanced_cross_entropy": partial(reference_binary_cross_entropy, weights=(0.05, 0.95)),
    "binary_cross_entropy": reference_binary_cross_entropy,
    "l1": reference_l1,
    "rotate_l1": reference_rotate_l1,
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_loop(name: str, seed: int) -> None:
    output, target, valid = make_case(name, seed=seed)
    if name == "cross_entropy":
        target[0, 2, 3:6] = 255
    expected = REFERENCES[name](output.double().numpy(), target.numpy(), valid.numpy())
    loss = LOSSES[name][0](output, target, valid)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_averaged_in_float32(name: str) -> None:
    output, target, valid = make_case(name)
    output = output.bfloat16()
    expected = REFERENCES[name](output.double().numpy(), target.numpy(), valid.numpy())
    loss = LOSSES[name][0](output, target, valid)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("name", ["l1", "rotate_l1"])
def test_what_an_invalid_pixel_holds_does_not_matter(name: str, garbage: float) -> None:
    output, target, valid = make_case(name)
    dirty = torch.where(valid, target, garbage)
    clean_loss, clean_gradient = value_and_gradient(name, output, target, valid)
    loss, gradient = value_and_gradient(name, output, dirty, valid)
    assert torch.equal(loss, clean_loss)
    assert torch.equal(gradient, clean_gradient)
    assert gradient.isfinite().all()


def test_an_invalid_class_id_does_not_matter() -> None:
    output, target, valid = make_case("cross_entropy")
    dirty = torch.where(valid[:, 0], target, 10**6)
    for expected, got in zip(
        value_and_gradient("cross_entropy", output, target, valid),
        value_and_gradient("cross_entropy", output, dirty, valid),
        strict=True,
    ):
        assert torch.equal(expected, got)


@pytest.mark.parametrize("name", ["cross_entropy", "l1"])
def test_gradient_is_exactly_zero_where_invalid_and_only_there(name: str) -> None:
    output, target, valid = make_case(name)
    _, gradient = value_and_gradient(name, output, target, valid)
    invalid = ~valid.expand_as(output)
    assert (gradient[invalid] == 0).all()
    assert (gradient[~invalid] != 0).all()


def test_ignored_class_has_no_gradient_though_valid() -> None:
    output, target, valid = make_case("cross_entropy")
    target[0, 1] = 255
    valid[0, 0, 1] = True
    _, gradient = value_and_gradient("cross_entropy", output, target, valid)
    assert (gradient[0, :, 1] == 0).all()


@pytest.mark.parametrize("size", [(5, 7), (2, 6), (1, 1)])
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_valid_is_zero_with_zero_gradient(name: str, size: tuple[int, int]) -> None:
    output = torch.randn(2, 3, *size)
    target = torch.full((2, *size), 255) if name == "cross_entropy" else torch.full((2, 3, *size), math.nan)
    valid = torch.zeros(2, 1, *size, dtype=torch.bool)
    loss, gradient = value_and_gradient(name, output, target, valid)
    assert loss.item() == 0
    assert (gradient == 0).all()
    assert LOSSES[name][1](valid).item() == 0


def test_rotate_l1_of_a_valid_border_alone_is_zero() -> None:
    output, target, valid = make_case("rotate_l1")
    loss, gradient = value_and_gradient("rotate_l1", output[1:2], target[1:2], valid[1:2])
    assert loss.item() == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("count", [0, 0.0, torch.tensor(0)])
@pytest.mark.parametrize("name", LOSSES)
def test_count_zero_is_zero(name: str, count: float | Tensor) -> None:
    loss, gradient = value_and_gradient(name, *make_case(name), count)
    assert loss.item() == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("kind", [int, float, torch.tensor])
@pytest.mark.parametrize("name", LOSSES)
def test_parts_with_the_global_count_add_up_to_the_whole(name: str, kind: Any) -> None:
    output, target, valid = make_case(name)
    _, count = LOSSES[name]
    total = kind(sum(int(count(valid[i : i + 1])) for i in range(BATCH)))
    whole, gradient = value_and_gradient(name, output, target, valid)
    parts = [value_and_gradient(name, output[i : i + 1], target[i : i + 1], valid[i : i + 1], total) for i in range(BATCH)]
    torch.testing.assert_close(torch.stack([loss for loss, _ in parts]).sum(), whole, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.cat([part for _, part in parts]), gradient, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_fractional_count_scales(name: str) -> None:
    """Under DDP the count is divided by the number of processes, perhaps to less than 1."""
    output, target, valid = make_case(name)
    loss, count = LOSSES[name]
    torch.testing.assert_close(loss(output, target, valid, 0.25), loss(output, target, valid) * count(valid) * 4)


def test_counts() -> None:
    valid = torch.zeros(4, 1, 3, 4, dtype=torch.bool)
    valid[0, 0, 0] = True  # border alone
    valid[1, 0, 1, 2] = True
    valid[3] = True
    assert count_pixels(valid).item() == 4 + 1 + 12
    assert count_images(valid).item() == 2


def naive_rotate_l1(output: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    _, channels, height, width = output.shape
    images = []
    for image, truth, mask in zip(output, target, valid, strict=True):
        inner = mask[:, 1:-1, 1:-1].expand(channels, -1, -1)
        if not inner.any():
            continue
        shifted = [
            (image[:, 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx] - truth[:, 1:-1, 1:-1])[inner].abs().mean()
            for dy, dx in SHIFTS
        ]
        images.append(torch.stack(shifted).min())
    return torch.stack(images).mean()


@pytest.mark.parametrize("seed", range(4))
def test_rotate_l1_has_the_gradient_of_the_nine_way_minimum(seed: int) -> None:
    output, target, valid = make_case("rotate_l1", seed=seed)
    loss, gradient = value_and_gradient("rotate_l1", output, target, valid)
    output.requires_grad_().grad = None
    expected = naive_rotate_l1(output, target, valid)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    assert output.grad is not None
    torch.testing.assert_close(gradient, output.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("dy", "dx"), SHIFTS)
def test_rotate_l1_forgives_one_pixel(dy: int, dx: int) -> None:
    target = torch.randn(1, 1, 9, 11, generator=torch.Generator().manual_seed(1))
    output = target.roll((dy, dx), (2, 3))
    everywhere = torch.ones_like(target, dtype=torch.bool)
    assert rotate_l1(output, target, everywhere).item() == 0
    if (dy, dx) != (0, 0):
        assert l1(output, target, everywhere).item() > 0.5


def test_rotate_l1_does_not_forgive_two_pixels() -> None:
    target = torch.randn(1, 1, 9, 11, generator=torch.Generator().manual_seed(1))
    assert rotate_l1(target.roll(2, 3), target, torch.ones_like(target, dtype=torch.bool)).item() > 0.5


def test_rotate_l1_chooses_the_shift_of_each_image() -> None:
    target = torch.randn(3, 1, 9, 11, generator=torch.Generator().manual_seed(1))
    moves = [(1, 0), (0, -1), (-1, 1)]
    output = torch.stack([image.roll(move, (1, 2)) for image, move in zip(target, moves, strict=True)])
    assert rotate_l1(output, target, torch.ones_like(target, dtype=torch.bool)).item() == 0


def test_rotate_l1_masks_at_the_target_not_at_the_shifted_prediction() -> None:
    """The prediction is the target moved one to the right: target pixel (3, 4) is compared with prediction (3, 5)."""
    target = torch.randn(1, 1, 7, 9, generator=torch.Generator().manual_seed(2))
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[0, 0, 3, 4] = False
    moved = target.roll(1, 3)
    masked = moved.clone()
    masked[0, 0, 3, 5] += 100
    assert rotate_l1(masked, target, valid).item() == 0
    unmasked = moved.clone()
    unmasked[0, 0, 3, 4] += 100  # belongs to the valid target pixel (3, 3)
    assert rotate_l1(unmasked, target, valid).item() > 0.5


def test_rotate_l1_weighs_images_equally_however_few_their_pixels() -> None:
    output, target = torch.zeros(2, 1, 5, 6), torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 5, 6)
    valid = torch.ones(2, 1, 5, 6, dtype=torch.bool)
    valid[1] = False
    valid[1, 0, 2, 3] = True
    assert rotate_l1(output, target, valid).item() == 2


def test_rotate_l1_ignores_the_border_of_the_target() -> None:
    output, target, _ = make_case("rotate_l1")
    valid = torch.ones(BATCH, 1, HEIGHT, WIDTH, dtype=torch.bool)
    inner = torch.zeros_like(valid)
    inner[..., 1:-1, 1:-1] = True
    assert torch.equal(rotate_l1(output, target, valid), rotate_l1(output, torch.where(inner, target, 1e6), valid))


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_that_would_broadcast_are_refused(name: str) -> None:
    output, target, valid = make_case(name)
    loss = LOSSES[name][0]
    message = rf"{name}: got output .*; expected equal shapes and valid \(B, 1, H, W\) torch.bool; resize the output"
    for bad in ((output, target[..., :1], valid), (output, target, valid[:, 0]), (output, target, valid.float())):
        with pytest.raises(UserError, match=message):
            loss(*bad)


def test_losses_metrics_and_pictures_ignore_the_same_class_id() -> None:
    assert IGNORE == losses.IGNORE == segmentation.IGNORE == 255
    assert {task.colours.ignore for task in TASKS.values() if isinstance(task.colours, Classes)} == {IGNORE}


def test_names() -> None:
    assert TARGETS.keys() == LOSSES.keys()
    assert {name: loss for name, (loss, _) in LOSSES.items()} == {
        "cross_entropy": cross_entropy,
        "balanced_cross_entropy": balanced_cross_entropy,
        "binary_cross_entropy": binary_cross_entropy,
        "l1": l1,
        "rotate_l1": rotate_l1,
    }


def value_and_gradient(
    name: str, output: Tensor, target: Tensor, valid: Tensor, count: float | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    leaf = output.detach().clone().requires_grad_()
    loss = LOSSES[name][0](leaf, target, valid, count)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad
