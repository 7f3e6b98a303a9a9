"""Metrics against NumPy over all pixels at once, torchmetrics where it has them, brute force for the constants."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mult.errors import UserError
from mult.metrics import Accumulator, Depth, Normals, Regression, Segmentation, delta_m

BATCH, HEIGHT, WIDTH = 4, 6, 9
CLASSES = ["floor", "chair", "lamp", "vase", "sofa"]
METRIC_DEPTH = ("rmse", "abs_rel", "log10", "delta1", "delta2", "delta3", "l1")
Batch = tuple[Tensor, Tensor, Tensor]
Array = NDArray[Any]

KINDS: dict[str, Callable[[], Accumulator]] = {
    "segmentation": lambda: Segmentation(CLASSES),
    "depth": Depth,
    "normals": Normals,
    "regression": Regression,
}


def make_batch(kind: str, seed: int = 0) -> Batch:
    """Random prediction, target and valid; invalid targets hold what the data contract says, 0 or 255."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(BATCH, 1, HEIGHT, WIDTH, generator=generator) < 0.7
    if kind == "segmentation":  # class 3 is nowhere, class 4 in the prediction alone
        target = torch.randint(3, (BATCH, HEIGHT, WIDTH), generator=generator).masked_fill(~valid[:, 0], 255)
        prediction = torch.randint(4, (BATCH, HEIGHT, WIDTH), generator=generator)
        return prediction.masked_fill(prediction == 3, 4), target, valid
    channels = {"depth": 1, "normals": 3, "regression": 2}[kind]
    prediction, target = torch.randn(2, BATCH, channels, HEIGHT, WIDTH, generator=generator)
    if kind == "normals":
        target = F.normalize(target, dim=1)
        prediction = F.normalize(target + 0.4 * prediction, dim=1)
    if kind == "depth":
        target = target.abs() + 0.1
        prediction = target * (0.4 * prediction).exp()
    return prediction, target.where(valid, 0.0), valid


def accumulate(accumulator: Accumulator, *batches: Batch) -> Accumulator:
    for batch in batches:
        accumulator.update(*batch)
    return accumulator


def pixels_of(batch: Batch) -> tuple[Array, Array]:
    """The valid pixels of prediction and target, (N,) or (N, C), in float64."""
    prediction, target, valid = (tensor.numpy() for tensor in batch)
    if target.ndim == 3:
        return prediction[valid[:, 0]], target[valid[:, 0]]
    keep = valid[:, 0]
    return np.moveaxis(prediction, 1, -1)[keep].astype(np.float64), np.moveaxis(target, 1, -1)[keep].astype(np.float64)


def reference_segmentation(p: Array, t: Array) -> dict[str, float | None]:
    iou: list[float | None] = []
    for c in range(len(CLASSES)):
        hit = sum(1 for a, b in zip(p, t, strict=True) if a == c and b == c)
        union = sum(1 for a, b in zip(p, t, strict=True) if c in (a, b))
        iou.append(hit / union if union else None)
    return {
        "miou": float(np.mean([value for value in iou if value is not None])),
        "pixel_accuracy": float(np.mean(p == t)),
        **{f"iou/{name}": value for name, value in zip(CLASSES, iou, strict=True)},
    }


def reference_unitless(p: Array, t: Array) -> dict[str, float]:
    inside = np.array([[a > 0 and max(a / b, b / a) < 1.25**k for a, b in zip(p, t, strict=True)] for k in (1, 2, 3)])
    return {
        "abs_rel": float(np.mean(np.abs(p - t) / t)),
        "log10": float(np.mean(np.abs(np.log10(p[p > 0]) - np.log10(t[p > 0])))),
        **{f"delta{k}": float(inside[k - 1].mean()) for k in (1, 2, 3)},
    }


def reference_depth(images: list[tuple[Array, Array]]) -> dict[str, float | None]:
    """Of the pixels of each image, (N,), since alignment is by image."""
    images = [(p[t > 0].astype(np.float64), t[t > 0].astype(np.float64)) for p, t in images if (t > 0).any()]
    values: dict[str, float | None] = {}
    p, t = (np.concatenate(parts) for parts in zip(*images, strict=True))
    values |= {"rmse": float(np.sqrt(np.mean((p - t) ** 2))), "l1": float(np.mean(np.abs(p - t)))}
    values |= reference_unitless(p, t)
    scaled, fitted = [], []
    for ours, theirs in images:
        lower = (np.sort(values)[(len(values) - 1) // 2] for values in (ours, theirs))
        centre = next(lower)
        scaled.append(ours * (next(lower) / centre) if centre > 0 else 0 * ours)
        if len(ours) > 1:
            slope, offset = np.linalg.lstsq(np.stack([ours, np.ones_like(ours)], axis=1), theirs, rcond=None)[0]
            fitted.append(slope * ours + offset)
        else:
            fitted.append(theirs)
    for name, aligned in (("median_aligned/", scaled), ("lstsq_aligned/", fitted)):
        values |= {name + metric: value for metric, value in reference_unitless(np.concatenate(aligned), t).items()}
    return values


def reference_normals(p: Array, t: Array) -> dict[str, float | None]:
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(p, t), axis=1), (p * t).sum(1)))
    return {
        "mean": float(angle.mean()),
        "median": float(np.median(angle)),
        "rmse": float(np.sqrt((angle**2).mean())),
        **{f"within_{limit:g}": float((angle < limit).mean()) for limit in (11.25, 22.5, 30)},
    }


def reference_regression(p: Array, t: Array) -> dict[str, float | None]:
    return {"l1": float(np.abs(p - t).mean(1).mean()), "rmse": float(np.sqrt(((p - t) ** 2).mean(1).mean()))}


POOLED = {"segmentation": reference_segmentation, "normals": reference_normals, "regression": reference_regression}


def reference(kind: str, *batches: Batch) -> dict[str, float | None]:
    """Every metric of all valid pixels in NumPy."""
    if kind == "depth":
        images = [pixels_of((p[None], t[None], v[None])) for batch in batches for p, t, v in zip(*batch, strict=True)]
        return reference_depth([(p[:, 0], t[:, 0]) for p, t in images])
    p, t = (np.concatenate(parts) for parts in zip(*map(pixels_of, batches), strict=True))
    return POOLED[kind](p, t)


def assert_same(kind: str, got: dict[str, float | None], expected: dict[str, float | None]) -> None:
    assert got.keys() == expected.keys()
    for metric, value in expected.items():
        tolerance = Normals.RESOLUTION_DEG / 2 if (kind, metric) == ("normals", "median") else 0
        expected_value = None if value is None else pytest.approx(value, rel=1e-6, abs=tolerance)
        assert got[metric] == expected_value, metric


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_equals_numpy(kind: str, seed: int) -> None:
    batch = make_batch(kind, seed)
    accumulator = accumulate(KINDS[kind](), batch)
    assert_same(kind, accumulator.compute(), reference(kind, batch))
    assert accumulator.pixels == int(batch[2].sum())
    assert list(accumulator.compute()) == list(accumulator.METRICS)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_unequal_masks_equal_their_concatenation(kind: str) -> None:
    first, second = make_batch(kind, 1), make_batch(kind, 2)
    second[2][1:] = False
    if kind == "segmentation":
        second[1][1:] = 255
    both = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    whole = KINDS[kind]()
    whole.update(*both)
    parts = accumulate(KINDS[kind](), first, second)
    merged, other = accumulate(KINDS[kind](), first), accumulate(KINDS[kind](), second)
    before = {name: amount.clone() for name, amount in other.sums.items()}
    merged.merge(other)
    for name, amount in whole.sums.items():
        assert amount.dtype == (torch.int64 if not amount.is_floating_point() else torch.float64)
        assert amount.device.type == "cpu"
        torch.testing.assert_close(parts.sums[name], amount, rtol=1e-14 if amount.is_floating_point() else 0, atol=0)
        assert torch.equal(merged.sums[name], parts.sums[name])
        assert torch.equal(other.sums[name], before[name])
    assert merged.compute() == parts.compute()
    assert_same(kind, merged.compute(), whole.compute())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_valid_is_none(kind: str) -> None:
    prediction, target, valid = make_batch(kind)
    accumulator = KINDS[kind]()
    assert set(accumulator.compute().values()) == {None}
    accumulator.update(prediction, target, torch.zeros_like(valid))
    assert accumulator.compute() == dict.fromkeys(accumulator.METRICS)
    assert accumulator.pixels == 0
    accumulator.update(prediction, target, valid)
    assert accumulator.compute() == accumulate(KINDS[kind](), (prediction, target, valid)).compute()


@pytest.mark.parametrize("kind", KINDS)
def test_one_pixel(kind: str) -> None:
    prediction, target, valid = make_batch(kind)
    index = tuple(valid.nonzero()[7].tolist())
    valid = torch.zeros_like(valid)
    valid[index] = True
    accumulator = accumulate(KINDS[kind](), (prediction, target, valid))
    assert accumulator.pixels == 1
    assert_same(kind, accumulator.compute(), reference(kind, (prediction, target, valid)))


@pytest.mark.parametrize("kind", ["depth", "normals", "regression"])
def test_garbage_where_invalid_does_not_matter(kind: str) -> None:
    prediction, target, valid = make_batch(kind)
    dirty = accumulate(KINDS[kind](), (prediction, target.where(valid, math.nan), valid))
    assert dirty.compute() == accumulate(KINDS[kind](), (prediction, target, valid)).compute()


@pytest.mark.parametrize("kind", KINDS)
def test_perfect(kind: str) -> None:
    _, target, valid = make_batch(kind)
    values = accumulate(KINDS[kind](), (target.where(valid if target.ndim == 4 else valid[:, 0], 0), target, valid))
    for metric, (_, better) in values.METRICS.items():
        value = values.compute()[metric]
        fitted = 1e-7 if metric.startswith("lstsq_aligned") else 0  # a slope of 1 to float32's precision
        assert value is None or value == pytest.approx({"higher": 1, "lower": 0}[better], abs=fitted), metric


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_that_would_broadcast_are_refused(kind: str) -> None:
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


# Segmentation


def test_absent_classes_are_named_and_a_class_only_predicted_counts_zero() -> None:
    accumulator = accumulate(Segmentation(CLASSES), make_batch("segmentation"))
    values = accumulator.compute()
    assert accumulator.notes() == {"absent": ["vase"]}
    assert values["iou/vase"] is None
    assert values["iou/sofa"] == 0
    present = [values[f"iou/{name}"] for name in CLASSES if name != "vase"]
    assert values["miou"] == pytest.approx(np.mean(np.array(present, dtype=np.float64)))


def test_segmentation_golden() -> None:
    target = torch.tensor([[[0, 0, 0, 1, 1, 255]]])
    prediction = torch.tensor([[[0, 0, 1, 1, 2, 2]]])
    values = accumulate(Segmentation(4), (prediction, target, (target != 255)[:, None])).compute()
    assert values == {
        "miou": pytest.approx((2 / 3 + 1 / 3 + 0) / 3),
        "pixel_accuracy": 3 / 5,
        "iou/0": 2 / 3,
        "iou/1": 1 / 3,
        "iou/2": 0,
        "iou/3": None,
    }


def test_ignored_class_is_out_though_valid() -> None:
    target = torch.tensor([[[0, 255, 1]]])
    accumulator = accumulate(Segmentation(2), (torch.tensor([[[0, 1, 1]]]), target, torch.ones(1, 1, 1, 3, dtype=torch.bool)))
    assert accumulator.pixels == 2
    assert accumulator.compute()["miou"] == 1


@pytest.mark.parametrize(("which", "bad"), [(0, 5), (0, -1), (0, 255), (1, 5), (1, -1)])
def test_ids_out_of_range_are_refused_where_they_count(which: int, bad: int) -> None:
    batch = make_batch("segmentation")
    batch[2][0, 0, 2, 3] = True
    batch[1][0, 2, 3] = 0
    batch[which][0, 2, 3] = bad
    accumulator = Segmentation(CLASSES)
    name = ("prediction", "target")[which]
    with pytest.raises(UserError, match=rf"class ids .* in the {name}; expected 0 to 4 .*; map the {name} to the 5"):
        accumulator.update(*batch)
    assert accumulator.pixels == 0
    batch[2][0, 0, 2, 3] = False
    accumulator.update(*batch)


@pytest.mark.parametrize("classes", [0, [], ["chair", "table", "chair"]])
def test_class_names_must_be_there_and_differ(classes: int | list[str]) -> None:
    with pytest.raises(UserError, match=r"Segmentation: got \d classes, .*; expected at least one, each once; give"):
        Segmentation(classes)


def test_segmentation_equals_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.classification")
    prediction, target, valid = make_batch("segmentation")
    prediction = prediction % 3  # torchmetrics counts an absent class as 0, so all must be there
    values = accumulate(Segmentation(3), (prediction, target, valid)).compute()
    for name, average in (("miou", "macro"), ("iou", "none")):
        oracle = torchmetrics.MulticlassJaccardIndex(3, average=average, ignore_index=255)(prediction, target)
        got = values["miou"] if name == "miou" else [values[f"iou/{c}"] for c in range(3)]
        torch.testing.assert_close(torch.tensor(got), oracle)
    accuracy = torchmetrics.MulticlassAccuracy(3, average="micro", ignore_index=255)(prediction, target)
    assert values["pixel_accuracy"] == pytest.approx(accuracy.item())


# Depth


def row(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


ALL = torch.ones(1, 1, 1, 4, dtype=torch.bool)


def test_depth_golden() -> None:
    values = accumulate(Depth(), (row(1.0, 2.0, 5.0, 10.0), row(1.0, 4.0, 4.0, 1.0), ALL)).compute()
    assert {metric: values[metric] for metric in METRIC_DEPTH} == {
        "rmse": pytest.approx(math.sqrt((0 + 4 + 1 + 81) / 4)),
        "abs_rel": pytest.approx((0 + 0.5 + 0.25 + 9) / 4),
        "log10": pytest.approx((0 + math.log10(2) + math.log10(1.25) + 1) / 4),
        "delta1": 1 / 4,  # 5/4 is not below 1.25
        "delta2": 2 / 4,
        "delta3": 2 / 4,
        "l1": pytest.approx((0 + 2 + 1 + 9) / 4),
    }


@pytest.mark.parametrize("nothing", [0.0, -1.0, math.nan])
def test_depth_counts_only_positive_targets(nothing: float) -> None:
    accumulator = accumulate(Depth(), (row(1.0, 2.0, 3.0, 5.0), row(1.0, nothing, 3.0, 4.0), ALL))
    assert accumulator.pixels == 3
    assert accumulator.compute()["l1"] == pytest.approx(1 / 3)


def test_nonpositive_depth_fails_deltas_and_is_left_out_of_log10() -> None:
    accumulator = accumulate(Depth(), (row(0.0, -2.0, 2.0, 1.0), row(1.0, 2.0, 1.0, 1.0), ALL))
    values = accumulator.compute()
    assert accumulator.notes() == {"nonpositive": 2}
    assert values["log10"] == pytest.approx(math.log10(2) / 2)
    assert (values["delta1"], values["delta3"]) == (1 / 4, 1 / 4)
    assert values["l1"] == pytest.approx((1 + 4 + 1 + 0) / 4)
    assert values["abs_rel"] == pytest.approx((1 + 2 + 1 + 0) / 4)


def test_log10_is_none_without_a_positive_prediction() -> None:
    values = accumulate(Depth(), (row(0.0, -1.0, -2.0, 0.0), row(1.0, 2.0, 3.0, 4.0), ALL)).compute()
    assert values["log10"] is None
    assert [values[f"delta{k}"] for k in (1, 2, 3)] == [0, 0, 0]
    assert values["rmse"] == pytest.approx(math.sqrt((1 + 9 + 25 + 16) / 4))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_nonfinite_depth_shows(broken: float) -> None:
    accumulator = accumulate(Depth(), (row(broken, 1.0, 1.0, 1.0), row(1.0, 1.0, 1.0, 1.0), ALL))
    values = accumulator.compute()
    assert accumulator.notes() == {"nonpositive": 1}
    assert values["delta1"] == 3 / 4
    assert values["log10"] == 0
    assert values["rmse"] is not None
    assert not math.isfinite(values["rmse"])


@pytest.mark.parametrize("kind", ["depth", "regression"])
def test_errors_equal_torchmetrics(kind: str) -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    batch = make_batch(kind)
    values = accumulate(KINDS[kind](), batch).compute()
    prediction, target = (torch.from_numpy(array) for array in pixels_of(batch))
    prediction, target = prediction.contiguous(), target.contiguous()
    assert values["l1"] == pytest.approx(torchmetrics.MeanAbsoluteError()(prediction, target).item())
    assert values["rmse"] == pytest.approx(torchmetrics.MeanSquaredError(squared=False)(prediction, target).item())
    if kind == "depth":
        relative = torchmetrics.MeanAbsolutePercentageError()(prediction, target)
        assert values["abs_rel"] == pytest.approx(relative.item())


# Normals


def directions(*vectors: tuple[float, float, float]) -> Tensor:
    """(1, 3, 1, N) in float64."""
    return torch.tensor(vectors, dtype=torch.float64).T.reshape(1, 3, 1, len(vectors))


def tilted(*angles_deg: float) -> Batch:
    """Predictions at these angles from a target askew to the axes."""
    axis, side = np.array([0.48, -0.6, -0.64]), np.array([0.64, 0.768, -0.24]) / np.linalg.norm([0.64, 0.768, -0.24])
    side = side - axis * (axis @ side)
    side /= np.linalg.norm(side)
    vectors = [tuple(axis * math.cos(a) + side * math.sin(a)) for a in np.radians(angles_deg)]
    target = directions(*[tuple(axis)] * len(vectors))
    return directions(*vectors), target, torch.ones(1, 1, 1, len(vectors), dtype=torch.bool)


@pytest.mark.parametrize("angle_deg", [1e-6, 1e-4, 0.3, 45.0, 90.0, 179.9999])
def test_angles_are_precise(angle_deg: float) -> None:
    values = accumulate(Normals(), tilted(angle_deg)).compute()
    assert values["mean"] == pytest.approx(angle_deg, rel=1e-8)
    assert values["rmse"] == pytest.approx(angle_deg, rel=1e-8)
    assert values["median"] == pytest.approx(angle_deg, abs=Normals.RESOLUTION_DEG / 2)


def test_antiparallel_is_180_degrees() -> None:
    _, target, valid = make_batch("normals")
    values = accumulate(Normals(), (-target, target, valid)).compute()
    assert values == {
        "mean": pytest.approx(180, abs=1e-12),
        "median": pytest.approx(180, abs=1e-12),
        "rmse": pytest.approx(180, abs=1e-12),
        "within_11.25": 0,
        "within_22.5": 0,
        "within_30": 0,
    }


def test_normals_whose_components_add_up_to_zero_count() -> None:
    half = math.sqrt(0.5)
    target = directions((half, -half, 0), (0, 0, -1))
    prediction = directions((half, half, 0), (0, 0, -1))
    accumulator = accumulate(Normals(), (prediction, target, torch.ones(1, 1, 1, 2, dtype=torch.bool)))
    assert accumulator.pixels == 2
    assert accumulator.compute()["mean"] == pytest.approx(45)


def test_within_is_a_fraction_below_the_limit() -> None:
    values = accumulate(Normals(), tilted(11.2499, 11.2501, 22.4999, 29.9999, 30.0001)).compute()
    assert [values[f"within_{limit}"] for limit in ("11.25", "22.5", "30")] == [1 / 5, 3 / 5, 4 / 5]


@pytest.mark.parametrize("angles_deg", [(10.0, 20.0), (3.0, 50.0, 4.0), (0.0, 0.0, 7.0, 90.0), (1.0004, 2.0, 1.0)])
def test_median_of_few(angles_deg: tuple[float, ...]) -> None:
    median = accumulate(Normals(), tilted(*angles_deg)).compute()["median"]
    assert median == pytest.approx(np.median(angles_deg), abs=Normals.RESOLUTION_DEG / 2 + 1e-9)


def test_median_is_within_its_stated_resolution_over_many_batches() -> None:
    batches = [make_batch("normals", seed) for seed in range(20)]
    accumulator = accumulate(Normals(), *batches)
    (resolution,) = accumulator.notes().values()
    pixels = [pixels_of(batch) for batch in batches]
    expected = reference_normals(*(np.concatenate(arrays) for arrays in zip(*pixels, strict=True)))
    assert resolution <= 0.01
    assert accumulator.compute()["median"] == pytest.approx(expected["median"], abs=resolution / 2 + 1e-9)


def test_a_nonfinite_normal_shows() -> None:
    prediction, target, valid = tilted(1.0, 2.0, 3.0)
    prediction[0, 0, 0, 1] = math.nan
    values = accumulate(Normals(), (prediction, target, valid)).compute()
    assert values["mean"] is not None
    assert math.isnan(values["mean"])
    assert values["within_30"] == 2 / 3
    assert values["median"] == pytest.approx(3.0)  # the broken one counts as the largest


# The trivial baseline


def score(accumulator: Accumulator, constant: Any, values: Array, metric: str) -> float:
    """The metric of a constant prediction of training pixels (N,) or (N, C)."""
    target = torch.from_numpy(np.ascontiguousarray(values.T)).reshape(1, *values.shape[1:], 1, len(values))
    fill = torch.as_tensor(constant, dtype=target.dtype).reshape(1, *values.shape[1:], 1, 1)
    accumulator = accumulator.only([metric])
    accumulator.update(fill.expand_as(target), target, torch.ones(1, 1, 1, len(values), dtype=torch.bool))
    value = accumulator.compute()[metric]
    assert value is not None
    sign = {"higher": 1, "lower": -1}[accumulator.METRICS[metric][1]]
    return sign * value


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", METRIC_DEPTH)
def test_no_constant_depth_is_better(metric: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth = np.concatenate([rng.lognormal(0.3, 0.3, 41), rng.uniform(2, 9, 60)])[:, None]
    constants = Depth.constants(np.concatenate([depth, np.zeros((30, 1))]))  # depths of 0 do not count
    assert constants.keys() == Depth.METRICS.keys()
    best = score(Depth(), constants[metric], depth, metric)
    others = [score(Depth(), value, depth, metric) for value in np.linspace(0.2, 10, 400)]
    assert best >= max(others) - 1e-12
    assert best - min(others) > 0.1


@pytest.mark.parametrize("metric", sorted(Depth.METRICS.keys() - METRIC_DEPTH))
def test_aligned_constants_are_all_as_good(metric: str) -> None:
    depth = np.random.default_rng(0).uniform(2, 9, (61, 1))
    scores = [score(Depth(), value, depth, metric) for value in (Depth.constants(depth)[metric], 0.3, 700.0)]
    centre = np.median(depth) if metric.startswith("median") else depth.mean()
    reference = reference_unitless(np.full(61, centre), depth[:, 0])[metric.partition("/")[2]]
    assert scores == pytest.approx([reference if metric.endswith(("1", "2", "3")) else -reference] * 3)


@pytest.mark.parametrize("metric", Regression.METRICS)
def test_no_constant_regression_is_better(metric: str) -> None:
    values = np.random.default_rng(0).gamma(1.0, 1.0, (80, 1))
    best = score(Regression(), Regression.constants(values)[metric], values, metric)
    assert best >= max(score(Regression(), value, values, metric) for value in np.linspace(0, 5, 2001)) - 1e-12


def test_constants_of_several_channels_are_one_a_channel() -> None:
    values = np.random.default_rng(0).gamma(1.0, 1.0, (81, 3)) * [1.0, 10.0, 100.0]
    constants = Regression.constants(values)
    np.testing.assert_array_equal(constants["l1"], np.sort(values, axis=0)[40])
    np.testing.assert_allclose(constants["rmse"], values.sum(0) / 81)


@pytest.mark.parametrize("kind", [Depth, Regression, Normals])
def test_constants_of_many_float32_pixels_are_summed_in_float64(kind: type[Accumulator]) -> None:
    values = np.random.default_rng(0).gamma(1.0, 1.0, (300_000, 3 if kind is Normals else 1)).astype(np.float32)
    exact = kind.constants(values.astype(np.float64))
    for metric, constant in kind.constants(values).items():
        np.testing.assert_allclose(constant, exact[metric], rtol=1e-7)


def test_constant_normal_is_the_normalised_mean() -> None:
    values = F.normalize(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0, -1, -2]), dim=1)
    constants = Normals.constants(values.double().numpy())
    assert constants.keys() == Normals.METRICS.keys()
    total = values.double().sum(0)
    for constant in constants.values():
        np.testing.assert_allclose(constant, total / total.norm())


def test_no_constant_class_is_better() -> None:
    values = np.array([2] * 5 + [0] * 4 + [3] * 7 + [1])
    constants = Segmentation.constants(values)
    assert constants == {"miou": 3, "pixel_accuracy": 3}
    for metric in constants:
        scores = [score(Segmentation(5), c, values, metric) for c in range(5)]
        assert scores.index(max(scores)) == 3


# delta_m

BASELINE = {
    "parts": {"miou": 0.5, "pixel_accuracy": 0.9, "iou/chair": 0.1},
    "range": {"rmse": 2.0, "abs_rel": 0.1, "log10": 0.1, "delta1": 0.5, "delta2": 0.6, "delta3": 0.7, "l1": 1.0},
    "tilt": {"mean": 20.0, "median": 10.0, "rmse": 30.0, "within_11.25": 0.5, "within_22.5": 0.6, "within_30": 0.7},
    "shade": {"l1": 0.1, "rmse": 7.0},
}
RESULTS = {
    "parts": {"miou": 0.6, "pixel_accuracy": 0.1, "iou/chair": 0.9},  # +20 %
    "range": {
        "rmse": 1.5,
        "abs_rel": 9.0,
        "log10": 9.0,
        "delta1": 0.0,
        "delta2": 0.0,
        "delta3": 0.0,
        "l1": 9.0,
    },  # +25 %
    "tilt": {
        "mean": 22.0,
        "median": 1.0,
        "rmse": 1.0,
        "within_11.25": 1.0,
        "within_22.5": 1.0,
        "within_30": 1.0,
    },  # -10 %
    "shade": {"l1": 0.15, "rmse": 1.0},  # -50 %
}


def as_evaluation(results: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    return {
        task: {metric: {"value": value, "unit": "", "trivial": 1.0, "pixels": 3} for metric, value in metrics.items()}
        for task, metrics in results.items()
    }


@pytest.mark.parametrize("results", [RESULTS, as_evaluation(RESULTS)], ids=["numbers", "entries"])
@pytest.mark.parametrize("baseline", [BASELINE, as_evaluation(BASELINE)], ids=["numbers", "entries"])
def test_delta_m_golden(results: Any, baseline: Any) -> None:
    compared = delta_m(results, baseline)
    assert compared["terms"] == pytest.approx({"parts": 20.0, "range": 25.0, "tilt": -10.0, "shade": -50.0})
    assert compared["delta_m"] == pytest.approx((20 + 25 - 10 - 50) / 4)


def test_delta_m_of_primary_metrics_alone_and_a_larger_baseline() -> None:
    primary = {"parts": "miou", "range": "rmse", "tilt": "mean"}
    results = {task: {metric: RESULTS[task][metric]} for task, metric in primary.items()}
    assert delta_m(results, BASELINE)["terms"] == pytest.approx({"parts": 20.0, "range": 25.0, "tilt": -10.0})


def test_delta_m_takes_what_the_accumulators_compute() -> None:
    results = {kind: accumulate(make(), make_batch(kind)).compute() for kind, make in KINDS.items()}
    worse = {kind: {m: None if v is None else 2 * v for m, v in values.items()} for kind, values in results.items()}
    assert delta_m(results, worse)["terms"] == pytest.approx(
        {"segmentation": -50, "depth": 50, "normals": 50, "regression": 50}
    )


@pytest.mark.parametrize(
    ("results", "baseline", "message"),
    [
        ({}, BASELINE, "delta_m: got no task; expected .*; give"),
        (RESULTS, {k: v for k, v in BASELINE.items() if k != "tilt"}, "tilt: got no baseline; expected one; evaluate"),
        (RESULTS, {**BASELINE, "shade": {"rmse": 1.0}}, "shade of the baseline: got None for l1; expected a number"),
        (
            RESULTS,
            {**BASELINE, "parts": {"miou": {"value": None, "reason": "-"}}},
            "parts of the baseline: got None for miou",
        ),
        ({"tilt": {"mean": None}}, BASELINE, "tilt of the results: got None for mean"),
        ({"tilt": {"mean": math.nan}}, BASELINE, "tilt of the results: got nan for mean"),
        (RESULTS, {**BASELINE, "range": {"rmse": 0.0}}, "range: got a baseline of 0; expected another value; leave"),
        ({"tilt": {"median": 1.0}}, BASELINE, r"tilt: got metrics \['median'\]; expected a primary one, .*; give"),
    ],
)
def test_delta_m_refuses_by_name(results: Any, baseline: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        delta_m(results, baseline)


def test_primary_metrics_and_units() -> None:
    assert [kind.PRIMARY for kind in (Segmentation, Depth, Normals, Regression)] == ["miou", "rmse", "mean", "l1"]
    assert Segmentation(["chair"]).METRICS["iou/chair"] == ("", "higher")
    assert Depth.METRICS["rmse"] == ("m", "lower")
    assert Depth.METRICS["delta1"] == ("", "higher")
    assert Normals.METRICS["median"] == ("deg", "lower")
    assert Normals.METRICS["within_30"] == ("", "higher")
    assert Regression.METRICS["l1"] == (None, "lower")
