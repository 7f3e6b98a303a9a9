"""delta_m: golden values, what it takes, and what it refuses by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from mult import metrics
from mult.errors import UserError
from mult.metrics import Accumulator, Depth, Normals, Regression, Segmentation, delta_m
from mult.metrics.delta import ACCUMULATORS

MakeBatch = Callable[..., tuple[Tensor, Tensor, Tensor]]
Accumulate = Callable[..., Accumulator]

BASELINE = {
    "parts": {"miou": 0.5, "pixel_accuracy": 0.9, "iou/chair": 0.1},
    "range": {"rmse": 2.0, "abs_rel": 0.1, "log10": 0.1, "delta1": 0.5, "delta2": 0.6, "delta3": 0.7, "l1": 1.0},
    "tilt": {"mean": 20.0, "median": 10.0, "rmse": 30.0, "within_11.25": 0.5, "within_22.5": 0.6, "within_30": 0.7},
    "shade": {"l1": 0.1, "rmse": 7.0},
}
RESULTS = {
    "parts": {"miou": 0.6, "pixel_accuracy": 0.1, "iou/chair": 0.9},  # +20 %
    "range": {
        "rmse": 1.5,
        "abs_rel": 9.0,
        "log10": 9.0,
        "delta1": 0.0,
        "delta2": 0.0,
        "delta3": 0.0,
        "l1": 9.0,
    },  # +25 %
    "tilt": {
        "mean": 22.0,
        "median": 1.0,
        "rmse": 1.0,
        "within_11.25": 1.0,
        "within_22.5": 1.0,
        "within_30": 1.0,
    },  # -10 %
    "shade": {"l1": 0.15, "rmse": 1.0},  # -50 %
}


def as_evaluation(results: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    return {
        task: {metric: {"value": value, "unit": "", "trivial": 1.0, "pixels": 3} for metric, value in metrics.items()}
        for task, metrics in results.items()
    }


@pytest.mark.parametrize("results", [RESULTS, as_evaluation(RESULTS)], ids=["numbers", "entries"])
@pytest.mark.parametrize("baseline", [BASELINE, as_evaluation(BASELINE)], ids=["numbers", "entries"])
def test_delta_m_golden(results: Any, baseline: Any) -> None:
    compared = delta_m(results, baseline)
    assert compared["terms"] == pytest.approx({"parts": 20.0, "range": 25.0, "tilt": -10.0, "shade": -50.0})
    assert compared["delta_m"] == pytest.approx((20 + 25 - 10 - 50) / 4)


@pytest.mark.parametrize("accumulator", ACCUMULATORS)
def test_delta_m_knows_every_accumulator_by_its_metrics(accumulator: type[Accumulator]) -> None:
    results, baseline = dict.fromkeys(accumulator.METRICS, 0.5), dict.fromkeys(accumulator.METRICS, 0.25)
    results[accumulator.PRIMARY] = 1.0
    gain = 300.0 if accumulator.METRICS[accumulator.PRIMARY][1] == "higher" else -300.0
    assert delta_m({"task": results}, {"task": baseline})["terms"] == {"task": gain}


def test_delta_m_lists_every_accumulator() -> None:
    public = {value for value in vars(metrics).values() if isinstance(value, type) and issubclass(value, Accumulator)}
    assert set(ACCUMULATORS) == public - {Accumulator}


def test_delta_m_of_primary_metrics_alone_and_a_larger_baseline() -> None:
    primary = {"parts": "miou", "range": "rmse", "tilt": "mean"}
    results = {task: {metric: RESULTS[task][metric]} for task, metric in primary.items()}
    assert delta_m(results, BASELINE)["terms"] == pytest.approx({"parts": 20.0, "range": 25.0, "tilt": -10.0})


def test_delta_m_takes_what_the_accumulators_compute(make_batch: MakeBatch, accumulate: Accumulate) -> None:
    kinds = {"segmentation": Segmentation(5), "depth": Depth(), "normals": Normals(), "regression": Regression()}
    results = {kind: accumulate(accumulator, make_batch(kind)).compute() for kind, accumulator in kinds.items()}
    worse = {kind: {m: None if v is None else 2 * v for m, v in values.items()} for kind, values in results.items()}
    assert delta_m(results, worse)["terms"] == pytest.approx(
        {"segmentation": -50, "depth": 50, "normals": 50, "regression": 50}
    )


@pytest.mark.parametrize(
    ("results", "baseline", "message"),
    [
        ({}, BASELINE, "delta_m: got no task; expected .*; give"),
        (RESULTS, {k: v for k, v in BASELINE.items() if k != "tilt"}, "tilt: got no baseline; expected one; evaluate"),
        (RESULTS, {**BASELINE, "shade": {"rmse": 1.0}}, "shade of the baseline: got None for l1; expected a number"),
        (
            RESULTS,
            {**BASELINE, "parts": {"miou": {"value": None, "reason": "-"}}},
            "parts of the baseline: got None for miou",
        ),
        ({"tilt": {"mean": None}}, BASELINE, "tilt of the results: got None for mean"),
        ({"tilt": {"mean": math.nan}}, BASELINE, "tilt of the results: got nan for mean"),
        (RESULTS, {**BASELINE, "range": {"rmse": 0.0}}, "range: got a baseline of 0; expected another value; leave"),
        ({"tilt": {"median": 1.0}}, BASELINE, r"tilt: got metrics \['median'\]; expected a primary one, .*; give"),
    ],
)
def test_delta_m_refuses_by_name(results: Any, baseline: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        delta_m(results, baseline)
