"""The gallery of an evaluation, a sheet of labels, one picture a map, and all maps of an image on a contact sheet.

The gallery follows the paper's main figure (input, segmentation over the input, then a column a task), but with truth,
prediction and error in three rows an image; the paper shows no errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from mult.draw.colours import ERROR, Array, Drawable, Limits, Painted, find_max_error, hatch, overlay, to_photo, to_plane
from mult.draw.layout import (
    FAINT,
    SMALL,
    draw_colour_bar,
    draw_legend,
    draw_text_line,
    format_amount,
    join_pictures,
    load_font,
    make_blank,
)
from mult.errors import UserError

CELL, GAP, MARGIN = 192, 6, 16
"""The side of a cell, the gap between cells and the margin of the page, in pixels."""
TILE, TILES = 320, 4
"""The side of a contact sheet's tile, and the number of tiles in a row."""
BAR = SMALL * 3 // 2
"""The height of a colour bar."""
PLATE = 244
"""The gray of a cell that stands for a missing label."""


def draw_gallery(
    samples: Sequence[Mapping[str, Any]], tasks: Mapping[str, Drawable], classes: Mapping[str, Sequence[str]]
) -> Image.Image:
    """Ground truth, prediction and error of a few samples, a column a task.

    A sample is {"id", "image" (3, H, W) float in [0, 1], "targets", "valid", "predictions"}, the last three by task
    name, NumPy arrays or CPU tensors of any size. Truth and prediction share the limits of this image's truth, printed
    below them. A task without a label shows its prediction alone. `classes` are the names of each categorical task's classes,
    for the legend. Raises UserError without samples.
    """
    if not samples:
        raise UserError("gallery: got no samples; expected at least one; give it some images of an evaluation")
    height = max(_fit(*np.shape(sample["image"])[:0:-1])[1] for sample in samples)
    titles = [("input", "")] + [(task.name.replace("_", " "), task.unit) for task in tasks.values()]
    heads = [
        join_pictures([draw_text_line(name, CELL + 2, 16), draw_text_line(unit, CELL + 2, SMALL, FAINT)], 1)
        for name, unit in titles
    ]
    header = join_pictures([make_blank(14 * 3 // 2, 1), *heads], 0, GAP)
    body = [_draw_rows(sample, tasks, height) for sample in samples]
    keys = [(hatch(np.zeros(3), np.zeros((CELL, CELL), bool))[:16, :16], "no label here")]
    for task in tasks.values():
        maps = [np.asarray(sample[kind][task.name]) for sample in samples for kind in ("targets", "predictions")]
        keys += task.colours.keys(maps, classes.get(task.name))
    page = join_pictures([header, join_pictures(body, 1, 3 * GAP), draw_legend(keys, header.width, 14)], 1, 2 * GAP)
    return ImageOps.expand(page, MARGIN, "white")


def draw_label_sheet(
    samples: Sequence[Mapping[str, Any]], tasks: Mapping[str, Drawable], classes: Mapping[str, Sequence[str]]
) -> Image.Image:
    """The labels of a few samples, a row each and a column a task, with the limits of their colours; hatched where invalid.

    A sample is {"id", "image", "targets", "valid"}, and `classes` are as in `draw_gallery`. Raises UserError without samples.
    """
    if not samples:
        raise UserError("sheet: got no samples; expected at least one; give it some views of a dataset")
    rows = []
    for sample in samples:
        height = _fit(*np.shape(sample["image"])[:0:-1])[1]
        columns = [join_pictures(_draw_input(sample, height), 1, GAP)]
        for task in tasks.values():
            target, valid = (np.asarray(sample[kind][task.name]) for kind in ("targets", "valid"))
            cell, bars = _draw_missing(target, height), []
            if valid.any():
                limits = task.colours.limits(target, valid)
                cell, bars = _draw_cell(task.colours.paint(target, valid, limits), height), _draw_bars(task, limits)
            name = draw_text_line(task.name.replace("_", " "), CELL + 2, SMALL, FAINT)
            columns.append(join_pictures([cell, name, *bars], 1, GAP))
        rows.append(join_pictures(columns, 0, GAP))
    keys = [(hatch(np.zeros(3), np.zeros((CELL, CELL), bool))[:16, :16], "no label here")]
    for task in tasks.values():
        keys += task.colours.keys([np.asarray(sample["targets"][task.name]) for sample in samples], classes.get(task.name))
    legend = draw_legend(keys, max(row.width for row in rows), 14)
    return ImageOps.expand(join_pictures([*rows, legend], 1, 2 * GAP), MARGIN, "white")


@dataclass(frozen=True)
class PaintedMap:
    """A prediction in colours: pixels uint8 (H, W, 3), the limits of its colour bar, None without, and its part of a legend."""

    task: Drawable
    pixels: Painted
    limits: Limits | None
    keys: Sequence[tuple[Painted, str]]


def paint_map(
    task: Drawable, prediction: Array, image: Array | None = None, classes: Sequence[str] | None = None
) -> PaintedMap:
    """Colour one prediction, (C, H, W) or (H, W); classes are laid over the image, (3, H, W) in [0, 1], where one is given."""
    limits = task.colours.limits(prediction, None)
    pixels = task.colours.paint(prediction, None, limits)
    if task.categorical and image is not None:
        pixels = overlay(image, pixels)
    return PaintedMap(task, pixels, limits, task.colours.keys([prediction], classes))


def draw_map(painted: PaintedMap) -> Image.Image:
    """One prediction at its own size, top left; below it the task's name, and the colour bar or the legend.

    The page is as wide as the map, but at least 160 pixels so that its text can be read.
    """
    task, limits = painted.task, painted.limits
    width = max(160, painted.pixels.shape[1])
    size = max(SMALL, width // 45)
    title = draw_text_line(f"{task.name.replace('_', ' ')} ({task.unit})", width, size)
    room = width - size
    key = draw_colour_bar(task.colours, limits, task.unit, room, size) if limits else draw_legend(painted.keys, room, size)
    return join_pictures([Image.fromarray(painted.pixels), title, ImageOps.expand(key, size // 2, "white")], 1)


def draw_contact_sheet(image: Array, maps: Sequence[PaintedMap]) -> Image.Image:
    """An image (3, H, W) in [0, 1] and its predictions in rows of tiles with titles and colour bars; the legend below.

    A picture fills its tile: a larger one is averaged, and pixels of a smaller one become squares.
    """
    tiles = [_draw_tile("input", np.asarray(to_photo(image)), [])]
    tiles += [_draw_tile(each.task.name, each.pixels, _draw_bars(each.task, each.limits, TILE)) for each in maps]
    rows = [join_pictures(tiles[i : i + TILES], 0, GAP) for i in range(0, len(tiles), TILES)]
    keys = [key for each in maps for key in each.keys]
    legend = [draw_legend(keys, rows[0].width, 14)] if keys else []
    return ImageOps.expand(join_pictures([*rows, *legend], 1, 2 * GAP), MARGIN, "white")


def _draw_tile(name: str, painted: Painted, bars: Sequence[Image.Image]) -> Image.Image:
    """A title, a picture at the size of a contact sheet's tiles, and its colour bar where there is one."""
    title = draw_text_line(name.replace("_", " "), TILE + 2, 16)
    height = _fit(painted.shape[1], painted.shape[0], TILE)[1]
    return join_pictures([title, _draw_cell(painted, height, side=TILE), *bars], 1)


def _draw_rows(sample: Mapping[str, Any], tasks: Mapping[str, Drawable], height: int) -> Image.Image:
    """One sample: the names of the rows, the input with its id, a column a task."""
    names = [draw_text_line(name, height + 2, 14, FAINT).rotate(90, expand=True) for name in ("truth", "prediction", "error")]
    names.insert(2, make_blank(1, BAR))
    columns = [_draw_column(task, sample, height) for task in tasks.values()]
    return join_pictures([join_pictures(names, 1, GAP), join_pictures(_draw_input(sample, height), 1), *columns], 0, GAP)


def _draw_input(sample: Mapping[str, Any], height: int) -> list[Image.Image]:
    """The image and the parts of its id, a line each."""
    image = _draw_cell(np.asarray(to_photo(np.asarray(sample["image"]))), height)
    return [image, *(draw_text_line(part, CELL + 2, SMALL, FAINT) for part in sample["id"].split("/"))]


def _draw_column(task: Drawable, sample: Mapping[str, Any], height: int) -> Image.Image:
    """Truth, prediction, error of one task for one sample."""
    colours, image = task.colours, np.asarray(sample["image"])
    prediction, target, valid = (np.asarray(sample[kind][task.name]) for kind in ("predictions", "targets", "valid"))
    limits = colours.limits(target, valid) if valid.any() else colours.limits(prediction, None)
    truth, guess = colours.paint(target, valid, limits), colours.paint(prediction, None, limits)
    if task.categorical:
        truth, guess = overlay(image, truth, valid), overlay(image, guess)
    bars = _draw_bars(task, limits) or [make_blank(CELL, BAR)]
    if not valid.any():
        missing = _draw_missing(guess[..., 0], height)
        return join_pictures([missing, _draw_cell(guess, height), *bars, missing], 1, GAP)
    error, unit = colours.error(prediction, target, valid), colours.error_unit or task.unit
    error_limits = (0.0, find_max_error(colours, limits))
    wrong = _draw_cell(ERROR.paint(error, valid, error_limits), height)
    error_bars = [] if task.categorical else [draw_colour_bar(ERROR, error_limits, unit, CELL + 2, SMALL)]
    mean = format_amount("mean error ", error[to_plane(valid)].mean(), unit, CELL, SMALL)
    cells = [_draw_cell(truth, height), _draw_cell(guess, height), *bars, wrong, *error_bars]
    return join_pictures([*cells, draw_text_line(mean, CELL + 2, SMALL)], 1, GAP)


def _draw_bars(task: Drawable, limits: Limits | None, side: int = CELL) -> list[Image.Image]:
    """The colour bar of a task's maps, below a cell; empty where there is none."""
    return [draw_colour_bar(task.colours, limits, task.unit, side - GAP, SMALL)] if limits else []


def _draw_missing(values: Array, height: int) -> Image.Image:
    """A cell in place of a label of the shape of `values`, which does not exist."""
    return _draw_cell(np.full((*values.shape[-2:], 3), PLATE, np.uint8), height, "no label")


def _draw_cell(painted: Painted, height: int, text: str = "", side: int = CELL) -> Image.Image:
    """A picture fitted into side x height and outlined, with a text in its middle."""
    cell = make_blank(side + 2, height + 2)
    draw = ImageDraw.Draw(cell)
    width, height = _fit(painted.shape[1], painted.shape[0], side)
    resampling = Image.Resampling.BOX if width < painted.shape[1] else Image.Resampling.NEAREST
    x, y = (cell.width - width) // 2, (cell.height - height) // 2
    draw.rectangle((x - 1, y - 1, x + width, y + height), outline=FAINT)
    cell.paste(Image.fromarray(painted).resize((width, height), resampling), (x, y))
    draw.text((cell.width / 2, cell.height / 2), text, FAINT, load_font(14), anchor="mm")
    return cell


def _fit(width: int, height: int, side: int = CELL) -> tuple[int, int]:
    """The size of a picture whose longer side is `side`."""
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))
