"""The parts of a picture of pictures, with Pillow: lines of text, colour bars, legends, parts beside or below each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from mult.draw.colours import Colours, Limits, Painted

INK, FAINT = (20, 20, 20), (110, 110, 110)
SMALL = 12
"""A font size, in pixels as all sizes here."""


@lru_cache
def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, in pixels."""
    return ImageFont.load_default(size=size)


def make_blank(width: int, height: int) -> Image.Image:
    """A white picture."""
    return Image.new("RGB", (width, height), "white")


def join_pictures(parts: Sequence[Image.Image], axis: int, gap: int = 0) -> Image.Image:
    """Pictures beside (axis 0) or below (axis 1) each other on white."""
    sizes = np.array([part.size for part in parts])
    size = sizes.max(0)
    size[axis] = sizes[:, axis].sum() + gap * (len(parts) - 1)
    page, place = make_blank(*size.tolist()), [0, 0]
    for part in parts:
        page.paste(part, (place[0], place[1]))
        place[axis] += part.size[axis] + gap
    return page


def draw_text_line(text: str, width: int, size: int, ink: tuple[int, int, int] = INK) -> Image.Image:
    """One centred line, cut with an ellipsis where it is too long."""
    while len(text) > 2 and load_font(size).getlength(text) > width:
        text = text[:-2] + "…"
    line = make_blank(width, size * 3 // 2)
    ImageDraw.Draw(line).text((width / 2, line.height / 2), text, ink, load_font(size), anchor="mm")
    return line


def format_amount(text: str, number: float, unit: str, width: float, size: int) -> str:
    """A number behind a text, with its unit where that fits into the width; the head of a column has the unit too."""
    short = f"{text}{number:.3g}"
    return f"{short} {unit}" if load_font(size).getlength(f"{short} {unit}") <= width else short


def draw_colour_bar(colours: Colours, limits: Limits, unit: str, width: int, size: int) -> Image.Image:
    """A colour bar between its two numbers; the unit follows them where there is room."""
    numbers = f"{limits[0]:.3g}", format_amount("", limits[1], unit, width / 3, size)
    low, high = (draw_text_line(number, round(load_font(size).getlength(number)) + 1, size) for number in numbers)
    ramp = np.linspace(*limits, max(2, width - low.width - high.width - size - 2))[None].repeat(size - 2, 0)
    bar = ImageOps.expand(Image.fromarray(colours.paint(ramp, None, limits)), 1, FAINT)
    return join_pictures([low, ImageOps.expand(bar, (0, size // 4), "white"), high], 0, size // 2)


def draw_legend(entries: Sequence[tuple[Painted, str]], width: int, size: int) -> Image.Image:
    """Swatches with their texts, broken into lines of at most `width`."""
    letters = load_font(size)
    lines: list[list[Image.Image]] = []
    for swatch, text in entries:
        side = size * swatch.shape[0] // 16
        entry = make_blank(round(side + size / 2 + letters.getlength(text)) + 2, size * 2)
        entry.paste(Image.fromarray(swatch).resize((side, side)), (0, size - side // 2))
        ImageDraw.Draw(entry).text((side + size / 2, size), text, INK, letters, anchor="lm")
        if not lines or sum(part.width + size for part in lines[-1]) + entry.width > width:
            lines.append([])
        lines[-1].append(entry)
    return join_pictures([join_pictures(line, 0, size) for line in lines], 1)
