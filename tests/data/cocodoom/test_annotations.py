"""Masks of COCO's three kinds, against loops over pixels and strings written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mult.data.cocodoom.annotations import decompress_runs, mask_of_polygon, mask_of_runs, runs_of_mask
from mult.errors import UserError

Array = NDArray[Any]


def drawn(text: str) -> Array:
    return np.array([[pixel == "#" for pixel in line] for line in text.split()])


def inside(points: list[tuple[float, float]], height: int, width: int) -> Array:
    """The even-odd rule, pixel by pixel: a ray to the right from the centre crosses the outline an odd number of times."""
    mask = np.zeros((height, width), np.bool_)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
                if (y1 <= y) != (y2 <= y) and x1 + (y - y1) * (x2 - x1) / (y2 - y1) > x:
                    mask[row, column] ^= True
    return mask


def test_rectangle_covers_the_pixels_between_its_sides() -> None:
    mask = mask_of_polygon(np.array([2, 1, 5, 1, 5, 3, 2, 3]), 5, 7)
    assert np.array_equal(mask, drawn("....... ..###.. ..###.. ....... ......."))


@pytest.mark.parametrize("seed", range(6))
def test_polygon_is_what_the_even_odd_rule_says(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = generator.uniform(-4, 24, (int(generator.integers(3, 9)), 2)).round(1) + 0.03  # beyond the image too
    expected = inside([(float(x), float(y)) for x, y in points], 13, 19)
    mask = mask_of_polygon(points.ravel(), 13, 19)
    assert mask.shape == (13, 19)
    assert np.array_equal(mask, expected)
    assert 0 < expected.sum() < expected.size


def test_runs_go_down_the_columns() -> None:
    picture = "#..# #..# ..##"
    lengths = [0, 2, 6, 1, 0, 3]
    assert np.array_equal(mask_of_runs(np.array(lengths), 3, 4), drawn(picture))
    assert runs_of_mask(drawn(picture)) == [0, 2, 6, 4]
    assert runs_of_mask(drawn("..# .#. ...")) == [4, 1, 1, 1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_runs_of_a_mask_give_it_back(seed: int) -> None:
    mask = np.random.default_rng(seed).random((5, 8)) < 0.5
    assert np.array_equal(mask_of_runs(np.array(runs_of_mask(mask)), 5, 8), mask)


def compressed(lengths: list[int]) -> str:
    """COCO's writer, by its description: differences to the length before the last, in groups of 5 bits, lowest first."""
    text = ""
    for place, length in enumerate(lengths):
        value = length - lengths[place - 2] if place > 2 else length
        while True:
            bits = value & 31
            value >>= 5  # of a negative number too: it ends at -1
            is_last = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if is_last else 32))
            if is_last:
                break
    return text


def test_compressed_runs_written_by_hand() -> None:
    # 6, 1, 40 = 8 + 1 * 32, then 4 - 1 = 3, then 2 - 40 = -38 = -2 * 32 + 26
    assert decompress_runs("61" + chr(48 + 8 + 32) + "1" + "3" + chr(48 + 26 + 32) + chr(48 + 30)).tolist() == [6, 1, 40, 4, 2]


@pytest.mark.parametrize(
    "lengths", [[7], [0, 9], [12, 1, 300, 5, 3, 64000, 1, 1], [15, 16, 31, 32, 33, 1, 1023, 1024, 0, 5000, 7, 2]]
)
def test_compressed_runs(lengths: list[int]) -> None:
    assert decompress_runs(compressed(lengths)).tolist() == lengths


@pytest.mark.parametrize("text", ["", "6" + chr(48 + 40), "6!", "P" * 12 + "1"])
def test_damaged_compressed_runs(text: str) -> None:
    with pytest.raises(UserError, match="a damaged compressed mask"):
        decompress_runs(text)
