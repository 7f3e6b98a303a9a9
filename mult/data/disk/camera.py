"""What users say of a camera and of its depth files, checked."""

from __future__ import annotations

import math
from typing import Any

from mult.errors import UserError
from mult.labels import Intrinsics

_FOCAL_LENGTHS = (0.05, 12.0)
"""The focal length in sides of the image: fields of view of 169 to 5 degrees."""
_CENTRE = (0.3, 0.7)
"""Where the principal point may be, in sides of the image: that of an image of half or double the size is outside."""


def check_intrinsics(where: str, values: Any, size: tuple[int, int] | None = None) -> Intrinsics:
    """The four numbers (fx, fy, cx, cy); UserError, naming `where` they were given, for anything else.

    With the (height, width) of the images they are held against it: the field of view must be one of a pinhole camera, and the
    principal point near the middle. So the intrinsics of images of another size are refused, and such in units of the side.
    """
    is_sequence = isinstance(values, list | tuple) and len(values) == 4
    if is_sequence and all(map(_is_finite, values)) and values[0] > 0 > values[1]:
        raise UserError(
            f"{where}: got fy {values[1]:g}; expected fy above 0; where the rows of the images go down, as in ICL-NUIM, whose "
            f"published fy is negative, give {-values[1]:g}"
        )
    if not is_sequence or not all(map(_is_finite, values)) or min(values[:2]) <= 0:
        raise UserError(f"{where}: got {values!r}; expected [fx, fy, cx, cy] with fx, fy above 0; give them in pixels")
    fx, fy, cx, cy = (float(value) for value in values)
    if size is not None:
        height, width = size
        for focal, centre, side in ((fx, cx, width), (fy, cy, height)):
            low, high = _FOCAL_LENGTHS
            if not (low * side <= focal <= high * side and _CENTRE[0] * side <= centre + 0.5 <= _CENTRE[1] * side):
                raise UserError(
                    f"{where}: got {(fx, fy, cx, cy)} for images of {size} pixels (height, width); expected a focal length of "
                    f"{low:g} to {high:g} times the side and a principal point near its middle; give the intrinsics of these "
                    "images in pixels: in an image of half the size they are half as large"
                )
    return fx, fy, cx, cy


def scale_intrinsics(intrinsics: Intrinsics, size: tuple[int, int], new: tuple[int, int]) -> Intrinsics:
    """The intrinsics of images that are resized from one (height, width) to another.

    A pixel index is a pixel's centre, half a pixel from the edge that resizing keeps.
    """
    fx, fy, cx, cy = intrinsics
    down, across = new[0] / size[0], new[1] / size[1]
    return fx * across, fy * down, (cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5


def check_depth_scale(where: str, units_per_metre: float) -> float:
    """The units of a depth file that make a metre; UserError, naming `where` they were given, unless above 0."""
    if not (math.isfinite(units_per_metre) and units_per_metre > 0):
        raise UserError(
            f"{where}: got {units_per_metre}; expected depth units a metre, above 0; 1000 if depth is in millimetres"
        )
    return units_per_metre


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
