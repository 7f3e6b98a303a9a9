"""Maps -> colours, with NumPy alone: the look of each kind of task, and the error of a prediction at each pixel.

The anchors of the colour maps are those of matplotlib (viridis, inferno: CC0; turbo: Google, Apache 2.0; reds:
ColorBrewer), interpolated linearly. The class colours keep the largest distances in CIELAB that a greedy search found
under normal, protanope and deuteranope vision. Pixels without a label are hatched in two grays everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from mult.errors import UserError

Array = npt.NDArray[Any]
Painted = npt.NDArray[np.uint8]
Error = npt.NDArray[np.float32]
Limits = tuple[float, float]


def _parse_colours(table: str) -> Array:
    return np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in table.split()], np.float64)


COLORMAPS: dict[str, Array] = {
    "viridis": _parse_colours("440154 481F70 443983 3B528B 31688E 287C8E 21918C 20A486 35B779 5EC962 90D743 C8E020 FDE725"),
    "inferno": _parse_colours("000004 110A30 320A5E 57106E 781C6D 9A2865 BC3754 D84C3E ED6925 F98E09 FBB61A F4DF53 FCFFA4"),
    "turbo": _parse_colours("30123B 434EBA 4685FA 28BCEB 1AE4B6 55FA76 A4FC3C D9E436 FABA39 FB7E21 E4450A B91E02 7A0403"),
    "reds": _parse_colours("FFF5F0 FEE0D2 FCBBA1 FC9272 FB694A EE3A2C CA181D A30F15 67000D"),
    "gray": _parse_colours("000000 FFFFFF"),
}
PALETTE = _parse_colours(
    "C8CDD6 0072B2 E69F00 009E73 D55E00 56B4E9 CC79A7 F0E442 691E0F 4BFF96 4B2D4B 002DA5 2D87FF E10F4B 2D2D78 F0965A "
    "96D2A5 962D00 B4FF78 4B693C 874B78 4BA5FF 5A2D2D 5AE1FF 3C5AC3 96FFD2 F05A78 963C5A 3CB4C3 1E3C69 4BFFFF D2693C "
    "C3D24B 5AD278 A52D96 A52D2D A569D2 78FFB4 8787C3 4BC3A5"
).astype(np.uint8)
HATCH_GRAYS = (150, 190)


class Drawable(Protocol):
    """The fields of a task (`mult.tasks.Task`) that pictures need."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def colours(self) -> Colours: ...
    @property
    def categorical(self) -> bool: ...


class Colours(Protocol):
    """The look of a task's maps. Values are (C, H, W) or (H, W), valid is bool (H, W), (1, H, W) or None = everywhere."""

    error_unit: ClassVar[str | None] = None
    """The unit of `error`; None is the task's own."""
    error_high: ClassVar[float | None] = None
    """The upper end of the error's colour bar; None is a quarter of the truth's range. It is not the errors' own range, so
    that a colour means the same for every model."""

    def limits(self, values: Array, valid: Array | None) -> Limits | None:
        """The values at the two ends of the colour bar; None where there is no bar."""
        return None

    def paint(self, values: Array, valid: Array | None = None, limits: Limits | None = None) -> Painted:
        """Colour a map: uint8 (H, W, 3), hatched where invalid or not finite; limits None = those of the map itself."""

    def error(self, prediction: Array, target: Array, valid: Array | None = None) -> Error:
        """The error of a prediction at each pixel: float32 (H, W) >= 0 in `error_unit`, 0 where invalid."""

    def keys(self, maps: Sequence[Array], classes: Sequence[str] | None) -> list[tuple[Painted, str]]:
        """Swatches (one of 16 pixels is drawn as high as the text) and texts for the legend of these maps."""
        return []


@dataclass(frozen=True)
class Classes(Colours):
    """A fixed colour a class, pixels of the class id `ignore` hatched; beyond the palette's 40 the colours repeat."""

    ignore: int
    error_unit: ClassVar[str | None] = "of pixels"
    error_high: ClassVar[float | None] = 1.0

    def paint(self, values: Array, valid: Array | None = None, limits: Limits | None = None) -> Painted:
        labels = to_plane(values)
        return hatch(PALETTE[labels % len(PALETTE)], _find_visible(labels, valid) & (labels != self.ignore))

    def error(self, prediction: Array, target: Array, valid: Array | None = None) -> Error:
        return ((to_plane(prediction) != to_plane(target)) & _find_visible(target, valid)).astype(np.float32)

    def keys(self, maps: Sequence[Array], classes: Sequence[str] | None) -> list[tuple[Painted, str]]:
        present = sorted(set().union(*(np.unique(labels).tolist() for labels in maps)) - {self.ignore})
        names = dict(enumerate(classes or ()))
        return [(np.full((16, 16, 3), PALETTE[k % len(PALETTE)]), names.get(k, f"class {k}")) for k in present]


@dataclass(frozen=True)
class Scalar(Colours):
    """A colour map between two limits; None takes the 2nd or 98th percentile of the valid values."""

    colormap: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.colormap not in COLORMAPS:
            names = ", ".join(COLORMAPS)
            raise UserError(f"Scalar: got colormap {self.colormap!r}; expected one of {names}; or add it to COLORMAPS")

    def limits(self, values: Array, valid: Array | None) -> Limits:
        visible = to_plane(values)[_find_visible(values, valid)]
        low, high = np.percentile(visible, (2, 98)).tolist() if visible.size else (0.0, 1.0)
        low, high = low if self.low is None else self.low, high if self.high is None else self.high
        return low, high if high > low else low + (abs(low) or 1.0)

    def paint(self, values: Array, valid: Array | None = None, limits: Limits | None = None) -> Painted:
        low, high = limits or self.limits(values, valid)
        anchors = COLORMAPS[self.colormap]
        place, places = (to_plane(values) - low) / (high - low), np.linspace(0, 1, len(anchors))
        colours = np.stack([np.interp(np.nan_to_num(place), places, channel) for channel in anchors.T], -1)
        return hatch(np.rint(colours), _find_visible(values, valid))

    def error(self, prediction: Array, target: Array, valid: Array | None = None) -> Error:
        distance = np.abs(to_plane(prediction) - to_plane(target))
        return np.where(_find_visible(target, valid), distance, 0).astype(np.float32)


class Directions(Colours):
    """Unit vectors (3, H, W) as (1 + n) / 2, the colours of Taskonomy's files."""

    error_unit: ClassVar[str | None] = "deg"
    error_high: ClassVar[float | None] = 60.0

    def paint(self, values: Array, valid: Array | None = None, limits: Limits | None = None) -> Painted:
        colours = np.rint((np.clip(np.nan_to_num(values), -1, 1) + 1) / 2 * 255)
        return hatch(colours.transpose(1, 2, 0), _find_visible(values, valid))

    def error(self, prediction: Array, target: Array, valid: Array | None = None) -> Error:
        # arctan2 of sine and cosine: arccos loses small angles in float32 and needs exact unit length.
        sine = np.linalg.norm(np.cross(prediction, target, axis=0), axis=0)
        degrees = np.degrees(np.arctan2(sine, (prediction * target).sum(0)))
        return np.where(_find_visible(target, valid), degrees, 0).astype(np.float32)

    def keys(self, maps: Sequence[Array], classes: Sequence[str] | None) -> list[tuple[Painted, str]]:
        y, x = np.mgrid[-1:1:28j, -1:1:28j]
        outside = x**2 + y**2 > 1
        ball = self.paint(np.stack([x, y, -np.sqrt(np.where(outside, 0, 1 - x**2 - y**2))]))
        ball[outside] = 255
        return [(ball, "normals of a ball")]


ERROR = Scalar("reds")


def find_max_error(colours: Colours, limits: Limits | None) -> float:
    """The upper end of the error's colour bar, given the limits of the truth's."""
    return colours.error_high or ((limits[1] - limits[0]) / 4 if limits else 1.0)


def overlay(image: Array, painted: Painted, valid: Array | None = None, alpha: float = 0.7) -> Painted:
    """Blend colours over an image, `alpha` of them; invalid pixels keep their hatch.

    image (3, H, W) float in [0, 1], resized to painted, uint8 (H, W, 3), where it has another size: evaluation holds
    images at the network's size and maps at the target's. Returns uint8 (H, W, 3).
    """
    height, width = painted.shape[:2]
    resized = np.asarray(to_photo(image).resize((width, height), Image.Resampling.BILINEAR))
    blend = np.rint(alpha * painted + (1 - alpha) * resized)
    return np.where(_find_visible(painted[..., 0], valid)[..., None], blend, painted).astype(np.uint8)


def to_plane(values: Array) -> Array:
    """(1, H, W) or (H, W) -> (H, W)."""
    return values[0] if values.ndim == 3 else values


def to_photo(image: Array) -> Image.Image:
    """An image (3, H, W) in [0, 1] -> 8 bits."""
    return Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def hatch(colours: Array, visible: Array) -> Painted:
    """Gray stripes in place of colours, (3,) or (H, W, 3), where nothing is visible; wide enough for a cell of the gallery."""
    painted, (y, x) = np.broadcast_to(colours, (*visible.shape, 3)).astype(np.uint8), np.nonzero(~visible)
    period = max(2, max(visible.shape) // 24)
    painted[y, x] = np.where((x + y) % period < period / 2, *HATCH_GRAYS)[:, None]
    return painted


def _find_visible(values: Array, valid: Array | None) -> npt.NDArray[np.bool_]:
    """(H, W): where the values are valid and finite."""
    finite = np.isfinite(values).reshape(-1, *values.shape[-2:]).all(axis=0)
    return np.asarray(finite if valid is None else finite & to_plane(valid), bool)
