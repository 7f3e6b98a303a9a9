"""Joint transforms of a view's image, targets and masks, by the rules that each Task names.

Scaling to the network's size and cropping leave depth values and camera intrinsics as they are: a network trained on views
scaled by k learns the metric depth of cameras whose focal length in pixels is k times the file's. The random scale of training
is on top of that, and divides depth.

All random numbers come from the generator that is passed in, which `AugmentedDataset` seeds by (seed, epoch, index): a sample
does not depend on the worker that makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mult.data.batches.colours import distort, jitter
from mult.data.batches.fit import Fit, Size, input_size, pad, pad_sample, place, training_scale
from mult.data.batches.resize import find_rule, interpolate, resize
from mult.data.sample import Sample, crop, empty_target
from mult.tasks import TASKS

Colours = Literal["jitter", "photometric", "none"]
UNVARIED = 0.5
"""The share of views whose scale and colours stay, among those with a label that a change of these would make wrong."""


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

    crop: at a random place, else in the middle. flip: mirrored with probability 1/2. scale: the range of a further factor on
    both sides, uniform; targets follow by `Task.scaling`. colours: "photometric" (`colours.distort`), or "jitter", factors from
    1 - jitter to 1 + jitter of brightness, contrast and saturation.

    A label that counts is true: where changes of scale and colours would make a label wrong (`Task.scaling` "unknown",
    `Task.of_colours`), a view has them with probability 1 - UNVARIED, and then no valid pixel of such labels.
    """

    def __init__(
        self,
        size: Size,
        fit: Fit = "short_side",
        *,
        crop: bool = True,
        flip: bool = True,
        scale: tuple[float, float] = (1.0, 1.25),
        colours: Colours = "jitter",
        jitter: float = 0.2,
    ) -> None:
        self.size, self.fit, self.crop, self.flip, self.jitter = size, fit, crop, flip, jitter
        self.scale, self.colours = scale, colours

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        down, right, mirrored, *factors, unvaried, at = torch.rand(8, generator=generator).tolist()
        falsified = self._list_falsified(sample)
        varies = not falsified or unvaried >= UNVARIED
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * at if varies else 1.0
        if varies:
            sample = _scale_targets(_drop_labels(sample, falsified), scale)
        fitted = training_scale((sample["image"].shape[1], sample["image"].shape[2]), self.size, self.fit)
        sample = _scale_and_crop(sample, self.size, fitted * scale, position=(down, right) if self.crop else (0.5, 0.5))
        if self.flip and mirrored < 0.5:
            sample = flip(sample)
        if varies and self.colours == "photometric":
            sample["image"] = distort(sample["image"], generator)
        elif varies and self.colours == "jitter":
            sample["image"] = jitter(sample["image"], *(1 + self.jitter * (2 * factor - 1) for factor in factors))
        return pad_sample(sample, self.size)

    def _list_falsified(self, sample: Sample) -> list[str]:
        """The tasks with a valid pixel whose label this transform's changes of scale and colours would make wrong."""
        rescales = self.scale != (1, 1)
        recolours = self.colours == "photometric" or (self.colours == "jitter" and self.jitter > 0)
        records = {task: TASKS[task] for task, valid in sample["valid"].items() if valid.numpy().any()}
        return [
            task
            for task, record in records.items()
            if (rescales and record.scaling == "unknown") or (recolours and record.of_colours)
        ]


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


def _drop_labels(sample: Sample, tasks: Collection[str]) -> Sample:
    """The view without valid pixels of some tasks."""
    height, width = sample["image"].shape[-2:]
    empty = {task: empty_target(TASKS[task], height, width) for task in tasks}
    return {
        **sample,
        "targets": {**sample["targets"], **{task: target for task, (target, _) in empty.items()}},
        "valid": {**sample["valid"], **{task: valid for task, (_, valid) in empty.items()}},
    }


def _scale_targets(sample: Sample, scale: float) -> Sample:
    """The values of the targets in a view enlarged by `scale`."""
    targets = {
        task: target / scale if TASKS[task].scaling == "divided" else target for task, target in sample["targets"].items()
    }
    return sample if scale == 1 else {**sample, "targets": targets}


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


def _mirror(target: Tensor) -> Tensor:
    return target.flip(-1)


def _mirror_negate_x(target: Tensor) -> Tensor:
    target = target.flip(-1)  # a copy, so that the sign may change in place
    target.select(-3, 0).neg_()
    return target


_FLIP: dict[str, Callable[[Tensor], Tensor]] = {"mirror": _mirror, "mirror_negate_x": _mirror_negate_x}
