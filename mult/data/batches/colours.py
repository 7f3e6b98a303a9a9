"""Random changes of a training image's colours: jitter, and the photometric distortion of SSD.

Both take and give float32 (3, H, W) in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a gray value (ITU-R BT.601)."""
BRIGHTNESS = 32 / 255
FACTORS = (0.5, 1.5)
"""The range of the factors of contrast and of saturation."""
TURN = 18 / 180
"""Of the circle of hues, in either direction."""


def jitter(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Scale the values, their distance from the mean gray and their distance from each pixel's gray; clip to [0, 1]."""
    red, green, blue = (weight * channel for weight, channel in zip(LUMA, image, strict=True))
    gray = red.add_(green).add_(blue)
    # All three are linear: the result is a sum of multiples of the image, of its gray and of the mean gray.
    shift = gray * (brightness * contrast * (1 - saturation)) + gray.mean() * (brightness * (1 - contrast))
    return torch.add(shift, image, alpha=brightness * contrast * saturation).clamp_(0, 1)


def distort(image: Tensor, generator: torch.Generator) -> Tensor:
    """Photometric distortion (W. Liu et al., *SSD*, ECCV 2016) without SSD's exchange of channels.

    Each step with probability 1/2, and clipped to [0, 1]: add BRIGHTNESS times a number in [-1, 1]; scale all values by a
    factor in FACTORS (contrast); scale HSV's saturation by one; turn HSV's hue by TURN times a number in [-1, 1]. Contrast is
    second or, with probability 1/2, last.
    """
    draws = torch.rand(9, generator=generator).tolist()
    low, high = FACTORS
    contrast = low + (high - low) * draws[3] if draws[2] < 0.5 else 1.0
    contrast_is_second = draws[8] < 0.5
    if draws[0] < 0.5:
        image = (image + BRIGHTNESS * (2 * draws[1] - 1)).clamp(0, 1)
    if contrast_is_second:
        image = (image * contrast).clamp(0, 1)
    if draws[4] < 0.5:
        image = scale_saturation(image, low + (high - low) * draws[5])
    if draws[6] < 0.5:
        image = turn_hue(image, TURN * (2 * draws[7] - 1))
    return image if contrast_is_second else (image * contrast).clamp(0, 1)


def scale_saturation(image: Tensor, factor: float) -> Tensor:
    """Scale HSV's saturation, to 1 at most; hue and value, the largest channel, stay."""
    value, chroma = image.amax(0), image.amax(0) - image.amin(0)
    limit = torch.where(chroma > 0, value / chroma.clamp(min=1e-12), 1)  # at which the smallest channel is 0
    return (value - (value - image) * limit.clamp(max=factor)).clamp(0, 1)


def turn_hue(image: Tensor, turn: float) -> Tensor:
    """Turn HSV's hue by a part of the circle; saturation and value stay."""
    red, green, blue = image
    value, chroma = image.amax(0), image.amax(0) - image.amin(0)
    span = chroma.clamp(min=1e-12)
    sector = torch.where(value == green, 2 + (blue - red) / span, 4 + (red - green) / span)
    hue = torch.where(value == red, (green - blue) / span, sector) + 6 * turn
    channels = []
    for offset in (5, 3, 1):  # of red, green, blue, in sixths of the circle
        place = (offset + hue) % 6
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels).clamp(0, 1)
