"""Joint transforms of a view's image, targets and masks, by the rules that each Task states (`resize`, `flip`).

Resizing and cropping leave depth values and camera intrinsics as they are (architecture.md, "Sizes"): a network that
sees crops scaled by k learns the metric depth of cameras whose focal length in pixels is k times the file's.

All randomness comes from the generator that is passed in, which `Augmented` seeds by (seed, epoch, index), so samples
do not depend on which worker makes them.
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

from mult.data.sample import Sample
from mult.tasks import TASKS

Size = tuple[int, int]
"""(height, width)."""
Mean = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""The weighted sum over an output pixel's valid pixels and their weight -> target and mask."""

T = TypeVar("T")

ENOUGH = 0.5  # the part of an output pixel's weight that must come from valid pixels
LUMA = (0.299, 0.587, 0.114)


def resize(sample: Sample, size: Size) -> Sample:
    """The whole view at another size: the image antialiased, every target by its task's rule.

    An output pixel of an interpolated target is a mean over valid pixels alone; it is valid where at least half of the
    weight is. Raises KeyError for a task whose rule is unknown.
    """
    targets, valid = dict(sample["targets"]), dict(sample["valid"])
    alike: list[tuple[Tensor, dict[str, Mean]]] = []  # masks, of which a view has few, and the tasks with a mean under each
    for task, target in sample["targets"].items():
        rule, mask = _rule(_RESIZE, TASKS[task].resize, task), sample["valid"][task]
        if target.shape[-2:] == size:
            continue
        if rule is None:
            targets[task], valid[task] = _nearest(target, size), _nearest(mask, size)
        elif group := next((group for group in alike if np.array_equal(group[0].numpy(), mask.numpy())), None):
            group[1][task] = rule
        else:
            alike.append((mask, {task: rule}))
    for mask, rules in alike:
        *totals, weight = _weighted([targets[task] for task in rules], mask, size)
        for (task, rule), total in zip(rules.items(), totals, strict=True):
            targets[task], valid[task] = rule(total, weight)
    return {**sample, "image": _interpolate(sample["image"], size), "targets": targets, "valid": valid}


def flip(sample: Sample) -> Sample:
    """The view in a mirror, left and right exchanged, x of vectors negated; KeyError for a task without a rule."""
    return {
        **sample,
        "image": sample["image"].flip(-1),
        "targets": {task: mirror(task, target) for task, target in sample["targets"].items()},
        "valid": {task: valid.flip(-1) for task, valid in sample["valid"].items()},
    }


def mirror(task: str, values: Tensor) -> Tensor:
    """One task's maps (..., H, W) in a mirror; raw outputs too, since each `Task.encode` commutes with its `flip`."""
    return _rule(_FLIP, TASKS[task].flip, task)(values)


class TrainTransform:
    """A view for training: crop of `size` after scaling until the image covers it, and, with `augment`, at random.

    Random are the crop's place, the mirror, and factors of the image's brightness, contrast and saturation, each from
    1 - jitter to 1 + jitter. Without `augment` the crop is central and nothing else is changed.
    """

    def __init__(self, size: Size, augment: bool = True, jitter: float = 0.2) -> None:
        self.size, self.augment, self.jitter = size, augment, jitter

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        draws = torch.rand(6, generator=generator).tolist() if self.augment else [0.5] * 6
        sample = resize(_crop(sample, self.size, place=(draws[0], draws[1])), self.size)
        if self.augment:
            if draws[2] < 0.5:
                sample = flip(sample)
            brightness, contrast, saturation = (1 + self.jitter * (2 * draw - 1) for draw in draws[3:])
            sample["image"] = _jitter(sample["image"], brightness, contrast, saturation)
        return sample


class EvalTransform:
    """A view for evaluation: the image at `size`, the targets untouched at their own."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def __call__(self, sample: Sample, generator: torch.Generator | None = None) -> Sample:
        return {**sample, "image": _interpolate(sample["image"], self.size)}


class Views(Protocol):
    """A map-style dataset of samples."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Sample: ...


class Augmented(Dataset[Sample]):
    """A dataset's samples transformed: its index is (epoch, index), of which all that is random is a function."""

    def __init__(self, dataset: Views, transform: Callable[[Sample, torch.Generator], Sample], seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        state = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1, np.uint64)
        return self.transform(self.dataset[index], torch.Generator().manual_seed(int(state[0])))


def _rule(rules: Mapping[str, T], kind: str, task: str) -> T:
    if kind not in rules:
        raise KeyError(
            f"task {task}: got the rule {kind!r}; expected one of {sorted(rules)}; add it to mult/data/transforms.py"
        )
    return rules[kind]


def _crop(sample: Sample, size: Size, place: tuple[float, float]) -> Sample:
    """The part of the view that, scaled to `size`, is a crop of the scaled view: cut first, there is less to resize.

    `place` in [0, 1]^2 goes from the top left to the bottom right of what is possible.
    """
    height, width = sample["image"].shape[-2:]
    scale = max(size[0] / height, size[1] / width)
    rows = min(height, max(1, round(size[0] / scale)))
    columns = min(width, max(1, round(size[1] / scale)))
    top, left = round(place[0] * (height - rows)), round(place[1] * (width - columns))

    def cut(values: Tensor) -> Tensor:
        return values[..., top : top + rows, left : left + columns]

    return {
        **sample,
        "image": cut(sample["image"]),
        "targets": {task: cut(target) for task, target in sample["targets"].items()},
        "valid": {task: cut(valid) for task, valid in sample["valid"].items()},
    }


def _jitter(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Scale the values, their distance from the mean gray and from each pixel's gray; result clipped to [0, 1]."""
    red, green, blue = (weight * channel for weight, channel in zip(LUMA, image, strict=True))
    gray = red.add_(green).add_(blue)
    # All three are linear: a multiple of the image, one of its gray, one of the mean of that.
    shift = gray * (brightness * contrast * (1 - saturation)) + gray.mean() * (brightness * (1 - contrast))
    return torch.add(shift, image, alpha=brightness * contrast * saturation).clamp_(0, 1)


def _interpolate(values: Tensor, size: Size) -> Tensor:
    """(C, H, W) float32 -> (C, *size), bilinear, antialiased where it shrinks.

    Rows first, as weighted sums of whole rows: `F.interpolate` alone begins with the columns and takes twice the time.
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
    """(..., 2 W) -> (..., W): what `F.interpolate` makes of the most frequent case, in half the time."""
    # Gathered first, by NumPy in half of torch's time: sums of every second value are several times slower.
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
    """Which rows of `channels` x `source` each of `channels` x `length` rows is a sum of, and their weights, both (., K)."""
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
    taken = values.numpy()[..., rows, :]
    # `take` is twice as fast as an index of places, four times as `Tensor.index_select`.
    taken = taken[..., columns] if isinstance(columns, slice) else taken.take(columns, -1)
    return torch.from_numpy(np.ascontiguousarray(taken))


def _centres(source: int, length: int) -> slice | NDArray[np.int64]:
    """floor((i + 1/2) source / length), exactly, for i < length; as a slice, which copies nothing, where it is one."""
    step, rest = divmod(source, length)
    return (np.arange(length) * 2 + 1) * source // (2 * length) if rest else slice(step // 2, None, step)


def _keep(values: Tensor, mask: Tensor, out: Tensor) -> Tensor:
    """float32 values where the mask is, 0 elsewhere, in `out`: their bits times 0 or 1, since 0 * NaN is NaN.

    Several times as fast as `masked_fill_`.
    """
    torch.mul(values.view(torch.int32), mask, out=out.view(torch.int32))
    return out


def _weighted(targets: Sequence[Tensor], valid: Tensor, size: Size) -> list[Tensor]:
    """The interpolations (C, *size) of the valid pixels alone of maps under one mask, and last the weight they had in them."""
    if valid.numpy().all():  # Tensor.all is 20 times slower
        return [*(_interpolate(target, size) for target in targets), torch.ones(1, *size)]
    channels = [len(target) for target in targets]
    stacked = targets[0].new_empty(sum(channels) + 1, *valid.shape[-2:])
    for target, part in zip(targets, stacked[:-1].split(channels), strict=True):
        _keep(target, valid, out=part)
    stacked[-1:] = valid.view(torch.uint8)  # ten times as fast as of bool
    return list(_interpolate(stacked, size).split([*channels, 1]))


def _mean(total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over valid pixels, 0 where too few are."""
    enough = weight >= ENOUGH
    mean = total / weight
    return _keep(mean, enough, out=mean), enough


def _direction(total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The direction of the mean over valid pixels; invalid also where opposite normals cancel."""
    length = total.square().sum(dim=0, keepdim=True).sqrt_()  # Tensor.norm over the first axis is 80 times slower
    enough = (weight >= ENOUGH) & (length > 1e-3)
    direction = total / length
    return _keep(direction, enough, out=direction), enough


def _mirror(target: Tensor) -> Tensor:
    return target.flip(-1)


def _mirror_negate_x(target: Tensor) -> Tensor:
    target = target.flip(-1)  # a copy, so that the sign may change in place
    target.select(-3, 0).neg_()
    return target


_RESIZE: dict[str, Mean | None] = {"nearest": None, "normals": _direction, "area": _mean}
_FLIP: dict[str, Callable[[Tensor], Tensor]] = {"mirror": _mirror, "mirror_negate_x": _mirror_negate_x}
