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
OnePixel = Callable[[Batch], Batch]
PixelsOf = Callable[[Batch], tuple[Array, Array]]
Accumulate = Callable[..., Accumulator]
AssertSame = Callable[..., None]
Score = Callable[..., float]


def reference_regression(p: Array, t: Array) -> dict[str, float | None]:
    return {"l1": float(np.abs(p - t).mean(1).mean()), "rmse": float(np.sqrt(((p - t) ** 2).mean(1).mean()))}


@pytest.mark.parametrize("seed", range(4))
def test_equals_numpy(seed: int, make_batch: MakeBatch, pixels_of: PixelsOf, assert_same: AssertSame) -> None:
    batch = make_batch("regression", seed)
    accumulator = Regression()
    accumulator.update(*batch)
    assert_same(accumulator.compute(), reference_regression(*pixels_of(batch)))
    assert accumulator.pixels == int(batch[2].sum())
    assert list(accumulator.compute()) == list(accumulator.METRICS)


def test_one_pixel(make_batch: MakeBatch, one_pixel: OnePixel, pixels_of: PixelsOf, assert_same: AssertSame) -> None:
    batch = one_pixel(make_batch("regression"))
    accumulator = Regression()
    accumulator.update(*batch)
    assert accumulator.pixels == 1
    assert_same(accumulator.compute(), reference_regression(*pixels_of(batch)))


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
