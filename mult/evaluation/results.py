"""What an evaluation's file holds (README.md beside this file), how it is read, and which two files may be compared."""

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
from mult.metrics import Accumulator, relative_gain
from mult.tasks import TASKS, Task

METRIC_VERSION = 2
"""Changes when a definition does: results of different versions must not be compared. 2: images keep their proportions."""
NEW_IN_VERSION = "since version 2 images keep their proportions in evaluation, unless data.fit is stretch"

NOT_FINITE = "the model's output is not finite"
"""The reason of a metric without a value where the fault is the model's, not the labels'."""

LABEL_COLUMNS = ("pixels", "target")
"""The columns that depend on the labels alone, not on the predictions: valid pixels, and those of each class."""

Entries = dict[str, dict[str, Any]]
"""{metric: entry}: {"value", "unit", "better", "trivial", "pixels", "images", "interval"?} or {"value": None, "reason"}."""

Results = dict[str, Entries]
"""{task: entries}."""


def comparability(dataset: str, split: str, images: int, corruption: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of an evaluation's file that must be equal in two of them for their numbers to be compared."""
    return {
        "dataset": dataset,
        "split": split,
        "corruption": dict(corruption) if corruption else None,
        "images": images,
        "metric_version": METRIC_VERSION,
    }


def explain_difference(key: str, remedy: str) -> str:
    """What to do where two files differ in a key of `comparability`; of metric_version also what changed."""
    return f"{NEW_IN_VERSION}; {remedy}" if key == "metric_version" else remedy


def select_primary(task: Task, entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The metric that a task is judged by: its own, or the one without a unit where the unit of the labels is unknown."""
    if task.unitless_metric is not None and entries[task.primary]["value"] is None:
        unitless = task.unitless_metric().PRIMARY
        return unitless if entries.get(unitless, {}).get("value") is not None else task.primary
    return task.primary


def compute_improvement(results: Results) -> float | None:
    """The mean over tasks of the gain [%] of the primary metric on its trivial baseline; None where no task has both."""
    entries = [of_task[select_primary(TASKS[task], of_task)] for task, of_task in results.items()]
    gains = [
        relative_gain(entry["value"], entry["trivial"], entry["better"])
        for entry in entries
        if entry["value"] is not None and entry["trivial"]
    ]
    return sum(gains) / len(gains) if gains else None


@dataclass(frozen=True)
class SavedEvaluation:
    """An evaluation's JSON, and the arrays of the .npz beside it: what each image contributed. No arrays: there is no .npz."""

    path: Path
    file: Mapping[str, Any]
    columns: Mapping[str, NDArray[Any]]

    @property
    def tasks(self) -> Mapping[str, Entries]:
        tasks: Mapping[str, Entries] = self.file["tasks"]
        return tasks

    @property
    def corruption(self) -> Mapping[str, Any] | None:
        """{"kind", "severity"} of what was done to the images before the model got them; None for nothing."""
        corruption: Mapping[str, Any] | None = self.file.get("corruption")
        return corruption

    @property
    def weights(self) -> Mapping[str, Any]:
        """{"step", "checksum", "commit"} of the weights that were evaluated; a file of the first version lacks some or all."""
        weights = self.file.get("weights") or {}
        return {"step": self.file.get("step"), "checksum": None, "commit": None, **weights}

    @property
    def comparability(self) -> dict[str, Any]:
        """What the function `comparability` returns, of this file."""
        return {key: self.file.get(key) for key in comparability("", "", 0, None)}

    def classes(self, task: str) -> list[str] | None:
        names = self.columns.get(f"total/{task}/classes")
        return None if names is None else names.tolist()

    def tasks_with_value(self) -> list[str]:
        """The tasks whose primary metric has a value."""
        return [task for task, entries in self.tasks.items() if entries[TASKS[task].primary]["value"] is not None]

    def image_values(self, task: str, metric: str) -> NDArray[np.float64]:
        """A metric of each image alone (images,), NaN where the image has no pixel that defines it."""
        return self._make_accumulator(task).restrict([metric]).divide(self._select_sums(task))[metric]

    def resample(self, task: str, units: bootstrap.Units) -> dict[str, NDArray[np.float64]]:
        """{metric: (resamples,)}; the same draws for every evaluation of the same images."""
        return self._make_accumulator(task).divide(bootstrap.resample(self._select_sums(task), units))

    def _select_sums(self, task: str) -> dict[str, NDArray[Any]]:
        prefix = f"{task}/"
        return {name.removeprefix(prefix): column for name, column in self.columns.items() if name.startswith(prefix)}

    def _make_accumulator(self, task: str) -> Accumulator:
        """An empty accumulator of the kind by which the task was scored."""
        record, entries = TASKS[task], self.tasks[task]
        if record.unitless_metric is not None and select_primary(record, entries) != record.primary:
            return record.unitless_metric()
        return record.metric(self.classes(task))


def find_evaluation(path: Path, stem: str | None = None) -> Path:
    """The JSON of an evaluation: `path` itself, or, of a run's folder, the one of this stem, by default the only one.

    Raises UserError where the folder has none of that stem, or no stem is given and it has none or several.
    """
    if not path.is_dir():
        return path
    stems = sorted(file.stem for file in (path / "eval").glob("*.json"))
    if stem is None and len(stems) != 1:
        raise UserError(
            f"{path}: got {len(stems)} evaluations ({', '.join(stems) or 'none'}); expected one; "
            + ("name it with --eval" if stems else "run `mult eval` first")
        )
    if stem is not None and stem not in stems:
        raise UserError(f"{path}: got evaluations {', '.join(stems) or 'none'}; expected {stem}; run `mult eval` for it first")
    return path / "eval" / f"{stem or stems[0]}.json"


def read_evaluation(path: Path) -> SavedEvaluation:
    """Read an evaluation's JSON, and the .npz beside it where there is one. Raises UserError for a damaged file."""
    results = read_results(path)  # first: a path without a name has no suffix to change
    arrays = path.with_suffix(".npz")
    return SavedEvaluation(path, results, read_arrays(arrays) if arrays.exists() else {})


def read_results(path: Path) -> dict[str, Any]:
    """Read an evaluation's JSON and check the types in it. Raises UserError, naming the file and the place in it."""
    file = read_json(path)
    if not isinstance(file.get("tasks"), dict):
        raise UserError(
            f"{path}: got no evaluation; expected the JSON that eval.py writes; give one of a run's eval/<dataset>-<split>.json"
        )
    corruption = file.get("corruption")
    faults = [] if corruption is None or _is_corruption(corruption) else [f"corruption {corruption!r}"]
    faults += [] if _is_weights(file.get("weights")) else [f"weights {file['weights']!r}"]
    for task, entries in file["tasks"].items():
        if task not in TASKS or not isinstance(entries, dict) or TASKS[task].primary not in entries:
            faults.append(f"tasks.{task}, " + ("which lacks its primary metric" if task in TASKS else "which is no task"))
        else:
            faults += [f"tasks.{task}.{metric} {entry!r}" for metric, entry in entries.items() if not _is_entry(entry)]
    if faults:
        raise UserError(
            f"{path}: got {faults[0][:200]}; expected an evaluation as eval.py writes it; the file is damaged: evaluate again"
        )
    return file


def _is_corruption(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("kind"), str) and _is_number(value.get("severity"))


def _is_weights(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and isinstance(value.get("step"), int | None))


def _is_entry(value: Any) -> bool:
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


def require_comparable(first: SavedEvaluation, other: SavedEvaluation) -> None:
    """Raise UserError unless both evaluations, which have arrays, are of the same data, images and labels."""
    for key, expected in first.comparability.items():
        if other.file.get(key) != expected:
            raise UserError(
                f"compare: got {key} {other.file.get(key)} in {other.path}, {expected} in {first.path}; expected one; "
                + explain_difference(key, "evaluate both on the same data")
            )
    for task, entries in first.tasks.items():
        forms = [each.get(TASKS[task].primary, {}).get("thresholds") for each in (entries, other.tasks.get(task, {}))]
        if None not in forms and forms[0] != forms[1]:
            raise UserError(
                f"compare: got {task} with {forms[1]} thresholds in {other.path}, {forms[0]} in {first.path}; expected one "
                "form; evaluate both by eval.py"
            )
    if not np.array_equal(other.columns["id"], first.columns["id"]):
        place = int(np.argmin(other.columns["id"] == first.columns["id"]))
        raise UserError(
            f"compare: got other images in {other.path} (number {place} is {other.columns['id'][place]}) than in "
            f"{first.path} ({first.columns['id'][place]}); expected the same; evaluate both on the same data"
        )
    for name in (f"{task}/{column}" for task in TASKS for column in LABEL_COLUMNS):  # other images may have the same names
        both = [evaluation.columns.get(name) for evaluation in (first, other)]
        if both[0] is not None and both[1] is not None and not np.array_equal(both[0], both[1]):
            raise UserError(
                f"compare: got other labels in {other.path} than in {first.path} ({name} of their images differ); "
                "expected the same; evaluate both on the same data"
            )
