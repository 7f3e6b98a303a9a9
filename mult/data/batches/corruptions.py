"""Corrupted images for robustness evaluations: Gaussian blur by its sigma, as in the paper, and three kinds of ImageNet-C.

A corruption changes the image at the network's size, values in [0, 1]; the labels stay. Random numbers are seeded by the
view's index in the dataset, so that they depend neither on batches nor on workers, and are the same for all severities of a
kind, so that results of two severities differ by the severity alone.

Noise, brightness and contrast follow ImageNet-C (Hendrycks and Dietterich 2019), five severities each: white noise is added,
the value of HSV raised, the distance of every channel from its mean scaled. ImageNet-C then rounds to 8 bits; we do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from mult.data.batches.fit import Fit, Size
from mult.data.batches.transforms import EvalTransform, SampleDataset, seeded_generator
from mult.data.sample import Sample
from mult.errors import UserError

SEED = 0


def blur(image: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """Gaussian blur with a kernel of 4 `sigma` on either side, `sigma` in pixels, the border repeated."""
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return image
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(image.dtype)
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")  # (3, 1, H, W)
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def add_noise(image: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    return (image + deviation * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def brighten(image: Tensor, rise: float, generator: torch.Generator) -> Tensor:
    """Raise the largest channel by `rise`, to 1 at most, and scale the others as much: hue and saturation stay."""
    value = image.amax(0, keepdim=True)
    raised = (value + rise).clamp(max=1)
    return torch.where(value > 0, image * (raised / value), raised.expand_as(image))


def reduce_contrast(image: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    mean = image.mean((1, 2), keepdim=True)
    return (mean + factor * (image - mean)).clamp(0, 1)


KINDS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "blur": blur,
    "noise": add_noise,
    "brightness": brighten,
    "contrast": reduce_contrast,
}
AMOUNTS: dict[str, tuple[float, ...]] = {
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
}
"""Kind -> the amounts of severities 1 to 5; a blur's severity is its sigma."""


@dataclass(frozen=True)
class Corruption:
    """One kind at one severity; severity 0 leaves the image as it is."""

    kind: str = "blur"
    severity: float = 0

    @property
    def suffix(self) -> str:
        """The ending of a result's file name: "-blur2", "-noise5", "" for none."""
        return f"-{self.kind}{self.severity:g}" if self.severity else ""

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The corrupted image (3, H, W)."""
        if not self.severity:
            return image
        amount = self.severity if self.kind == "blur" else AMOUNTS[self.kind][int(self.severity) - 1]
        return KINDS[self.kind](image, amount, generator)


def parse_corruptions(blurs: str | None, kinds: str | None) -> list[Corruption]:
    """The corruptions of `--blur 0,1,2.5` and `--corrupt noise,contrast`, of a kind all severities; by default none.

    Raises UserError for a text that is no sigma and for a name that is no kind.
    """
    corruptions = [] if blurs is None else [Corruption("blur", _parse_sigma(text)) for text in blurs.split(",")]
    for kind in () if kinds is None else kinds.split(","):
        if kind not in AMOUNTS:
            raise UserError(f"--corrupt: got {kind!r}; expected some of {', '.join(AMOUNTS)}; blur has --blur")
        corruptions += [Corruption(kind, severity) for severity in range(1, 6)]
    return list(dict.fromkeys(corruptions)) or [Corruption()]


def _parse_sigma(text: str) -> float:
    try:
        sigma = float(text)
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma <= 64:
        raise UserError(f"--blur: got {text!r}; expected sigmas in pixels, 0 to 64; write e.g. --blur 0,1,2,4")
    return sigma


class CorruptedDataset(Dataset[Sample]):
    """A dataset for evaluation, its images brought to `size` as `fit` says and corrupted, but not yet padded."""

    def __init__(self, dataset: SampleDataset, size: Size, corruption: Corruption, fit: Fit = "short_side") -> None:
        self.dataset, self.transform, self.corruption = dataset, EvalTransform(size, fit), corruption

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample:
        sample = self.dataset[i]
        image = self.transform.scale(sample["image"])
        return {**sample, "image": self.corruption(image, seeded_generator(SEED, i))}
