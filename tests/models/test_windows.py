"""Cutting a map into windows against plain indexing, and the mask against what it means for pairs of tokens."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from mult.models.windows import Windows

LAYOUTS = {"paper": Windows.paper, "released": Windows.released}
SIZES = [(14, 21), (7, 7), (8, 15), (3, 5), (5, 16), (16, 5), (1, 1), (1, 9), (7, 8)]
CPU = torch.device("cpu")


def coordinates(windows: Windows) -> torch.Tensor:
    """(windows, N, 2): which token (row, column) of the padded map stands at each place, by plain arithmetic."""
    (height, width), (window_height, window_width) = windows.padded, windows.window
    places = []
    for top, left in product(range(0, height, window_height), range(0, width, window_width)):
        offsets = product(range(window_height), range(window_width))
        places.append([((top + i + windows.shift[0]) % height, (left + j + windows.shift[1]) % width) for i, j in offsets])
    return torch.tensor(places)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cut_takes_the_tokens_of_each_window_and_join_puts_them_back(layout: str, shifted: bool, size: tuple[int, int]) -> None:
    windows = LAYOUTS[layout](size, 7, shifted)
    tasks, batch, parts, heads, depth = 4, 2, 3, 4, 5
    tokens, padding = torch.randn(tasks, batch, *size, parts * heads * depth), torch.randn(tasks, parts * heads * depth)
    places = coordinates(windows)
    for maps, fill in product((1, 2, 4), (None, padding)):  # the tasks of a map lie side by side
        padded = torch.zeros(tasks, batch, *windows.padded, parts * heads * depth)
        padded += 0 if fill is None else fill[:, None, None, None]
        padded[:, :, : size[0], : size[1]] = tokens
        cut = windows.cut(tokens, parts, maps, heads, fill)
        shape = (parts, maps, batch * math.prod(windows.grid), heads, math.prod(windows.window), tasks // maps * depth)
        assert cut.shape == shape
        for part, task, image, window, head in product(*map(range, (parts, tasks, batch, len(places), heads))):
            start = (part * heads + head) * depth  # the layout of one Linear(C, 3C): q, k, v, then head, then channel
            expected = padded[task, image][places[window, :, 0], places[window, :, 1], start : start + depth]
            owner, place = divmod(task, tasks // maps)
            gathered = cut[part, owner, image * len(places) + window, head, :, place * depth : (place + 1) * depth]
            assert torch.equal(gathered, expected)
        for part in range(parts):
            channels = slice(part * heads * depth, (part + 1) * heads * depth)
            assert torch.equal(windows.join(cut[part], tasks), tokens[..., channels])


def test_paper_windows_shrink_to_a_smaller_map_and_do_not_shift_a_side_that_one_window_covers() -> None:
    assert (Windows.paper((3, 5), 7, True).window, Windows.paper((3, 5), 7, True).shift) == ((3, 5), (0, 0))
    assert (Windows.paper((5, 16), 7, True).window, Windows.paper((5, 16), 7, True).shift) == ((5, 7), (0, 3))
    assert Windows.paper((7, 8), 7, True).shift == (0, 3)
    assert Windows.paper((14, 14), 7, True).shift == (3, 3)
    assert Windows.paper((14, 14), 7, False).shift == (0, 0)
    assert Windows.paper((16, 16), 8, True).shift == (4, 4)
    assert Windows.paper((5, 16), 7, True).padded == (5, 21)


def test_released_windows_are_full_and_always_shift() -> None:
    for size in [(3, 5), (7, 7), (5, 16)]:
        windows = Windows.released(size, 7, True)
        assert (windows.window, windows.shift) == ((7, 7), (3, 3))
        assert Windows.released(size, 7, False).shift == (0, 0)
    assert Windows.released((5, 16), 7, True).padded == (7, 21)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shifted", [False, True])
def test_paper_mask_lets_real_tokens_see_the_real_neighbours_of_their_window_alone(
    shifted: bool, size: tuple[int, int]
) -> None:
    windows = Windows.paper(size, 7, shifted)
    mask = windows.mask(CPU)
    places = coordinates(windows)
    n = places.shape[1]
    barrier = torch.zeros(len(places), n, n) if mask is None else mask
    assert not barrier.isnan().any()
    assert barrier.softmax(-1).isfinite().all(), "an empty row would make NaN"

    # Windows of the shifted grid on the unrolled map: a token belongs to cell floor((position - shift) / window) a side,
    # the part before the first cut (-1) being a cell of its own.
    def cell(row: int, column: int) -> tuple[int, int]:
        return (row - windows.shift[0]) // windows.window[0], (column - windows.shift[1]) // windows.window[1]

    for index, window in enumerate(places.tolist()):
        real = [row < size[0] and column < size[1] for row, column in window]
        for i, query in enumerate(window):
            if real[i]:
                allowed = [real[j] and cell(*query) == cell(*key) for j, key in enumerate(window)]
                assert [value == 0 for value in barrier[index, i].tolist()] == allowed
                assert all(value in (0, -math.inf) for value in barrier[index, i].tolist())


@pytest.mark.parametrize("size", SIZES)
def test_released_mask_is_that_of_swin_on_the_padded_size(size: tuple[int, int]) -> None:
    windows = Windows.released(size, 7, True)
    height, width = windows.padded
    # Swin: nine regions of the rolled map, numbered; a pair of different numbers gets -100.
    region = torch.zeros(height, width)
    cuts = (slice(0, -7), slice(-7, -3), slice(-3, None))
    for number, (rows, columns) in enumerate(product(cuts, cuts)):
        region[rows, columns] = number
    cells = region.view(height // 7, 7, width // 7, 7).transpose(1, 2).reshape(-1, 49)
    expected = torch.where(cells[:, None] == cells[:, :, None], 0.0, -100.0)
    mask = windows.mask(CPU)
    assert mask is not None
    assert torch.equal(mask, expected)
    assert Windows.released(size, 7, False).mask(CPU) is None, "padding is attended to like any token"


def test_no_mask_where_every_pair_may_see_each_other() -> None:
    for size in [(14, 21), (7, 7), (3, 5), (1, 1)]:
        assert Windows.paper(size, 7, False).mask(CPU) is None
    assert Windows.paper((3, 5), 7, True).mask(CPU) is None
    assert Windows.paper((8, 15), 7, False).mask(CPU) is not None
