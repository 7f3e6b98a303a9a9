"""Attention over the input: the window that a token sees, under the colours of its weights; the heads of a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from mult.draw import Scalar, TokenAttention, draw_attention_page
from mult.draw.attention import CELL, MARGIN, draw_window

FindPlaces = Callable[[np.ndarray, np.ndarray], list[tuple[int, int]]]


def make_attention() -> TokenAttention:
    """Five heads over a 6 x 8 map of which a token at (2, 5) sees 4 x 3 tokens; the image covers 5.5 x 8 of it."""
    rng = np.random.default_rng(3)
    visible = np.zeros((6, 8), bool)
    visible[1:5, 3:6] = True
    weights = rng.uniform(0.1, 1, (5, 6, 8)) ** 3 * visible
    weights /= weights.sum((1, 2), keepdims=True)
    return TokenAttention(16, weights, visible, (2, 5), (5.5, 8.0))


def make_scene() -> np.ndarray:
    """(3, 88, 128): every 16 x 16 block, a token of `make_attention`, has a gray of its own."""
    gray = np.random.default_rng(4).integers(0, 256, (6, 8)) / 255
    return np.broadcast_to(gray.repeat(16, 0).repeat(16, 1)[:88], (3, 88, 128)).astype(np.float32)


def test_attention_is_drawn_over_what_the_token_sees() -> None:
    attention, scene = make_attention(), make_scene()
    weights, limits = attention.weights[3], (0.0, float(attention.weights[3].max()))
    view = np.asarray(draw_window(Image.fromarray(np.uint8(scene * 255 + 0.5).transpose(1, 2, 0)), attention, weights, limits))
    assert abs(view.shape[0] / view.shape[1] - 4 / 3) < 0.02
    side = view.shape[0] / 4
    for row, column in np.argwhere(attention.visible):
        at = view[int((row - 1 + 0.5) * side), int((column - 3 + 0.5) * side)].astype(int)
        amount = weights[row, column] / limits[1]
        colour = Scalar("inferno").paint(np.array([[amount]]), None, (0, 1))[0, 0]
        expected = 0.7 * colour + 0.3 * round(float(scene[0, row * 16 + 8, column * 16 + 8]) * 255)
        np.testing.assert_allclose(at, expected, atol=1.5, err_msg=f"{row}, {column}")


def test_a_page_shows_the_heads_of_the_argument_on_one_scale(find_places: FindPlaces) -> None:
    attention, scene = make_attention(), make_scene()
    photo = Image.fromarray(np.uint8(scene * 255 + 0.5).transpose(1, 2, 0))

    def cell(weights: np.ndarray, high: float) -> np.ndarray:
        return np.asarray(draw_window(photo, attention, weights, (0.0, high)))

    mean, peaks = attention.weights.mean(0), attention.weights.max((1, 2))
    page = np.asarray(draw_attention_page(scene, "title", [attention], heads=[4, 1]))
    high = max(peaks[4], peaks[1], mean.max())
    found = [find_places(page, cell(weights, high)) for weights in (mean, attention.weights[4], attention.weights[1])]
    assert [len(one) for one in found] == [1, 1, 1]
    assert found[0][0][1] < found[1][0][1] < found[2][0][1]
    assert not find_places(page, cell(attention.weights[0], high))

    sharpest = sorted(np.argsort(-peaks)[:2].tolist())
    page = np.asarray(draw_attention_page(scene, "title", [attention], limit=2))
    high = max(peaks.max(), mean.max())
    for head in range(5):
        assert len(find_places(page, cell(attention.weights[head], high))) == (head in sharpest)

    page = np.asarray(draw_attention_page(scene, "title", [attention], heads=[7]))  # this stage has no such head
    assert find_places(page, cell(np.zeros_like(mean), mean.max()))


def test_what_is_noted_of_a_stage_stands_under_the_input() -> None:
    attention, scene = make_attention(), make_scene()
    plain, noted = (
        np.asarray(draw_attention_page(scene, "title", [stage], heads=[4, 1]))
        for stage in (attention, replace(attention, note="who leads"))
    )
    assert plain.shape == noted.shape
    rows, columns = np.nonzero((plain != noted).any(-1))
    assert len(rows) > 0
    assert columns.max() < MARGIN + CELL
    assert rows.min() > MARGIN + CELL
