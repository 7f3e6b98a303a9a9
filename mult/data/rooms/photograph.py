"""From radiance to a photograph: exposure, white balance, lens, film curve, saturation and noise, all of them at random."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Float = NDArray[np.float32]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in a gray value (ITU-R BT.601)."""


def develop(radiance: Float, rng: Generator) -> NDArray[np.uint8]:
    """Radiance (3, H, W), whose typical value is 0.3, as an sRGB image (H, W, 3)."""
    warmth, tint = rng.normal(0, 0.1), rng.normal(0, 0.03)
    gain = np.exp(rng.normal(-0.1, 0.2) + np.array([warmth, tint, -warmth])).astype(np.float32)
    image = _blur(radiance * gain[:, None, None])
    shoulder = np.float32(rng.uniform(0.4, 0.9))
    image = (image * (1 + np.float32(0.6) * shoulder) / (1 + shoulder * image)) ** np.float32(1 / rng.uniform(2.0, 2.4))
    gray = np.einsum("c,chw->hw", LUMA, image)
    image = gray + np.float32(rng.uniform(0.7, 1.2)) * (image - gray)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0.003, 0.015))
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def _blur(image: Float) -> Float:
    """A lens's blur: the kernel (1, 6, 1) / 8 along both axes."""
    padded = np.pad(image, ((0, 0), (1, 1), (0, 0)), mode="edge")
    image = 0.75 * image + 0.125 * (padded[:, :-2] + padded[:, 2:])
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1)), mode="edge")
    return 0.75 * image + 0.125 * (padded[:, :, :-2] + padded[:, :, 2:])
