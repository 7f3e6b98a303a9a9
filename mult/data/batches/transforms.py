"""Joint transforms of a view's image, targets and masks, by the rules that each Task names.

Scaling to the network's size and cropping leave depth values and camera intrinsics as they are: a network trained on views
scaled by k learns the metric depth of cameras whose focal length in pixels is k times the file's.

All random numbers come from the generator that is passed in, which `AugmentedDataset` seeds by (seed, epoch, index): a sample
does not depend on the worker that makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mult.data.batches.fit import Fit, Size, input_size, pad, pad_sample, place, training_scale
from mult.data.batches.resize import find_rule, interpolate, resize
from mult.data.sample import Sample, crop
from mult.tasks import TASKS

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a gray value (ITU-R BT.601)."""


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
    return find_rule(_FLIP, TASKS[task].flip, task)(values)


class TrainTransform:
    """A view for training: scaled as `fit` says, then cropped to `size` where it is larger, and padded where it is smaller.

    With `augment` the crop's position, a mirroring of probability 1/2, and factors from 1 - jitter to 1 + jitter of the image's
    brightness, contrast and saturation are random. Without it the crop is central and nothing else changes.
    """

    def __init__(self, size: Size, fit: Fit = "short_side", augment: bool = True, jitter: float = 0.2) -> None:
        self.size, self.fit, self.augment, self.jitter = size, fit, augment, jitter

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        draws = torch.rand(6, generator=generator).tolist() if self.augment else [0.5] * 6
        scale = training_scale((sample["image"].shape[1], sample["image"].shape[2]), self.size, self.fit)
        sample = _scale_and_crop(sample, self.size, scale, position=(draws[0], draws[1]))
        if self.augment:
            if draws[2] < 0.5:
                sample = flip(sample)
            brightness, contrast, saturation = (1 + self.jitter * (2 * draw - 1) for draw in draws[3:])
            sample["image"] = _jitter(sample["image"], brightness, contrast, saturation)
        return pad_sample(sample, self.size)


class EvalTransform:
    """A view for evaluation: the image as `fit` brings it to `size`, the targets unchanged at their own size.

    With padding the sample says where the view is in its image (`content`).
    """

    def __init__(self, size: Size, fit: Fit = "short_side") -> None:
        self.size, self.fit = size, fit

    def __call__(self, sample: Sample) -> Sample:
        image = self.scale(sample["image"])
        if self.fit != "pad":
            return {**sample, "image": image}
        scaled = (image.shape[-2], image.shape[-1])
        return {**sample, "image": pad(image, self.size), "content": place(scaled, self.size)}

    def scale(self, image: Tensor) -> Tensor:
        """The image at the network's size, not yet padded; an image that was scaled stays as it is."""
        return interpolate(image, input_size((image.shape[-2], image.shape[-1]), self.size, self.fit))


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


def _scale_and_crop(sample: Sample, size: Size, scale: float, position: tuple[float, float]) -> Sample:
    """The part of the view scaled by `scale` that `size` has room for; smaller than `size` where the scaled view is.

    `position` in [0, 1]^2: (0, 0) is the topmost and leftmost crop, (1, 1) the lowest and rightmost. The view is cropped first,
    which leaves less to resize.
    """
    cuts, lengths = [], []
    for source, length, at in zip(sample["image"].shape[-2:], size, position, strict=True):
        part = min(source, max(1, round(length / scale)))
        start = round(at * (source - part))
        cuts.append(slice(start, start + part))
        lengths.append(length if part < source else min(length, max(1, round(source * scale))))
    return resize(crop(sample, *cuts), (lengths[0], lengths[1]))


def _jitter(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Scale the values, their distance from the mean gray and their distance from each pixel's gray; clip to [0, 1]."""
    red, green, blue = (weight * channel for weight, channel in zip(LUMA, image, strict=True))
    gray = red.add_(green).add_(blue)
    # All three are linear: the result is a sum of multiples of the image, of its gray and of the mean gray.
    shift = gray * (brightness * contrast * (1 - saturation)) + gray.mean() * (brightness * (1 - contrast))
    return torch.add(shift, image, alpha=brightness * contrast * saturation).clamp_(0, 1)


def _mirror(target: Tensor) -> Tensor:
    return target.flip(-1)


def _mirror_negate_x(target: Tensor) -> Tensor:
    target = target.flip(-1)  # a copy, so that the sign may change in place
    target.select(-3, 0).neg_()
    return target


_FLIP: dict[str, Callable[[Tensor], Tensor]] = {"mirror": _mirror, "mirror_negate_x": _mirror_negate_x}
