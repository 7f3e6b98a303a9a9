"""Normals against NumPy over all pixels at once, and what the angle and its median must withstand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mult.metrics import Accumulator, Normals

HALF_A_BIN = Normals.RESOLUTION_DEG / 2
Batch = tuple[Tensor, Tensor, Tensor]
Array = NDArray[Any]
MakeBatch = Callable[..., Batch]
PixelsOf = Callable[[Batch], tuple[Array, Array]]
Accumulate = Callable[..., Accumulator]
AssertEquals = Callable[..., None]


def reference_normals(p: Array, t: Array) -> dict[str, float | None]:
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(p, t), axis=1), (p * t).sum(1)))
    return {
        "mean": float(angle.mean()),
        "median": float(np.median(angle)),
        "rmse": float(np.sqrt((angle**2).mean())),
        **{f"within_{limit:g}": float((angle < limit).mean()) for limit in (11.25, 22.5, 30)},
    }


def test_equals_numpy(assert_equals: AssertEquals, pixels_of: PixelsOf) -> None:
    assert_equals(Normals, "normals", lambda batch: reference_normals(*pixels_of(batch)), HALF_A_BIN)


def directions(*vectors: tuple[float, float, float]) -> Tensor:
    """(1, 3, 1, N) in float64."""
    return torch.tensor(vectors, dtype=torch.float64).T.reshape(1, 3, 1, len(vectors))


def tilted(*angles_deg: float) -> Batch:
    """Predictions at these angles from a target askew to the axes."""
    axis, side = np.array([0.48, -0.6, -0.64]), np.array([0.64, 0.768, -0.24]) / np.linalg.norm([0.64, 0.768, -0.24])
    side = side - axis * (axis @ side)
    side /= np.linalg.norm(side)
    vectors = [tuple(axis * math.cos(a) + side * math.sin(a)) for a in np.radians(angles_deg)]
    target = directions(*[tuple(axis)] * len(vectors))
    return directions(*vectors), target, torch.ones(1, 1, 1, len(vectors), dtype=torch.bool)


@pytest.mark.parametrize("angle_deg", [1e-6, 1e-4, 0.3, 45.0, 90.0, 179.9999])
def test_angles_are_precise(angle_deg: float, accumulate: Accumulate) -> None:
    values = accumulate(Normals(), tilted(angle_deg)).compute()
    assert values["mean"] == pytest.approx(angle_deg, rel=1e-8)
    assert values["rmse"] == pytest.approx(angle_deg, rel=1e-8)
    assert values["median"] == pytest.approx(angle_deg, abs=Normals.RESOLUTION_DEG / 2)


def test_antiparallel_is_180_degrees(make_batch: MakeBatch, accumulate: Accumulate) -> None:
    _, target, valid = make_batch("normals")
    values = accumulate(Normals(), (-target, target, valid)).compute()
    assert values == {
        "mean": pytest.approx(180, abs=1e-12),
        "median": pytest.approx(180, abs=1e-12),
        "rmse": pytest.approx(180, abs=1e-12),
        "within_11.25": 0,
        "within_22.5": 0,
        "within_30": 0,
    }


def test_normals_whose_components_add_up_to_zero_count(accumulate: Accumulate) -> None:
    half = math.sqrt(0.5)
    target = directions((half, -half, 0), (0, 0, -1))
    prediction = directions((half, half, 0), (0, 0, -1))
    accumulator = accumulate(Normals(), (prediction, target, torch.ones(1, 1, 1, 2, dtype=torch.bool)))
    assert accumulator.pixels == 2
    assert accumulator.compute()["mean"] == pytest.approx(45)


def test_within_is_a_fraction_below_the_limit(accumulate: Accumulate) -> None:
    values = accumulate(Normals(), tilted(11.2499, 11.2501, 22.4999, 29.9999, 30.0001)).compute()
    assert [values[f"within_{limit}"] for limit in ("11.25", "22.5", "30")] == [1 / 5, 3 / 5, 4 / 5]


@pytest.mark.parametrize("angles_deg", [(10.0, 20.0), (3.0, 50.0, 4.0), (0.0, 0.0, 7.0, 90.0), (1.0004, 2.0, 1.0)])
def test_median_of_few(angles_deg: tuple[float, ...], accumulate: Accumulate) -> None:
    median = accumulate(Normals(), tilted(*angles_deg)).compute()["median"]
    assert median == pytest.approx(np.median(angles_deg), abs=Normals.RESOLUTION_DEG / 2 + 1e-9)


def test_median_is_within_its_stated_resolution_over_many_batches(
    make_batch: MakeBatch, accumulate: Accumulate, pixels_of: PixelsOf
) -> None:
    batches = [make_batch("normals", seed) for seed in range(20)]
    accumulator = accumulate(Normals(), *batches)
    (resolution,) = accumulator.notes.values()
    pixels = [pixels_of(batch) for batch in batches]
    expected = reference_normals(*(np.concatenate(arrays) for arrays in zip(*pixels, strict=True)))
    assert resolution <= 0.01
    assert accumulator.compute()["median"] == pytest.approx(expected["median"], abs=resolution / 2 + 1e-9)


def test_a_nonfinite_normal_shows(accumulate: Accumulate) -> None:
    prediction, target, valid = tilted(1.0, 2.0, 3.0)
    prediction[0, 0, 0, 1] = math.nan
    values = accumulate(Normals(), (prediction, target, valid)).compute()
    assert values["mean"] is not None
    assert math.isnan(values["mean"])
    assert values["within_30"] == 2 / 3
    assert values["median"] == pytest.approx(3.0)  # the broken one counts as the largest


def test_constant_normal_is_the_normalised_mean() -> None:
    values = F.normalize(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0, -1, -2]), dim=1)
    constants = Normals.fit_constants(values.double().numpy())
    assert constants.keys() == Normals.METRICS.keys()
    total = values.double().sum(0)
    for constant in constants.values():
        np.testing.assert_allclose(constant, total / total.norm())
