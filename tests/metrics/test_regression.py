"""Regression against NumPy over all pixels at once, torchmetrics, and brute force for the constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.metrics import Accumulator, Regression

Batch = tuple[Tensor, Tensor, Tensor]
Array = NDArray[Any]
MakeBatch = Callable[..., Batch]
PixelsOf = Callable[[Batch], tuple[Array, Array]]
Accumulate = Callable[..., Accumulator]
AssertEquals = Callable[..., None]
Score = Callable[..., float]


def reference_regression(p: Array, t: Array) -> dict[str, float | None]:
    return {"l1": float(np.abs(p - t).mean(1).mean()), "rmse": float(np.sqrt(((p - t) ** 2).mean(1).mean()))}


def test_equals_numpy(assert_equals: AssertEquals, pixels_of: PixelsOf) -> None:
    assert_equals(Regression, "regression", lambda batch: reference_regression(*pixels_of(batch)))


def test_errors_equal_torchmetrics(make_batch: MakeBatch, accumulate: Accumulate, pixels_of: PixelsOf) -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    batch = make_batch("regression")
    values = accumulate(Regression(), batch).compute()
    prediction, target = (torch.from_numpy(array).contiguous() for array in pixels_of(batch))
    assert values["l1"] == pytest.approx(torchmetrics.MeanAbsoluteError()(prediction, target).item())
    assert values["rmse"] == pytest.approx(torchmetrics.MeanSquaredError(squared=False)(prediction, target).item())


@pytest.mark.parametrize("metric", Regression.METRICS)
def test_no_constant_regression_is_better(metric: str, score: Score) -> None:
    values = np.random.default_rng(0).gamma(1.0, 1.0, (80, 1))
    best = score(Regression(), Regression.fit_constants(values)[metric], values, metric)
    assert best >= max(score(Regression(), value, values, metric) for value in np.linspace(0, 5, 2001)) - 1e-12


def test_constants_of_several_channels_are_one_a_channel() -> None:
    values = np.random.default_rng(0).gamma(1.0, 1.0, (81, 3)) * [1.0, 10.0, 100.0]
    constants = Regression.fit_constants(values)
    np.testing.assert_array_equal(constants["l1"], np.sort(values, axis=0)[40])
    np.testing.assert_allclose(constants["rmse"], values.sum(0) / 81)
