"""Joint transforms of a view's image, targets and masks, by the rules that each Task names in `resize` and `flip`.

Resizing and cropping leave depth values and camera intrinsics as they are: a network trained on crops scaled by k learns the
metric depth of cameras whose focal length in pixels is k times the file's.

All random numbers come from the generator that is passed in, which `AugmentedDataset` seeds by (seed, epoch, index): a sample
does not depend on the worker that makes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mult.data.sample import Sample, crop
from mult.tasks import TASKS

Size = tuple[int, int]
"""(height, width)."""
Average = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(weighted sum over the valid source pixels of each output pixel, sum of their weights) -> target and mask."""

T = TypeVar("T")

MIN_VALID_WEIGHT = 0.5
"""An interpolated pixel is valid if at least this part of its weight is on valid pixels."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a gray value (ITU-R BT.601)."""


def resize(sample: Sample, size: Size) -> Sample:
    """The view at another size: the image antialiased, every target by its task's rule.

    An output pixel of an interpolated target is a weighted mean over valid pixels alone; it is valid if they have at least half
    of the weight. Raises KeyError for a task whose rule is unknown.
    """
    targets, valid = dict(sample["targets"]), dict(sample["valid"])
    # Interpolated targets with the same mask are interpolated together: a view has few different masks.
    groups: list[tuple[Tensor, dict[str, Average]]] = []
    for task, target in sample["targets"].items():
        rule, mask = _rule(_RESIZE, TASKS[task].resize, task), sample["valid"][task]
        if target.shape[-2:] == size:
            continue
        if rule is None:
            targets[task], valid[task] = _nearest(target, size), _nearest(mask, size)
        elif group := next((group for group in groups if np.array_equal(group[0].numpy(), mask.numpy())), None):
            group[1][task] = rule
        else:
            groups.append((mask, {task: rule}))
    for mask, rules in groups:
        *totals, weight = _sum_valid([targets[task] for task in rules], mask, size)
        for (task, rule), total in zip(rules.items(), totals, strict=True):
            targets[task], valid[task] = rule(total, weight)
    return {**sample, "image": _interpolate(sample["image"], size), "targets": targets, "valid": valid}


def flip(sample: Sample) -> Sample:
    """The view mirrored left to right, x of vectors negated. Raises KeyError for a task whose rule is unknown."""
    return {
        **sample,
        "image": sample["image"].flip(-1),
        "targets": {task: mirror(task, target) for task, target in sample["targets"].items()},
        "valid": {task: valid.flip(-1) for task, valid in sample["valid"].items()},
    }


def mirror(task: str, values: Tensor) -> Tensor:
    """Mirror a task's maps (..., H, W), targets or raw outputs: each task's `encode` commutes with its `flip`."""
    return _rule(_FLIP, TASKS[task].flip, task)(values)


class TrainTransform:
    """A view for training: scaled until the image covers `size`, then cropped to it.

    With `augment` the crop's position, a mirroring of probability 1/2, and factors from 1 - jitter to 1 + jitter of the image's
    brightness, contrast and saturation are random. Without it the crop is central and nothing else changes.
    """

    def __init__(self, size: Size, augment: bool = True, jitter: float = 0.2) -> None:
        self.size, self.augment, self.jitter = size, augment, jitter

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        draws = torch.rand(6, generator=generator).tolist() if self.augment else [0.5] * 6
        sample = resize(_crop_to_shape(sample, self.size, position=(draws[0], draws[1])), self.size)
        if self.augment:
            if draws[2] < 0.5:
                sample = flip(sample)
            brightness, contrast, saturation = (1 + self.jitter * (2 * draw - 1) for draw in draws[3:])
            sample["image"] = _jitter(sample["image"], brightness, contrast, saturation)
        return sample


class EvalTransform:
    """A view for evaluation: the image resized to `size`, the targets unchanged at their own size."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        return {**sample, "image": _interpolate(sample["image"], self.size)}


class SampleDataset(Protocol):
    """A map-style dataset of samples."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Sample: ...


class AugmentedDataset(Dataset[Sample]):
    """A dataset's samples, transformed. Its keys are (epoch, index); random numbers are a function of the seed and the key."""

    def __init__(self, dataset: SampleDataset, transform: Callable[[Sample, torch.Generator], Sample], seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        return self.transform(self.dataset[index], seeded_generator(self.seed, epoch, index))


def seeded_generator(*key: int) -> torch.Generator:
    """A generator whose random numbers are a function of `key` alone."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _rule(rules: Mapping[str, T], kind: str, task: str) -> T:
    if kind not in rules:
        raise KeyError(
            f"task {task}: got the rule {kind!r}; expected one of {sorted(rules)}; add it to mult/data/batches/transforms.py"
        )
    return rules[kind]


def _crop_to_shape(sample: Sample, size: Size, position: tuple[float, float]) -> Sample:
    """The part of the view that, scaled to `size`, is the crop of the scaled view: cropping first leaves less to resize.

    `position` in [0, 1]^2: (0, 0) is the topmost and leftmost crop, (1, 1) the lowest and rightmost.
    """
    height, width = sample["image"].shape[-2:]
    scale = max(size[0] / height, size[1] / width)
    rows = min(height, max(1, round(size[0] / scale)))
    columns = min(width, max(1, round(size[1] / scale)))
    top, left = round(position[0] * (height - rows)), round(position[1] * (width - columns))
    return crop(sample, slice(top, top + rows), slice(left, left + columns))


def _jitter(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Scale the values, their distance from the mean gray and their distance from each pixel's gray; clip to [0, 1]."""
    red, green, blue = (weight * channel for weight, channel in zip(LUMA, image, strict=True))
    gray = red.add_(green).add_(blue)
    # All three are linear: the result is a sum of multiples of the image, of its gray and of the mean gray.
    shift = gray * (brightness * contrast * (1 - saturation)) + gray.mean() * (brightness * (1 - contrast))
    return torch.add(shift, image, alpha=brightness * contrast * saturation).clamp_(0, 1)


def _interpolate(values: Tensor, size: Size) -> Tensor:
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

    Rows count through all channels: row r of channel c is c * source + r.
    """
    unit = torch.eye(source)[None, None]
    matrix = F.interpolate(unit, size=(length, source), mode="bilinear", antialias=True, align_corners=False)[0, 0]
    used = matrix != 0
    count = int(used.sum(dim=1).max())
    first = used.int().argmax(dim=1, keepdim=True).clamp(max=source - count)
    rows = first + torch.arange(count)
    starts = source * torch.arange(channels).view(-1, 1, 1)
    return (starts + rows).flatten(0, 1), matrix.gather(1, rows).repeat(channels, 1)


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


def _sum_valid(targets: Sequence[Tensor], valid: Tensor, size: Size) -> list[Tensor]:
    """Interpolate maps with one mask, invalid pixels as 0: their sums (C, *size), and last the weight of the valid pixels."""
    if valid.numpy().all():  # Tensor.all is 20 times slower
        return [*(_interpolate(target, size) for target in targets), torch.ones(1, *size)]
    channels = [len(target) for target in targets]
    stacked = targets[0].new_empty(sum(channels) + 1, *valid.shape[-2:])
    for target, part in zip(targets, stacked[:-1].split(channels), strict=True):
        _zero_outside(valid, target, out=part)
    stacked[-1:] = valid.view(torch.uint8)  # ten times as fast as assigning bool
    return list(_interpolate(stacked, size).split([*channels, 1]))


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


def _mirror(target: Tensor) -> Tensor:
    return target.flip(-1)


def _mirror_negate_x(target: Tensor) -> Tensor:
    target = target.flip(-1)  # a copy, so that the sign may change in place
    target.select(-3, 0).neg_()
    return target


_RESIZE: dict[str, Average | None] = {"nearest": None, "normals": _normalise, "area": _divide}
"""Task.resize -> how interpolated sums become a target; None: the nearest pixel."""
_FLIP: dict[str, Callable[[Tensor], Tensor]] = {"mirror": _mirror, "mirror_negate_x": _mirror_negate_x}
