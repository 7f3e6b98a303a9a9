"""Losses over valid pixels: (output, encoded target, valid, count) -> scalar, and what each of them is divided by.

Source: the paper's list of losses and, for `rotate_l1`, Task Grouping (Standley et al., ICML 2020). All are means over valid
pixels. Task Grouping averages over all pixels and counts masked ones as 0; here they are left out.

Every loss takes `count`, its denominator; None means the count of the batch itself. A training loop that splits a step into
parts (micro-batches, processes) first sums `LOSSES[name][1](valid)` over all parts and gives every part that sum, so that the
losses of the parts add up to the loss of the whole. A count of 0 makes the loss 0. An output in half precision is converted to
float32 first. The target of an invalid pixel may hold anything, NaN too: the gradient there is exactly 0, and with no valid
pixel the loss and all gradients are 0. UserError where shapes disagree.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mult.errors import UserError

IGNORE = 255
"""The class id of a pixel without a class, which no loss counts."""

# The unshifted prediction comes first because argmin takes the first of equal values.
_SHIFTS = ((0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def cross_entropy(output: Tensor, target: Tensor, valid: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Mean cross-entropy, in nats, over the pixels that are valid and have a class.

    output (B, C, H, W) logits; target (B, H, W) int64 class ids, 255 = ignore; valid (B, 1, H, W) bool ->
    float32 scalar.
    """
    _check("cross_entropy", output[:, 0], target, valid)
    target = target.masked_fill(~valid[:, 0], IGNORE)
    # Summed here, because the sum inside is not deterministic on a GPU.
    losses = F.cross_entropy(output.float(), target, ignore_index=IGNORE, reduction="none")
    return _divide(losses.sum(), (target != IGNORE).sum() if count is None else count)


def balanced_cross_entropy(
    output: Tensor, target: Tensor, valid: Tensor, count: float | Tensor | None = None, positive_weight: float = 0.95
) -> Tensor:
    """Binary cross-entropy, in nats, weighted by class: the mean over valid pixels.

    A positive pixel weighs `positive_weight`, a negative one 1 - positive_weight; the weights are not normalised by how many
    there are. output (B, 1, H, W) logits; target (B, 1, H, W) 0 or 1; valid (B, 1, H, W) bool -> float32 scalar.
    """
    _check("balanced_cross_entropy", output, target, valid)
    logits, truth = output.float().where(valid, 0.0), target.where(valid, 0.0)
    weight = (positive_weight * truth + (1 - positive_weight) * (1 - truth)).where(valid, 0.0)
    total = F.binary_cross_entropy_with_logits(logits, truth.float(), weight, reduction="sum")
    return _divide(total, count_pixels(valid) if count is None else count)


def binary_cross_entropy(output: Tensor, target: Tensor, valid: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Binary cross-entropy, in nats, of all pixels alike: the mean over valid pixels.

    output (B, 1, H, W) logits; target (B, 1, H, W) 0 or 1; valid (B, 1, H, W) bool -> float32 scalar.
    """
    _check("binary_cross_entropy", output, target, valid)
    return 2 * balanced_cross_entropy(output, target, valid, count, positive_weight=0.5)


def l1(output: Tensor, target: Tensor, valid: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Absolute difference, the mean over channels and then over valid pixels.

    output and target (B, C, H, W), valid (B, 1, H, W) bool -> float32 scalar.
    """
    _check("l1", output, target, valid)
    total = _absolute_difference(output.float(), target, valid).sum() / output.shape[1]
    return _divide(total, count_pixels(valid) if count is None else count)


def rotate_l1(output: Tensor, target: Tensor, valid: Tensor, count: float | Tensor | None = None) -> Tensor:
    """The rotate loss: L1 that forgives an offset of one pixel, the mean over images.

    For an image: the smallest, over the nine shifts (dy, dx) in {-1, 0, 1}^2 of the prediction, of the mean absolute
    difference over the valid interior pixels (1..H-2, 1..W-2) of the target. An image without any does not count.
    output and target (B, C, H, W), valid (B, 1, H, W) bool -> float32 scalar.
    Deviates from Task Grouping's code, which divides by the number of all interior pixels.
    """
    _check("rotate_l1", output, target, valid)
    output = output.float()
    inner_target, inner_valid = target[..., 1:-1, 1:-1], valid[..., 1:-1, 1:-1]
    # The gradient of a minimum is that of the shift that attains it, so only that shift is differentiated.
    with torch.no_grad():
        sums = [_absolute_difference(_shift(output, s), inner_target, inner_valid).sum((1, 2, 3)) for s in _SHIFTS]
        best = torch.stack(sums).argmin(0)
    shifted = _shift_each(output, best)
    values = output.shape[1] * inner_valid.sum((1, 2, 3)).clamp(min=1)
    total = (_absolute_difference(shifted, inner_target, inner_valid).sum((1, 2, 3)) / values).sum()
    return _divide(total, count_images(valid) if count is None else count)


def count_pixels(valid: Tensor) -> Tensor:
    """How many pixels of (B, 1, H, W) are True: the denominator of `l1`, and of `cross_entropy` if valid is `target != 255`."""
    return valid.sum()


def count_images(valid: Tensor) -> Tensor:
    """How many images of (B, 1, H, W) have a True that is not on the border: the denominator of `rotate_l1`."""
    return valid[..., 1:-1, 1:-1].flatten(1).any(1).sum()


Loss = Callable[..., Tensor]
Count = Callable[[Tensor], Tensor]

LOSSES: dict[str, tuple[Loss, Count]] = {
    "cross_entropy": (cross_entropy, count_pixels),
    "balanced_cross_entropy": (balanced_cross_entropy, count_pixels),
    "binary_cross_entropy": (binary_cross_entropy, count_pixels),
    "l1": (l1, count_pixels),
    "rotate_l1": (rotate_l1, count_images),
}
"""The name of a loss in a config -> the loss, and the function that counts its denominator from `valid`."""

TARGETS: dict[str, str] = {
    "cross_entropy": "classes",
    "balanced_cross_entropy": "probabilities",
    "binary_cross_entropy": "probabilities",
    "l1": "values",
    "rotate_l1": "values",
}
"""The name of a loss -> what it compares the output with: a task takes the losses of the same kind as its own."""


def _check(where: str, output: Tensor, target: Tensor, valid: Tensor) -> None:
    # Shapes that broadcast would give a plausible wrong number.
    expected_valid = (target.shape[0], 1, *target.shape[-2:])
    if output.shape != target.shape or valid.shape != expected_valid or valid.dtype != torch.bool:
        raise UserError(
            f"{where}: got output {tuple(output.shape)}, target {tuple(target.shape)}, valid {tuple(valid.shape)} "
            f"{valid.dtype}; expected equal shapes and valid (B, 1, H, W) torch.bool; resize the output to the target"
        )


def _absolute_difference(output: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """|output - target|, 0 where invalid; masked before the absolute value, whose gradient at NaN is NaN."""
    return torch.where(valid, output - target, 0.0).abs()


def _shift(output: Tensor, shift: tuple[int, int]) -> Tensor:
    """(..., H, W) -> (..., H - 2, W - 2): for each interior pixel (y, x) the value at (y + dy, x + dx)."""
    (dy, dx), (height, width) = shift, output.shape[-2:]
    return output[..., 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]


def _shift_each(output: Tensor, shifts: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H - 2, W - 2): `_shift` of each image by the shift of its index in _SHIFTS, (B,).

    By `where` alone: reading the indices would make the CPU wait for the GPU.
    """
    place = torch.where(shifts == 0, 4, shifts - (shifts < 5).long()).view(-1, 1, 1, 1)  # in the 3 x 3 square, row by row
    row, column = place // 3, place % 3
    rows = torch.where(row == 1, output[..., 1:-1, :], torch.where(row == 0, output[..., :-2, :], output[..., 2:, :]))
    return torch.where(column == 1, rows[..., 1:-1], torch.where(column == 0, rows[..., :-2], rows[..., 2:]))


def _divide(total: Tensor, count: float | Tensor) -> Tensor:
    # A count of 0 becomes inf: the loss is 0 with a zero gradient, and a branch would make the CPU wait for the GPU.
    count = torch.as_tensor(count, dtype=total.dtype, device=total.device)
    return total / torch.where(count > 0, count, torch.inf)
