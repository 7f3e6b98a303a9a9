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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.errors import UserError
from mult.evaluation import bootstrap
from mult.evaluation.gain import _scored, against, delta_m_interval, merge_baselines
from mult.evaluation.results import Evaluated, _facts, _require_comparable, primary
from mult.tasks import TASKS

MARKS = {"better": "▲", "worse": "▼", "": ""}
LEGEND = "▲ better, ▼ worse than {first}: the 95 % interval of the paired difference, over {over}, excludes 0"
DELTA_M_LEGEND = "Δm: the mean over tasks of the gain on runs of that task alone; ▲ or ▼ where its own 95 % interval excludes 0"


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


def compare(rows: Sequence[Row]) -> Comparison:
    """Put rows side by side. Raises UserError, by name, for evaluations of different data or different images."""
    present = [evaluated for row in rows for evaluated in row.evaluations]
    if not present:
        raise UserError(f"compare: got no evaluation of {', '.join(row.name for row in rows)}; expected at least one")
    first = present[0]
    for other in present[1:]:
        _require_comparable(first, other)
    over, unit_of = bootstrap.units(first.columns["group"])
    reference = rows[0].evaluations
    cells = {row.name: _cells(row.evaluations, reference, unit_of, is_first=row is rows[0]) for row in rows if row.evaluations}
    delta_m = {row.name: _gain(row) for row in rows if row.evaluations and row.baselines}
    return Comparison(_facts(first), over, rows, cells, delta_m)


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
