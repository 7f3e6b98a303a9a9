"""How far a number would move with other images: 95 % intervals by resampling images, or the buildings they come from.

Views of one building resemble each other, so where there are at least FEWEST_GROUPS buildings whole buildings are drawn;
below that the images themselves, as if they were independent. Sums are resampled, not metrics: each resample is a weighted
sum of what the units contributed, and goes through the accumulator's own division. All draws are a function of SEED and of
how many units there are, so two models on the same images see the same resamples, and differences can be taken pairwise.

The ends are percentiles of the resamples, further out than 2.5 % the fewer the units (Hesterberg 2015, "expanded"): plain
percentiles of n units are too narrow by a factor of sqrt((n - 1) / n) and know nothing of Student's t. Simulated (600 data
sets, tests/test_bootstrap.py): 95 % of the intervals hold the truth with 60 images, 93 % with 8 buildings, 92 % with 6, 90 %
with 5; of plain percentiles 94, 88, 86 and 82 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 0
FEWEST_GROUPS = 5
CHUNK = 2**22  # draws at a time, 32 MB of them

Array = NDArray[Any]


def units(groups: Sequence[str] | NDArray[np.str_]) -> tuple[str, NDArray[np.int64]]:
    """What is drawn, "buildings" or "images", and the number, from 0, of each image's unit."""
    names, unit_of = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    if len(names) >= FEWEST_GROUPS and "" not in names:
        return "buildings", unit_of
    return "images", np.arange(len(groups))


def resample(columns: Mapping[str, Array], unit_of: NDArray[np.int64]) -> dict[str, Array]:
    """Sums of each image {sum: (images, ...)} -> sums of each resample {sum: (RESAMPLES, ...)}, float64."""
    number = int(unit_of.max()) + 1
    order = np.argsort(unit_of, kind="stable")
    starts = np.searchsorted(unit_of[order], np.arange(number))
    by_unit = {
        name: np.add.reduceat(column[order].astype(np.float64), starts, axis=0).reshape(number, -1)
        for name, column in columns.items()
    }
    parts: dict[str, list[Array]] = {name: [] for name in columns}
    generator = np.random.default_rng(SEED)
    size = max(1, CHUNK // number)
    for start in range(0, RESAMPLES, size):
        rows = min(size, RESAMPLES - start)
        drawn = generator.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number).astype(np.float64)
        for name, sums in by_unit.items():
            parts[name].append(times @ sums)
    return {name: np.concatenate(parts[name]).reshape(RESAMPLES, *column.shape[1:]) for name, column in columns.items()}


def interval(values: Array, number: int) -> list[float] | None:
    """The 95 % interval [low, high] of a metric's resamples (RESAMPLES,) over `number` units.

    Resamples that leave the metric undefined are left out; None where all do, or where there is one unit.
    """
    defined = values[np.isfinite(values)]
    if number < 2 or not len(defined):
        return None
    z = NormalDist().inv_cdf(0.975)
    tail = NormalDist().cdf(-math.sqrt(number / (number - 1)) * _student(z, number - 1))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return [float(low), float(high)]


def _student(z: float, freedom: int) -> float:
    """Student's t where the normal distribution has z: exact for one and two degrees of freedom, else within 0.2 %.

    The expansion is Abramowitz and Stegun's 26.7.5.
    """
    if freedom == 1:
        return math.tan(math.pi * (NormalDist().cdf(z) - 0.5))
    if freedom == 2:
        p = 2 * NormalDist().cdf(z) - 1
        return p * math.sqrt(2 / (1 - p * p))
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
