"""Segmentation by classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.errors import UserError
from mult.metrics.accumulator import Accumulator, Constant, Kind, Sums, per_image

IGNORE = 255


class Segmentation(Accumulator):
    """mIoU, pixel accuracy and `iou/<class>` from one confusion matrix; pixels of class 255 are out.

    IoU = TP / (TP + FP + FN). A class in neither target nor prediction has none: its entry is None, the mean skips it
    and `notes()["absent"]` names it. `classes` are names in the order of their ids, or how many there are.

    An image keeps three counts a class: 12 C + 4 bytes.
    """

    METRICS: Mapping[str, Kind] = {"miou": ("", "higher"), "pixel_accuracy": ("", "higher")}
    PRIMARY = "miou"
    TOTALS = ("confusion",)

    def __init__(self, classes: int | Sequence[str]) -> None:
        self.classes = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
        repeated = [name for name, times in Counter(self.classes).items() if times > 1]
        if not self.classes or repeated:
            raise UserError(
                f"Segmentation: got {len(self.classes)} classes, {repeated} more than once; "
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

    def notes(self) -> dict[str, Any]:
        absent = (self.sums["target"] + self.sums["predicted"] == 0).tolist()
        return {"absent": [name for name, is_absent in zip(self.classes, absent, strict=True) if is_absent]}

    def totals(self) -> dict[str, NDArray[Any]]:
        """The confusion matrix, (target, prediction)."""
        return {"confusion": self.sums["confusion"].numpy(), "classes": np.array(self.classes)}

    @staticmethod
    def constants(values: NDArray[Any]) -> dict[str, Constant]:
        """The most frequent of class ids `values` (N,), for both metrics; it stands for the `iou/<class>` as well."""
        return dict.fromkeys(Segmentation.METRICS, int(np.bincount(values).argmax()))

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        number, images = len(self.classes), len(target)
        counts = valid[:, 0] & (target != IGNORE)
        true, predicted = target.where(counts, 0), prediction.where(counts, 0)
        for name, ids in (("target", true), ("prediction", predicted)):
            least, most = (int(end) for end in ids.aminmax()) if ids.numel() else (0, 0)
            if not 0 <= least <= most < number:
                raise UserError(
                    f"Segmentation.update: got class ids {least} to {most} in the {name}; "
                    f"expected 0 to {number - 1} (255 = ignore in the target); map the {name} to the {number} classes"
                )
        image = torch.arange(images, device=target.device).view(-1, 1, 1)
        # What does not count goes to a last bin, which is dropped.
        pair = ((image * number + true) * number + predicted).where(counts, images * number**2)
        confusion = torch.bincount(pair.flatten(), minlength=images * number**2 + 1)[:-1].view(images, number, number)
        return {
            "pixels": lambda: per_image(counts),
            "hits": lambda: confusion.diagonal(dim1=1, dim2=2),
            "target": lambda: confusion.sum(2),
            "predicted": lambda: confusion.sum(1),
            "confusion": lambda: confusion.sum(0),
        }

    def _figure(self, metric: str, sums: Sums) -> NDArray[np.float64]:
        hits = np.asarray(sums["hits"], np.float64)
        if metric == "pixel_accuracy":
            return np.asarray(hits.sum(-1) / sums["pixels"])
        iou = hits / (sums["target"] + sums["predicted"] - hits)
        if metric == "miou":
            present = ~np.isnan(iou)
            return np.asarray(iou.sum(-1, where=present) / present.sum(-1))
        return np.asarray(iou[..., self.classes.index(metric.removeprefix("iou/"))])
