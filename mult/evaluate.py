"""Loader and model -> every metric of every task, with the trivial baseline beside it (metrics.md).

The trivial baseline of a metric is the constant, learnt on training pixels, that is best for it. `learn_constants` finds the
constants, `evaluate` scores them on the same pixels as the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from mult import distributed
from mult.metrics import Accumulator, Constant, delta_m
from mult.tasks import TASKS, Task

METRIC_VERSION = 1
"""Changes when a definition does: results of different versions must not be compared."""

Results = dict[str, dict[str, dict[str, Any]]]
"""{task: {metric: entry}}, an entry {"value", "unit", "better", "trivial", "pixels", "images"} or {"value": None, "reason"}."""


class Views(Protocol):
    """A map-style dataset of samples (architecture.md, Contract)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Score:
    """The metrics of one task, of the model and of the best constants, over the same pixels."""

    def __init__(self, task: Task, classes: Sequence[str] | None, constants: Mapping[str, Any]) -> None:
        self.task = task
        self.model = task.metric(classes)
        self.constants = constants
        # Metrics whose best constants are equal share an accumulator.
        self.trivial: dict[str, Accumulator] = {repr(value): task.metric(classes) for value in constants.values()}
        self.images = torch.zeros(1, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor, valid: Tensor) -> None:
        """One batch, decoded, at the target's own size (metrics.Accumulator.update)."""
        self.images += valid.flatten(1).any(1).sum().cpu()
        self.model.update(prediction, target, valid)
        values = {repr(value): value for value in self.constants.values()}
        for key, accumulator in self.trivial.items():
            accumulator.update(self._constant(values[key], target), target, valid)

    def _constant(self, value: Any, target: Tensor) -> Tensor:
        if self.task.categorical:
            return torch.full_like(target, value)
        return torch.tensor(value, dtype=target.dtype, device=target.device).view(1, -1, 1, 1).expand_as(target)

    def reduce(self) -> None:
        """Add up what all processes have seen."""
        distributed.add(self.images)
        for accumulator in (self.model, *self.trivial.values()):
            for amount in accumulator.sums.values():
                distributed.add(amount)

    def entries(self) -> dict[str, dict[str, Any]]:
        """{metric: entry}, as the JSON of an evaluation has them."""
        values, notes = self.model.compute(), self.model.notes()
        entries: dict[str, dict[str, Any]] = {}
        for metric, (unit, better) in self.model.METRICS.items():
            value = values[metric]
            if value is None or not math.isfinite(value):
                undefined = "no valid pixel" if self.model.pixels == 0 else "no pixel defines it"
                entries[metric] = {"value": None, "reason": undefined if value is None else "the model's output is not finite"}
                continue
            entries[metric] = {
                "value": value,
                "unit": self.task.unit if unit is None else unit,
                "better": better,
                "trivial": self._trivial(metric),
                "pixels": self.model.pixels,
                "images": int(self.images),
            }
        if self.task.primary in entries:
            entries[self.task.primary] |= notes
        return entries

    def _trivial(self, metric: str) -> float | None:
        """The score of the constant that is best for the metric; a metric of one class is scored with the whole task's."""
        constant = self.constants.get(metric, self.constants.get(self.task.primary))
        return None if constant is None else self.trivial[repr(constant)].compute()[metric]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    tasks: Sequence[str],
    classes: Mapping[str, Sequence[str]],
    constants: Mapping[str, Mapping[str, Any]],
    device: torch.device,
    precision: torch.dtype = torch.float32,
) -> Results:
    """Score a model on this process's share of the views, and add up over all processes.

    batches: `data.sample.EvalBatch`es. tasks: those to score, outputs of the model. classes: names of categorical tasks.
    constants: as `learn_constants` gives them; a task without has no trivial baseline. Results are equal on all processes.
    """
    scores = {task: Score(TASKS[task], classes.get(task), constants.get(task, {})) for task in tasks}
    was_training = model.training
    model.eval()
    for batch in tqdm(batches, desc="evaluate", leave=False, disable=not distributed.is_main()):
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            outputs = model(batch["image"].to(device, non_blocking=True))
        for task, score in scores.items():
            for output, target, valid in zip(outputs[task], batch["targets"][task], batch["valid"][task], strict=True):
                if valid.any():
                    prediction = TASKS[task].predict(output[None], (valid.shape[-2], valid.shape[-1]))
                    score.update(prediction, target[None].to(device), valid[None].to(device))
    model.train(was_training)
    for score in scores.values():
        score.reduce()
    return {task: score.entries() for task, score in scores.items()}


@torch.inference_mode()
def predictions(
    model: nn.Module, samples: Sequence[Any], image_size: tuple[int, int], device: torch.device
) -> list[dict[str, Any]]:
    """The samples, each with "predictions" {task: array} at its own size beside its targets, for `draw.gallery`."""
    was_training = model.training
    model.eval()
    shown = []
    for sample in samples:
        size = tuple(sample["image"].shape[-2:])
        image = F.interpolate(sample["image"][None].to(device), size=image_size, mode="bilinear", antialias=True)
        outputs = model(image)
        maps = {task: TASKS[task].predict(outputs[task], size)[0].cpu().numpy() for task in sample["targets"]}
        shown.append({**sample, "predictions": maps})
    model.train(was_training)
    return shown


def as_json(results: Results, dataset: str, split: str, images: int) -> dict[str, Any]:
    """An evaluation's file (architecture.md, Contract)."""
    return {"dataset": dataset, "split": split, "images": images, "metric_version": METRIC_VERSION, "tasks": results}


def learn_constants(
    views: Views, tasks: Sequence[str], seed: int, most_views: int = 256, most_pixels: int = 4096
) -> dict[str, dict[str, Any]]:
    """{task: {metric: constant}} that is best on a sample of training pixels, as plain values for JSON.

    The sample: views at equal distances, at most `most_views`, and of each view at most `most_pixels` valid pixels a task.
    """
    generator = np.random.default_rng(seed)
    values: dict[str, list[Any]] = {task: [] for task in tasks}
    indices = np.unique(np.linspace(0, len(views) - 1, min(most_views, len(views))).round().astype(int))
    for index in tqdm(indices, desc="trivial baseline", leave=False, disable=not distributed.is_main()):
        sample = views[int(index)]
        for task in tasks:
            places = np.flatnonzero(sample["valid"][task].numpy())
            if len(places) > most_pixels:
                places = generator.choice(places, most_pixels, replace=False)
            target = sample["targets"][task].numpy()
            values[task].append(
                target.reshape(-1)[places] if target.ndim == 2 else target.reshape(len(target), -1)[:, places].T
            )
    constants: dict[str, dict[str, Any]] = {}
    for task in tasks:
        pixels = np.concatenate(values[task])
        if len(pixels):
            best = TASKS[task].metric(["?"] if TASKS[task].categorical else None).constants(pixels)
            constants[task] = {metric: _plain(value) for metric, value in best.items()}
    return constants


def _plain(constant: Constant) -> int | list[float]:
    return constant if isinstance(constant, int) else [float(value) for value in constant]


def improvement(results: Results) -> float | None:
    """How much better than the trivial baseline: the mean over tasks, in percent, of the primary metrics; None without one."""
    terms = []
    for task, entries in results.items():
        entry = entries[TASKS[task].primary]
        if entry["value"] is not None and entry["trivial"]:
            sign = 1 if entry["better"] == "higher" else -1
            terms.append(100 * sign * (entry["value"] - entry["trivial"]) / entry["trivial"])
    return sum(terms) / len(terms) if terms else None


def against(results: Results, baselines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Delta m against the evaluations of single-task runs, each the content of an evaluation's file; see metrics.delta_m.

    Raises ValueError for a file of another metric version, and for a task that two files have.
    """
    merged: dict[str, Any] = {}
    for baseline in baselines:
        if baseline.get("metric_version") != METRIC_VERSION:
            raise ValueError(
                f"--baseline: got metric_version {baseline.get('metric_version')}; expected {METRIC_VERSION}; evaluate it again"
            )
        for task, entries in baseline["tasks"].items():
            if task in merged:
                raise ValueError(f"--baseline: got {task} in two files; expected one a task; leave one out")
            merged[task] = entries
    return delta_m(results, merged)


def table(results: Results) -> str:
    """The primary metric of each task and its trivial baseline, for a terminal."""
    rows = [("task", "metric", "value", "trivial", "better by")]
    for task, entries in results.items():
        primary = TASKS[task].primary
        entry = entries[primary]
        if entry["value"] is None:
            rows.append((task, primary, "-", "-", entry["reason"]))
            continue
        gain = improvement({task: entries})
        value, trivial = (f"{entry[key]:.4g}" if entry[key] is not None else "-" for key in ("value", "trivial"))
        unit = f" {entry['unit']}" if entry["unit"] else ""
        rows.append((task, primary, value + unit, trivial + unit, "-" if gain is None else f"{gain:+.1f} %"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
