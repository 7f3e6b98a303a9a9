"""Delta m: how much better a run is than single-task runs, and its interval. The formula is that of mult/metrics/delta.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mult.errors import UserError
from mult.evaluation import bootstrap
from mult.evaluation.results import (
    NOT_FINITE,
    Entries,
    Results,
    SavedEvaluation,
    explain_difference,
    require_comparable,
)
from mult.metrics import delta_m, relative_gain
from mult.tasks import TASKS


@dataclass(frozen=True)
class DeltaM:
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
        return bootstrap.estimate_deviation(self.of_seeds)

    @property
    def mark(self) -> str:
        """ "better" or "worse" than the single-task runs where the interval excludes 0, else ""."""
        return bootstrap.judge_difference(self.interval, "higher")


def measure_delta_m(evaluations: Sequence[SavedEvaluation], baselines: Sequence[Sequence[SavedEvaluation]]) -> DeltaM:
    """Delta m of an evaluation a seed, given the evaluations of the single-task runs of each seed.

    Raises UserError for baselines that do not fit (`merge_baselines`, `compute_delta_m`, `estimate_delta_m_interval`).
    """
    of_seeds = []
    for evaluation, singles in zip(evaluations, baselines, strict=True):
        merged = merge_baselines(evaluation.comparability, evaluation.tasks_with_value(), singles)
        of_seeds.append(compute_delta_m(evaluation.tasks, merged)["delta_m"])
    return DeltaM(of_seeds, estimate_delta_m_interval(evaluations, baselines))


def merge_baselines(
    expected: Mapping[str, Any], tasks: Iterable[str], baselines: Iterable[SavedEvaluation]
) -> dict[str, Entries]:
    """{task: entries} of the evaluations of single-task runs, for one whose `comparability` is `expected`.

    Raises UserError for a baseline that is not comparable, for a task that two of them have, and for one of `tasks` that none
    has, or whose baseline is 0 or not finite, so that no gain can be a part of it.
    """
    merged: dict[str, Entries] = {}
    for baseline in baselines:
        where = f"--baseline {baseline.path}"
        for key, value in expected.items():
            if baseline.file.get(key) != value:
                remedy = explain_difference(key, "evaluate it again on the same data")
                raise UserError(f"{where}: got {key} {baseline.file.get(key)}; expected {value}; {remedy}")
        for task, entries in baseline.tasks.items():
            if task in merged:
                raise UserError(f"{where}: got {task} in two files; expected one a task; leave one out")
            merged[task] = entries
    for task in tasks:
        if task not in merged:
            raise UserError(f"--baseline: {task}: got no baseline; expected one; evaluate its single-task model")
        entry = merged[task][TASKS[task].primary]
        if entry["value"] == 0 or entry.get("reason") == NOT_FINITE:
            raise UserError(
                f"--baseline: {task}: got {entry.get('reason', 'a baseline of 0')}; expected a number that a gain can be a "
                "part of; train that single-task model for longer"
            )
    return merged


def compute_delta_m(results: Mapping[str, Entries], baselines: Mapping[str, Entries]) -> dict[str, Any]:
    """Delta m on merged baselines: {"delta_m", "terms", "left_out": {task: why}}; see metrics.delta_m.

    Left out are the tasks that cannot be scored, or only without a unit. Raises UserError where a baseline was scored on
    another number of pixels, and so on other images.
    """
    for task, entries in results.items():
        counts = [each.get(TASKS[task].primary, {}).get("pixels") for each in (entries, baselines.get(task, {}))]
        if None not in counts and counts[0] != counts[1]:
            raise UserError(
                f"--baseline: {task}: got one of {counts[1]} valid pixels; expected {counts[0]}; evaluate it on the same images"
            )
    primaries = {task: entries[TASKS[task].primary] for task, entries in results.items()}
    left_out = {task: entry["reason"] for task, entry in primaries.items() if entry["value"] is None}
    rest: Results = {task: entries for task, entries in results.items() if task not in left_out}
    return {**delta_m(rest, baselines), "left_out": left_out}


def estimate_delta_m_interval(
    evaluations: Sequence[SavedEvaluation], baselines: Sequence[Sequence[SavedEvaluation]]
) -> tuple[float, float] | None:
    """The 95 % interval [%] of delta m, or of its mean over seeds: an evaluation a seed, and the single-task runs' of each.

    Both sides of every gain see the same resamples. None where a baseline has no arrays, or the images are one unit.
    Raises UserError for baselines of other images.
    """
    if not all(single.columns for singles in baselines for single in singles):
        return None
    units = bootstrap.assign_units(evaluations[0].columns["group"])
    of_seeds = []
    for evaluation, singles in zip(evaluations, baselines, strict=True):
        for single in singles:
            require_comparable(evaluation, single)
        single_of = {task: single for single in singles for task in single.tasks}
        gains = []
        for task in evaluation.tasks_with_value():
            metric = TASKS[task].primary
            ours, theirs = (side.resample(task, units)[metric] for side in (evaluation, single_of[task]))
            with np.errstate(divide="ignore", invalid="ignore"):  # the interval leaves out what is not finite
                gains.append(relative_gain(ours, theirs, evaluation.tasks[task][metric]["better"]))
        of_seeds.append(np.mean(gains, axis=0))
    return bootstrap.estimate_interval(np.mean(of_seeds, axis=0), units.number)


def format_delta_m(computed: Mapping[str, Any], interval: tuple[float, float] | None, over: str) -> str:
    """A line for a terminal: what `compute_delta_m` returned, with its 95 % interval over "images" or "buildings"."""
    between = "no interval: a baseline has no .npz beside it, or there is one image"
    if interval is not None:
        between = f"95 % over {over}: {interval[0]:+.2f} to {interval[1]:+.2f}"
    terms = [f"{task} {gain:+.2f} %" for task, gain in computed["terms"].items()]
    left_out = [f"{task} left out ({why})" for task, why in computed["left_out"].items()]
    return f"Δm {computed['delta_m']:+.2f} % ({between}): {', '.join(terms + left_out)}"
