"""TODOC"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mult.errors import UserError
from mult.labels import Intrinsics


@dataclass(frozen=True)
class Camera:
    """What turns a depth file into geometry: units a metre, and (fx, fy, cx, cy) in pixel indices."""

    depth_scale: float
    intrinsics: Intrinsics

    def __post_init__(self) -> None:
        if not (math.isfinite(self.depth_scale) and self.depth_scale > 0):
            raise UserError(
                f"depth-scale: got {self.depth_scale}; expected depth units a metre, above 0; 1000 if depth is in millimetres"
            )
        finite = all(math.isfinite(value) for value in self.intrinsics)
        if not (len(self.intrinsics) == 4 and finite and min(self.intrinsics[:2]) > 0):
            raise UserError(f"intrinsics: got {self.intrinsics}; expected fx fy cx cy with fx, fy above 0; give them in pixels")
