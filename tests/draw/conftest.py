"""What the tests of pictures share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def find_places() -> Callable[[np.ndarray, np.ndarray], list[tuple[int, int]]]:
    """`find_places(page, crop)`: every (y, x) where the page shows the crop exactly."""

    def find(page: np.ndarray, crop: np.ndarray) -> list[tuple[int, int]]:
        page, crop = (colours.astype(int) @ [65536, 256, 1] for colours in (page, crop))
        windows = np.lib.stride_tricks.sliding_window_view(page, crop.shape)
        candidates = (windows[:, :, 0, :4] == crop[0, :4]).all(-1) & (windows[:, :, -1, -4:] == crop[-1, -4:]).all(-1)
        return [(int(y), int(x)) for y, x in np.argwhere(candidates) if np.array_equal(windows[y, x], crop)]

    return find
