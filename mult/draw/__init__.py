"""Predictions -> pictures, with NumPy and Pillow alone: a task's colours, the gallery, one picture a map."""

from mult.draw.colours import COLORMAPS, ERROR, PALETTE, Classes, Colours, Directions, Drawable, Scalar, overlay
from mult.draw.gallery import gallery, picture

__all__ = [
    "COLORMAPS",
    "ERROR",
    "PALETTE",
    "Classes",
    "Colours",
    "Directions",
    "Drawable",
    "Scalar",
    "gallery",
    "overlay",
    "picture",
]
