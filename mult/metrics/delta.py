"""One number for all tasks: how much better than single-task models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mult.errors import UserError
from mult.metrics.accumulator import Accumulator
from mult.metrics.depth import Depth
from mult.metrics.normals import Normals
from mult.metrics.regression import Regression
from mult.metrics.segmentation import Segmentation

Numbers = TypeVar("Numbers", float, NDArray[np.float64])


def delta_m(results: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, Any]:
    """How much better than `baseline` in percent, positive = better: {"delta_m": the mean, "terms": {task: percent}}.

    The mean over tasks of s (M - B) / B, s = -1 where lower is better (Maninis et al. 2019, Vandenhende et al. 2021).
    M is a task's primary metric: the PRIMARY of the accumulator that has the metrics given. (CAGrad and Nash-MTL print
    the negative, over nine metrics.) Both arguments are {task: {metric: value}}, a value being a number or an
    evaluation's entry {"value": number, ...}; `baseline` holds the single-task models with the same encoder, and maybe
    more tasks. UserError, by name, for a task without a baseline or a value, or with a baseline of 0.
    """
    if not results:
        raise UserError('delta_m: got no task; expected {task: {metric: value}}; give the "tasks" of an evaluation')
    terms = {}
    for task, metrics in results.items():
        if task not in baseline:
            raise UserError(f"delta_m: {task}: got no baseline; expected one; evaluate its single-task model")
        kind = _kind(task, metrics)
        ours = _value(f"{task} of the results", metrics, kind.PRIMARY)
        theirs = _value(f"{task} of the baseline", baseline[task], kind.PRIMARY)
        if theirs == 0:
            raise UserError(f"delta_m: {task}: got a baseline of 0; expected another value; leave the task out")
        terms[task] = relative_gain(ours, theirs, kind.METRICS[kind.PRIMARY][1])
    return {"delta_m": sum(terms.values()) / len(terms), "terms": terms}


def relative_gain(ours: Numbers, theirs: Numbers, better: str) -> Numbers:
    """How much better `ours` is than `theirs`, in percent of `theirs`, elementwise; better: "higher" or "lower"."""
    return 100 * (1 if better == "higher" else -1) * (ours - theirs) / theirs


def _kind(task: str, metrics: Mapping[str, Any]) -> type[Accumulator]:
    """The accumulator a task was measured by: the first that has its primary metric there and knows the others."""
    kinds: tuple[type[Accumulator], ...] = (Segmentation, Normals, Regression, Depth)
    given = {name for kind in kinds for name in kind.METRICS} & set(metrics)
    for kind in kinds:
        if kind.PRIMARY in given and given <= set(kind.METRICS):
            return kind
    raise UserError(
        f"delta_m: {task}: got metrics {sorted(metrics)}; expected a primary one, {[kind.PRIMARY for kind in kinds]}, "
        f"and those beside it; give the task's entries of an evaluation"
    )


def _value(where: str, metrics: Mapping[str, Any], metric: str) -> float:
    entry = metrics.get(metric)
    value = entry["value"] if isinstance(entry, Mapping) else entry
    if value is None or not math.isfinite(value):
        raise UserError(f"delta_m: {where}: got {value} for {metric}; expected a number; leave the task out of both")
    return float(value)
