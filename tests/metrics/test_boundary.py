"""odsF against exact assignment, scikit-image's thinning, counts by hand, and edgeval's correspondPixels if it is installed."""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mult.errors import UserError
from mult.metrics import Accumulator, Boundary
from mult.metrics.boundary import count_image
from mult.metrics.thinning import suppress

ndimage = pytest.importorskip("scipy.ndimage")
Array = NDArray[Any]
Batch = tuple[Tensor, Tensor, Tensor]
Accumulate = Callable[..., Accumulator]
Assign = Callable[[Array, Array, float], int]


def make_image(seed: int, height: int = 44, width: int = 60) -> tuple[Array, Array]:
    """Probabilities (float32) of blurred lines, partly displaced, missing or invented, and the true lines."""
    generator = np.random.default_rng(seed)

    def outline(sigma: float) -> Array:
        side = ndimage.gaussian_filter(generator.normal(size=(height, width)), sigma) > 0
        return np.asarray(side ^ np.roll(side, 1, 0))

    truth, invented = outline(5), outline(4)
    moved = np.roll(truth, generator.integers(-1, 2, 2), (0, 1))
    strength = ndimage.gaussian_filter(generator.normal(size=(height, width)), 6) * 20
    logits = 12 * ndimage.gaussian_filter(moved * 1.0, 1) + 7 * ndimage.gaussian_filter(invented * 1.0, 1) + strength - 3
    return (1 / (1 + np.exp(-logits))).astype(np.float32), truth


def make_batch(seed: int, images: int = 2) -> Batch:
    """Invalid pixels are scattered, and have targets and predictions that are not numbers."""
    pairs = [make_image(10 * seed + i) for i in range(images)]
    probability, truth = (torch.from_numpy(np.stack(maps)).float()[:, None] for maps in zip(*pairs, strict=True))
    valid = torch.rand(probability.shape, generator=torch.Generator().manual_seed(seed)) < 0.98
    return probability.where(valid, math.nan), truth.where(valid, math.nan), valid


def everywhere(prediction: Array, truth: Array) -> Batch:
    """A batch of one image, all of it valid."""
    maps = torch.from_numpy(prediction.astype(np.float32)), torch.from_numpy(truth.astype(np.float32))
    return maps[0][None, None], maps[1][None, None], torch.ones(1, 1, *truth.shape, dtype=torch.bool)


def odsf(accumulator: Accumulator) -> float:
    value = accumulator.compute()["odsF"]
    assert value is not None
    return value


def reference_counts(probability: Array, truth: Array, max_distance: float, thresholds: int, assign: Assign) -> Array:
    """(matched, predicted) for each threshold, without what the metric shares between thresholds."""
    morphology = pytest.importorskip("skimage.morphology")
    maxima = suppress(probability, 0)
    rows = []
    for k in range(1, thresholds + 1):
        lines = morphology.thin(maxima >= k / (thresholds + 1))
        rows.append((assign(lines, truth, max_distance * math.hypot(*truth.shape)), int(lines.sum())))
    return np.array(rows).T


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("max_distance", [0.011, 0.05])
def test_counts_equal_exact_assignment_of_lines_thinned_by_scikit_image(seed: int, max_distance: float, assign: Assign) -> None:
    probability, truth = make_image(seed)
    matched, predicted, true = count_image(probability, truth, np.ones_like(truth), max_distance, 24)
    expected = reference_counts(probability, truth, max_distance, 24, assign)
    np.testing.assert_array_equal([matched, predicted], expected)
    assert true == truth.sum() > matched.max() > 0
    assert len(np.unique(matched)) > 8


def test_count_image_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(count_image)) is count_image


@pytest.mark.parametrize("seed", range(3))
def test_matching_is_never_below_correspond_pixels_of_edgeval_and_at_most_half_a_percent_above(seed: int) -> None:
    csa = pytest.importorskip("edgeval_cu.csa")
    probability, truth = make_image(seed, 120, 160)
    matched, predicted, _ = count_image(probability, truth, np.ones_like(truth), 0.011, 9)
    maxima = suppress(probability, 0)
    thin = pytest.importorskip("skimage.morphology").thin
    for k in range(9):
        lines = thin(maxima >= (k + 1) / 10)
        assert lines.sum() == predicted[k]
        theirs, of_truth, _, _ = csa.correspond_pixels(lines, truth, 0.011)
        assert np.count_nonzero(theirs) == np.count_nonzero(of_truth)
        assert np.count_nonzero(theirs) <= matched[k] <= 1.005 * np.count_nonzero(theirs) + 1


def test_the_best_threshold_is_one_for_the_whole_dataset(accumulate: Accumulate) -> None:
    """A line of 40 at 0.95 with a false one at 0.45; a line of 20 at 0.35 with a false one at 0.15.

    Apart, each image would have F = 1. Together: 60 matched of 100 at 0.1, 60 of 80 at 0.2, 60 of 80 at 0.3, 40 of 60 at
    0.4, 40 of 40 from 0.5 on, with 60 true: F = 60/80, 60/70, 60/70, 40/60 and 40/50.
    """
    first, second = np.zeros((2, 60, 80))
    first[20, 20:60], first[40, 20:40] = 0.95, 0.45
    second[20, 20:40], second[40, 20:40] = 0.35, 0.15
    truths = first > 0.9, second > 0.3
    batches = [everywhere(image, truth) for image, truth in zip((first, second), truths, strict=True)]
    both = accumulate(Boundary(0.011, 9), *batches)
    assert both.sums["matched"].tolist() == [60, 60, 60, 40, 40, 40, 40, 40, 40]
    assert both.sums["predicted"].tolist() == [100, 80, 80, 60, 40, 40, 40, 40, 40]
    assert both.compute() == {"odsF": pytest.approx(60 / 70)}
    assert both.notes == {
        "max_distance": 0.011,
        "thresholds": 9,
        "quick": True,
        "best_threshold": 0.2,
        "precision": 60 / 80,
        "recall": 1.0,
    }
    for batch in batches:
        assert accumulate(Boundary(0.011, 9), batch).compute() == {"odsF": 1}


def test_precision_and_recall_by_hand(accumulate: Accumulate) -> None:
    """30 of 50 true pixels are predicted one row off, and 20 pixels far away."""
    truth, predicted = np.zeros((2, 60, 80))
    truth[20, 20:70] = predicted[21, 20:50] = predicted[50, 20:40] = 1
    accumulator = accumulate(Boundary(0.0101), everywhere(predicted, truth))
    assert accumulator.compute() == {"odsF": pytest.approx(2 * 30 / (50 + 50))}
    notes = accumulator.notes
    assert (notes["precision"], notes["recall"], notes["quick"], notes["thresholds"]) == (30 / 50, 30 / 50, False, 99)
    assert accumulate(Boundary(0.0099), everywhere(predicted, truth)).compute() == {"odsF": 0}


@pytest.mark.parametrize("mirror", [np.transpose, np.flipud, np.fliplr])
@pytest.mark.parametrize("seed", range(3))
def test_a_mirrored_image_has_the_same_score(seed: int, mirror: Callable[[Array], Array], accumulate: Accumulate) -> None:
    """But for the few pixels that thinning takes from the other side of an even width."""
    probability, truth = make_image(seed, 90, 120)
    value = odsf(accumulate(Boundary(0.02, 24), everywhere(probability, truth)))
    mirrored = odsf(accumulate(Boundary(0.02, 24), everywhere(mirror(probability), mirror(truth))))
    assert mirrored == pytest.approx(value, abs=0.01)
    assert 0.3 < value < 1


def test_a_thick_prediction_is_thinned_and_a_thick_truth_is_not(accumulate: Accumulate) -> None:
    thick, thin = np.zeros((2, 60, 80))
    thick[19:22, 10:70] = thin[20, 10:70] = 1
    matched, predicted, true = count_image(thick, thin > 0, np.ones_like(thin, bool), 0.011, 1)
    assert predicted[0] == matched[0] > 56
    assert true == 60
    _, _, true = count_image(thin, thick > 0, np.ones_like(thin, bool), 0.011, 1)
    assert true == 180
    assert accumulate(Boundary(0.011), everywhere(thin, thick)).compute() == {"odsF": 2 * 60 / (60 + 180)}


def test_without_truth_there_is_no_score_and_without_prediction_it_is_zero(accumulate: Accumulate) -> None:
    line, nothing = np.zeros((2, 60, 80))
    line[20, 20:60] = 1
    empty = accumulate(Boundary(0.011), everywhere(nothing, nothing))
    assert empty.compute() == {"odsF": None}
    assert empty.pixels == 60 * 80
    assert empty.notes["best_threshold"] is empty.notes["precision"] is empty.notes["recall"] is None
    assert accumulate(Boundary(0.011), everywhere(line, nothing)).compute() == {"odsF": None}
    unseen = accumulate(Boundary(0.011), everywhere(nothing, line))
    assert unseen.compute() == {"odsF": 0}
    assert (unseen.notes["precision"], unseen.notes["recall"]) == (None, 0)
    # A false line in an image without truth costs precision.
    both = accumulate(Boundary(0.011), everywhere(line, nothing), everywhere(line, line))
    assert both.compute() == {"odsF": pytest.approx(2 * 40 / (80 + 40))}


def test_two_batches_equal_their_concatenation_and_a_merge(accumulate: Accumulate) -> None:
    first, second = make_batch(1), make_batch(2)
    both = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    whole, parts = Boundary(0.02, 9), accumulate(Boundary(0.02, 9), first, second)
    columns = whole.update(*both)
    merged = accumulate(Boundary(0.02, 9), first)
    merged.merge(accumulate(Boundary(0.02, 9), second))
    for name, amount in whole.sums.items():
        assert amount.dtype == torch.int64
        assert torch.equal(parts.sums[name], amount)
        assert torch.equal(merged.sums[name], amount)
        assert columns[name].dtype == np.int32
        np.testing.assert_array_equal(columns[name].sum(0), amount.numpy())
    assert sum(column[0].nbytes for column in columns.values()) == 8 * 9 + 8
    assert 0.1 < odsf(whole) < 1
    # Of sums with leading axes, as the bootstrap has them: each image, twice.
    doubled = {name: np.stack([column, 2 * column]).astype(np.float64) for name, column in columns.items()}
    apart = [odsf(accumulate(Boundary(0.02, 9), [part[i : i + 1] for part in both])) for i in range(4)]
    np.testing.assert_allclose(np.asarray(whole.divide(doubled)["odsF"]), np.array([apart, apart]))


def test_padding_and_what_is_predicted_in_it_change_nothing(accumulate: Accumulate) -> None:
    batch = make_batch(3)
    padded = [F.pad(part, (3, 12, 7, 0), value=value) for part, value in zip(batch, (0.9, 1.0, 0), strict=True)]
    sums, expected = (accumulate(Boundary(0.02, 9), each).sums for each in (padded, batch))
    for name, amount in expected.items():
        assert torch.equal(sums[name], amount), name


@pytest.mark.parametrize("value", [0.0, 1.0, -math.inf])
def test_nothing_at_an_invalid_pixel_matters(value: float, accumulate: Accumulate) -> None:
    prediction, target, valid = make_batch(4)
    other = prediction.where(valid, value), target.where(valid, value), valid
    sums, expected = (accumulate(Boundary(0.02, 9), each).sums for each in (other, (prediction, target, valid)))
    for name, amount in expected.items():
        assert torch.equal(sums[name], amount), name
    nowhere = accumulate(Boundary(0.02, 9), (prediction, target, torch.zeros_like(valid)))
    assert (nowhere.compute(), nowhere.pixels) == ({"odsF": None}, 0)


def test_the_quick_form_has_some_of_the_thresholds(accumulate: Accumulate) -> None:
    batch = make_batch(5, 1)
    full, quick = (accumulate(Boundary(0.02, thresholds), batch) for thresholds in (99, 24))
    for name in ("matched", "predicted"):
        assert torch.equal(quick.sums[name], full.sums[name][3::4])
    assert 0.95 * odsf(full) < odsf(quick) <= odsf(full)
    assert (quick.notes["quick"], full.notes["quick"]) == (True, False)


def test_no_constant_finds_much(accumulate: Accumulate) -> None:
    _, truth = make_image(0)
    constant = np.asarray(Boundary.fit_constants(truth.reshape(-1, 1))["odsF"])
    assert accumulate(Boundary(0.011, 9), everywhere(np.full(truth.shape, constant.item()), truth)).compute() == {"odsF": 0}
    for value in (0.3, 1.0):
        assert odsf(accumulate(Boundary(0.011, 9), everywhere(np.full(truth.shape, value), truth))) < 0.1


@pytest.mark.parametrize(("max_distance", "thresholds"), [(0.0, 99), (1.0, 99), (-0.1, 99), (0.011, 0)])
def test_settings_out_of_range_are_refused(max_distance: float, thresholds: int) -> None:
    with pytest.raises(UserError, match=r"Boundary: got max_distance .* thresholds; expected a fraction .*; the benchmarks"):
        Boundary(max_distance, thresholds)


def test_without_scipy_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UserError, match=r"Boundary: got no SciPy; .*; run: pip install \"mult-dense\[labels\]\""):
        Boundary(0.011)
