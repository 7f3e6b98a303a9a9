"""Angles between predicted and true surface normals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.metrics.accumulator import Accumulator, Constant, Sums, UnitAndDirection, sum_per_image, zeros


class Normals(Accumulator):
    """Angles between unit vectors, 2 atan2(|p - t|, |p + t|), in degrees; within_a is the fraction below a degrees.

    The vectors are not normalised here. The median comes from a histogram whose bins are centred on the multiples of
    RESOLUTION_DEG, interpolated inside the bin, and is within half a bin of the exact one; the other metrics are exact.

    An image takes 1,476 bytes, most of them a coarse histogram with bins of COARSE_DEG for the medians of resamples; the
    dataset's fine histogram takes 1.4 MB.
    """

    RESOLUTION_DEG = 0.001
    COARSE_DEG = 0.5
    LIMITS_DEG: Mapping[str, float] = {"within_11.25": 11.25, "within_22.5": 22.5, "within_30": 30.0}
    METRICS: Mapping[str, UnitAndDirection] = {
        "mean": ("deg", "lower"),
        "median": ("deg", "lower"),
        "rmse": ("deg", "lower"),
        **dict.fromkeys(LIMITS_DEG, ("", "higher")),
    }
    NEEDS: Mapping[str, tuple[str, ...]] = {
        "mean": ("angle", "pixels"),
        "median": ("fine",),
        "rmse": ("squared", "pixels"),
        **{name: (name, "pixels") for name in LIMITS_DEG},
    }
    PRIMARY = "mean"
    DATASET_SUMS = ("fine",)

    def __init__(self) -> None:
        self.sums = zeros(("pixels", *self.LIMITS_DEG), ("angle", "squared"))
        for name, width in (("histogram", self.COARSE_DEG), ("fine", self.RESOLUTION_DEG)):
            self.sums[name] = torch.zeros(round(180 / width) + 1, dtype=torch.int64)

    @property
    def notes(self) -> dict[str, Any]:
        """The width of the median's bins."""
        return {"resolution_deg": self.RESOLUTION_DEG}

    @property
    def diagnostics(self) -> dict[str, NDArray[Any]]:
        """The histogram of angles and its bins' edges [deg]; the first and the last bin are half as wide as the others."""
        edges = (np.arange(len(self.sums["histogram"]) + 1) - 0.5) * self.COARSE_DEG
        return {"histogram": self.sums["histogram"].numpy(), "edges": edges.clip(0, 180)}

    @staticmethod
    def fit_constants(values: NDArray[Any]) -> dict[str, Constant]:
        """The normalised mean vector, for every metric."""
        mean = values.mean(0, dtype=np.float64)
        return dict.fromkeys(Normals.METRICS, mean / np.linalg.norm(mean))

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        difference, total = ((prediction + sign * target).square().sum(1).sqrt() for sign in (-1, 1))
        mask = valid[:, 0]
        # In float64: torch's vectorised float32 function rounds the last elements of a tensor differently from the others, so
        # the bin of an angle would depend on the batch.
        angle = (torch.atan2(difference.double(), total.double()) * math.degrees(2)).where(mask, 0.0)

        def count_angles(groups: Tensor, number: int, width: float) -> Tensor:
            """Histograms (number, bins) of the angles, by the group index of each pixel: (B, 1, 1), or (1, 1, 1) for all."""
            bins = round(180 / width) + 1
            # NaN is not below 180, so it goes to the last bin; the mean shows it.
            index = groups * bins + (angle / width).round().where(angle < 180, bins - 1).long()
            index = index.where(mask, number * bins)  # an extra last bin, which is dropped
            return torch.bincount(index.flatten(), minlength=number * bins + 1)[:-1].view(number, bins)

        def count_below(limit: float) -> Tensor:
            return sum_per_image(mask & (angle < limit))

        images = torch.arange(len(angle), device=angle.device).view(-1, 1, 1)
        return {
            "pixels": lambda: sum_per_image(mask),
            **{name: partial(count_below, limit) for name, limit in self.LIMITS_DEG.items()},
            "angle": lambda: sum_per_image(angle),
            "squared": lambda: sum_per_image(angle.square()),
            "histogram": lambda: count_angles(images, len(angle), self.COARSE_DEG),
            "fine": lambda: count_angles(images[:1], 1, self.RESOLUTION_DEG)[0],
        }

    def _divide(self, metric: str, sums: Sums) -> NDArray[np.float64]:
        if metric != "median":
            return super()._divide(metric, sums)
        histogram = np.asarray(sums["fine" if "fine" in sums else "histogram"])
        return _median(histogram, 180 / (histogram.shape[-1] - 1))


def _median(histogram: NDArray[Any], width: float) -> NDArray[np.float64]:
    """The median of histograms (..., bins) whose bins are centred on multiples of `width`; NaN for an empty one."""
    cumulative = histogram.cumsum(-1)
    number = cumulative[..., -1:]
    total = np.zeros(number.shape[:-1])
    for rank in ((number + 1) // 2, number // 2 + 1):  # from 1; the two are equal if the number is odd
        index = (cumulative < rank).sum(-1, keepdims=True).clip(max=histogram.shape[-1] - 1)
        inside = np.take_along_axis(histogram, index, -1)
        before = np.take_along_axis(cumulative, index, -1) - inside
        # The ranks of a bin lie evenly about its centre, so that its two middle ranks are equally far from it.
        offset = (2 * (rank - before) - 1 - inside) / (2 * inside)
        total += (index + offset)[..., 0]
    return np.asarray((total / 2 * width).clip(0, 180))
