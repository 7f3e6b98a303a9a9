"""Intervals: the draws against a plain loop, Student's t against tables, coverage by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mult.evaluation import bootstrap
from mult.metrics import Accumulator, Normals, Regression, Segmentation


def test_resamples_are_sums_over_whole_units() -> None:
    """Each resample, drawn again here by the same generator, is the sum over its units' images."""
    rng = np.random.default_rng(1)
    units = bootstrap.Units("buildings", np.array([2, 0, 1, 0, 2, 2, 3]))
    columns: dict[str, Any] = {"a": rng.integers(0, 1000, 7).astype(np.int32), "b": rng.normal(size=(7, 2, 3))}
    drawn = bootstrap.resample(columns, units)
    assert drawn["a"].shape == (bootstrap.RESAMPLES,)
    assert drawn["b"].shape == (bootstrap.RESAMPLES, 2, 3)
    draws = np.random.default_rng(bootstrap.SEED).integers(4, size=(bootstrap.RESAMPLES, 4))
    for row in (0, 1, 777, bootstrap.RESAMPLES - 1):
        images = np.concatenate([np.flatnonzero(units.of_image == unit) for unit in draws[row]])
        assert drawn["a"][row] == columns["a"][images].sum()
        np.testing.assert_allclose(drawn["b"][row], columns["b"][images].sum(0))


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, units = {"a": np.arange(9.0) ** 2}, bootstrap.Units("images", np.arange(9))
    at_once = bootstrap.resample(columns, units)["a"]
    monkeypatch.setattr(bootstrap, "MAX_DRAWS", 9 * 7)
    np.testing.assert_array_equal(bootstrap.resample(columns, units)["a"], at_once)


def test_buildings_are_drawn_where_there_are_enough() -> None:
    units = bootstrap.assign_units(["b", "a", "b", "c", "e", "d"])
    assert (units.kind, units.of_image.tolist(), units.number) == ("buildings", [1, 0, 1, 2, 4, 3], 5)
    assert bootstrap.assign_units(["b", "a", "b", "c", "d"]).kind == "images"  # four are too few
    units = bootstrap.assign_units(["a", "b", "c", "d", "e", ""])  # the building of one image is unknown
    assert (units.kind, units.of_image.tolist()) == ("images", [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (7, 2.3646), (29, 2.0452), (1000, 1.9623)]
)
def test_student_as_in_tables(freedom: int, t: float) -> None:
    assert bootstrap._student_t(1.959964, freedom) == pytest.approx(t, rel=2e-3)


def test_one_unit_or_nothing_defined_has_no_interval() -> None:
    values = np.arange(bootstrap.RESAMPLES, dtype=np.float64)
    assert bootstrap.estimate_interval(values, 1) is None
    assert bootstrap.estimate_interval(np.full(bootstrap.RESAMPLES, np.nan), 9) is None
    half = np.where(np.arange(len(values)) % 2, values, np.nan)
    assert bootstrap.estimate_interval(half, 500) == pytest.approx(bootstrap.estimate_interval(values, 500), abs=3)
    low, high = bootstrap.estimate_interval(values, 10**6) or (0, 0)
    assert (low, high) == pytest.approx((0.025 * len(values), 0.975 * len(values)), abs=1.5)
    few = bootstrap.estimate_interval(values, 5) or (0, 0)
    assert few[0] < low < high < few[1]


def coverage(kind: str, images: int, buildings: int, trials: int) -> float:
    """How often the interval has the truth: images of a building share an effect, and count by their number of pixels."""
    inside = 0
    accumulator: Accumulator = Regression() if kind == "mean" else Segmentation(2)
    for trial in range(trials):
        rng = np.random.default_rng([trial, images, buildings])
        building = np.arange(images) % buildings
        pixels = rng.integers(50, 400, images)
        level = np.exp(rng.normal(0, 0.3, buildings))[building] * np.exp(rng.normal(0, 0.3, images))
        groups = [f"{b:03}" for b in building] if buildings < images else [""] * images
        units = bootstrap.assign_units(groups)
        assert units.kind == ("buildings" if buildings < images else "images")
        if kind == "mean":
            columns = {"pixels": pixels, "absolute": pixels * level, "squared": pixels * level**2}
            metric, truth = "l1", float(np.exp(0.09))
        else:  # a fraction of pixels, the same formula with other sums
            hits = rng.binomial(pixels, np.clip(0.5 * level / np.exp(0.09), 0, 1))
            columns = {"pixels": pixels, "hits": np.stack([hits, 0 * hits], 1)}
            columns |= {"target": np.stack([pixels, 0 * pixels], 1), "predicted": columns["hits"]}
            metric, truth = "pixel_accuracy", TRUE_ACCURACY
        resampled = accumulator.divide(bootstrap.resample(columns, units))[metric]
        low, high = bootstrap.estimate_interval(resampled, units.number) or (np.nan, np.nan)
        inside += low <= truth <= high
    return inside / trials


TRUE_ACCURACY = float(
    np.clip(0.5 * np.exp(np.random.default_rng(0).normal(0, 0.3 * np.sqrt(2), 10**6)) / np.exp(0.09), 0, 1).mean()
)


@pytest.mark.parametrize("kind", ["mean", "fraction"])
@pytest.mark.parametrize(("images", "buildings", "least"), [(60, 60, 0.92), (64, 8, 0.89), (60, 5, 0.855)])
def test_coverage_is_near_95_percent(
    kind: str, images: int, buildings: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 simulated data sets have a standard error of 1.3 %. Plain percentiles would miss the last two bounds."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 500)
    assert least <= coverage(kind, images, buildings, trials=300) <= 0.985


def test_naive_intervals_over_images_would_miss_buildings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same data with images drawn as if independent: that is why buildings are drawn."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 500)
    monkeypatch.setattr(bootstrap, "MIN_BUILDINGS", 0)
    right = coverage("mean", 160, 8, trials=150)
    monkeypatch.setattr(bootstrap, "assign_units", lambda buildings: bootstrap.Units("buildings", np.arange(len(buildings))))
    assert coverage("mean", 160, 8, trials=150) < right - 0.15


@pytest.mark.parametrize(
    ("interval", "higher", "lower"),
    [((0.1, 0.2), "better", "worse"), ((-0.2, -0.1), "worse", "better"), ((-0.1, 0.2), "", ""), (None, "", "")],
)
def test_a_difference_is_judged_where_its_interval_excludes_0(
    interval: tuple[float, float] | None, higher: str, lower: str
) -> None:
    assert bootstrap.judge_difference(interval, "higher") == higher
    assert bootstrap.judge_difference(interval, "lower") == lower


def test_the_median_of_a_coarse_histogram_is_that_of_the_angles() -> None:
    """Half a degree a bin, and still within a fiftieth of one: a bin is taken as evenly filled."""
    angle = np.random.default_rng(0).gamma(2.0, 9.0, 20000).clip(0, 180)
    counted = np.bincount(np.round(angle / Normals.COARSE_DEG).astype(int), minlength=361)
    sums = {name: np.ones(()) for name in ("pixels", "angle", "squared", *Normals.LIMITS_DEG)}
    got = Normals().divide({**sums, "histogram": counted})["median"]
    assert float(got) == pytest.approx(np.median(angle), abs=0.02)
