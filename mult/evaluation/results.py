"""TODOC"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.errors import UserError
from mult.evaluation import bootstrap
from mult.files import read_arrays, read_json
from mult.metrics import Accumulator
from mult.tasks import TASKS, Task

METRIC_VERSION = 1
"""Changes when a definition does: results of different versions must not be compared."""
Entries = dict[str, dict[str, Any]]

Results = dict[str, Entries]
"""{task: {metric: entry}}, an entry {"value", "unit", "better", "trivial", "pixels", "images", "interval"?} or {"value": None,
"reason"}."""


def header(dataset: str, split: str, images: int, corruption: Mapping[str, Any] | None) -> dict[str, Any]:
    """What must be equal in two evaluations for their numbers to be compared."""
    spoilt = dict(corruption) if corruption else None
    return {"dataset": dataset, "split": split, "corruption": spoilt, "images": images, "metric_version": METRIC_VERSION}


def read_evaluation(path: Path) -> dict[str, Any]:
    """An evaluation's file (see `Evaluation.as_json`), of types that need not be looked at again.

    Raises UserError, naming the file and the place in it, for anything else.
    """
    file = read_json(path)
    if not isinstance(file, dict) or not isinstance(file.get("tasks"), dict):
        raise UserError(
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
        raise UserError(
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


def improvement(results: Results) -> float | None:
    """How much better than the trivial baseline: the mean over tasks, in percent, of the primary metrics; None without one."""
    terms = []
    for task, entries in results.items():
        entry = entries[primary(TASKS[task], entries)]
        if entry["value"] is not None and entry["trivial"]:
            sign = 1 if entry["better"] == "higher" else -1
            terms.append(100 * sign * (entry["value"] - entry["trivial"]) / entry["trivial"])
    return sum(terms) / len(terms) if terms else None


NOT_FINITE = "the model's output is not finite"
"""The reason of a metric without a value that is the model's fault, not the labels'."""


def primary(task: Task, entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The metric by which the task is judged: its own, or the one without a unit where the dataset's labels have none."""
    if task.relative is not None and entries[task.primary]["value"] is None:
        relative = task.relative().PRIMARY
        return relative if entries.get(relative, {}).get("value") is not None else task.primary
    return task.primary


LABELS_ALONE = ("pixels", "target")
"""What the columns have of an image whatever was predicted: valid pixels, and those of each class."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation on disk: its JSON and what each image contributed."""

    name: str
    path: Path
    file: Mapping[str, Any]
    columns: Mapping[str, NDArray[Any]]

    def accumulator(self, task: str) -> Accumulator:
        """An empty accumulator of the kind by which the task was scored."""
        record, entries = TASKS[task], self.file["tasks"][task]
        if record.relative is not None and primary(record, entries) != record.primary:
            return record.relative()
        names = self.columns.get(f"total/{task}/classes")
        return record.metric(None if names is None else names.tolist())

    def resampled(self, task: str, unit_of: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """{metric: (resamples,)}; the same draws for every evaluation of the same images."""
        prefix = f"{task}/"
        columns = {name.removeprefix(prefix): column for name, column in self.columns.items() if name.startswith(prefix)}
        return self.accumulator(task).divide(bootstrap.resample(columns, unit_of))


def load(path: str | Path, stem: str | None = None) -> Evaluated:
    """An evaluation's JSON and the .npz beside it; of a run's folder the one named `stem`, by default the only one.

    Raises UserError where there is none, or several and no stem.
    """
    path = Path(path)
    name = path.stem
    if path.is_dir():
        name = path.name
        found = sorted(file.stem for file in (path / "eval").glob("*.json"))
        if stem is None and len(found) != 1:
            raise UserError(
                f"{path}: got {len(found)} evaluations ({', '.join(found) or 'none'}); expected one; "
                + ("name it with --eval" if found else "run scripts/eval.py first")
            )
        if stem is not None and stem not in found:
            raise UserError(
                f"{path}: got evaluations {', '.join(found) or 'none'}; expected {stem}; run scripts/eval.py for it first"
            )
        path = path / "eval" / f"{stem or found[0]}.json"
    return Evaluated(name, path, read_evaluation(path), read_arrays(path.with_suffix(".npz")))


def load_baseline(path: str | Path) -> Evaluated:
    """A single-task run's evaluation, without `columns` where no .npz lies beside the JSON."""
    path = Path(path)
    arrays = path.with_suffix(".npz")
    return Evaluated(path.stem, path, read_evaluation(path), read_arrays(arrays) if arrays.exists() else {})


def _facts(one: Evaluated) -> dict[str, Any]:
    return {key: one.file.get(key) for key in header("", "", 0, None)}


def _require_comparable(first: Evaluated, other: Evaluated) -> None:
    """Raises UserError unless both evaluations are of the same data, images and labels."""
    for key, expected in _facts(first).items():
        if other.file.get(key) != expected:
            raise UserError(
                f"compare: got {key} {other.file.get(key)} in {other.path}, {expected} in {first.path}; expected one; "
                "evaluate both on the same data"
            )
    if not np.array_equal(other.columns["id"], first.columns["id"]):
        place = int(np.argmin(other.columns["id"] == first.columns["id"]))
        raise UserError(
            f"compare: got other images in {other.path} (number {place} is {other.columns['id'][place]}) than in "
            f"{first.path} ({first.columns['id'][place]}); expected the same; evaluate both on the same data"
        )
    for name in LABELS_ALONE:  # other images may have the same names
        for column in (f"{task}/{name}" for task in TASKS):
            both = [one.columns.get(column) for one in (first, other)]
            if both[0] is not None and both[1] is not None and not np.array_equal(both[0], both[1]):
                raise UserError(
                    f"compare: got other labels in {other.path} than in {first.path} ({column} of their images differ); "
                    "expected the same; evaluate both on the same data"
                )
