"""One view as bytes: its image, then for each task the target and the mask, in the order of the pack's tasks.

What the bytes mean is in the view's row of the index: height, width, the code of the image and of each target, and how each
mask is stored. So the bytes of a view hold nothing but pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.data.packed.codes import CODES, Array, choose_code, encode
from mult.data.sample import Sample, empty_target
from mult.tasks import TASKS

ABSENT = 0
"""In place of a code: the target of a label that the view does not have."""
EVERYWHERE, NOWHERE, BITS, SAME = 0, 1, 2, 3
"""How a mask is stored: all True, all False, a bit a pixel; SAME + k: it is the mask of the k-th task."""

Maps = dict[str, tuple[Tensor, Tensor]]


class Layout(NamedTuple):
    """What a view's bytes hold: the code of the image and of each target, and how each mask is stored."""

    height: int
    width: int
    image: int
    codes: Sequence[int]
    masks: Sequence[int]


def encode_view(sample: Sample, tasks: Sequence[str], resized: bool) -> tuple[bytes, Layout]:
    """The bytes of a sample that has all of `tasks`."""
    image = sample["image"].numpy()
    height, width = image.shape[-2:]
    number = choose_code(image, None, resized)
    parts, codes, masks = [encode(image, number).tobytes()], [], []
    for position, task in enumerate(tasks):
        target, valid = sample["targets"][task].numpy(), sample["valid"][task].numpy()
        empty = not valid.any() and torch.equal(empty_target(TASKS[task], height, width)[0], sample["targets"][task])
        codes.append(ABSENT if empty else choose_code(target, TASKS[task], resized))
        if not empty:
            parts.append(encode(target, codes[-1]).tobytes())
        masks.append(_find_mask([sample["valid"][each].numpy() for each in tasks[:position]], valid))
        if masks[-1] == BITS:
            parts.append(np.packbits(valid).tobytes())
    return b"".join(parts), Layout(height, width, number, codes, masks)


def _find_mask(earlier: Sequence[NDArray[np.bool_]], valid: NDArray[np.bool_]) -> int:
    if valid.all():
        return EVERYWHERE
    if not valid.any():
        return NOWHERE
    same = (position for position, mask in enumerate(earlier) if np.array_equal(mask, valid))
    return next((SAME + position for position in same), BITS)


def decode_view(data: bytes, layout: Layout, tasks: Sequence[str], wanted: Collection[str]) -> tuple[Tensor, Maps]:
    """The image and, of the `wanted` ones of the pack's tasks, targets and masks."""
    height, width = layout.height, layout.width
    offset = 0

    def take(dtype: np.dtype, channels: int) -> Array:
        nonlocal offset
        count = channels * height * width
        start, offset = offset, offset + count * dtype.itemsize
        return np.frombuffer(data, dtype, count, start)

    def decode(number: int, channels: int | None) -> Tensor:
        code = CODES[number]
        shape = (height, width) if channels is None else (channels, height, width)
        return torch.from_numpy(code.decode(take(code.dtype, channels or 1).reshape(shape)))

    image = decode(layout.image, 3)
    maps: Maps = {}
    masks: list[NDArray[np.bool_]] = []
    for task, number, kind in zip(tasks, layout.codes, layout.masks, strict=True):
        record = TASKS[task]
        if number == ABSENT:
            target = empty_target(record, height, width)[0]
        elif task in wanted:
            target = decode(number, record.channels)
        else:
            offset += (record.channels or 1) * height * width * CODES[number].dtype.itemsize
        if kind == BITS:
            stored = np.frombuffer(data, np.uint8, -(-height * width // 8), offset)
            offset += stored.nbytes
            masks.append(np.unpackbits(stored, count=height * width).view(np.bool_).reshape(1, height, width))
        elif kind >= SAME:
            masks.append(masks[kind - SAME])
        else:
            masks.append(np.full((1, height, width), kind == EVERYWHERE))
        if task in wanted:
            maps[task] = target, torch.from_numpy(masks[-1])
    return image, maps
