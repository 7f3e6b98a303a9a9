"""Runs side by side on the same images, and which differences the images can tell from chance.

A row is a run, or several of one name that differ by seed: their mean, with the standard deviation over seeds beside it.
The first row is what the others are compared with. A difference has a 95 % interval by a paired bootstrap: both sides see
the same resamples of the same images (or buildings, see bootstrap.py), so what images have in common cancels. A mark says
that the interval excludes 0. It tells of images, not of seeds: those are what the standard deviation is for. Delta m is
against the single-task runs of each row, its interval by the same bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.evaluation import bootstrap
from mult.evaluation.evaluate import against, header, merge_baselines, read_evaluation
from mult.evaluation.task_score import primary
from mult.metrics import Accumulator
from mult.runs.folder import read_arrays
from mult.tasks import TASKS

MARKS = {"better": "▲", "worse": "▼", "": ""}
LEGEND = "▲ better, ▼ worse than {first}: the 95 % interval of the paired difference, over {over}, excludes 0"
DELTA_M_LEGEND = "Δm: the mean over tasks of the gain on runs of that task alone; ▲ or ▼ where its own 95 % interval excludes 0"

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


@dataclass(frozen=True)
class Row:
    """What the table calls a row and its evaluations, one a seed; `missing` says why there is none, or not of every seed.

    baselines: for each evaluation those of single-task runs, or none.
    """

    name: str
    evaluations: Sequence[Evaluated] = ()
    missing: str = ""
    baselines: Sequence[Sequence[Evaluated]] = ()


@dataclass(frozen=True)
class Cell:
    """One metric of one row; `difference` to the first row and its interval, where both have it."""

    task: str
    metric: str
    unit: str
    better: str
    value: float | None
    deviation: float | None = None
    """Over seeds; None for one."""
    difference: float | None = None
    interval: tuple[float, float] | None = None
    is_primary: bool = False

    @property
    def mark(self) -> str:
        """ "better" or "worse" where the interval of the difference excludes 0, else ""."""
        return _mark(self.interval, self.better)


@dataclass(frozen=True)
class Gain:
    """Delta m [%], one value a seed, and the 95 % interval of their mean, None where the baselines' images are unknown."""

    of_seeds: Sequence[float]
    interval: tuple[float, float] | None = None

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.of_seeds))

    @property
    def deviation(self) -> float | None:
        """Over seeds; None for one."""
        return float(np.std(self.of_seeds, ddof=1)) if len(self.of_seeds) > 1 else None

    @property
    def mark(self) -> str:
        """As a cell's, against the single-task runs."""
        return _mark(self.interval, "higher")


def _mark(interval: tuple[float, float] | None, better: str) -> str:
    if interval is None or interval[0] <= 0 <= interval[1]:
        return ""
    return "better" if (interval[0] > 0) == (better == "higher") else "worse"


@dataclass(frozen=True)
class Comparison:
    """Rows of cells, and `delta_m` of the rows that have baselines."""

    head: Mapping[str, Any]
    over: str
    rows: Sequence[Row]
    cells: Mapping[str, Sequence[Cell]]
    delta_m: Mapping[str, Gain] = field(default_factory=dict)


def load(path: str | Path, stem: str | None = None) -> Evaluated:
    """An evaluation's JSON and the .npz beside it; of a run's folder the one named `stem`, by default the only one.

    Raises ValueError where there is none, or several and no stem.
    """
    path = Path(path)
    name = path.stem
    if path.is_dir():
        name = path.name
        found = sorted(file.stem for file in (path / "eval").glob("*.json"))
        if stem is None and len(found) != 1:
            raise ValueError(
                f"{path}: got {len(found)} evaluations ({', '.join(found) or 'none'}); expected one; "
                + ("name it with --eval" if found else "run scripts/eval.py first")
            )
        if stem is not None and stem not in found:
            raise ValueError(
                f"{path}: got evaluations {', '.join(found) or 'none'}; expected {stem}; run scripts/eval.py for it first"
            )
        path = path / "eval" / f"{stem or found[0]}.json"
    return Evaluated(name, path, read_evaluation(path), read_arrays(path.with_suffix(".npz")))


def load_baseline(path: str | Path) -> Evaluated:
    """A single-task run's evaluation, without `columns` where no .npz lies beside the JSON."""
    path = Path(path)
    arrays = path.with_suffix(".npz")
    return Evaluated(path.stem, path, read_evaluation(path), read_arrays(arrays) if arrays.exists() else {})


def compare(rows: Sequence[Row]) -> Comparison:
    """Put rows side by side. Raises ValueError, by name, for evaluations of different data or different images."""
    present = [evaluated for row in rows for evaluated in row.evaluations]
    if not present:
        raise ValueError(f"compare: got no evaluation of {', '.join(row.name for row in rows)}; expected at least one")
    first = present[0]
    for other in present[1:]:
        _require_comparable(first, other)
    over, unit_of = bootstrap.units(first.columns["group"])
    reference = rows[0].evaluations
    cells = {row.name: _cells(row.evaluations, reference, unit_of, is_first=row is rows[0]) for row in rows if row.evaluations}
    delta_m = {row.name: _gain(row) for row in rows if row.evaluations and row.baselines}
    return Comparison(_facts(first), over, rows, cells, delta_m)


def _facts(one: Evaluated) -> dict[str, Any]:
    return {key: one.file.get(key) for key in header("", "", 0, None)}


def _require_comparable(first: Evaluated, other: Evaluated) -> None:
    """Raises ValueError unless both evaluations are of the same data, images and labels."""
    for key, expected in _facts(first).items():
        if other.file.get(key) != expected:
            raise ValueError(
                f"compare: got {key} {other.file.get(key)} in {other.path}, {expected} in {first.path}; expected one; "
                "evaluate both on the same data"
            )
    if not np.array_equal(other.columns["id"], first.columns["id"]):
        place = int(np.argmin(other.columns["id"] == first.columns["id"]))
        raise ValueError(
            f"compare: got other images in {other.path} (number {place} is {other.columns['id'][place]}) than in "
            f"{first.path} ({first.columns['id'][place]}); expected the same; evaluate both on the same data"
        )
    for name in LABELS_ALONE:  # other images may have the same names
        for column in (f"{task}/{name}" for task in TASKS):
            both = [one.columns.get(column) for one in (first, other)]
            if both[0] is not None and both[1] is not None and not np.array_equal(both[0], both[1]):
                raise ValueError(
                    f"compare: got other labels in {other.path} than in {first.path} ({column} of their images differ); "
                    "expected the same; evaluate both on the same data"
                )


def _cells(ours: Sequence[Evaluated], theirs: Sequence[Evaluated], unit_of: NDArray[np.int64], is_first: bool) -> list[Cell]:
    cells = []
    for task in TASKS:
        entries = [one.file["tasks"].get(task, {}) for one in ours]
        if not all(entries):
            continue
        known = [entry for entry in entries[0] if all(other.get(entry, {}).get("value") is not None for other in entries)]
        scored = [other for other in theirs if task in other.file["tasks"]]
        shared = bool(known) and not is_first and len(scored) == len(theirs) > 0
        samples = [[one.resampled(task, unit_of) for one in side] for side in (ours, theirs)] if shared else []
        judged = primary(TASKS[task], entries[0])
        for metric in known:
            values = np.array([entry[metric]["value"] for entry in entries])
            cell: dict[str, Any] = {"value": float(values.mean())}
            if len(values) > 1:
                cell["deviation"] = float(values.std(ddof=1))
            others = [other.file["tasks"][task].get(metric, {}).get("value") for other in scored]
            if shared and None not in others:
                cell["difference"] = cell["value"] - float(np.mean(others))
                one, other = (np.mean([sample[metric] for sample in side], axis=0) for side in samples)
                interval = bootstrap.interval(one - other, int(unit_of.max()) + 1)
                cell["interval"] = interval and (interval[0], interval[1])
            entry = entries[0][metric]
            cells.append(Cell(task, metric, entry["unit"], entry["better"], **cell, is_primary=metric == judged))
    return cells


def _gain(row: Row) -> Gain:
    of_seeds = []
    for one, singles in zip(row.evaluations, row.baselines, strict=True):
        merged = merge_baselines(_facts(one), _scored(one), {str(single.path): single.file for single in singles})
        of_seeds.append(against(one.file["tasks"], merged)["delta_m"])
    return Gain(of_seeds, delta_m_interval(row.evaluations, row.baselines))


def _scored(one: Evaluated) -> list[str]:
    """The tasks that have a value of their primary metric."""
    return [task for task, entries in one.file["tasks"].items() if entries[TASKS[task].primary]["value"] is not None]


def delta_m_interval(evaluations: Sequence[Evaluated], baselines: Sequence[Sequence[Evaluated]]) -> tuple[float, float] | None:
    """The 95 % interval [%] of delta m, or of its mean over seeds: an evaluation a seed, and the single-task runs' of each.

    Both sides of every gain see the same resamples. None where a baseline has no `columns`, or the images are one unit.
    ValueError for baselines of other images.
    """
    if not all(single.columns for singles in baselines for single in singles):
        return None
    unit_of = bootstrap.units(evaluations[0].columns["group"])[1]
    of_seeds = []
    for one, singles in zip(evaluations, baselines, strict=True):
        of_task = {task: single for single in singles for task in single.file["tasks"]}
        for single in singles:
            _require_comparable(one, single)
        terms = []
        for task in _scored(one):
            metric = TASKS[task].primary
            ours, theirs = (side.resampled(task, unit_of)[metric] for side in (one, of_task[task]))
            sign = 1 if one.file["tasks"][task][metric]["better"] == "higher" else -1
            with np.errstate(divide="ignore", invalid="ignore"):  # the interval leaves out what is of no finite value
                terms.append(100 * sign * (ours - theirs) / theirs)
        of_seeds.append(np.mean(terms, axis=0))
    found = bootstrap.interval(np.mean(of_seeds, axis=0), int(unit_of.max()) + 1)
    return (found[0], found[1]) if found else None
