"""IoU and accuracy of a segmentation by classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.errors import UserError
from mult.metrics.accumulator import Accumulator, Constant, Sums, UnitAndDirection, sum_per_image

IGNORE = 255
"""The class id of a pixel without a class: `mult.tasks.IGNORE`, which metrics may not import; a test holds them equal."""


class Segmentation(Accumulator):
    """mIoU, pixel accuracy and `iou/<class>` from one confusion matrix; pixels whose target is IGNORE do not count.

    IoU = TP / (TP + FP + FN). A class in neither target nor prediction has no IoU: its value is None, the mean leaves it out
    and `notes["absent"]` names it. `classes` are names in the order of their ids, or their number.

    An image takes three counts a class: 12 C + 4 bytes.
    """

    METRICS: Mapping[str, UnitAndDirection] = {"miou": ("", "higher"), "pixel_accuracy": ("", "higher")}
    PRIMARY = "miou"
    DATASET_SUMS = ("confusion",)

    def __init__(self, classes: int | Sequence[str]) -> None:
        self.classes = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
        duplicates = [name for name, times in Counter(self.classes).items() if times > 1]
        if not self.classes or duplicates:
            raise UserError(
                f"Segmentation: got {len(self.classes)} classes, {duplicates} more than once; "
                f"expected at least one, each once; give the dataset's class names"
            )
        number = len(self.classes)
        self.METRICS = {**Segmentation.METRICS, **{f"iou/{name}": ("", "higher") for name in self.classes}}
        self.NEEDS = {**dict.fromkeys(self.METRICS, ("hits", "target", "predicted")), "pixel_accuracy": ("hits", "pixels")}
        self.sums = {
            "pixels": torch.zeros((), dtype=torch.int64),
            **{name: torch.zeros(number, dtype=torch.int64) for name in ("hits", "target", "predicted")},
            "confusion": torch.zeros(number, number, dtype=torch.int64),
        }

    @property
    def notes(self) -> dict[str, Any]:
        """The names of the classes in neither target nor prediction."""
        absent = (self.sums["target"] + self.sums["predicted"] == 0).tolist()
        return {"absent": [name for name, is_absent in zip(self.classes, absent, strict=True) if is_absent]}

    @property
    def diagnostics(self) -> dict[str, NDArray[Any]]:
        """The confusion matrix, [target, prediction]."""
        return {"confusion": self.sums["confusion"].numpy(), "classes": np.array(self.classes)}

    @staticmethod
    def fit_constants(values: NDArray[Any]) -> dict[str, Constant]:
        """The most frequent of class ids `values` (N,), for both metrics; it stands for the `iou/<class>` as well."""
        return dict.fromkeys(Segmentation.METRICS, int(np.bincount(values).argmax()))

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        number, images = len(self.classes), len(target)
        mask = valid[:, 0] & (target != IGNORE)
        true, predicted = target.where(mask, 0), prediction.where(mask, 0)
        for name, ids in (("target", true), ("prediction", predicted)):
            lowest, highest = (int(end) for end in ids.aminmax()) if ids.numel() else (0, 0)
            if not 0 <= lowest <= highest < number:
                raise UserError(
                    f"Segmentation.update: got class ids {lowest} to {highest} in the {name}; "
                    f"expected 0 to {number - 1} ({IGNORE} = ignore in the target); map the {name} to the {number} classes"
                )
        image = torch.arange(images, device=target.device).view(-1, 1, 1)
        # Pixels outside the mask go to an extra last bin, which is dropped.
        pair = ((image * number + true) * number + predicted).where(mask, images * number**2)
        confusion = torch.bincount(pair.flatten(), minlength=images * number**2 + 1)[:-1].view(images, number, number)
        return {
            "pixels": lambda: sum_per_image(mask),
            "hits": lambda: confusion.diagonal(dim1=1, dim2=2),
            "target": lambda: confusion.sum(2),
            "predicted": lambda: confusion.sum(1),
            "confusion": lambda: confusion.sum(0),
        }

    def _divide(self, metric: str, sums: Sums) -> NDArray[np.float64]:
        hits = np.asarray(sums["hits"], np.float64)
        if metric == "pixel_accuracy":
            return np.asarray(hits.sum(-1) / sums["pixels"])
        iou = hits / (sums["target"] + sums["predicted"] - hits)
        if metric == "miou":
            is_present = ~np.isnan(iou)
            return np.asarray(iou.sum(-1, where=is_present) / is_present.sum(-1))
        return np.asarray(iou[..., self.classes.index(metric.removeprefix("iou/"))])
