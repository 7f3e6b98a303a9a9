"""The best, median and worst images of each task, as small JPEGs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mult.draw import ERROR, overlay
from mult.draw.colours import find_max_error, to_photo
from mult.evaluation.results import SavedEvaluation, select_primary
from mult.tasks import TASKS

MAX_SIDE = 208
"""The longer side of a picture, in pixels."""
JPEG_QUALITY = 85


@dataclass(frozen=True)
class RankedView:
    """A view of a dataset and how it ranks in a task: "best", "median" or "worst" by the first run's metric.

    values: the metric of this image alone, of each run.
    """

    task: str
    index: int
    id: str
    rank: str
    metric: str
    unit: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Picture:
    """One picture: kind is "input", "truth", "prediction" or "error"; run is the number of the run, of the last two."""

    kind: str
    run: int | None
    jpeg: bytes
    size: tuple[int, int]


@dataclass(frozen=True)
class GalleryEntry:
    """The pictures of a view for one task, and the range of their colours in words."""

    view: RankedView
    scale: str
    pictures: Sequence[Picture]


def rank_views(evaluations: Sequence[SavedEvaluation], limit: int) -> Iterator[RankedView]:
    """The best, median and worst views, up to `limit` each, of every task that all runs have a value of."""
    ids = evaluations[0].columns["id"]
    for task in TASKS:
        entries = [evaluation.tasks.get(task) for evaluation in evaluations]
        if not entries[0] or not all(entries):
            continue
        metric = select_primary(TASKS[task], entries[0])
        if any((of_run or {}).get(metric, {}).get("value") is None for of_run in entries):
            continue
        values = np.stack([evaluation.image_values(task, metric) for evaluation in evaluations])
        entry = entries[0][metric]
        for rank, index in rank_values(values[0], entry["better"] == "higher", limit):
            yield RankedView(task, index, str(ids[index]), rank, metric, entry["unit"], tuple(values[:, index].tolist()))


def rank_values(values: NDArray[np.float64], higher_is_better: bool, limit: int) -> list[tuple[str, int]]:
    """(rank, index) of up to `limit` best, median and worst values, best first; none twice, no NaN.

    Equal values go by their index.
    """
    defined = np.flatnonzero(np.isfinite(values))
    order = defined[np.argsort(-values[defined] if higher_is_better else values[defined], kind="stable")].tolist()
    number = min(limit, max(1, len(order) // 3))
    middle = (len(order) - number) // 2
    ranks: dict[int, str] = {}
    parts = {"best": order[:number], "worst": order[::-1][:number], "median": order[middle : middle + number]}
    for rank, indices in parts.items():
        for index in indices:
            ranks.setdefault(index, rank)
    return [(ranks[index], index) for index in order if index in ranks]


def draw_truth(task: str, sample: Mapping[str, Any]) -> tuple[list[Picture], str]:
    """The input and the truth, coloured as in `draw.draw_gallery`, and the range of the colours in words."""
    record = TASKS[task]
    limits, max_error = _find_limits(task, sample)
    ranges = [f"colours {limits[0]:.3g} to {limits[1]:.3g} {record.unit}"] if limits else []
    ranges += [] if record.categorical else [f"error 0 to {max_error:.3g} {record.colours.error_unit or record.unit}"]
    photo = np.asarray(to_photo(np.asarray(sample["image"])))
    truth = _paint(task, sample, np.asarray(sample["targets"][task]), np.asarray(sample["valid"][task]))
    return [_encode("input", None, photo), _encode("truth", None, truth)], ", ".join(ranges)


def draw_prediction(task: str, sample: Mapping[str, Any], prediction: NDArray[Any], run: int) -> list[Picture]:
    """The prediction, in the colours of the truth, and its error."""
    target, valid = np.asarray(sample["targets"][task]), np.asarray(sample["valid"][task])
    error = TASKS[task].colours.error(prediction, target, valid)
    painted = ERROR.paint(error, valid, (0.0, _find_limits(task, sample)[1]))
    return [_encode("prediction", run, _paint(task, sample, prediction, None)), _encode("error", run, painted)]


def draw_legend(task: str, classes: Sequence[str] | None) -> list[tuple[bytes, str]]:
    """(PNG, text) of the meanings of a task's colours; empty where they run from low to high."""
    maps = [np.arange(len(classes))] if classes else []
    entries = []
    for swatch, text in TASKS[task].colours.keys(maps, classes):
        file = io.BytesIO()
        Image.fromarray(swatch).save(file, "PNG")
        entries.append((file.getvalue(), text))
    return entries


def _find_limits(task: str, sample: Mapping[str, Any]) -> tuple[tuple[float, float] | None, float]:
    """The ends of the truth's colours, None where there are none, and the upper end of the error's."""
    colours = TASKS[task].colours
    limits = colours.limits(np.asarray(sample["targets"][task]), np.asarray(sample["valid"][task]))
    return limits, find_max_error(colours, limits)


def _paint(task: str, sample: Mapping[str, Any], values: NDArray[Any], valid: NDArray[Any] | None) -> NDArray[np.uint8]:
    painted = TASKS[task].colours.paint(values, valid, _find_limits(task, sample)[0])
    return overlay(np.asarray(sample["image"]), painted, valid) if TASKS[task].categorical else painted


def _encode(kind: str, run: int | None, pixels: NDArray[np.uint8]) -> Picture:
    picture = Image.fromarray(pixels)
    scale = MAX_SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    file = io.BytesIO()
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    picture.resize(size, resampling).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return Picture(kind, run, file.getvalue(), size)
