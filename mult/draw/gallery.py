"""The gallery of an evaluation, and one picture a map.

The gallery follows the paper's main figure (input, segmentation over the input, then a column a task), but with truth,
prediction and error in three rows an image; the paper shows no errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from mult.draw.colours import ERROR, Array, Drawable, Painted, hatched, overlay, photo, plane
from mult.draw.layout import FAINT, SMALL, amount, blank, colour_bar, font, join, legend, text_line
from mult.errors import UserError

CELL, GAP, MARGIN, STRIP = 192, 6, 16, SMALL * 3 // 2


def _fitted(width: int, height: int) -> tuple[int, int]:
    scale = CELL / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _cell(painted: Painted, height: int, text: str = "") -> Image.Image:
    """A picture fitted into CELL x height and outlined, with a text in its middle."""
    cell = blank(CELL + 2, height + 2)
    draw = ImageDraw.Draw(cell)
    width, height = _fitted(painted.shape[1], painted.shape[0])
    how = Image.Resampling.BOX if width < painted.shape[1] else Image.Resampling.NEAREST
    x, y = (cell.width - width) // 2, (cell.height - height) // 2
    draw.rectangle((x - 1, y - 1, x + width, y + height), outline=FAINT)
    cell.paste(Image.fromarray(painted).resize((width, height), how), (x, y))
    draw.text((cell.width / 2, cell.height / 2), text, FAINT, font(14), anchor="mm")
    return cell


def _column(task: Drawable, sample: Mapping[str, Any], height: int) -> Image.Image:
    """Truth, prediction, error of one task for one sample."""
    colours, image = task.colours, np.asarray(sample["image"])
    prediction, target, valid = (np.asarray(sample[kind][task.name]) for kind in ("predictions", "targets", "valid"))
    limits = colours.limits(target, valid) if valid.any() else colours.limits(prediction, None)
    truth, guess = colours.paint(target, valid, limits), colours.paint(prediction, None, limits)
    if task.categorical:
        truth, guess = overlay(image, truth, valid), overlay(image, guess)
    scale = colour_bar(colours, limits, task.unit, CELL + 2, SMALL) if limits else blank(CELL, STRIP)
    if not valid.any():
        missing = _cell(np.full_like(guess, 244), height, "no label")
        return join([missing, _cell(guess, height), scale, missing], 1, GAP)
    error, unit = colours.error(prediction, target, valid), colours.error_unit or task.unit
    high = colours.error_high or ((limits[1] - limits[0]) / 4 if limits else 1.0)
    wrong = _cell(ERROR.paint(error, valid, (0.0, high)), height)
    bars = [] if task.categorical else [colour_bar(ERROR, (0.0, high), unit, CELL + 2, SMALL)]
    mean = text_line(amount("mean error ", error[plane(valid)].mean(), unit, CELL, SMALL), CELL + 2, SMALL)
    return join([_cell(truth, height), _cell(guess, height), scale, wrong, *bars, mean], 1, GAP)


def _rows(sample: Mapping[str, Any], tasks: Mapping[str, Drawable], height: int) -> Image.Image:
    """One sample: the names of the rows, the input with its id, a column a task."""
    names = [text_line(name, height + 2, 14, FAINT).rotate(90, expand=True) for name in ("truth", "prediction", "error")]
    names.insert(2, blank(1, STRIP))
    given = [_cell(np.asarray(photo(np.asarray(sample["image"]))), height)]
    given += [text_line(part, CELL + 2, SMALL, FAINT) for part in sample["id"].split("/")]
    columns = [_column(task, sample, height) for task in tasks.values()]
    return join([join(names, 1, GAP), join(given, 1), *columns], 0, GAP)


def gallery(samples: Sequence[Mapping[str, Any]], tasks: Mapping[str, Drawable], classes: Sequence[str] | None) -> Image.Image:
    """Ground truth, prediction and error of a few samples, a column a task.

    A sample is {"id", "image" (3, H, W) float in [0, 1], "targets", "valid", "predictions"}, the last three by task
    name, NumPy arrays or CPU tensors of any size. Truth and prediction share the limits of this image's truth, printed
    below them. A task without a label shows its prediction alone. Raises UserError without samples.
    """
    if not samples:
        raise UserError("gallery: got no samples; expected at least one; give it some images of an evaluation")
    height = max(_fitted(*np.shape(sample["image"])[:0:-1])[1] for sample in samples)
    titles = [("input", "")] + [(task.name.replace("_", " "), task.unit) for task in tasks.values()]
    head = [join([text_line(name, CELL + 2, 16), text_line(unit, CELL + 2, SMALL, FAINT)], 1) for name, unit in titles]
    header = join([blank(14 * 3 // 2, 1), *head], 0, GAP)
    body = [_rows(sample, tasks, height) for sample in samples]
    keys = [(hatched(np.zeros(3), np.zeros((CELL, CELL), bool))[:16, :16], "no label here")]
    for task in tasks.values():
        shown = [np.asarray(sample[kind][task.name]) for sample in samples for kind in ("targets", "predictions")]
        keys += task.colours.keys(shown, classes)
    page = join([header, join(body, 1, 3 * GAP), legend(keys, header.width, 14)], 1, 2 * GAP)
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
    title = text_line(f"{task.name.replace('_', ' ')} ({task.unit})", width, size)
    room = width - size
    key = colour_bar(colours, limits, task.unit, room, size) if limits else None
    key = key or legend(colours.keys([prediction], classes), room, size)
    return join([Image.fromarray(painted), title, ImageOps.expand(key, size // 2, "white")], 1)


def sheet(samples: Sequence[Mapping[str, Any]], tasks: Mapping[str, Drawable]) -> Image.Image:
    """The labels of a few samples, a row each and a column a task, with the limits of their colours; hatched where invalid.

    A sample is {"id", "image", "targets", "valid"} as in `gallery`. Raises UserError without samples.
    """
    if not samples:
        raise UserError("sheet: got no samples; expected at least one; give it some views of a dataset")
    rows = []
    for sample in samples:
        shown = photo(np.asarray(sample["image"]))
        height = _fitted(*shown.size)[1]
        given = [
            _cell(np.asarray(shown), height),
            *(text_line(part, CELL + 2, SMALL, FAINT) for part in sample["id"].split("/")),
        ]
        columns = [join(given, 1, GAP)]
        for task in tasks.values():
            target, valid = (np.asarray(sample[kind][task.name]) for kind in ("targets", "valid"))
            if not valid.any():
                blank_cell = _cell(np.full((*target.shape[-2:], 3), 244, np.uint8), height, "no label")
                columns.append(join([blank_cell, text_line(task.name, CELL + 2, SMALL, FAINT)], 1, GAP))
                continue
            limits = task.colours.limits(target, valid)
            scale = [colour_bar(task.colours, limits, task.unit, CELL + 2, SMALL)] if limits else []
            painted = _cell(task.colours.paint(target, valid, limits), height)
            columns.append(join([painted, text_line(task.name.replace("_", " "), CELL + 2, SMALL, FAINT), *scale], 1, GAP))
        rows.append(join(columns, 0, GAP))
    return ImageOps.expand(join(rows, 1, 2 * GAP), MARGIN, "white")
