"""Predictions -> pictures, with NumPy and Pillow alone: a task's colours, the gallery, one picture a map.

The gallery follows the paper's main figure (input, segmentation over the input, then a column a task), but with truth,
prediction and error in three rows an image; the paper shows no errors. The anchors of the colour maps are those of
matplotlib (viridis, inferno: CC0; turbo: Google, Apache 2.0; reds: ColorBrewer), interpolated linearly. The class
colours keep the largest distances in CIELAB that a greedy search found under normal, protanope and deuteranope vision.
Pixels without a label are hatched in two grays everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

Array = npt.NDArray[Any]
Painted = npt.NDArray[np.uint8]
Error = npt.NDArray[np.float32]
Limits = tuple[float, float]


def _colours(table: str) -> Array:
    return np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in table.split()], np.float64)


COLORMAPS: dict[str, Array] = {
    "viridis": _colours("440154 481F70 443983 3B528B 31688E 287C8E 21918C 20A486 35B779 5EC962 90D743 C8E020 FDE725"),
    "inferno": _colours("000004 110A30 320A5E 57106E 781C6D 9A2865 BC3754 D84C3E ED6925 F98E09 FBB61A F4DF53 FCFFA4"),
    "turbo": _colours("30123B 434EBA 4685FA 28BCEB 1AE4B6 55FA76 A4FC3C D9E436 FABA39 FB7E21 E4450A B91E02 7A0403"),
    "reds": _colours("FFF5F0 FEE0D2 FCBBA1 FC9272 FB694A EE3A2C CA181D A30F15 67000D"),
    "gray": _colours("000000 FFFFFF"),
}
PALETTE = _colours(
    "C8CDD6 0072B2 E69F00 009E73 D55E00 56B4E9 CC79A7 F0E442 691E0F 4BFF96 4B2D4B 002DA5 2D87FF E10F4B 2D2D78 F0965A "
    "96D2A5 962D00 B4FF78 4B693C 874B78 4BA5FF 5A2D2D 5AE1FF 3C5AC3 96FFD2 F05A78 963C5A 3CB4C3 1E3C69 4BFFFF D2693C "
    "C3D24B 5AD278 A52D96 A52D2D A569D2 78FFB4 8787C3 4BC3A5"
).astype(np.uint8)
IGNORE = 255
HATCH, INK, FAINT = (150, 190), (20, 20, 20), (110, 110, 110)
SMALL = 12  # a font size in pixels, as are all of these
CELL, GAP, MARGIN, STRIP = 192, 6, 16, SMALL * 3 // 2


class Drawable(Protocol):
    """What a picture needs to know of a task: a `mult.tasks.Task` is one."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def colours(self) -> Colours: ...
    @property
    def categorical(self) -> bool: ...


class Colours(Protocol):
    """How a task's maps look. Values are (C, H, W) or (H, W), valid is bool (H, W), (1, H, W) or None = everywhere."""

    error_unit: ClassVar[str | None] = None
    """The unit of `error`; None is the task's own."""
    error_high: ClassVar[float | None] = None
    """The upper end of the error's colour bar; None is a quarter of the truth's range: not of the errors' own, so that
    a colour means the same for every model."""

    def limits(self, values: Array, valid: Array | None) -> Limits | None:
        """The values at the two ends of the colour bar; None where there is no bar."""
        return None

    def paint(self, values: Array, valid: Array | None = None, limits: Limits | None = None) -> Painted:
        """Colour a map: uint8 (H, W, 3), hatched where invalid or not finite; limits None = those of the map itself."""

    def error(self, prediction: Array, target: Array, valid: Array | None = None) -> Error:
        """How far a prediction is off at each pixel: float32 (H, W) >= 0 in `error_unit`, 0 where invalid."""

    def keys(self, maps: Sequence[Array], classes: Sequence[str] | None) -> list[tuple[Painted, str]]:
        """Swatches (16 pixels high stand as high as the text) and texts for the legend of these maps."""
        return []


class Classes(Colours):
    """A fixed colour a class, ignored pixels (255) hatched; beyond the palette's 40 the colours repeat."""

    error_unit: ClassVar[str | None] = "of pixels"
    error_high: ClassVar[float | None] = 1.0

    def paint(self, values: Array, valid: Array | None = None, limits: Limits | None = None) -> Painted:
        labels = _plane(values)
        return _hatched(PALETTE[labels % len(PALETTE)], _mask(labels, valid) & (labels != IGNORE))

    def error(self, prediction: Array, target: Array, valid: Array | None = None) -> Error:
        return ((_plane(prediction) != _plane(target)) & _mask(target, valid)).astype(np.float32)

    def keys(self, maps: Sequence[Array], classes: Sequence[str] | None) -> list[tuple[Painted, str]]:
        found = sorted(set().union(*(np.unique(labels).tolist() for labels in maps)) - {IGNORE})
        names = dict(enumerate(classes or ()))
        return [(np.full((16, 16, 3), PALETTE[k % len(PALETTE)]), names.get(k, f"class {k}")) for k in found]


@dataclass(frozen=True)
class Scalar(Colours):
    """A colour map between two limits; None takes the 2nd or 98th percentile of the valid values."""

    colormap: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.colormap not in COLORMAPS:
            known = ", ".join(COLORMAPS)
            raise ValueError(f"Scalar: got colormap {self.colormap!r}; expected one of {known}; or add it to COLORMAPS")

    def limits(self, values: Array, valid: Array | None) -> Limits:
        shown = _plane(values)[_mask(values, valid)]
        low, high = np.percentile(shown, (2, 98)).tolist() if shown.size else (0.0, 1.0)
        low, high = low if self.low is None else self.low, high if self.high is None else self.high
        return low, high if high > low else low + (abs(low) or 1.0)

    def paint(self, values: Array, valid: Array | None = None, limits: Limits | None = None) -> Painted:
        low, high = limits or self.limits(values, valid)
        anchors = COLORMAPS[self.colormap]
        place, places = (_plane(values) - low) / (high - low), np.linspace(0, 1, len(anchors))
        colours = np.stack([np.interp(np.nan_to_num(place), places, channel) for channel in anchors.T], -1)
        return _hatched(np.rint(colours), _mask(values, valid))

    def error(self, prediction: Array, target: Array, valid: Array | None = None) -> Error:
        off = np.abs(_plane(prediction) - _plane(target))
        return np.where(_mask(target, valid), off, 0).astype(np.float32)


class Directions(Colours):
    """Unit vectors (3, H, W) as (1 + n) / 2, the colours of Taskonomy's files."""

    error_unit: ClassVar[str | None] = "deg"
    error_high: ClassVar[float | None] = 60.0

    def paint(self, values: Array, valid: Array | None = None, limits: Limits | None = None) -> Painted:
        colours = np.rint((np.clip(np.nan_to_num(values), -1, 1) + 1) / 2 * 255)
        return _hatched(colours.transpose(1, 2, 0), _mask(values, valid))

    def error(self, prediction: Array, target: Array, valid: Array | None = None) -> Error:
        # arctan2 of sine and cosine: arccos loses small angles in float32 and needs exact unit length.
        sine = np.linalg.norm(np.cross(prediction, target, axis=0), axis=0)
        degrees = np.degrees(np.arctan2(sine, (prediction * target).sum(0)))
        return np.where(_mask(target, valid), degrees, 0).astype(np.float32)

    def keys(self, maps: Sequence[Array], classes: Sequence[str] | None) -> list[tuple[Painted, str]]:
        y, x = np.mgrid[-1:1:28j, -1:1:28j]
        outside = x**2 + y**2 > 1
        ball = self.paint(np.stack([x, y, -np.sqrt(np.where(outside, 0, 1 - x**2 - y**2))]))
        ball[outside] = 255
        return [(ball, "normals of a ball")]


ERROR = Scalar("reds")


def overlay(image: Array, painted: Painted, valid: Array | None = None, alpha: float = 0.7) -> Painted:
    """Blend colours over an image, `alpha` of them; invalid pixels keep their hatch.

    image (3, H, W) float in [0, 1], resized to painted, uint8 (H, W, 3), where it has another size: evaluation holds
    images at the network's size and maps at the target's. Returns uint8 (H, W, 3).
    """
    height, width = painted.shape[:2]
    ground = np.asarray(_photo(image).resize((width, height), Image.Resampling.BILINEAR))
    blend = np.rint(alpha * painted + (1 - alpha) * ground)
    return np.where(_mask(painted[..., 0], valid)[..., None], blend, painted).astype(np.uint8)


def _plane(values: Array) -> Array:
    return values[0] if values.ndim == 3 else values


def _mask(values: Array, valid: Array | None) -> npt.NDArray[np.bool_]:
    """(H, W): where the values may be shown."""
    shown = np.isfinite(values).reshape(-1, *values.shape[-2:]).all(axis=0)
    return np.asarray(shown if valid is None else shown & _plane(valid), bool)


def _hatched(colours: Array, shown: Array) -> Painted:
    """Diagonal stripes where nothing is shown, as wide as the image demands: they outlive scaling to a cell."""
    height, width = shown.shape
    y, x = np.mgrid[:height, :width]
    period = max(2, max(height, width) // 24)
    stripes = np.where((x + y) % period < period / 2, *HATCH)
    return np.where(shown[..., None], colours, stripes[..., None]).astype(np.uint8)


def _photo(image: Array) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def _joined(parts: Sequence[Image.Image], axis: int, gap: int = 0) -> Image.Image:
    """Pictures beside (axis 0) or below (axis 1) each other on white."""
    sizes = np.array([part.size for part in parts])
    size = sizes.max(0)
    size[axis] = sizes[:, axis].sum() + gap * (len(parts) - 1)
    page, place = _blank(*size.tolist()), [0, 0]
    for part in parts:
        page.paste(part, (place[0], place[1]))
        place[axis] += part.size[axis] + gap
    return page


def _text(text: str, width: int, size: int, ink: tuple[int, int, int] = INK) -> Image.Image:
    """One centred line, cut with an ellipsis where it is too long."""
    while len(text) > 2 and _font(size).getlength(text) > width:
        text = text[:-2] + "…"
    line = _blank(width, size * 3 // 2)
    ImageDraw.Draw(line).text((width / 2, line.height / 2), text, ink, _font(size), anchor="mm")
    return line


def _amount(text: str, number: float, unit: str, width: float, size: int) -> str:
    """With its unit where that fits into width; the head of a column has the unit too."""
    short = f"{text}{number:.3g}"
    return f"{short} {unit}" if _font(size).getlength(f"{short} {unit}") <= width else short


def _bar(colours: Colours, limits: Limits, unit: str, width: int, size: int) -> Image.Image:
    """A colour bar between its two numbers; the unit follows them where there is room."""
    numbers = f"{limits[0]:.3g}", _amount("", limits[1], unit, width / 3, size)
    low, high = (_text(number, round(_font(size).getlength(number)) + 1, size) for number in numbers)
    ramp = np.linspace(*limits, max(2, width - low.width - high.width - size - 2))[None].repeat(size - 2, 0)
    bar = ImageOps.expand(Image.fromarray(colours.paint(ramp, None, limits)), 1, FAINT)
    return _joined([low, ImageOps.expand(bar, (0, size // 4), "white"), high], 0, size // 2)


def _legend(entries: Sequence[tuple[Painted, str]], width: int, size: int) -> Image.Image:
    """Swatches with their texts, broken into lines of at most `width`."""
    font = _font(size)
    lines: list[list[Image.Image]] = []
    for swatch, text in entries:
        side = size * swatch.shape[0] // 16
        entry = _blank(round(side + size / 2 + font.getlength(text)) + 2, size * 2)
        entry.paste(Image.fromarray(swatch).resize((side, side)), (0, size - side // 2))
        ImageDraw.Draw(entry).text((side + size / 2, size), text, INK, font, anchor="lm")
        if not lines or sum(part.width + size for part in lines[-1]) + entry.width > width:
            lines.append([])
        lines[-1].append(entry)
    return _joined([_joined(line, 0, size) for line in lines], 1)


def _fitted(width: int, height: int) -> tuple[int, int]:
    scale = CELL / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _cell(painted: Painted, height: int, text: str = "") -> Image.Image:
    """A picture fitted into CELL x height and outlined, with a text in its middle."""
    cell = _blank(CELL + 2, height + 2)
    draw = ImageDraw.Draw(cell)
    width, height = _fitted(painted.shape[1], painted.shape[0])
    how = Image.Resampling.BOX if width < painted.shape[1] else Image.Resampling.NEAREST
    x, y = (cell.width - width) // 2, (cell.height - height) // 2
    draw.rectangle((x - 1, y - 1, x + width, y + height), outline=FAINT)
    cell.paste(Image.fromarray(painted).resize((width, height), how), (x, y))
    draw.text((cell.width / 2, cell.height / 2), text, FAINT, _font(14), anchor="mm")
    return cell


def _column(task: Drawable, sample: Mapping[str, Any], height: int) -> Image.Image:
    """Truth, prediction, error of one task for one sample."""
    colours, image = task.colours, np.asarray(sample["image"])
    prediction, target, valid = (np.asarray(sample[kind][task.name]) for kind in ("predictions", "targets", "valid"))
    limits = colours.limits(target, valid) if valid.any() else colours.limits(prediction, None)
    truth, guess = colours.paint(target, valid, limits), colours.paint(prediction, None, limits)
    if task.categorical:
        truth, guess = overlay(image, truth, valid), overlay(image, guess)
    scale = _bar(colours, limits, task.unit, CELL + 2, SMALL) if limits else _blank(CELL, STRIP)
    if not valid.any():
        missing = _cell(np.full_like(guess, 244), height, "no label")
        return _joined([missing, _cell(guess, height), scale, missing], 1, GAP)
    error, unit = colours.error(prediction, target, valid), colours.error_unit or task.unit
    high = colours.error_high or ((limits[1] - limits[0]) / 4 if limits else 1.0)
    wrong = _cell(ERROR.paint(error, valid, (0.0, high)), height)
    bars = [] if task.categorical else [_bar(ERROR, (0.0, high), unit, CELL + 2, SMALL)]
    mean = _text(_amount("mean error ", error[_plane(valid)].mean(), unit, CELL, SMALL), CELL + 2, SMALL)
    return _joined([_cell(truth, height), _cell(guess, height), scale, wrong, *bars, mean], 1, GAP)


def _rows(sample: Mapping[str, Any], tasks: Mapping[str, Drawable], height: int) -> Image.Image:
    """One sample: the names of the rows, the input with its id, a column a task."""
    names = [_text(name, height + 2, 14, FAINT).rotate(90, expand=True) for name in ("truth", "prediction", "error")]
    names.insert(2, _blank(1, STRIP))
    given = [_cell(np.asarray(_photo(np.asarray(sample["image"]))), height)]
    given += [_text(part, CELL + 2, SMALL, FAINT) for part in sample["id"].split("/")]
    columns = [_column(task, sample, height) for task in tasks.values()]
    return _joined([_joined(names, 1, GAP), _joined(given, 1), *columns], 0, GAP)


def gallery(samples: Sequence[Mapping[str, Any]], tasks: Mapping[str, Drawable], classes: Sequence[str] | None) -> Image.Image:
    """Ground truth, prediction and error of a few samples, a column a task.

    A sample is {"id", "image" (3, H, W) float in [0, 1], "targets", "valid", "predictions"}, the last three by task
    name, NumPy arrays or CPU tensors of any size. Truth and prediction share the limits of this image's truth, printed
    below them. A task without a label shows its prediction alone. Raises ValueError without samples.
    """
    if not samples:
        raise ValueError("gallery: got no samples; expected at least one; give it some images of an evaluation")
    height = max(_fitted(*np.shape(sample["image"])[:0:-1])[1] for sample in samples)
    titles = [("input", "")] + [(task.name.replace("_", " "), task.unit) for task in tasks.values()]
    head = [_joined([_text(name, CELL + 2, 16), _text(unit, CELL + 2, SMALL, FAINT)], 1) for name, unit in titles]
    header = _joined([_blank(14 * 3 // 2, 1), *head], 0, GAP)
    body = [_rows(sample, tasks, height) for sample in samples]
    keys = [(_hatched(np.zeros(3), np.zeros((CELL, CELL), bool))[:16, :16], "no label here")]
    for task in tasks.values():
        shown = [np.asarray(sample[kind][task.name]) for sample in samples for kind in ("targets", "predictions")]
        keys += task.colours.keys(shown, classes)
    page = _joined([header, _joined(body, 1, 3 * GAP), _legend(keys, header.width, 14)], 1, 2 * GAP)
    return ImageOps.expand(page, MARGIN, "white")


def picture(task: Drawable, prediction: Array, image: Array | None = None, classes: Sequence[str] | None = None) -> Image.Image:
    """One prediction at its own size, top left; below it the task's name, and the colour bar or the legend.

    The prediction is (C, H, W) or (H, W); classes are laid over the image, (3, H, W) in [0, 1], where one is given. The
    page is as wide as the map, but at least 160 pixels so that its text can be read.
    """
    colours = task.colours
    limits = colours.limits(prediction, None)
    painted = colours.paint(prediction, None, limits)
    if task.categorical and image is not None:
        painted = overlay(image, painted)
    width = max(160, painted.shape[1])
    size = max(SMALL, width // 45)
    title = _text(f"{task.name.replace('_', ' ')} ({task.unit})", width, size)
    room = width - size
    key = _bar(colours, limits, task.unit, room, size) if limits else None
    key = key or _legend(colours.keys([prediction], classes), room, size)
    return _joined([Image.fromarray(painted), title, ImageOps.expand(key, size // 2, "white")], 1)
