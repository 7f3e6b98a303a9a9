"""Attention over the input: what one point of the image looks at, a row a decoder stage, a column a head.

The left column shows the whole input with a frame round what the point's token can see, its window; the others that window,
enlarged, in gray under the weights. The colours of a row share one scale from 0 to the row's largest weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from mult.draw.colours import Array, Limits, Scalar, photo
from mult.draw.layout import FAINT, SMALL, blank, colour_bar, join, text_line

WEIGHTS = Scalar("inferno")
CELL, GAP, MARGIN = 176, 6, 16
ALPHA = 0.7  # of the weights' colours over the gray input
FRAME, PAPER = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class Look:
    """What one token attends to at one stage: weights (heads, h, w) over the stage's map, seen (h, w) bool where it may look.

    place: the token's (row, column). covered: the tokens (rows, columns), with a fraction, that the image covers: the last
    ones may reach beyond it.
    """

    stride: int
    weights: Array
    seen: Array
    place: tuple[int, int]
    covered: tuple[float, float]


def attention_page(
    image: Array, title: str, looks: Sequence[Look], heads: Sequence[int] | None = None, most: int = 4
) -> Image.Image:
    """The page of one point of an image (3, H, W) in [0, 1].

    heads: which to show, a stage that has no such head leaves the cell empty; None: of each stage the `most` whose largest
    weight is largest. The mean over all heads of the stage comes first.
    """
    picture = photo(image)
    rows = [_row(picture, look, heads, most) for look in looks]
    return ImageOps.expand(join([text_line(title, max(row.width for row in rows), 14), *rows], 1, 2 * GAP), MARGIN, "white")


def _row(picture: Image.Image, look: Look, heads: Sequence[int] | None, most: int) -> Image.Image:
    number = len(look.weights)
    if heads is None:
        heads = sorted(np.argsort(-look.weights.reshape(number, -1).max(1), kind="stable")[:most].tolist())
    chosen = [("mean of all heads", look.weights.mean(0))]
    chosen += [(f"head {head}" if head < number else f"no head {head} here", _head(look, head)) for head in heads]
    limits = (0.0, max(float(weights.max()) for _, weights in chosen) or 1.0)
    cells = [_overview(picture, look)]
    for name, weights in chosen:
        below = f"{name}, max {100 * weights.max():.2g} %" if weights.any() else name
        cells.append(_labelled(window_view(picture, look, weights, limits), below))
    bar = colour_bar(WEIGHTS, (0.0, 100 * limits[1]), "%", 2 * CELL, SMALL)
    return join([join(cells, 0, GAP), bar], 1, 2)


def _head(look: Look, head: int) -> Array:
    return look.weights[head] if head < len(look.weights) else np.zeros_like(look.weights[0])


def _overview(picture: Image.Image, look: Look) -> Image.Image:
    """The whole input; a frame round what the token can see, a cross on the token."""
    scale = CELL / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    whole = picture.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
    across, down = width / look.covered[1], height / look.covered[0]
    top, left, bottom, right = _bounds(look.seen)
    box = (left * across, top * down, min(right * across, width) - 1, min(bottom * down, height) - 1)
    draw = ImageDraw.Draw(whole)
    _outline(draw, box)
    row, column = look.place
    _cross(draw, min((column + 0.5) * across, width - 1), min((row + 0.5) * down, height - 1))
    return _labelled(whole, f"stage at 1/{look.stride}")


def window_view(picture: Image.Image, look: Look, weights: Array, limits: Limits) -> Image.Image:
    """The part of the input that the token can see, gray, under the colours of its weights (h, w); a ring on the token."""
    top, left, bottom, right = _bounds(look.seen)
    across, down = picture.width / look.covered[1], picture.height / look.covered[0]  # of a token, in pixels of the input
    part = (left * across, top * down, right * across, bottom * down)
    scale = CELL / max(part[2] - part[0], part[3] - part[1])
    size = width, height = max(1, round((part[2] - part[0]) * scale)), max(1, round((part[3] - part[1]) * scale))
    gray = picture.transform(size, Image.Transform.EXTENT, part, Image.Resampling.BILINEAR).convert("L")
    painted = Image.fromarray(WEIGHTS.paint(weights[top:bottom, left:right], None, limits))
    colours = np.asarray(painted.resize(size, Image.Resampling.NEAREST), np.float64)
    blend = ALPHA * colours + (1 - ALPHA) * np.asarray(gray, np.float64)[..., None]
    view = Image.fromarray(np.rint(blend).astype(np.uint8))
    across, down = width / (right - left), height / (bottom - top)
    row, column = look.place[0] - top, look.place[1] - left
    _outline(ImageDraw.Draw(view), (column * across, row * down, (column + 1) * across - 1, (row + 1) * down - 1))
    return view


def _bounds(seen: Array) -> tuple[int, int, int, int]:
    """The rectangle of tokens (top, left, bottom, right), the ends excluded; what a token sees is one, with no holes."""
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _outline(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    """A frame that is seen on any ground."""
    draw.rectangle(box, outline=FRAME, width=2)
    draw.rectangle((box[0] + 1, box[1] + 1, max(box[0] + 1, box[2] - 1), max(box[1] + 1, box[3] - 1)), outline=PAPER)


def _cross(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for width, ink in ((4, FRAME), (2, PAPER)):
        draw.line((x - 6, y, x + 6, y), ink, width)
        draw.line((x, y - 6, x, y + 6), ink, width)


def _labelled(picture: Image.Image, text: str) -> Image.Image:
    """A picture in the middle of a cell, with a line of text below it."""
    cell = blank(CELL, CELL)
    cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return join([cell, text_line(text, CELL, SMALL, FAINT)], 1)
