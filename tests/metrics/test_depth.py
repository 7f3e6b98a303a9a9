"""Depth against NumPy over all pixels at once, torchmetrics, golden values, and brute force for the constants."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.metrics import Accumulator, Depth

IN_METRES = ("rmse", "abs_rel", "log10", "delta1", "delta2", "delta3", "l1")
ALL = torch.ones(1, 1, 1, 4, dtype=torch.bool)
Batch = tuple[Tensor, Tensor, Tensor]
Array = NDArray[Any]
MakeBatch = Callable[..., Batch]
PixelsOf = Callable[[Batch], tuple[Array, Array]]
Accumulate = Callable[..., Accumulator]
AssertEquals = Callable[..., None]
Score = Callable[..., float]


def reference_unitless(p: Array, t: Array) -> dict[str, float]:
    inside = np.array([[a > 0 and max(a / b, b / a) < 1.25**k for a, b in zip(p, t, strict=True)] for k in (1, 2, 3)])
    return {
        "abs_rel": float(np.mean(np.abs(p - t) / t)),
        "log10": float(np.mean(np.abs(np.log10(p[p > 0]) - np.log10(t[p > 0])))),
        **{f"delta{k}": float(inside[k - 1].mean()) for k in (1, 2, 3)},
    }


def reference_depth(images: list[tuple[Array, Array]]) -> dict[str, float | None]:
    """Of the pixels of each image, (N,), since alignment is by image."""
    images = [(p[t > 0].astype(np.float64), t[t > 0].astype(np.float64)) for p, t in images if (t > 0).any()]
    values: dict[str, float | None] = {}
    p, t = (np.concatenate(parts) for parts in zip(*images, strict=True))
    values |= {"rmse": float(np.sqrt(np.mean((p - t) ** 2))), "l1": float(np.mean(np.abs(p - t)))}
    values |= reference_unitless(p, t)
    scaled, fitted = [], []
    for prediction, truth in images:
        lower_median, true_median = (np.sort(pixels)[(len(pixels) - 1) // 2] for pixels in (prediction, truth))
        scaled.append(prediction * (true_median / lower_median) if lower_median > 0 else 0 * prediction)
        if len(prediction) > 1:
            slope, offset = np.linalg.lstsq(np.stack([prediction, np.ones_like(prediction)], axis=1), truth, rcond=None)[0]
            fitted.append(slope * prediction + offset)
        else:
            fitted.append(truth)
    for name, aligned in (("median_aligned/", scaled), ("lstsq_aligned/", fitted)):
        values |= {name + metric: value for metric, value in reference_unitless(np.concatenate(aligned), t).items()}
    return values


def reference(batch: Batch, pixels_of: PixelsOf) -> dict[str, float | None]:
    images = [pixels_of((p[None], t[None], v[None])) for p, t, v in zip(*batch, strict=True)]
    return reference_depth([(p[:, 0], t[:, 0]) for p, t in images])


def test_equals_numpy(assert_equals: AssertEquals, pixels_of: PixelsOf) -> None:
    assert_equals(Depth, "depth", lambda batch: reference(batch, pixels_of))


def row(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_depth_golden(accumulate: Accumulate) -> None:
    values = accumulate(Depth(), (row(1.0, 2.0, 5.0, 10.0), row(1.0, 4.0, 4.0, 1.0), ALL)).compute()
    assert {metric: values[metric] for metric in IN_METRES} == {
        "rmse": pytest.approx(math.sqrt((0 + 4 + 1 + 81) / 4)),
        "abs_rel": pytest.approx((0 + 0.5 + 0.25 + 9) / 4),
        "log10": pytest.approx((0 + math.log10(2) + math.log10(1.25) + 1) / 4),
        "delta1": 1 / 4,  # 5/4 is not below 1.25
        "delta2": 2 / 4,
        "delta3": 2 / 4,
        "l1": pytest.approx((0 + 2 + 1 + 9) / 4),
    }


@pytest.mark.parametrize("nothing", [0.0, -1.0, math.nan])
def test_depth_counts_only_positive_targets(nothing: float, accumulate: Accumulate) -> None:
    accumulator = accumulate(Depth(), (row(1.0, 2.0, 3.0, 5.0), row(1.0, nothing, 3.0, 4.0), ALL))
    assert accumulator.pixels == 3
    assert accumulator.compute()["l1"] == pytest.approx(1 / 3)


def test_nonpositive_depth_fails_deltas_and_is_left_out_of_log10(accumulate: Accumulate) -> None:
    accumulator = accumulate(Depth(), (row(0.0, -2.0, 2.0, 1.0), row(1.0, 2.0, 1.0, 1.0), ALL))
    values = accumulator.compute()
    assert accumulator.notes == {"nonpositive": 2}
    assert values["log10"] == pytest.approx(math.log10(2) / 2)
    assert (values["delta1"], values["delta3"]) == (1 / 4, 1 / 4)
    assert values["l1"] == pytest.approx((1 + 4 + 1 + 0) / 4)
    assert values["abs_rel"] == pytest.approx((1 + 2 + 1 + 0) / 4)


def test_log10_is_none_without_a_positive_prediction(accumulate: Accumulate) -> None:
    values = accumulate(Depth(), (row(0.0, -1.0, -2.0, 0.0), row(1.0, 2.0, 3.0, 4.0), ALL)).compute()
    assert values["log10"] is None
    assert [values[f"delta{k}"] for k in (1, 2, 3)] == [0, 0, 0]
    assert values["rmse"] == pytest.approx(math.sqrt((1 + 9 + 25 + 16) / 4))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_nonfinite_depth_shows(broken: float, accumulate: Accumulate) -> None:
    accumulator = accumulate(Depth(), (row(broken, 1.0, 1.0, 1.0), row(1.0, 1.0, 1.0, 1.0), ALL))
    values = accumulator.compute()
    assert accumulator.notes == {"nonpositive": 1}
    assert values["delta1"] == 3 / 4
    assert values["log10"] == 0
    assert values["rmse"] is not None
    assert not math.isfinite(values["rmse"])


def test_errors_equal_torchmetrics(make_batch: MakeBatch, accumulate: Accumulate, pixels_of: PixelsOf) -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    batch = make_batch("depth")
    values = accumulate(Depth(), batch).compute()
    prediction, target = (torch.from_numpy(array).contiguous() for array in pixels_of(batch))
    assert values["l1"] == pytest.approx(torchmetrics.MeanAbsoluteError()(prediction, target).item())
    assert values["rmse"] == pytest.approx(torchmetrics.MeanSquaredError(squared=False)(prediction, target).item())
    assert values["abs_rel"] == pytest.approx(torchmetrics.MeanAbsolutePercentageError()(prediction, target).item())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", IN_METRES)
def test_no_constant_depth_is_better(metric: str, seed: int, score: Score) -> None:
    rng = np.random.default_rng(seed)
    depth = np.concatenate([rng.lognormal(0.3, 0.3, 41), rng.uniform(2, 9, 60)])[:, None]
    constants = Depth.fit_constants(np.concatenate([depth, np.zeros((30, 1))]))  # depths of 0 do not count
    assert constants.keys() == Depth.METRICS.keys()
    best = score(Depth(), constants[metric], depth, metric)
    others = [score(Depth(), value, depth, metric) for value in np.linspace(0.2, 10, 400)]
    assert best >= max(others) - 1e-12
    assert best - min(others) > 0.1


@pytest.mark.parametrize("metric", sorted(Depth.METRICS.keys() - IN_METRES))
def test_aligned_constants_are_all_as_good(metric: str, score: Score) -> None:
    depth = np.random.default_rng(0).uniform(2, 9, (61, 1))
    scores = [score(Depth(), value, depth, metric) for value in (Depth.fit_constants(depth)[metric], 0.3, 700.0)]
    centre = np.median(depth) if metric.startswith("median") else depth.mean()
    reference = reference_unitless(np.full(61, centre), depth[:, 0])[metric.partition("/")[2]]
    assert scores == pytest.approx([reference if metric.endswith(("1", "2", "3")) else -reference] * 3)
