"""From a map of boundary probabilities to lines one pixel wide: non-maximum suppression, then morphological thinning.

Source of the suppression: the Structured Edge Detection toolbox (Dollar and Zitnick, ICCV 2013), with the constants that
SEISM gives it. Of the thinning: Guo and Hall, "Parallel thinning with two-subiteration algorithms", Comm. ACM 1989, which
Matlab's `bwmorph(map, "thin", Inf)` and scikit-image's `thin` compute too. All in NumPy but the smoothing, which is SciPy's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Real = NDArray[np.floating[Any]]

ORIENTATION_RADIUS = 4
"""Pixels on either side that the triangle filter blends before the orientation is estimated."""
MARGIN = 1.01
"""A pixel is suppressed if this many times its value is below a neighbour's."""
BORDER = 5
"""Pixels from the image's border within which values are scaled down, to 0 at the border."""


def suppress(probability: Real, least: float) -> NDArray[np.float64]:
    """Keep the pixels (H, W) that are the largest across their line, and set the others to 0.

    Across is the direction of the strongest second derivative of the smoothed map. The two neighbours are one pixel away
    in it, bilinearly interpolated. Values below `least` are of no interest and become 0 as well.
    """
    values = np.asarray(probability, np.float64)
    kept = np.zeros_like(values)
    rows, columns = np.nonzero(values >= least)
    if min(values.shape) > 1:
        angle = _orientation(values)[rows, columns]
        dy, dx = np.sin(angle), np.cos(angle)
        here = values[rows, columns] * MARGIN
        largest = np.ones(len(rows), bool)
        for sign in (-1, 1):
            largest &= here >= _interpolate(values, rows + sign * dy, columns + sign * dx)
        rows, columns = rows[largest], columns[largest]
    kept[rows, columns] = values[rows, columns] * _ramp(values.shape)[rows, columns]
    return kept


def thin(mask: Bool) -> Bool:
    """Peel a mask (H, W) to lines one pixel wide that join what it joins; what is outside the image counts as False.

    An iteration is two parallel passes. A pixel is looked at again only if a neighbour has gone since the last time, which
    gives the same lines and costs as much as there is to peel.
    """
    padded = np.pad(mask, 1)
    flat = padded.ravel()
    ring = _ring(padded.shape[1])
    order = np.empty(flat.size, np.int64)

    def distinct(points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the points that are still True, each once; np.unique is slower."""
        points = points[flat[points]]
        order[points] = np.arange(len(points))
        return points[order[points] == np.arange(len(points))]

    waiting = [np.flatnonzero(flat)] * 2
    step = 0
    while len(waiting[0]) or len(waiting[1]):
        points = waiting[step]
        removed = points[_REMOVABLE[step][_neighbourhood(flat, points, ring)]]
        flat[removed] = False
        waiting[step] = distinct((removed[:, None] + ring).ravel())
        step = 1 - step
        waiting[step] = distinct(np.concatenate([waiting[step], waiting[1 - step]]))
    return padded[1:-1, 1:-1]


def _orientation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The angle [rad], in [0, pi) from the x axis towards the y axis (down), across the line that each pixel is on."""
    from scipy import ndimage

    size = ORIENTATION_RADIUS + 1
    triangle = (size - np.abs(np.arange(1 - size, size))) / size**2
    smooth = values
    for axis in (0, 1):
        smooth = ndimage.correlate1d(smooth, triangle, axis=axis, mode="reflect")
    dy, dx = np.gradient(smooth)
    dxx = np.gradient(dx, axis=1)
    dyy, dyx = np.gradient(dy)
    # The toolbox has sign(-dyx), which is 0 along a horizontal line, where it would turn the direction by 90 degrees.
    return np.arctan(dyy * np.where(dyx > 0, -1, 1) / (dxx + 1e-5)) % np.pi


def _interpolate(values: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear interpolation of (H, W) at places (N,), moved into the image."""
    height, width = values.shape
    y, x = y.clip(0, height - 1), x.clip(0, width - 1)
    top, left = np.minimum(y.astype(int), height - 2), np.minimum(x.astype(int), width - 2)
    down, right = y - top, x - left
    return np.asarray(
        (values[top, left] * (1 - right) + values[top, left + 1] * right) * (1 - down)
        + (values[top + 1, left] * (1 - right) + values[top + 1, left + 1] * right) * down
    )


def _ramp(shape: tuple[int, int]) -> NDArray[np.float64]:
    """What values are scaled by, (H, W): 0 at the border to 1 from BORDER pixels on, or halfway across a smaller image."""
    width = min(BORDER, min(shape) // 2)
    if width == 0:
        return np.ones(shape)
    rows, columns = (np.minimum(np.minimum(place, place[::-1]) / width, 1) for place in map(np.arange, shape))
    return np.outer(rows, columns)


def _ring(width: int) -> NDArray[np.int64]:
    """The steps in a flat array of rows of `width` to the eight neighbours: east, then counterclockwise."""
    return np.array([1, 1 - width, -width, -1 - width, -1, width - 1, width, width + 1])


def _neighbourhood(flat: Bool, points: NDArray[np.int64], ring: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The eight neighbours of each point as the bits of a number, the first the lowest."""
    return np.packbits(flat[points[:, None] + ring], axis=1, bitorder="little")[:, 0]


def _removable() -> tuple[Bool, Bool]:
    """For each of the 256 neighbourhoods whether the pixel goes, in the first and in the second pass of an iteration."""
    p = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(bool)
    after = np.roll(p, -1, axis=1)
    before = np.roll(p, 1, axis=1)
    sides, corners = slice(0, None, 2), slice(1, None, 2)
    # The pixel joins one run of neighbours only, and is neither the end of a line nor inside.
    runs = (~p[:, sides] & (after[:, sides] | np.roll(p, -2, axis=1)[:, sides])).sum(1)
    pairs = np.minimum((p[:, corners] | before[:, corners]).sum(1), (p[:, corners] | after[:, corners]).sum(1))
    east, northeast, north, _, west, southwest, south, southeast = p.T
    northwest = p[:, 3]
    common = (runs == 1) & ((pairs == 2) | (pairs == 3))
    return common & ~((northeast | north | ~southeast) & east), common & ~((southwest | south | ~northwest) & west)


_REMOVABLE = _removable()
