"""Losses over valid pixels: (output, encoded target, valid, count) -> scalar, and what each of them counts.

Source: the paper's loss list and, for `rotate_l1`, Task Grouping (Standley et al., ICML 2020). All are means over valid
pixels; where Task Grouping averages over all pixels and counts masked ones as 0, we leave them out.

Every loss takes `count`, its denominator. None means what is at hand; a training loop that splits a step into parts
(micro-batches, processes) sums `LOSSES[name][1](valid)` over the parts first and gives each part the sum, so that the
losses of the parts add up to that of the whole. A count of 0 makes the loss 0. An output in half precision is taken to
float32 first. Whatever an invalid pixel's target holds (NaN too), its gradient is exactly 0; with no valid pixel the
loss is 0 and so are all gradients. UserError where shapes disagree.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mult.errors import UserError

IGNORE = 255
"""The class id of a pixel without a class."""

# The unshifted prediction first: argmin takes the first of equals.
_SHIFTS = ((0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def cross_entropy(output: Tensor, target: Tensor, valid: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Mean cross-entropy, in nats, over the pixels that are valid and have a class.

    output (B, C, H, W) logits; target (B, H, W) int64 class ids, 255 = ignore; valid (B, 1, H, W) bool ->
    float32 scalar.
    """
    _check("cross_entropy", output[:, 0], target, valid)
    target = target.masked_fill(~valid[:, 0], IGNORE)
    total = F.cross_entropy(output.float(), target, ignore_index=IGNORE, reduction="sum")
    return _divide(total, (target != IGNORE).sum() if count is None else count)


def l1(output: Tensor, target: Tensor, valid: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Absolute difference, the mean over channels and then over valid pixels.

    output and target (B, C, H, W), valid (B, 1, H, W) bool -> float32 scalar.
    """
    _check("l1", output, target, valid)
    total = _masked_difference(output.float(), target, valid).sum() / output.shape[1]
    return _divide(total, valid_pixels(valid) if count is None else count)


def rotate_l1(output: Tensor, target: Tensor, valid: Tensor, count: float | Tensor | None = None) -> Tensor:
    """The rotate loss: L1 that forgives an offset of one pixel, the mean over images.

    Of an image: the smallest, over the nine shifts (dy, dx) in {-1, 0, 1}^2 of the prediction, of the mean absolute
    difference over the valid interior pixels (1..H-2, 1..W-2) of the target; an image that has none does not count.
    output and target (B, C, H, W), valid (B, 1, H, W) bool -> float32 scalar.
    Deviates from Task Grouping's code, which divides by all interior pixels.
    """
    _check("rotate_l1", output, target, valid)
    output = output.float()
    inner_target, inner_valid = target[..., 1:-1, 1:-1], valid[..., 1:-1, 1:-1]
    # The minimum's gradient is that of the shift which attains it, so only that one is differentiated.
    with torch.no_grad():
        errors = [_masked_difference(_shifted(output, s), inner_target, inner_valid).sum((1, 2, 3)) for s in _SHIFTS]
        best = torch.stack(errors).argmin(0).tolist()
    aligned = torch.stack([_shifted(image, _SHIFTS[index]) for image, index in zip(output, best, strict=True)])
    pixels = output.shape[1] * inner_valid.sum((1, 2, 3)).clamp(min=1)
    total = (_masked_difference(aligned, inner_target, inner_valid).sum((1, 2, 3)) / pixels).sum()
    return _divide(total, valid_images(valid) if count is None else count)


def valid_pixels(valid: Tensor) -> Tensor:
    """Number of True in `valid` (B, 1, H, W): what `l1` divides by, and `cross_entropy` if it is `target != 255`."""
    return valid.sum()


def valid_images(valid: Tensor) -> Tensor:
    """Number of images in `valid` (B, 1, H, W) with a True away from the border: what `rotate_l1` divides by."""
    return valid[..., 1:-1, 1:-1].flatten(1).any(1).sum()


Loss = Callable[..., Tensor]
Count = Callable[[Tensor], Tensor]

LOSSES: dict[str, tuple[Loss, Count]] = {
    "cross_entropy": (cross_entropy, valid_pixels),
    "l1": (l1, valid_pixels),
    "rotate_l1": (rotate_l1, valid_images),
}
"""A config's name of a loss -> the loss, and what counts its denominator from `valid`."""


def _check(where: str, output: Tensor, target: Tensor, valid: Tensor) -> None:
    """Shapes that broadcast would give a plausible wrong number."""
    expected_valid = (target.shape[0], 1, *target.shape[-2:])
    if output.shape != target.shape or valid.shape != expected_valid or valid.dtype != torch.bool:
        raise UserError(
            f"{where}: got output {tuple(output.shape)}, target {tuple(target.shape)}, valid {tuple(valid.shape)} "
            f"{valid.dtype}; expected equal shapes and valid (B, 1, H, W) torch.bool; resize the output to the target"
        )


def _masked_difference(output: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """|output - target|, 0 where invalid; masked before the modulus, whose gradient at NaN is NaN."""
    return torch.where(valid, output - target, 0.0).abs()


def _shifted(output: Tensor, shift: tuple[int, int]) -> Tensor:
    """The interior (..., H - 2, W - 2) of what `output` (..., H, W) shows at the pixels (y + dy, x + dx)."""
    (dy, dx), (height, width) = shift, output.shape[-2:]
    return output[..., 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]


def _divide(total: Tensor, count: float | Tensor) -> Tensor:
    # Dividing by inf, not branching: 0 with a zero gradient, and no wait for a GPU.
    count = torch.as_tensor(count, dtype=total.dtype, device=total.device)
    return total / torch.where(count > 0, count, torch.inf)
