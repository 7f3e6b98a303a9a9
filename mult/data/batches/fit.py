"""How a view of any size becomes the network's input: `data.fit`, one definition for training, evaluation and prediction.

short_side  Both sides are scaled alike until the view covers the network's (height, width). Training crops the rest, evaluation
            and prediction keep it: the input may be longer than the network's size along one side.
stretch     Training as short_side; for evaluation and prediction each side is scaled on its own to the network's size, as in
            the first version, which squeezes views of another shape.
pad         The view at its own size, or scaled down, both sides alike, until it fits; black around it, and no label there.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from mult.data.sample import Box, Sample
from mult.errors import UserError
from mult.tasks import IGNORE, TASKS

Fit = Literal["short_side", "stretch", "pad"]
Size = tuple[int, int]
"""(height, width)."""

LONGEST = 16
"""The area of an input, in areas of the network's size, beyond which an image is refused: its maps would fill the memory."""


def training_scale(source: Size, size: Size, fit: Fit) -> float:
    """By what both sides of a view of `source` are scaled for training at the network's `size`."""
    ratios = size[0] / source[0], size[1] / source[1]
    return min(1, *ratios) if fit == "pad" else max(ratios)


def input_size(source: Size, size: Size, fit: Fit) -> Size:
    """The size at which a view of `source` enters the network in evaluation and prediction, without padding.

    Raises UserError for a view so long and narrow that its input would be LONGEST times as large as the network's.
    """
    if fit == "stretch":
        return size
    scale = training_scale(source, size, fit)
    height, width = (max(1, round(scale * side)) for side in source)
    if fit == "pad":
        return min(height, size[0]), min(width, size[1])
    if height * width > LONGEST * size[0] * size[1]:
        raise UserError(
            f"image: got {source[0]} x {source[1]} pixels, {height} x {width} at the network; expected at most {LONGEST} times "
            f"the area of {size[0]} x {size[1]}; crop it"
        )
    return max(height, size[0]), max(width, size[1])


def place(source: Size, size: Size) -> Box:
    """Where a view of `source` lies in an input of `size`, which it does not exceed: in the middle."""
    return Box((size[0] - source[0]) // 2, (size[1] - source[1]) // 2, *source)


def pad(values: Tensor, size: Size, fill: float = 0) -> Tensor:
    """(..., H, W) -> (..., *size), with `fill` around."""
    top, left, height, width = place((values.shape[-2], values.shape[-1]), size)
    return F.pad(values, (left, size[1] - width - left, top, size[0] - height - top), value=fill)


def pad_sample(sample: Sample, size: Size) -> Sample:
    """A view with black around its image, and no valid pixel there."""
    if sample["image"].shape[-2:] == size:
        return sample
    fills = {task: IGNORE if TASKS[task].categorical else 0 for task in sample["targets"]}
    return {
        **sample,
        "image": pad(sample["image"], size),
        "targets": {task: pad(target, size, fills[task]) for task, target in sample["targets"].items()},
        "valid": {task: pad(valid, size) for task, valid in sample["valid"].items()},
    }
