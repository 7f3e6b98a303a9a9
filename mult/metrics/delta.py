"""One number for all tasks: how much better a model is than single-task models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mult.errors import UserError
from mult.metrics.accumulator import Accumulator
from mult.metrics.boundary import Boundary
from mult.metrics.depth import Depth
from mult.metrics.normals import Normals
from mult.metrics.regression import Regression
from mult.metrics.saliency import Saliency
from mult.metrics.segmentation import Segmentation

Numbers = TypeVar("Numbers", float, NDArray[np.float64])

ACCUMULATORS: tuple[type[Accumulator], ...] = (Segmentation, Normals, Boundary, Saliency, Regression, Depth)
"""Those whose primary metric delta_m compares. Depth has all metrics of Regression among its own, so it comes after it."""


def delta_m(results: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, Any]:
    """How much better than `baseline` in percent, positive = better: {"delta_m": the mean, "terms": {task: percent}}.

    The mean over tasks of s (M - B) / B, s = -1 where lower is better (Maninis et al. 2019, Vandenhende et al. 2021).
    M is a task's primary metric, found by which accumulator has the metrics given. (CAGrad and Nash-MTL print the negative,
    over nine metrics.) Both arguments are {task: {metric: value}}, a value being a number or an evaluation's entry
    {"value": number, ...}; `baseline` holds the single-task models with the same encoder, and may hold more tasks.
    UserError, by name, for a task without a baseline or a value, or with a baseline of 0.
    """
    if not results:
        raise UserError('delta_m: got no task; expected {task: {metric: value}}; give the "tasks" of an evaluation')
    terms = {}
    for task, metrics in results.items():
        if task not in baseline:
            raise UserError(f"delta_m: {task}: got no baseline; expected one; evaluate its single-task model")
        accumulator = _find_accumulator(task, metrics)
        value = _read_value(f"{task} of the results", metrics, accumulator.PRIMARY)
        reference = _read_value(f"{task} of the baseline", baseline[task], accumulator.PRIMARY)
        if reference == 0:
            raise UserError(f"delta_m: {task}: got a baseline of 0; expected another value; leave the task out")
        terms[task] = relative_gain(value, reference, accumulator.METRICS[accumulator.PRIMARY][1])
    return {"delta_m": sum(terms.values()) / len(terms), "terms": terms}


def relative_gain(value: Numbers, reference: Numbers, better: str) -> Numbers:
    """How much better `value` is than `reference`, in percent of it, elementwise; better: "higher" or "lower"."""
    return 100 * (1 if better == "higher" else -1) * (value - reference) / reference


def _find_accumulator(task: str, metrics: Mapping[str, Any]) -> type[Accumulator]:
    """The accumulator that measured a task: the first whose primary metric is there and that has all the others."""
    names = {name for accumulator in ACCUMULATORS for name in accumulator.METRICS} & set(metrics)
    for accumulator in ACCUMULATORS:
        if accumulator.PRIMARY in names and names <= set(accumulator.METRICS):
            return accumulator
    primaries = [accumulator.PRIMARY for accumulator in ACCUMULATORS]
    raise UserError(
        f"delta_m: {task}: got metrics {sorted(metrics)}; expected a primary one, {primaries}, and those beside it; "
        "give the task's entries of an evaluation"
    )


def _read_value(where: str, metrics: Mapping[str, Any], metric: str) -> float:
    entry = metrics.get(metric)
    value = entry["value"] if isinstance(entry, Mapping) else entry
    if value is None or not math.isfinite(value):
        raise UserError(f"delta_m: {where}: got {value} for {metric}; expected a number; leave the task out of both")
    return float(value)
