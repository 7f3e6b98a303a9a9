"""Segmentation against loops over pixels, torchmetrics and golden values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.errors import UserError
from mult.metrics import Accumulator, Segmentation

CLASSES = ["floor", "chair", "lamp", "vase", "sofa"]
Batch = tuple[Tensor, Tensor, Tensor]
Array = NDArray[Any]
MakeBatch = Callable[..., Batch]
PixelsOf = Callable[[Batch], tuple[Array, Array]]
Accumulate = Callable[..., Accumulator]
AssertEquals = Callable[..., None]
Score = Callable[..., float]


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


def test_equals_numpy(assert_equals: AssertEquals, pixels_of: PixelsOf) -> None:
    assert_equals(lambda: Segmentation(CLASSES), "segmentation", lambda batch: reference_segmentation(*pixels_of(batch)))


def test_absent_classes_are_named_and_a_class_only_predicted_counts_zero(make_batch: MakeBatch, accumulate: Accumulate) -> None:
    accumulator = accumulate(Segmentation(CLASSES), make_batch("segmentation"))
    values = accumulator.compute()
    assert accumulator.notes == {"absent": ["vase"]}
    assert values["iou/vase"] is None
    assert values["iou/sofa"] == 0
    present = [values[f"iou/{name}"] for name in CLASSES if name != "vase"]
    assert values["miou"] == pytest.approx(np.mean(np.array(present, dtype=np.float64)))


def test_segmentation_golden(accumulate: Accumulate) -> None:
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


def test_ignored_class_is_out_though_valid(accumulate: Accumulate) -> None:
    target = torch.tensor([[[0, 255, 1]]])
    accumulator = accumulate(Segmentation(2), (torch.tensor([[[0, 1, 1]]]), target, torch.ones(1, 1, 1, 3, dtype=torch.bool)))
    assert accumulator.pixels == 2
    assert accumulator.compute()["miou"] == 1


@pytest.mark.parametrize(("which", "bad"), [(0, 5), (0, -1), (0, 255), (1, 5), (1, -1)])
def test_ids_out_of_range_are_refused_where_they_count(which: int, bad: int, make_batch: MakeBatch) -> None:
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


def test_segmentation_equals_torchmetrics(make_batch: MakeBatch, accumulate: Accumulate) -> None:
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


def test_no_constant_class_is_better(score: Score) -> None:
    values = np.array([2] * 5 + [0] * 4 + [3] * 7 + [1])
    constants = Segmentation.fit_constants(values)
    assert constants == {"miou": 3, "pixel_accuracy": 3}
    for metric in constants:
        scores = [score(Segmentation(5), c, values, metric) for c in range(5)]
        assert scores.index(max(scores)) == 3
