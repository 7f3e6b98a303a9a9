"""Thinning against scikit-image, suppression against a loop over pixels, by hand, and against edgeval where it is installed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mult.metrics.thinning import BORDER, MARGIN, ORIENTATION_RADIUS, suppress, thin

ndimage = pytest.importorskip("scipy.ndimage")
Array = NDArray[Any]


def make_map(seed: int, height: int = 40, width: int = 57) -> NDArray[np.float64]:
    """Ridges of all widths and directions: values in [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = ndimage.gaussian_filter(noise, 1 + seed % 4)
    return np.asarray(1 / (1 + np.exp(-3 * smooth / smooth.std())))


@pytest.mark.parametrize("seed", range(12))
def test_thin_equals_scikit_image(seed: int) -> None:
    morphology = pytest.importorskip("skimage.morphology")
    probability = make_map(seed)
    for mask in (probability > 0.3, probability > 0.6, suppress(probability, 0.01) > 0.2):
        lines = thin(mask)
        assert 0 < lines.sum() < mask.sum()
        np.testing.assert_array_equal(lines, morphology.thin(mask))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (30, 40)])
@pytest.mark.parametrize("value", [True, False])
def test_thin_equals_scikit_image_on_full_and_empty_masks(shape: tuple[int, int], value: bool) -> None:
    morphology = pytest.importorskip("skimage.morphology")
    mask = np.full(shape, value)
    np.testing.assert_array_equal(thin(mask), morphology.thin(mask))
    assert mask.all() == value  # the argument is left as it was


def test_thin_of_a_thick_line_is_its_middle() -> None:
    mask = np.zeros((9, 20), bool)
    mask[3:6, 2:18] = True
    lines = thin(mask)
    assert lines.sum(0).max() == 1
    assert lines[4, 4:16].all()


def loop_suppress(values: Array) -> NDArray[np.float64]:
    """The definition, one pixel after the other."""
    height, width = values.shape
    r = ORIENTATION_RADIUS
    padded = np.pad(values, r, mode="symmetric")
    weights = [(r + 1 - abs(i)) / (r + 1) ** 2 for i in range(-r, r + 1)]
    smooth = np.array(
        [
            [
                sum(
                    weights[i] * weights[j] * padded[y + i, x + j]
                    for i in range(2 * r + 1)
                    for j in range(2 * r + 1)
                )
                for x in range(width)
            ]
            for y in range(height)
        ]
    )  # fmt: skip
    dy, dx = np.gradient(smooth)
    dyy, dxx, dyx = np.gradient(dy, axis=0), np.gradient(dx, axis=1), np.gradient(dy, axis=1)

    def at(y: float, x: float) -> float:
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        top = values[y0, x0] + (values[y0, x1] - values[y0, x0]) * (x - x0)
        bottom = values[y1, x0] + (values[y1, x1] - values[y1, x0]) * (x - x0)
        return float(top + (bottom - top) * (y - y0))

    kept = np.zeros_like(values)
    for y, x in np.ndindex(height, width):
        angle = math.atan((-dyy[y, x] if dyx[y, x] > 0 else dyy[y, x]) / (dxx[y, x] + 1e-5)) % math.pi
        step = math.sin(angle), math.cos(angle)
        around = max(at(y + step[0], x + step[1]), at(y - step[0], x - step[1]))
        if values[y, x] * MARGIN >= around:
            scale = min(BORDER, height // 2, width // 2)
            inside = [min(min(place, size - 1 - place) / scale, 1) for place, size in ((y, height), (x, width))]
            kept[y, x] = values[y, x] * inside[0] * inside[1]
    return kept


@pytest.mark.parametrize("seed", range(4))
def test_suppress_equals_a_loop(seed: int) -> None:
    values = make_map(seed, 19, 26)
    kept = suppress(values, 0)
    assert 0 < np.count_nonzero(kept) < 0.7 * kept.size
    np.testing.assert_allclose(kept, loop_suppress(values), atol=1e-12)


def test_values_below_the_least_become_zero_and_the_others_stay() -> None:
    values = make_map(1)
    everything, some = suppress(values, 0), suppress(values, 0.4)
    np.testing.assert_array_equal(some, np.where(values >= 0.4, everything, 0))
    assert 0 < np.count_nonzero(some) < np.count_nonzero(everything)


@pytest.mark.parametrize("slope", [0, 0.3, 1, -0.3, -1, 3, -3, math.inf])
def test_a_blurred_line_becomes_its_crest(slope: float) -> None:
    """At every angle, without gaps; the crest is found to half a pixel."""
    angle = math.atan(slope)
    y, x = np.mgrid[-30:31, -30:31]
    distance = np.abs(y * math.cos(angle) - x * math.sin(angle))
    kept = suppress(np.exp(-((distance / 3) ** 2)), 0.01)
    inner = (slice(8, -8), slice(8, -8))
    assert distance[inner][kept[inner] > 0].max() <= math.sqrt(0.5) + 1e-9
    along = kept[inner].max(axis=1 if abs(slope) > 1 else 0)
    assert (along > 0.9).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1)])
def test_a_map_one_pixel_wide_is_kept(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random(shape)
    np.testing.assert_array_equal(suppress(values, 0.5), np.where(values >= 0.5, values, 0))


@pytest.mark.parametrize("shape", [(2, 2), (2, 30), (3, 3), (9, 40)])
def test_small_maps_fade_to_zero_at_the_border(shape: tuple[int, int]) -> None:
    kept = suppress(np.ones(shape), 0)
    assert kept[0].max() == kept[-1].max() == kept[:, 0].max() == kept[:, -1].max() == 0
    assert kept.max() == (1 if min(shape) > 2 else 0)


@pytest.mark.parametrize("seed", range(4))
def test_suppress_equals_the_c_code_in_edgeval(seed: int) -> None:
    process, toolbox = (pytest.importorskip(f"edgeval_cu.{name}") for name in ("nms_process", "toolbox"))
    values = make_map(seed, 200, 311).astype(np.float32)
    x, y = toolbox.grad2(toolbox.conv_tri(values, ORIENTATION_RADIUS))
    xx, _ = toolbox.grad2(x)
    xy, yy = toolbox.grad2(y)
    angle = np.ascontiguousarray(np.arctan(yy * np.sign(-xy) / (xx + 1e-5)) % math.pi, np.float32)
    expected = np.zeros_like(values)
    pointers = [each.ctypes.data_as(process.c_float_pointer) for each in (expected, values, angle)]
    process.solver.nms(*pointers, 1, BORDER, MARGIN, values.shape[1], values.shape[0])
    kept = suppress(values, 0)
    differ = (kept > 0) != (expected > 0)
    assert differ.mean() < 1e-4  # near-ties that float32 decides otherwise
    np.testing.assert_allclose(kept[~differ], expected[~differ], atol=1e-6)
