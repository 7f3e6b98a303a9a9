"""Loader and model -> every metric of every task, with the trivial baseline beside it (metrics.md).

The trivial baseline of a metric is the constant, learnt on training pixels, that is best for it. `learn_constants` finds the
constants, `evaluate` scores them on the same pixels as the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset
from tqdm import tqdm

from mult.evaluation import bootstrap
from mult.evaluation.task_score import NOT_FINITE, Entries, Score, interleave, primary
from mult.metrics import Constant, delta_m
from mult.runs.folder import read_json
from mult.runtime import distributed
from mult.tasks import TASKS

METRIC_VERSION = 1
"""Changes when a definition does: results of different versions must not be compared."""

Results = dict[str, Entries]
"""{task: {metric: entry}}, an entry {"value", "unit", "better", "trivial", "pixels", "images", "interval"?} or {"value": None,
"reason"}."""


class Samples(Protocol):
    """A map-style dataset of samples (architecture.md, Contract)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Views(Samples, Protocol):
    """Samples, and what a dataset knows of all of them."""

    @property
    def classes(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def metric_depth(self) -> bool: ...
    def group(self, i: int, /) -> str: ...


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model on a split, and what each image contributed to them."""

    results: Results
    columns: dict[str, NDArray[Any]]
    """`id` and `group` (N,), `<task>/<sum>` (N, ...), and of the whole split `total/<task>/<name>`: histograms, confusion."""
    interval_over: str
    """What the intervals are over: "images" or "buildings"."""

    @property
    def images(self) -> int:
        return len(self.columns["id"])

    def as_json(self, dataset: str, split: str, corruption: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """An evaluation's file (architecture.md, Contract); `corruption` says {"kind", "severity"} of spoilt images."""
        return {
            **header(dataset, split, self.images, corruption),
            "interval_over": self.interval_over,
            "tasks": self.results,
        }


def header(dataset: str, split: str, images: int, corruption: Mapping[str, Any] | None) -> dict[str, Any]:
    """What must be equal in two evaluations for their numbers to be compared."""
    spoilt = dict(corruption) if corruption else None
    return {"dataset": dataset, "split": split, "corruption": spoilt, "images": images, "metric_version": METRIC_VERSION}


def read_evaluation(path: Path) -> dict[str, Any]:
    """An evaluation's file (see `Evaluation.as_json`), of types that need not be looked at again.

    Raises ValueError, naming the file and the place in it, for anything else.
    """
    file = read_json(path)
    if not isinstance(file, dict) or not isinstance(file.get("tasks"), dict):
        raise ValueError(
            f"{path}: got no evaluation; expected the JSON that eval.py writes; give one of a run's eval/<dataset>-<split>.json"
        )
    spoilt = file.get("corruption")
    faults = [] if spoilt is None or _is_corruption(spoilt) else [f"corruption {spoilt!r}"]
    for task, entries in file["tasks"].items():
        if task not in TASKS or not isinstance(entries, dict) or TASKS[task].primary not in entries:
            faults.append(f"tasks.{task}, " + ("which lacks its primary metric" if task in TASKS else "which is no task"))
        else:
            faults += [f"tasks.{task}.{name} {entry!r}" for name, entry in entries.items() if not _is_entry(entry)]
    if faults:
        raise ValueError(
            f"{path}: got {faults[0][:200]}; expected an evaluation as eval.py writes it; the file is damaged: evaluate again"
        )
    return file


def _is_corruption(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("kind"), str) and _is_number(value.get("severity"))


def _is_entry(value: Any) -> bool:
    """Whether a value is an entry of `Results`."""
    if not isinstance(value, dict):
        return False
    if value.get("value") is None:
        return isinstance(value.get("reason"), str)
    ends = value.get("interval", [0, 0])
    return (
        all(value.get(name) is None or _is_number(value[name]) for name in ("value", "trivial", "pixels", "images"))
        and isinstance(value.get("unit"), str)
        and value.get("better") in ("higher", "lower")
        and isinstance(ends, list)
        and len(ends) == 2
        and all(map(_is_number, ends))
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def share(views: Samples) -> Subset[Any]:
    """This process's part of a dataset: every view is in one process's, and none twice, evenly or not."""
    return Subset(views, range(distributed.rank(), len(views), distributed.world()))  # type: ignore[arg-type]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    tasks: Sequence[str],
    views: Views,
    constants: Mapping[str, Mapping[str, Any]],
    device: torch.device,
    precision: torch.dtype = torch.float32,
    absent: Mapping[str, str] | None = None,
) -> Evaluation:
    """Score a model on this process's share of the views, and add up over all processes.

    batches: `data.sample.EvalBatch`es of `share(views)`, in order. tasks: those to score, outputs of the model. constants:
    as `learn_constants` gives them; a task without has no trivial baseline. absent: {task: why it cannot be scored}.
    Results are equal on all processes.
    """
    scores = {task: Score(TASKS[task], views.classes.get(task), constants.get(task, {}), views.metric_depth) for task in tasks}
    names: list[str] = []
    was_training = model.training
    model.eval()
    for batch in tqdm(batches, desc="evaluate", leave=False, disable=not distributed.is_main()):
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            outputs = model(batch["image"].to(device, non_blocking=True))
        names += batch["id"]
        for task, score in scores.items():
            score.update(outputs[task], batch["targets"][task], batch["valid"][task])
    model.train(was_training)

    columns = {"id": _gather_names(names), "group": np.array([views.group(i) for i in range(len(views))], dtype=np.str_)}
    interval_over, unit_of = bootstrap.units(columns["group"])
    results: Results = {task: {TASKS[task].primary: {"value": None, "reason": why}} for task, why in (absent or {}).items()}
    for task, score in scores.items():
        of_images = score.reduce()
        results[task] = score.entries(of_images, unit_of)
        columns |= {f"{task}/{name}": column for name, column in of_images.items()}
        columns |= {f"total/{task}/{name}": total for name, total in score.model.totals().items()}
    return Evaluation({task: results[task] for task in TASKS if task in results}, columns, interval_over)


def _gather_names(names: list[str]) -> NDArray[np.str_]:
    text = torch.from_numpy(np.frombuffer(json.dumps(names).encode(), np.uint8).copy())
    return interleave([np.array(json.loads(part.numpy().tobytes()), dtype=np.str_) for part in distributed.gather(text)])


@torch.inference_mode()
def predictions(
    model: nn.Module, samples: Sequence[Any], transform: Callable[[Any], Any], device: torch.device
) -> list[dict[str, Any]]:
    """The samples, each with "predictions" {task: array} at its own size beside its targets, for `draw.gallery`.

    transform: what brings a sample's image to the size of the network, as in the evaluation.
    """
    was_training = model.training
    model.eval()
    shown = []
    for sample in samples:
        size = tuple(sample["image"].shape[-2:])
        outputs = model(transform(sample)["image"][None].to(device))
        maps = {task: TASKS[task].predict(outputs[task], size)[0].cpu().numpy() for task in sample["targets"]}
        shown.append({**sample, "predictions": maps})
    model.train(was_training)
    return shown


def learn_constants(
    views: Samples, tasks: Sequence[str], seed: int, most_views: int = 256, most_pixels: int = 4096
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
        entry = entries[primary(TASKS[task], entries)]
        if entry["value"] is not None and entry["trivial"]:
            sign = 1 if entry["better"] == "higher" else -1
            terms.append(100 * sign * (entry["value"] - entry["trivial"]) / entry["trivial"])
    return sum(terms) / len(terms) if terms else None


def merge_baselines(
    ours: Mapping[str, Any], tasks: Iterable[str], baselines: Mapping[str, Mapping[str, Any]]
) -> dict[str, Entries]:
    """{task: entries} of the evaluations of single-task runs, given by the names of their files.

    Raises ValueError for one whose `header` is not `ours`, for a task that two files have, and for one of `tasks` that none
    has, or of which nobody can say how much better another model is: 0, or not finite.
    """
    merged: dict[str, Entries] = {}
    for name, baseline in baselines.items():
        where = f"--baseline {name}"
        for key, expected in ours.items():
            if baseline.get(key) != expected:
                raise ValueError(
                    f"{where}: got {key} {baseline.get(key)}; expected {expected}; evaluate it again on the same data"
                )
        for task, entries in baseline["tasks"].items():
            if task in merged:
                raise ValueError(f"{where}: got {task} in two files; expected one a task; leave one out")
            merged[task] = entries
    for task in tasks:
        if task not in merged:
            raise ValueError(f"--baseline: {task}: got no baseline; expected one; evaluate its single-task model")
        entry = merged[task][TASKS[task].primary]
        if entry["value"] == 0 or entry.get("reason") == NOT_FINITE:
            raise ValueError(
                f"--baseline: {task}: got {entry.get('reason', 'a baseline of 0')}; expected a number that a gain can be a "
                "part of; train that single-task model for longer"
            )
    return merged


def against(results: Results, baselines: Mapping[str, Entries]) -> dict[str, Any]:
    """Delta m against single-task models: {"delta_m", "terms", "left_out": {task: why}}; see metrics.delta_m.

    Left out are the tasks that cannot be scored, or only without a unit. Raises ValueError where a baseline was scored on
    other pixels: images of the same number, and names, may be others.
    """
    for task, entries in results.items():
        counts = [one.get(TASKS[task].primary, {}).get("pixels") for one in (entries, baselines.get(task, {}))]
        if None not in counts and counts[0] != counts[1]:
            raise ValueError(
                f"--baseline: {task}: got one of {counts[1]} valid pixels; expected {counts[0]}; evaluate it on the same images"
            )
    figures = {task: entries[TASKS[task].primary] for task, entries in results.items()}
    left_out = {task: entry["reason"] for task, entry in figures.items() if entry["value"] is None}
    kept = {task: entries for task, entries in results.items() if task not in left_out}
    return {**delta_m(kept, baselines), "left_out": left_out}


def delta_m_line(compared: Mapping[str, Any], interval: tuple[float, float] | None, over: str) -> str:
    """What `against` returns, for a terminal, with its 95 % interval over images or buildings."""
    between = "no interval: a baseline has no .npz beside it, or there is one image"
    if interval is not None:
        between = f"95 % over {over}: {interval[0]:+.2f} to {interval[1]:+.2f}"
    terms = [f"{task} {gain:+.2f} %" for task, gain in compared["terms"].items()]
    left_out = [f"{task} left out ({why})" for task, why in compared["left_out"].items()]
    return f"Δm {compared['delta_m']:+.2f} % ({between}): {', '.join(terms + left_out)}"


def table(evaluation: Evaluation) -> str:
    """The primary metric of each task, its interval and its trivial baseline, for a terminal."""
    rows = [("task", "metric", "value", f"95 % over {evaluation.interval_over}", "trivial", "better by")]
    for task, entries in evaluation.results.items():
        metric = primary(TASKS[task], entries)
        entry = entries[metric]
        if entry["value"] is None:
            rows.append((task, metric, "-", "-", "-", entry["reason"]))
            continue
        gain = improvement({task: entries})
        value, trivial = (f"{entry[key]:.4g}" if entry[key] is not None else "-" for key in ("value", "trivial"))
        unit = f" {entry['unit']}" if entry["unit"] else ""
        between = " to ".join(f"{end:.4g}" for end in entry.get("interval", ())) or "-"
        rows.append((task, metric, value + unit, between, trivial + unit, "-" if gain is None else f"{gain:+.1f} %"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
