"""Runs side by side on the same images, and which differences the images can tell from chance.

A row is a run, or several of one name that differ by seed: their mean, with the standard deviation over seeds beside it.
The first row is what the others are compared with. A difference has a 95 % interval by a paired bootstrap: both sides see
the same resamples of the same images (or buildings, see bootstrap.py), so what images have in common cancels. A mark says
that the interval excludes 0. It is about images, not about seeds, whose spread is the standard deviation. Delta m is that
of each row on its single-task runs, its interval by the same bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mult.errors import UserError
from mult.evaluation import bootstrap
from mult.evaluation.gain import DeltaM, measure_delta_m
from mult.evaluation.results import SavedEvaluation, require_comparable, select_primary
from mult.tasks import TASKS


@dataclass(frozen=True)
class Row:
    """A row's name and its evaluations, one a seed; `missing` says why there is none, or not of every seed.

    baselines: for each evaluation those of single-task runs, or none.
    """

    name: str
    evaluations: Sequence[SavedEvaluation] = ()
    missing: str = ""
    baselines: Sequence[Sequence[SavedEvaluation]] = ()


@dataclass(frozen=True)
class Measurement:
    """One metric of one row; `difference` to the first row and its interval, where both have the metric."""

    task: str
    metric: str
    unit: str
    better: str
    value: float
    deviation: float | None = None
    """Over seeds; None for one."""
    difference: float | None = None
    interval: tuple[float, float] | None = None
    is_primary: bool = False

    @property
    def mark(self) -> str:
        """ "better" or "worse" where the interval of the difference excludes 0, else ""."""
        return bootstrap.judge_difference(self.interval, self.better)


@dataclass(frozen=True)
class Comparison:
    """Rows, and by their names the measurements of those that have evaluations and `delta_m` of those with baselines.

    conditions: the `comparability` of all evaluations. over: what the intervals are over, "images" or "buildings".
    """

    conditions: Mapping[str, Any]
    over: str
    rows: Sequence[Row]
    measurements: Mapping[str, Sequence[Measurement]]
    delta_m: Mapping[str, DeltaM] = field(default_factory=dict)


def compare(rows: Sequence[Row]) -> Comparison:
    """Put rows side by side. Raises UserError, by name, for evaluations of different data or different images."""
    evaluations = [evaluation for row in rows for evaluation in row.evaluations]
    if not evaluations:
        raise UserError(f"compare: got no evaluation of {', '.join(row.name for row in rows)}; expected at least one")
    for evaluation in evaluations:
        if not evaluation.columns:
            raise UserError(f"compare: got {evaluation.path} and no .npz beside it; expected both files; evaluate again")
        require_comparable(evaluations[0], evaluation)
    units = bootstrap.assign_units(evaluations[0].columns["group"])
    references = [() if row is rows[0] else rows[0].evaluations for row in rows]
    measurements = {
        row.name: _measure(row.evaluations, reference, units)
        for row, reference in zip(rows, references, strict=True)
        if row.evaluations
    }
    delta_m = {row.name: measure_delta_m(row.evaluations, row.baselines) for row in rows if row.evaluations and row.baselines}
    return Comparison(evaluations[0].comparability, units.kind, rows, measurements, delta_m)


def _measure(
    ours: Sequence[SavedEvaluation], reference: Sequence[SavedEvaluation], units: bootstrap.Units
) -> list[Measurement]:
    """The metrics of a row, and their differences to the reference of those that it has too; no reference: none."""
    measurements = []
    for task in TASKS:
        entries = [evaluation.tasks.get(task, {}) for evaluation in ours]
        if not all(entries):
            continue
        metrics = [name for name in entries[0] if all(other.get(name, {}).get("value") is not None for other in entries)]
        is_shared = bool(metrics and reference) and all(task in evaluation.tasks for evaluation in reference)
        samples = [[each.resample(task, units) for each in side] for side in (ours, reference)] if is_shared else []
        primary = select_primary(TASKS[task], entries[0])
        for metric in metrics:
            values = [entry[metric]["value"] for entry in entries]
            mean, deviation = float(np.mean(values)), bootstrap.estimate_deviation(values)
            difference, interval = None, None
            if is_shared and all(each.tasks[task].get(metric, {}).get("value") is not None for each in reference):
                difference = mean - float(np.mean([each.tasks[task][metric]["value"] for each in reference]))
                of_ours, of_reference = (np.mean([sample[metric] for sample in side], axis=0) for side in samples)
                interval = bootstrap.estimate_interval(of_ours - of_reference, units.number)
            unit, better = entries[0][metric]["unit"], entries[0][metric]["better"]
            measurements.append(
                Measurement(task, metric, unit, better, mean, deviation, difference, interval, metric == primary)
            )
    return measurements
