"""The largest matching of boundary pixels against exact assignment, on random maps and on lines that compete for partners."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mult.metrics.boundary import Matching, count_image

pytest.importorskip("scipy")
Array = NDArray[Any]
Assign = Callable[[Array, Array, float], int]


def draw(*rows: str) -> Array:
    return np.array([[place == "#" for place in row] for row in rows])


@pytest.mark.parametrize("seed", range(60))
def test_matching_of_random_maps_is_the_exact_assignment(seed: int, assign: Assign) -> None:
    generator = np.random.default_rng(seed)
    shape = generator.integers(1, 30, 2)
    predicted, truth = (generator.random(shape) < generator.uniform(0.02, 0.5) for _ in range(2))
    reach = generator.uniform(0, 5)
    assert Matching(truth, reach).count(predicted) == assign(predicted, truth, reach)


@pytest.mark.parametrize("reach", [1, 2, 4.3])
@pytest.mark.parametrize("thickness", [1, 2, 5])
@pytest.mark.parametrize("gap", [1, 2, 3, 7])
def test_matching_of_thick_and_parallel_lines_is_the_exact_assignment(
    reach: float, thickness: int, gap: int, assign: Assign
) -> None:
    """Lines that compete for the same partners along their whole length, with holes that let them shift."""
    predicted, truth = np.zeros((2, 25, 40), bool)
    truth[10 : 10 + thickness, 2:] = True
    predicted[10 - gap, :35] = predicted[10 + gap, ::2] = predicted[:, 20] = True
    truth[:, 7::11] = False
    for a, b in ((predicted, truth), (truth, predicted)):
        assert Matching(b, reach).count(a) == assign(a, b, reach)


def test_a_pixel_is_in_one_pair_only() -> None:
    truth = draw(".....", "..#..", ".....")
    predicted = draw(".#.#.", ".#.#.", ".###.")
    assert Matching(truth, 3).count(predicted) == 1
    assert Matching(predicted, 3).count(truth) == 1


def test_a_greedy_choice_is_taken_back() -> None:
    """The middle prediction is nearest to both truths, and each outer one has one partner."""
    truth = draw("..#.#..")
    predicted = draw("#..#...")
    assert Matching(truth, 2).count(predicted) == 2
    assert Matching(truth, 1).count(predicted) == 1


@pytest.mark.parametrize(("fraction", "step"), [(0.05, (3, 4)), (0.29, (20, 21)), (0.29, (0, 29)), (0.58, (40, 42))])
def test_a_distance_equal_to_the_limit_counts(fraction: float, step: tuple[int, int]) -> None:
    """The diagonal is 100, and 0.29 * 100 is less than 29 in floating point."""
    distance = math.hypot(*step)
    assert fraction * 100 == pytest.approx(distance, rel=1e-12)
    truth, predicted = np.zeros((2, 60, 80))
    truth[6, 10] = predicted[6 + step[0], 10 + step[1]] = 1
    for limit, expected in ((fraction, 1), (fraction * (1 - 1e-6), 0)):
        matched, counted, true = count_image(predicted, truth > 0, np.ones((60, 80), bool), limit, 9)
        assert (matched.tolist(), counted.tolist(), int(true)) == ([expected] * 9, [1] * 9, 1)


@pytest.mark.parametrize(("gap", "expected"), [(5, 40), (6, 0)])
def test_parallel_lines_at_the_limit_match_whole_and_beyond_it_not_at_all(gap: int, expected: int) -> None:
    truth, predicted = np.zeros((2, 60, 80))
    truth[20, 20:60] = predicted[20 + gap, 20:60] = 1
    matched, counted, _ = count_image(predicted, truth > 0, np.ones((60, 80), bool), 0.05, 9)
    assert (matched[4], counted[4]) == (expected, 40)


def test_matching_of_long_double_lines_is_the_exact_assignment(assign: Assign) -> None:
    """A surplus at one end, and partners for it at the other, 300 pixels away."""
    predicted, truth = np.zeros((2, 9, 400), bool)
    predicted[3:5], truth[4:6, 100:] = True, True
    predicted[:, ::97], truth[:, ::61] = False, False
    assert Matching(truth, 3).count(predicted) == assign(predicted, truth, 3)
