"""The best, median and worst images of each task, as small JPEGs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mult.draw import ERROR, overlay
from mult.tasks import TASKS

SIDE = 208  # the longer side of a picture, in pixels
QUALITY = 85


@dataclass(frozen=True)
class Shown:
    """One picture: kind is "input", "truth", "prediction" or "error"; run is the number of the run, of the last two."""

    kind: str
    run: int | None
    jpeg: bytes
    size: tuple[int, int]


@dataclass(frozen=True)
class Example:
    """One image of one task: how it ranks by the first run's metric, and that metric of each run; what the colours span."""

    task: str
    rank: str
    id: str
    metric: str
    unit: str
    values: Sequence[float]
    scale: str
    pictures: Sequence[Shown]


def image_values(columns: Mapping[str, NDArray[Any]], task: str, metric: str) -> NDArray[np.float64]:
    """A metric of each image alone (N,), NaN where the image has no valid pixel, of an evaluation's columns."""
    record = TASKS[task]
    names = columns.get(f"total/{task}/classes")
    accumulator = record.metric(None if names is None else names.tolist())
    if metric not in accumulator.METRICS and record.relative is not None:
        accumulator = record.relative()
    sums = {key.removeprefix(f"{task}/"): column for key, column in columns.items() if key.startswith(f"{task}/")}
    return accumulator.only([metric]).divide(sums)[metric]


def choose(values: NDArray[np.float64], higher_is_better: bool, most: int) -> list[tuple[str, int]]:
    """(rank, index) of up to `most` best, median and worst images, best first; none twice, none whose value is NaN.

    Images of equal value go by their index.
    """
    defined = np.flatnonzero(np.isfinite(values))
    order = defined[np.argsort(-values[defined] if higher_is_better else values[defined], kind="stable")].tolist()
    each = min(most, max(1, len(order) // 3))
    middle = (len(order) - each) // 2
    chosen: dict[int, str] = {}
    for rank, part in (("best", order[:each]), ("worst", order[::-1][:each]), ("median", order[middle : middle + each])):
        for index in part:
            chosen.setdefault(index, rank)
    return [(chosen[index], index) for index in order if index in chosen]


def draw_truth(task: str, sample: Mapping[str, Any]) -> tuple[list[Shown], str]:
    """The input and the truth, coloured as in `draw.gallery`, and what the colours span."""
    record, image = TASKS[task], np.asarray(sample["image"])
    limits, high = _limits(task, sample)
    spans = [f"colours {limits[0]:.3g} to {limits[1]:.3g} {record.unit}"] if limits else []
    spans += [] if record.categorical else [f"error 0 to {high:.3g} {record.colours.error_unit or record.unit}"]
    photo = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    truth = _painted(task, sample, np.asarray(sample["targets"][task]), np.asarray(sample["valid"][task]))
    return [_shown("input", None, photo), _shown("truth", None, truth)], ", ".join(spans)


def draw_prediction(task: str, sample: Mapping[str, Any], prediction: NDArray[Any], run: int) -> list[Shown]:
    """The prediction, in the colours of the truth, and its error."""
    target, valid = np.asarray(sample["targets"][task]), np.asarray(sample["valid"][task])
    error = TASKS[task].colours.error(prediction, target, valid)
    painted = ERROR.paint(error, valid, (0.0, _limits(task, sample)[1]))
    return [_shown("prediction", run, _painted(task, sample, prediction, None)), _shown("error", run, painted)]


def _limits(task: str, sample: Mapping[str, Any]) -> tuple[tuple[float, float] | None, float]:
    """The ends of the truth's colours, None where there are none, and the upper end of the error's."""
    colours = TASKS[task].colours
    limits = colours.limits(np.asarray(sample["targets"][task]), np.asarray(sample["valid"][task]))
    return limits, colours.error_high or ((limits[1] - limits[0]) / 4 if limits else 1.0)


def _painted(task: str, sample: Mapping[str, Any], values: NDArray[Any], valid: NDArray[Any] | None) -> NDArray[np.uint8]:
    painted = TASKS[task].colours.paint(values, valid, _limits(task, sample)[0])
    return overlay(np.asarray(sample["image"]), painted, valid) if TASKS[task].categorical else painted


def legend(task: str, classes: Sequence[str] | None) -> list[tuple[bytes, str]]:
    """(PNG, text) of what the colours of a task's maps mean; none where they run from low to high."""
    maps = [np.arange(len(classes))] if classes else []
    entries = []
    for swatch, text in TASKS[task].colours.keys(maps, classes):
        file = io.BytesIO()
        Image.fromarray(swatch).save(file, "PNG")
        entries.append((file.getvalue(), text))
    return entries


def _shown(kind: str, run: int | None, pixels: NDArray[np.uint8]) -> Shown:
    picture = Image.fromarray(pixels)
    scale = SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    file = io.BytesIO()
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    picture.resize(size, how).save(file, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return Shown(kind, run, file.getvalue(), size)
