"""Everything that is looked at, out of arrays and texts, with NumPy and Pillow alone: a task's colours, the gallery, one
picture a map, attention over the input, charts, tables and HTML."""

from mult.draw.attention import TokenAttention, draw_attention_page
from mult.draw.colours import COLORMAPS, ERROR, PALETTE, Classes, Colours, Directions, Drawable, Scalar, overlay
from mult.draw.gallery import PaintedMap, draw_contact_sheet, draw_gallery, draw_label_sheet, draw_map, paint_map

__all__ = [
    "COLORMAPS",
    "ERROR",
    "PALETTE",
    "Classes",
    "Colours",
    "Directions",
    "Drawable",
    "PaintedMap",
    "Scalar",
    "TokenAttention",
    "draw_attention_page",
    "draw_contact_sheet",
    "draw_gallery",
    "draw_label_sheet",
    "draw_map",
    "overlay",
    "paint_map",
]
