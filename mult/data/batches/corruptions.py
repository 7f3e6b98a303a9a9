"""Images made worse on purpose, to see what a model's numbers do: blur by sigma, as in the paper, and three more kinds.

They act on the image at the network's size, values in [0, 1], and leave the labels alone. What is random is a function of
the view's place in the dataset, so that it depends neither on batches nor on workers, and all severities of a kind share
their draws: a curve over severities then shows severity, not luck.

Noise, brightness and contrast follow ImageNet-C (Hendrycks and Dietterich 2019), five severities each: white noise added;
the value of HSV raised; the distance of every channel from its mean scaled. Their paper quantises to 8 bits after, which
we do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from mult.data.batches.transforms import EvalTransform, Size, Views
from mult.data.sample import Sample
from mult.errors import UserError

SEED = 0


def blur(image: Tensor, sigma: float, draw: torch.Generator | None = None) -> Tensor:
    """A Gaussian blur of `sigma` pixels, cut off at four of them, the border repeated."""
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return image
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(image.dtype)
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")  # (3, 1, H, W)
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def noise(image: Tensor, deviation: float, draw: torch.Generator) -> Tensor:
    return (image + deviation * torch.randn(image.shape, generator=draw)).clamp(0, 1)


def brightness(image: Tensor, rise: float, draw: torch.Generator) -> Tensor:
    """Raise the largest channel by `rise`, up to 1, and the others with it, so that hue and saturation stay."""
    value = image.amax(0, keepdim=True)
    raised = (value + rise).clamp(max=1)
    return torch.where(value > 0, image * (raised / value), raised.expand_as(image))


def contrast(image: Tensor, factor: float, draw: torch.Generator) -> Tensor:
    mean = image.mean((1, 2), keepdim=True)
    return (mean + factor * (image - mean)).clamp(0, 1)


KINDS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "blur": blur,
    "noise": noise,
    "brightness": brightness,
    "contrast": contrast,
}
AMOUNTS: dict[str, tuple[float, ...]] = {
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
}
"""Kind -> what severities 1 to 5 are; a blur's severity is its sigma."""


@dataclass(frozen=True)
class Corruption:
    """One kind at one severity; severity 0 leaves the image as it is."""

    kind: str = "blur"
    severity: float = 0

    @property
    def suffix(self) -> str:
        """What a result's file name ends with: "-blur2", "-noise5", "" for none."""
        return f"-{self.kind}{self.severity:g}" if self.severity else ""

    def __call__(self, image: Tensor, draw: torch.Generator) -> Tensor:
        """An image (3, H, W) -> another."""
        if not self.severity:
            return image
        amount = self.severity if self.kind == "blur" else AMOUNTS[self.kind][int(self.severity) - 1]
        return KINDS[self.kind](image, amount, draw)


def parse(blurs: str | None, kinds: str | None) -> list[Corruption]:
    """`--blur 0,1,2.5` and `--corrupt noise,contrast` -> what to evaluate, all severities of a kind; by default no corruption.

    Raises UserError for what is no sigma and no kind.
    """
    found = [Corruption("blur", _sigma(text)) for text in (blurs or "").split(",") if text]
    for kind in (kinds or "").split(","):
        if kind and kind not in AMOUNTS:
            raise UserError(f"--corrupt: got {kind!r}; expected some of {', '.join(AMOUNTS)}; blur has --blur")
        found += [Corruption(kind, severity) for severity in range(1, 6) if kind]
    return list(dict.fromkeys(found)) or [Corruption()]


def _sigma(text: str) -> float:
    try:
        sigma = float(text)
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma <= 64:
        raise UserError(f"--blur: got {text!r}; expected sigmas in pixels, 0 to 64; write e.g. --blur 0,1,2,4")
    return sigma


class Corrupted(Dataset[Sample]):
    """A dataset's views for evaluation, the image at `size` and corrupted."""

    def __init__(self, views: Views, size: Size, corruption: Corruption) -> None:
        self.views, self.transform, self.corruption = views, EvalTransform(size), corruption

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, i: int) -> Sample:
        sample = self.transform(self.views[i])
        draw = torch.Generator().manual_seed(int(np.random.SeedSequence((SEED, i)).generate_state(1, np.uint64)[0]))
        return {**sample, "image": self.corruption(sample["image"], draw)}
