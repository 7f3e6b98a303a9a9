"""maxF against a loop over thresholds and pixels, by hand, and brute force for the constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.metrics import Accumulator, Saliency

Array = NDArray[Any]
Batch = tuple[Tensor, Tensor, Tensor]
Accumulate = Callable[..., Accumulator]
Score = Callable[..., float]


def make_batch(seed: int, images: int = 3) -> Batch:
    """Invalid pixels have targets and predictions that are not numbers; some probabilities are at a threshold, 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(images, 1, 13, 17, generator=generator) < 0.3).float()
    prediction = (torch.randn(target.shape, generator=generator) + 1.5 * target - 0.5).sigmoid()
    rounded = torch.rand(target.shape, generator=generator) < 0.3
    prediction = torch.where(rounded, (prediction * 256).round() / 256, prediction)
    prediction[0, 0, 0, :3] = torch.tensor([0.0, 1.0, 1.0])
    valid = torch.rand(target.shape, generator=generator) < 0.8
    return prediction.where(valid, math.nan), target.where(valid, math.nan), valid


def reference(*batches: Batch) -> tuple[float, float]:
    """(maxF, the threshold it is of), pixel by pixel."""
    pairs = [
        (p, t == 1)
        for prediction, target, valid in batches
        for p, t in zip(prediction[valid].tolist(), target[valid].tolist(), strict=True)
    ]
    best = (-1.0, 0.0)
    for k in range(1, 256):
        hits = sum(1 for p, t in pairs if p >= k / 256 and t)
        predicted = sum(1 for p, _ in pairs if p >= k / 256)
        truth = sum(1 for _, t in pairs if t)
        if hits:
            precision, recall = hits / predicted, hits / truth
            best = max(best, (1.3 * precision * recall / (0.3 * precision + recall), -k / 256))
    return best[0], -best[1]


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop(seed: int, accumulate: Accumulate) -> None:
    batches = make_batch(seed), make_batch(seed + 50, 1)
    accumulator = accumulate(Saliency(), *batches)
    value, threshold = reference(*batches)
    assert 0.3 < value < 1
    assert accumulator.compute() == {"maxF": pytest.approx(value, rel=1e-12)}
    assert accumulator.notes == {"best_threshold": threshold}
    assert accumulator.pixels == sum(int(valid.sum()) for _, _, valid in batches)


def test_by_hand(accumulate: Accumulate) -> None:
    """At 0.6: two of three predictions are right and one of three true pixels is missed; at 0.9: one of one, two missed."""
    prediction = torch.tensor([0.95, 0.7, 0.65, 0.3, 0.1]).view(1, 1, 1, 5)
    target = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0]).view(1, 1, 1, 5)
    accumulator = accumulate(Saliency(), (prediction, target, torch.ones(1, 1, 1, 5, dtype=torch.bool)))
    at_0_7 = 1.3 * 1 * (2 / 3) / (0.3 * 1 + 2 / 3)
    assert accumulator.compute() == {"maxF": pytest.approx(at_0_7)}
    assert accumulator.notes["best_threshold"] == 167 / 256  # the first above 0.65


def test_a_probability_equal_to_a_threshold_passes_it(accumulate: Accumulate) -> None:
    values = torch.tensor([k / 256 for k in range(257)]).view(1, 1, 1, -1)
    accumulator = accumulate(Saliency(), (values, torch.ones_like(values), torch.ones_like(values, dtype=torch.bool)))
    assert accumulator.sums["predicted"].tolist() == [257 - k for k in range(1, 256)]
    below = accumulate(Saliency(), (values.nextafter(torch.tensor(0.0)), torch.ones_like(values), values >= 0))
    assert below.sums["predicted"].tolist() == [256 - k for k in range(1, 256)]


def test_perfect_and_inverted(accumulate: Accumulate) -> None:
    _, target, valid = make_batch(0)
    target = target.nan_to_num(0)
    assert accumulate(Saliency(), (target, target, valid)).compute() == {"maxF": 1}
    assert accumulate(Saliency(), (1 - target, target, valid)).compute() == {"maxF": 0}


def test_without_truth_there_is_no_score_and_without_prediction_it_is_zero(accumulate: Accumulate) -> None:
    prediction, target, valid = make_batch(1)
    empty = accumulate(Saliency(), (prediction, torch.zeros_like(target), valid))
    assert empty.compute() == {"maxF": None}
    assert empty.notes == {"best_threshold": None}
    assert accumulate(Saliency(), (torch.zeros_like(prediction), target, valid)).compute() == {"maxF": 0}
    nowhere = accumulate(Saliency(), (prediction, target, torch.zeros_like(valid)))
    assert (nowhere.compute(), nowhere.pixels) == ({"maxF": None}, 0)


def test_two_batches_equal_their_concatenation_and_a_merge(accumulate: Accumulate) -> None:
    first, second = make_batch(1), make_batch(2)
    both = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    whole, parts, merged = Saliency(), accumulate(Saliency(), first, second), accumulate(Saliency(), first)
    columns = whole.update(*both)
    merged.merge(accumulate(Saliency(), second))
    for name, amount in whole.sums.items():
        assert amount.dtype == torch.int64
        assert torch.equal(parts.sums[name], amount)
        assert torch.equal(merged.sums[name], amount)
        assert columns[name].dtype == np.int32
        np.testing.assert_array_equal(columns[name].sum(0), amount.numpy())
    assert sum(column[0].nbytes for column in columns.values()) == 2048
    # Of sums with leading axes, as the bootstrap has them: each image, twice.
    doubled = {name: np.stack([column, 2 * column]).astype(np.float64) for name, column in columns.items()}
    apart = [accumulate(Saliency(), [part[i : i + 1] for part in both]).compute() for i in range(6)]
    expected = [each["maxF"] or math.nan for each in apart]
    np.testing.assert_allclose(np.asarray(whole.divide(doubled)["maxF"]), np.array([expected, expected]))


def test_padding_changes_nothing(accumulate: Accumulate) -> None:
    batch = make_batch(3)
    padded = [
        torch.nn.functional.pad(part, (2, 5, 3, 0), value=value) for part, value in zip(batch, (0.9, 1.0, 0), strict=True)
    ]
    for name, amount in accumulate(Saliency(), batch).sums.items():
        assert torch.equal(accumulate(Saliency(), padded).sums[name], amount), name


def test_a_prediction_that_is_not_a_number_is_not_salient(accumulate: Accumulate) -> None:
    prediction = torch.tensor([math.nan, 1.0]).view(1, 1, 1, 2)
    accumulator = accumulate(Saliency(), (prediction, torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2, dtype=torch.bool)))
    assert accumulator.compute() == {"maxF": pytest.approx(1.3 * 0.5 / (0.3 + 0.5))}


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_no_constant_is_better(share: float, score: Score) -> None:
    values = (np.random.default_rng(0).random((400, 1)) < share).astype(np.float64)
    best = score(Saliency(), Saliency.fit_constants(values)["maxF"], values, "maxF")
    positive = values.mean()
    assert best == pytest.approx(1.3 * positive / (0.3 * positive + 1))
    assert best >= max(score(Saliency(), constant, values, "maxF") for constant in np.linspace(0, 1, 101))
