"""What all accumulators promise: batches, masks, merging, one table of units; the metrics' own tests are beside this file."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mult.errors import UserError
from mult.metrics import Accumulator, Depth, Normals, Regression, Segmentation

CLASSES = ["floor", "chair", "lamp", "vase", "sofa"]
MakeBatch = Callable[..., tuple[Tensor, Tensor, Tensor]]
Accumulate = Callable[..., Accumulator]
AssertSame = Callable[..., None]

KINDS: dict[str, Callable[[], Accumulator]] = {
    "segmentation": lambda: Segmentation(CLASSES),
    "depth": Depth,
    "normals": Normals,
    "regression": Regression,
}


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_unequal_masks_equal_their_concatenation(
    kind: str, make_batch: MakeBatch, accumulate: Accumulate, assert_same: AssertSame
) -> None:
    first, second = make_batch(kind, 1), make_batch(kind, 2)
    second[2][1:] = False
    if kind == "segmentation":
        second[1][1:] = 255
    both = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    joined = KINDS[kind]()
    joined.update(*both)
    parts = accumulate(KINDS[kind](), first, second)
    merged, other = accumulate(KINDS[kind](), first), accumulate(KINDS[kind](), second)
    before = {name: amount.clone() for name, amount in other.sums.items()}
    merged.merge(other)
    for name, amount in joined.sums.items():
        assert amount.dtype == (torch.int64 if not amount.is_floating_point() else torch.float64)
        assert amount.device.type == "cpu"
        torch.testing.assert_close(parts.sums[name], amount, rtol=1e-14 if amount.is_floating_point() else 0, atol=0)
        assert torch.equal(merged.sums[name], parts.sums[name])
        assert torch.equal(other.sums[name], before[name])
    assert merged.compute() == parts.compute()
    assert_same(merged.compute(), joined.compute())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_valid_is_none(kind: str, make_batch: MakeBatch, accumulate: Accumulate) -> None:
    prediction, target, valid = make_batch(kind)
    accumulator = KINDS[kind]()
    assert set(accumulator.compute().values()) == {None}
    accumulator.update(prediction, target, torch.zeros_like(valid))
    assert accumulator.compute() == dict.fromkeys(accumulator.METRICS)
    assert accumulator.pixels == 0
    accumulator.update(prediction, target, valid)
    assert accumulator.compute() == accumulate(KINDS[kind](), (prediction, target, valid)).compute()


@pytest.mark.parametrize("kind", ["depth", "normals", "regression"])
def test_garbage_where_invalid_does_not_matter(kind: str, make_batch: MakeBatch, accumulate: Accumulate) -> None:
    prediction, target, valid = make_batch(kind)
    dirty = accumulate(KINDS[kind](), (prediction, target.where(valid, math.nan), valid))
    assert dirty.compute() == accumulate(KINDS[kind](), (prediction, target, valid)).compute()


@pytest.mark.parametrize("kind", KINDS)
def test_perfect(kind: str, make_batch: MakeBatch, accumulate: Accumulate) -> None:
    _, target, valid = make_batch(kind)
    values = accumulate(KINDS[kind](), (target.where(valid if target.ndim == 4 else valid[:, 0], 0), target, valid))
    for metric, (_, better) in values.METRICS.items():
        value = values.compute()[metric]
        fitted = 1e-7 if metric.startswith("lstsq_aligned") else 0  # a slope of 1 to float32's precision
        assert value is None or value == pytest.approx({"higher": 1, "lower": 0}[better], abs=fitted), metric


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_that_would_broadcast_are_refused(kind: str, make_batch: MakeBatch) -> None:
    prediction, target, valid = make_batch(kind)
    name = type(KINDS[kind]()).__name__
    message = rf"{name}.update: got prediction .* expected equal shapes and valid \(B, 1, H, W\) torch.bool; resize"
    for bad in (
        (prediction[:1], target, valid),
        (prediction, target, valid[:, 0]),
        (prediction, target, valid[:1]),
        (prediction, target, valid.byte()),
    ):
        with pytest.raises(UserError, match=message):
            KINDS[kind]().update(*bad)


def test_merge_refuses_another_kind_or_other_classes() -> None:
    with pytest.raises(UserError, match=r"Depth.merge: got Regression .*; expected .*; merge accumulators of the same"):
        Depth().merge(Regression())
    with pytest.raises(UserError, match=r"Segmentation.merge: got Segmentation with .*iou/chair"):
        Segmentation(5).merge(Segmentation(CLASSES))


@pytest.mark.parametrize("kind", [Depth, Regression, Normals])
def test_constants_of_many_float32_pixels_are_summed_in_float64(kind: type[Accumulator]) -> None:
    values = np.random.default_rng(0).gamma(1.0, 1.0, (300_000, 3 if kind is Normals else 1)).astype(np.float32)
    exact = kind.fit_constants(values.astype(np.float64))
    for metric, constant in kind.fit_constants(values).items():
        np.testing.assert_allclose(constant, exact[metric], rtol=1e-7)


def test_primary_metrics_and_units() -> None:
    assert [kind.PRIMARY for kind in (Segmentation, Depth, Normals, Regression)] == ["miou", "rmse", "mean", "l1"]
    assert Segmentation(["chair"]).METRICS["iou/chair"] == ("", "higher")
    assert Depth.METRICS["rmse"] == ("m", "lower")
    assert Depth.METRICS["delta1"] == ("", "higher")
    assert Normals.METRICS["median"] == ("deg", "lower")
    assert Normals.METRICS["within_30"] == ("", "higher")
    assert Regression.METRICS["l1"] == (None, "lower")
