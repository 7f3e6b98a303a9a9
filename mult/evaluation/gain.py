"""TODOC"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mult.errors import UserError
from mult.evaluation import bootstrap
from mult.evaluation.results import NOT_FINITE, Entries, Evaluated, Results, _require_comparable
from mult.metrics import delta_m
from mult.tasks import TASKS


def merge_baselines(
    ours: Mapping[str, Any], tasks: Iterable[str], baselines: Mapping[str, Mapping[str, Any]]
) -> dict[str, Entries]:
    """{task: entries} of the evaluations of single-task runs, given by the names of their files.

    Raises UserError for one whose `header` is not `ours`, for a task that two files have, and for one of `tasks` that none
    has, or of which nobody can say how much better another model is: 0, or not finite.
    """
    merged: dict[str, Entries] = {}
    for name, baseline in baselines.items():
        where = f"--baseline {name}"
        for key, expected in ours.items():
            if baseline.get(key) != expected:
                raise UserError(
                    f"{where}: got {key} {baseline.get(key)}; expected {expected}; evaluate it again on the same data"
                )
        for task, entries in baseline["tasks"].items():
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


def against(results: Results, baselines: Mapping[str, Entries]) -> dict[str, Any]:
    """Delta m against single-task models: {"delta_m", "terms", "left_out": {task: why}}; see metrics.delta_m.

    Left out are the tasks that cannot be scored, or only without a unit. Raises UserError where a baseline was scored on
    other pixels: images of the same number, and names, may be others.
    """
    for task, entries in results.items():
        counts = [one.get(TASKS[task].primary, {}).get("pixels") for one in (entries, baselines.get(task, {}))]
        if None not in counts and counts[0] != counts[1]:
            raise UserError(
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


def _scored(one: Evaluated) -> list[str]:
    """The tasks that have a value of their primary metric."""
    return [task for task, entries in one.file["tasks"].items() if entries[TASKS[task].primary]["value"] is not None]


def delta_m_interval(evaluations: Sequence[Evaluated], baselines: Sequence[Sequence[Evaluated]]) -> tuple[float, float] | None:
    """The 95 % interval [%] of delta m, or of its mean over seeds: an evaluation a seed, and the single-task runs' of each.

    Both sides of every gain see the same resamples. None where a baseline has no `columns`, or the images are one unit.
    UserError for baselines of other images.
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
