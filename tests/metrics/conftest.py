"""Random batches for the metrics, and what their tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mult.metrics import Accumulator

BATCH, HEIGHT, WIDTH = 4, 6, 9
Batch = tuple[Tensor, Tensor, Tensor]
Array = NDArray[Any]


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """Random prediction, target and valid of a kind of metric; invalid targets hold what the data contract says, 0 or 255."""

    def make(kind: str, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        valid = torch.rand(BATCH, 1, HEIGHT, WIDTH, generator=generator) < 0.7
        if kind == "segmentation":  # class 3 is nowhere, class 4 in the prediction alone
            target = torch.randint(3, (BATCH, HEIGHT, WIDTH), generator=generator).masked_fill(~valid[:, 0], 255)
            prediction = torch.randint(4, (BATCH, HEIGHT, WIDTH), generator=generator)
            return prediction.masked_fill(prediction == 3, 4), target, valid
        channels = {"depth": 1, "normals": 3, "regression": 2}[kind]
        prediction, target = torch.randn(2, BATCH, channels, HEIGHT, WIDTH, generator=generator)
        if kind == "normals":
            target = F.normalize(target, dim=1)
            prediction = F.normalize(target + 0.4 * prediction, dim=1)
        if kind == "depth":
            target = target.abs() + 0.1
            prediction = target * (0.4 * prediction).exp()
        return prediction, target.where(valid, 0.0), valid

    return make


@pytest.fixture(scope="session")
def accumulate() -> Callable[..., Accumulator]:
    """The accumulator, after it has seen these batches."""

    def update(accumulator: Accumulator, *batches: Batch) -> Accumulator:
        for batch in batches:
            accumulator.update(*batch)
        return accumulator

    return update


@pytest.fixture(scope="session")
def pixels_of() -> Callable[[Batch], tuple[Array, Array]]:
    """The valid pixels of a batch's prediction and target, class ids (N,) or float64 (N, C)."""

    def select(batch: Batch) -> tuple[Array, Array]:
        prediction, target, valid = (tensor.numpy() for tensor in batch)
        if target.ndim == 3:
            return prediction[valid[:, 0]], target[valid[:, 0]]
        pixels = [np.moveaxis(values, 1, -1)[valid[:, 0]].astype(np.float64) for values in (prediction, target)]
        return pixels[0], pixels[1]

    return select


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """Two {metric: value or None} agree in their names and, but for the rounding of sums, in their values."""

    def check(got: dict[str, float | None], expected: dict[str, float | None], median: float = 0) -> None:
        assert got.keys() == expected.keys()
        for metric, value in expected.items():
            tolerance = median if metric == "median" else 0
            assert got[metric] == (None if value is None else pytest.approx(value, rel=1e-6, abs=tolerance)), metric

    return check


@pytest.fixture(scope="session")
def assert_equals(make_batch: Callable[..., Batch], assert_same: Callable[..., None]) -> Callable[..., None]:
    """An accumulator agrees with a reference, {metric: value} of a batch, on random batches and on a single pixel."""

    def check(make: Callable[[], Accumulator], kind: str, reference: Callable[[Batch], Any], median: float = 0) -> None:
        prediction, target, valid = make_batch(kind)
        one_pixel = torch.zeros_like(valid)
        one_pixel[tuple(valid.nonzero()[7].tolist())] = True
        for batch in [*(make_batch(kind, seed) for seed in range(4)), (prediction, target, one_pixel)]:
            accumulator = make()
            accumulator.update(*batch)
            assert_same(accumulator.compute(), reference(batch), median)
            assert accumulator.pixels == int(batch[2].sum())
            assert list(accumulator.compute()) == list(accumulator.METRICS)

    return check


@pytest.fixture(scope="session")
def score() -> Callable[..., float]:
    """The metric, negative where lower is better, of a constant prediction of training pixels (N,) or (N, C)."""

    def measure(accumulator: Accumulator, constant: Any, values: Array, metric: str) -> float:
        target = torch.from_numpy(np.ascontiguousarray(values.T)).reshape(1, *values.shape[1:], 1, len(values))
        fill = torch.as_tensor(constant, dtype=target.dtype).reshape(1, *values.shape[1:], 1, 1)
        accumulator = accumulator.restrict([metric])
        accumulator.update(fill.expand_as(target), target, torch.ones(1, 1, 1, len(values), dtype=torch.bool))
        value = accumulator.compute()[metric]
        assert value is not None
        return value if accumulator.METRICS[metric][1] == "higher" else -value

    return measure


@pytest.fixture(scope="session")
def assign() -> Callable[[Array, Array, float], int]:
    """The size of the largest one-to-one matching of two maps' pixels at most `reach` apart, by assignment over all pairs."""
    optimize = pytest.importorskip("scipy.optimize")

    def count(predicted: Array, truth: Array, reach: float) -> int:
        a, b = np.argwhere(predicted), np.argwhere(truth)
        near = ((a[:, None] - b[None]) ** 2).sum(-1) <= round(reach**2, 6)
        rows, columns = optimize.linear_sum_assignment(near, maximize=True)
        return int(near[rows, columns].sum())

    return count
