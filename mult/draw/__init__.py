"""Predictions -> pictures, with NumPy and Pillow alone: a task's colours, the gallery, one picture a map,
attention over the input."""

from mult.draw.attention import Look, attention_page
from mult.draw.colours import COLORMAPS, ERROR, PALETTE, Classes, Colours, Directions, Drawable, Scalar, overlay
from mult.draw.gallery import gallery, picture, sheet

__all__ = [
    "COLORMAPS",
    "ERROR",
    "PALETTE",
    "Classes",
    "Colours",
    "Directions",
    "Drawable",
    "Look",
    "Scalar",
    "attention_page",
    "gallery",
    "overlay",
    "picture",
    "sheet",
]
