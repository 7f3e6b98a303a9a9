"""Charts as SVG: points where the values are, ticks that are round, nothing that is not finite, everything escaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mult.draw.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, draw_chart, draw_key, place_ticks, thin
from mult.errors import UserError


def lines_of(svg: str) -> list[np.ndarray]:
    """The points of each polyline, (N, 2)."""
    return [
        np.array([[float(number) for number in point.split(",")] for point in element.attrib["points"].split()])
        for element in ElementTree.fromstring(svg).iter("polyline")
    ]


def test_points_lie_where_their_values_are() -> None:
    svg = draw_chart("t", "step", "loss", [Line("a", np.array([0.0, 30, 40]), np.array([2.0, 6, 4]))])
    (points,) = lines_of(svg)
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    expected = [(LEFT, TOP + down), (LEFT + 0.75 * across, TOP), (LEFT + across, TOP + down / 2)]
    np.testing.assert_allclose(points, expected, atol=0.06)


def test_lines_share_the_axes_and_levels_count() -> None:
    lines = [Line("a", np.array([0.0, 1]), np.array([0.0, 1])), Line("b", np.array([1.0, 2]), np.array([3.0, 4]), place=1)]
    svg = draw_chart("t", "x", "y", lines, [("constant", 8.0)])
    first, second = lines_of(svg)
    down = HEIGHT - TOP - BOTTOM
    np.testing.assert_allclose(first[:, 1], [TOP + down, TOP + down * 7 / 8], atol=0.06)
    np.testing.assert_allclose(second[:, 1], [TOP + down * 5 / 8, TOP + down / 2], atol=0.06)
    level = next(one for one in ElementTree.fromstring(svg).iter("line") if one.get("class") == "level")
    assert float(level.attrib["y1"]) == TOP
    strokes = re.findall(r'<polyline [^>]*stroke="(#\w+)" stroke-dasharray="([\d ]*)"', svg)
    assert len({colour for colour, _ in strokes}) == len({dash for _, dash in strokes}) == 2


def test_steps_are_heights_between_edges_on_a_ground_of_zero() -> None:
    (points,) = lines_of(draw_chart("t", "x", "y", [Line("a", np.array([0.0, 1, 4]), np.array([2.0, 1]), steps=True)]))
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    x = [LEFT, LEFT + across / 4, LEFT + across / 4, LEFT + across]
    np.testing.assert_allclose(points, np.stack([x, [TOP, TOP, TOP + down / 2, TOP + down / 2]], 1), atol=0.06)


def test_what_is_not_finite_is_a_gap_and_a_lone_point_a_dot() -> None:
    y = np.array([1.0, 2, np.nan, 3, np.inf, 5, 4])
    svg = draw_chart("t", "x", "y", [Line("a", np.arange(7.0), y)])
    assert [len(points) for points in lines_of(svg)] == [2, 1, 2]
    assert svg.count("<circle") == 1
    assert "nan" not in svg
    assert "inf" not in svg
    with pytest.raises(UserError, match=r"chart: got no point of empty; expected at least one; leave the chart out"):
        draw_chart("empty", "x", "y", [Line("a", np.arange(2.0), np.array([np.nan, np.nan]))])


def test_a_line_looks_as_its_place_in_the_legend_says() -> None:
    """Also where the lines before it are not there; and 36 look different."""
    look = re.compile(r'stroke="(#\w+)" (?:stroke-width="2" )?stroke-dasharray="([\d ]*)"')
    looks = look.findall(draw_key([f"run {place}" for place in range(36)]))
    assert len(set(looks)) == 36
    for place in (0, 2, 7):
        drawn = draw_chart("t", "x", "y", [Line("a", np.arange(2.0), np.arange(2.0), place=place)])
        assert look.findall(drawn) == [looks[place]]


def test_a_constant_is_drawn_in_the_middle() -> None:
    (points,) = lines_of(draw_chart("t", "x", "y", [Line("a", np.array([1.0, 2]), np.array([0.0, 0]))]))
    np.testing.assert_allclose(points[:, 1], TOP + (HEIGHT - TOP - BOTTOM) / 2, atol=0.06)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0.13, 0.62, [0.2, 0.4, 0.6]),
        (-3, 41, [0, 20, 40]),
        (0.00031, 0.00089, [0.0004, 0.0006, 0.0008]),
        (1000, 22000, [10000, 20000]),
        (0.55, 1.39, [0.6, 0.8, 1.0, 1.2]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert place_ticks(low, high) == pytest.approx(expected)


def test_long_curves_are_thinned_to_means_between_their_extremes() -> None:
    rng = np.random.default_rng(0)
    x, y = np.arange(1000.0), rng.normal(size=1000)
    means, heights, band = thin(x, y, limit=100)
    assert band is not None
    np.testing.assert_allclose(heights, y.reshape(100, 10).mean(1))
    np.testing.assert_allclose(means, x.reshape(100, 10).mean(1))
    assert np.array_equal(band[0], y.reshape(100, 10).min(1))
    assert np.array_equal(band[1], y.reshape(100, 10).max(1))
    assert thin(x[:100], y[:100], limit=100)[2] is None


def test_names_are_escaped() -> None:
    evil = "</text><script>alert('1')</script>\"&"
    svg = draw_chart(evil, evil, evil, [Line(evil, np.arange(2.0), np.arange(2.0))], [(evil, 0.5)])
    ElementTree.fromstring(svg)
    assert "<script" not in svg + draw_key([evil])
    assert ElementTree.fromstring(svg).attrib["aria-label"] == evil
