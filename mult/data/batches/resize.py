"""A view at another size: the image antialiased, every target by the rule that its Task names in `resize`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mult.data.batches.fit import Size
from mult.data.sample import Sample
from mult.tasks import TASKS

T = TypeVar("T")

MIN_VALID_WEIGHT = 0.5
"""An interpolated pixel is valid if at least this part of its weight is on valid pixels."""


class Interpolation(NamedTuple):
    """How a target is interpolated over valid pixels.

    weigh: maps and a size -> weighted sums, the weights of an output pixel summing to 1. finish: such a sum, of which invalid
    pixels are 0, and the sum of the weights of valid pixels -> target and mask.
    """

    weigh: Callable[[Tensor, Size], Tensor]
    finish: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def resize(sample: Sample, size: Size) -> Sample:
    """The view at another size: the image antialiased, every target by its task's rule.

    An output pixel of an interpolated target is a weighted mean over valid pixels alone; it is valid if they have at least half
    of the weight. Raises KeyError for a task whose rule is unknown.
    """
    targets, valid = dict(sample["targets"]), dict(sample["valid"])
    # Targets of one rule with the same mask are interpolated together: a view has few different masks.
    groups: list[tuple[Tensor, Interpolation, list[str]]] = []
    for task, target in sample["targets"].items():
        rule, mask = find_rule(_RESIZE, TASKS[task].resize, task), sample["valid"][task]
        if target.shape[-2:] == size:
            continue
        if rule is None:
            targets[task], valid[task] = _nearest(target, size), _nearest(mask, size)
            continue
        group = next((group for group in groups if group[1] is rule and np.array_equal(group[0].numpy(), mask.numpy())), None)
        if group is None:
            groups.append((mask, rule, [task]))
        else:
            group[2].append(task)
    for mask, rule, tasks in groups:
        *totals, weight = _sum_valid([targets[task] for task in tasks], mask, size, rule.weigh)
        for task, total in zip(tasks, totals, strict=True):
            targets[task], valid[task] = rule.finish(total, weight)
    return {**sample, "image": interpolate(sample["image"], size), "targets": targets, "valid": valid}


def find_rule(rules: Mapping[str, T], kind: str, task: str) -> T:
    """What a table has for a task; KeyError for a kind that it does not have."""
    if kind not in rules:
        raise KeyError(f"task {task}: got the rule {kind!r}; expected one of {sorted(rules)}; add it in mult/data/batches/")
    return rules[kind]


def interpolate(values: Tensor, size: Size) -> Tensor:
    """(C, H, W) float32 -> (C, *size), bilinear, antialiased where it shrinks.

    The height first, as weighted sums of whole rows: `F.interpolate` alone begins with the width and takes twice the time.
    """
    channels, height, width = values.shape
    if height != size[0]:
        rows, weights = _taps(height, size[0], channels)
        values = values.reshape(-1, width)
        values = F.embedding_bag(rows, values, per_sample_weights=weights, mode="sum").view(channels, size[0], width)
    if width == 2 * size[1]:
        values = _halve(values)
    elif width != size[1]:
        values = F.interpolate(values[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    return values


def _halve(values: Tensor) -> Tensor:
    """(..., 2 W) -> (..., W): equal to `F.interpolate` in the most frequent case, in half the time."""
    # Copied first: sums of every second value are several times slower. NumPy copies them in half of torch's time.
    even, odd = (torch.from_numpy(np.ascontiguousarray(values.numpy()[..., k::2])) for k in range(2))
    total = even + odd
    total[..., 1:].add_(odd[..., :-1], alpha=1 / 3)
    total[..., :-1].add_(even[..., 1:], alpha=1 / 3)
    weight = torch.full(total.shape[-1:], 8 / 3)
    weight[0] -= 1 / 3  # the ends have a neighbour less
    weight[-1] -= 1 / 3
    return total.div_(weight)


@functools.lru_cache(maxsize=64)
def _taps(source: int, length: int, channels: int) -> tuple[Tensor, Tensor]:
    """The K rows that each output row is a weighted sum of, and their weights, both (channels * length, K).

    Rows count through all channels: row r of channel c is c * source + r. The weights are torch's own: of columns in which
    every row of one remainder by `period` is 1, and any K rows in sequence have different remainders.
    """
    scale = source / length
    period = 2 * math.ceil(max(scale, 1)) + 4
    unit = (torch.arange(source)[:, None] % period == torch.arange(period)).float()[None, None]
    matrix = F.interpolate(unit, size=(length, period), mode="bilinear", antialias=True, align_corners=False)[0, 0]
    centres = (torch.arange(length, dtype=torch.float64)[:, None] + 0.5) * scale
    window = (centres - period / 2).ceil().long().clamp(0, max(source - period, 0)) + torch.arange(min(period, source))
    used = matrix.gather(1, window % period) != 0
    count = int(used.sum(dim=1).max())
    first = window.gather(1, used.int().argmax(dim=1, keepdim=True)).clamp(max=source - count)
    rows = first + torch.arange(count)
    return _in_each_channel(rows, source, channels), matrix.gather(1, rows % period).repeat(channels, 1)


def average_areas(values: Tensor, size: Size) -> Tensor:
    """(C, H, W) float32 -> (C, *size): the mean over the part of the source that each output pixel covers."""
    values = _average_rows(values, size[0])
    times, rest = divmod(values.shape[-1], size[1])
    if rest:
        return _average_rows(values.transpose(-1, -2), size[1]).transpose(-1, -2).contiguous()
    if times == 1:
        return values
    # Copied first, as in `_halve`: several times as fast as torch's pooling.
    parts = (torch.from_numpy(np.ascontiguousarray(values.numpy()[..., k::times])) for k in range(times))
    return sum(parts, start=torch.zeros(())).div_(times)


def _average_rows(values: Tensor, length: int) -> Tensor:
    """(C, H, W) -> (C, length, W)."""
    channels, height, width = values.shape
    if height == length:
        return values
    rows, weights = _areas(height, length, channels)
    flat = values.reshape(-1, width)
    return F.embedding_bag(rows, flat, per_sample_weights=weights, mode="sum").view(channels, length, width)


@functools.lru_cache(maxsize=64)
def _areas(source: int, length: int, channels: int) -> tuple[Tensor, Tensor]:
    """As `_taps`, of means over areas. Lengths are in units of 1 / length of a source row: exact integers."""
    start = torch.arange(length)[:, None] * source
    rows = start // length + torch.arange(-(-source // length) + 1)
    overlap = (torch.minimum(start + source, (rows + 1) * length) - torch.maximum(start, rows * length)).clamp(min=0)
    return _in_each_channel(rows.clamp(max=source - 1), source, channels), (overlap / source).repeat(channels, 1)


def _in_each_channel(rows: Tensor, source: int, channels: int) -> Tensor:
    return (source * torch.arange(channels).view(-1, 1, 1) + rows).flatten(0, 1)


def _nearest(values: Tensor, size: Size) -> Tensor:
    """(..., H, W) -> (..., *size): the source pixel in which each output pixel's centre lies."""
    rows, columns = map(_centres, values.shape[-2:], size)
    result = values.numpy()[..., rows, :]
    # `take` is twice as fast as indexing with an array, four times as fast as `Tensor.index_select`.
    result = result[..., columns] if isinstance(columns, slice) else result.take(columns, -1)
    return torch.from_numpy(np.ascontiguousarray(result))


def _centres(source: int, length: int) -> slice | NDArray[np.int64]:
    """floor((i + 1/2) source / length) for i < length; a slice, which copies nothing, if length divides source."""
    step, rest = divmod(source, length)
    return (np.arange(length) * 2 + 1) * source // (2 * length) if rest else slice(step // 2, None, step)


def _zero_outside(mask: Tensor, values: Tensor, out: Tensor) -> Tensor:
    """Write float32 values where the mask is True, and 0 elsewhere, to `out`.

    Multiplies their bits by 0 or 1, since 0 * NaN is NaN: several times as fast as `masked_fill_`.
    """
    torch.mul(values.view(torch.int32), mask, out=out.view(torch.int32))
    return out


def _sum_valid(targets: Sequence[Tensor], valid: Tensor, size: Size, weigh: Callable[[Tensor, Size], Tensor]) -> list[Tensor]:
    """Interpolate maps with one mask, invalid pixels as 0: their sums (C, *size), and last the weight of the valid pixels."""
    if valid.numpy().all():  # Tensor.all is 20 times slower
        return [*(weigh(target, size) for target in targets), torch.ones(1, *size)]
    channels = [len(target) for target in targets]
    stacked = targets[0].new_empty(sum(channels) + 1, *valid.shape[-2:])
    for target, part in zip(targets, stacked[:-1].split(channels), strict=True):
        _zero_outside(valid, target, out=part)
    stacked[-1:] = valid.view(torch.uint8)  # ten times as fast as assigning bool
    return list(weigh(stacked, size).split([*channels, 1]))


def _divide(total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted mean over valid pixels."""
    valid = weight >= MIN_VALID_WEIGHT
    mean = total / weight
    return _zero_outside(valid, mean, out=mean), valid


def _normalise(total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The direction of the weighted mean over valid pixels; invalid also where opposite normals cancel."""
    length = total.square().sum(dim=0, keepdim=True).sqrt_()  # Tensor.norm over the first axis is 80 times slower
    valid = (weight >= MIN_VALID_WEIGHT) & (length > 1e-3)
    direction = total / length
    return _zero_outside(valid, direction, out=direction), valid


_RESIZE: dict[str, Interpolation | None] = {
    "nearest": None,
    "normals": Interpolation(interpolate, _normalise),
    "area": Interpolation(average_areas, _divide),
}
"""Task.resize -> how a target is interpolated; None: the nearest pixel."""
