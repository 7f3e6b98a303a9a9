"""Attention over the input: what one point of the image attends to, a row a decoder stage, a column a head.

The left column shows the input with a frame round the window of the point's token; the others show that window, enlarged, in
gray under the weights. The colours of a row share one scale from 0 to the row's largest weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from mult.draw.colours import Array, Limits, Scalar, to_photo
from mult.draw.layout import FAINT, SMALL, draw_colour_bar, draw_text_line, join_pictures, make_blank

WEIGHTS = Scalar("inferno")
CELL, GAP, MARGIN = 176, 6, 16
ALPHA = 0.7
"""The part that the weights' colours have over the gray input."""
DARK, LIGHT = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class TokenAttention:
    """What one token attends to at one stage: weights (heads, h, w) over the stage's map.

    visible: (h, w) bool, the tokens that it may attend to. place: its (row, column). covered: the number of tokens (rows,
    columns), with a fraction, that the image covers: the last ones may reach beyond it. note: what else to say of the stage.
    """

    stride: int
    weights: Array
    visible: Array
    place: tuple[int, int]
    covered: tuple[float, float]
    note: str = ""


def draw_attention_page(
    image: Array, title: str, stages: Sequence[TokenAttention], heads: Sequence[int] | None = None, limit: int = 4
) -> Image.Image:
    """The page of one point of an image (3, H, W) in [0, 1].

    heads: which to show; a stage that has no such head leaves the cell empty. None: of each stage the `limit` heads whose
    largest weight is largest. The mean over all heads of the stage comes first.
    """
    photo = to_photo(image)
    rows = [_draw_row(photo, stage, heads, limit) for stage in stages]
    title_line = draw_text_line(title, max(row.width for row in rows), 14)
    return ImageOps.expand(join_pictures([title_line, *rows], 1, 2 * GAP), MARGIN, "white")


def _draw_row(photo: Image.Image, stage: TokenAttention, heads: Sequence[int] | None, limit: int) -> Image.Image:
    number = len(stage.weights)
    if heads is None:
        heads = sorted(np.argsort(-stage.weights.reshape(number, -1).max(1), kind="stable")[:limit].tolist())
    columns = [("mean of all heads", stage.weights.mean(0))]
    columns += [(f"head {h}" if h < number else f"no head {h} here", _select_head(stage, h)) for h in heads]
    limits = (0.0, max(float(weights.max()) for _, weights in columns) or 1.0)
    cells = [_draw_overview(photo, stage)]
    for name, weights in columns:
        label = f"{name}, max {100 * weights.max():.2g} %" if weights.any() else name
        cells.append(_add_label(draw_window(photo, stage, weights, limits), label))
    bar = draw_colour_bar(WEIGHTS, (0.0, 100 * limits[1]), "%", 2 * CELL, SMALL)
    return join_pictures([join_pictures(cells, 0, GAP), bar], 1, 2)


def _select_head(stage: TokenAttention, head: int) -> Array:
    """The weights of a head, 0 where the stage has none of that number."""
    return stage.weights[head] if head < len(stage.weights) else np.zeros_like(stage.weights[0])


def _draw_overview(photo: Image.Image, stage: TokenAttention) -> Image.Image:
    """The input; a frame round what the token can see, a cross on the token."""
    scale = CELL / max(photo.size)
    width, height = (max(1, round(side * scale)) for side in photo.size)
    overview = photo.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
    across, down = width / stage.covered[1], height / stage.covered[0]
    top, left, bottom, right = _find_bounds(stage.visible)
    box = (left * across, top * down, min(right * across, width) - 1, min(bottom * down, height) - 1)
    draw = ImageDraw.Draw(overview)
    _draw_outline(draw, box)
    row, column = stage.place
    _draw_cross(draw, min((column + 0.5) * across, width - 1), min((row + 0.5) * down, height - 1))
    return _add_label(overview, f"1/{stage.stride}: {stage.note}" if stage.note else f"stage at 1/{stage.stride}")


def draw_window(photo: Image.Image, stage: TokenAttention, weights: Array, limits: Limits) -> Image.Image:
    """The part of the input that the token can see, gray, under the colours of its weights (h, w); a frame on the token."""
    top, left, bottom, right = _find_bounds(stage.visible)
    across, down = photo.width / stage.covered[1], photo.height / stage.covered[0]  # of a token, in pixels of the input
    part = (left * across, top * down, right * across, bottom * down)
    scale = CELL / max(part[2] - part[0], part[3] - part[1])
    size = width, height = max(1, round((part[2] - part[0]) * scale)), max(1, round((part[3] - part[1]) * scale))
    gray = photo.transform(size, Image.Transform.EXTENT, part, Image.Resampling.BILINEAR).convert("L")
    painted = Image.fromarray(WEIGHTS.paint(weights[top:bottom, left:right], None, limits))
    colours = np.asarray(painted.resize(size, Image.Resampling.NEAREST), np.float64)
    blend = ALPHA * colours + (1 - ALPHA) * np.asarray(gray, np.float64)[..., None]
    view = Image.fromarray(np.rint(blend).astype(np.uint8))
    across, down = width / (right - left), height / (bottom - top)
    row, column = stage.place[0] - top, stage.place[1] - left
    _draw_outline(ImageDraw.Draw(view), (column * across, row * down, (column + 1) * across - 1, (row + 1) * down - 1))
    return view


def _find_bounds(visible: Array) -> tuple[int, int, int, int]:
    """The rectangle of tokens (top, left, bottom, right), the ends excluded; the tokens that one can see fill a rectangle."""
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _draw_outline(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    """A frame in a dark and a light line, one of which stands out on any ground; of at least a pixel, however flat the box."""
    left, top, right, bottom = box
    draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=DARK, width=2)
    draw.rectangle((left + 1, top + 1, max(left + 1, right - 1), max(top + 1, bottom - 1)), outline=LIGHT)


def _draw_cross(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for width, ink in ((4, DARK), (2, LIGHT)):
        draw.line((x - 6, y, x + 6, y), ink, width)
        draw.line((x, y - 6, x, y + 6), ink, width)


def _add_label(picture: Image.Image, text: str) -> Image.Image:
    """A picture in the middle of a cell, with a line of text below it."""
    cell = make_blank(CELL, CELL)
    cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return join_pictures([cell, draw_text_line(text, CELL, SMALL, FAINT)], 1)
