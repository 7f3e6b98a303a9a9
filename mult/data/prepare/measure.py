"""What a depth map shows of itself: how far away things are, how noisy it is, and how far its normals are to be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mult.data.disk.images import Array, Mask
from mult.labels import NOISY, Intrinsics, inverse_depth_noise

_LARGEST_WINDOWS = {False: 7, True: 25}
"""Pixels, of the largest window that normals are fitted in, by whether the depth is noisy."""


class DepthFacts(NamedTuple):
    """Of one depth map, or the medians over several. median_m: depth in metres. noise_per_m: of inverse depth
    (`inverse_depth_noise`). normal_share: of the pixels with depth those that have a normal; None where none were made.
    tilt_deg: the deviation that the noise alone gives to the normal of a plane at the median depth in the largest window;
    errors that neighbouring pixels share come on top.
    """

    median_m: float
    noise_per_m: float
    normal_share: float | None
    tilt_deg: float

    def __str__(self) -> str:
        text = f"depth: median {self.median_m:.2f} m, noise of inverse depth {self.noise_per_m:.2g} /m"
        if self.noise_per_m > NOISY:
            text += ", as of a sensor: normals are of windows of 7 to 25 pixels and tell nothing of smaller shapes"
        text += f"; the noise alone tilts the normals of planes by {self.tilt_deg:.2g} degrees"
        if self.normal_share is not None:
            text += f"; {self.normal_share:.1%} of the pixels with depth have a normal"
        return text


def measure(depth_m: Array, valid: Mask, intrinsics: Intrinsics, with_normal: Mask | None) -> DepthFacts | None:
    """The facts of a depth map (H, W); None where no pixel is valid."""
    if not valid.any():
        return None
    median_m = float(np.median(depth_m[valid]))
    noise = inverse_depth_noise(depth_m, valid)
    window = _LARGEST_WINDOWS[noise > NOISY]
    # A slope fitted to n x n pixels of deviation s has the deviation s sqrt(12) / n^2; there are two. On a plane that faces the
    # camera, a slope of inverse depth d tilts the normal by f z d.
    focal = math.sqrt(intrinsics[0] * intrinsics[1])
    tilt = math.atan(noise * math.sqrt(24) / window**2 * focal * median_m)
    share = None if with_normal is None else float((with_normal & valid).sum() / valid.sum())
    return DepthFacts(median_m, noise, share, math.degrees(tilt))


def summarise(facts: Sequence[DepthFacts]) -> DepthFacts | None:
    """The medians over several depth maps; None of none."""
    if not facts:
        return None
    columns = [[value for value in column if value is not None] for column in zip(*facts, strict=True)]
    return DepthFacts(*(float(np.median(column)) if column else None for column in columns))  # type: ignore[arg-type]
