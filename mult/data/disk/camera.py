"""What users say of a camera and of its depth files, checked."""

from __future__ import annotations

import math
from typing import Any

from mult.errors import UserError
from mult.labels import Intrinsics


def check_intrinsics(where: str, values: Any) -> Intrinsics:
    """The four numbers (fx, fy, cx, cy); UserError, naming `where` they were given, for anything else."""
    is_sequence = isinstance(values, list | tuple) and len(values) == 4
    if not is_sequence or not all(map(_is_finite, values)) or min(values[:2]) <= 0:
        raise UserError(f"{where}: got {values!r}; expected [fx, fy, cx, cy] with fx, fy above 0; give them in pixels")
    fx, fy, cx, cy = (float(value) for value in values)
    return fx, fy, cx, cy


def check_depth_scale(where: str, units_per_metre: float) -> float:
    """The units of a depth file that make a metre; UserError, naming `where` they were given, unless above 0."""
    if not (math.isfinite(units_per_metre) and units_per_metre > 0):
        raise UserError(
            f"{where}: got {units_per_metre}; expected depth units a metre, above 0; 1000 if depth is in millimetres"
        )
    return units_per_metre


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
