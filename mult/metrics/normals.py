"""Directions of surfaces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.metrics.accumulator import Accumulator, Constant, Kind, Sums, per_image, zeros


class Normals(Accumulator):
    """Angles between unit vectors, 2 atan2(|p - t|, |p + t|), in degrees; within_a is the fraction below a degrees.

    Nothing is normalised here. The median comes from a histogram whose bins are centred on the multiples of
    RESOLUTION_DEG: a middle angle is placed in its bin as if the bin were evenly filled, so it is within half of that;
    all else is exact.

    An image keeps a coarse histogram (every COARSE_DEG degrees), from which medians of resamples are: 1,476 bytes. The
    dataset keeps the fine one: 1.4 MB.
    """

    RESOLUTION_DEG = 0.001
    COARSE_DEG = 0.5
    LIMITS_DEG: Mapping[str, float] = {"within_11.25": 11.25, "within_22.5": 22.5, "within_30": 30.0}
    METRICS: Mapping[str, Kind] = {
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
    TOTALS = ("fine",)

    def __init__(self) -> None:
        self.sums = zeros(("pixels", *self.LIMITS_DEG), ("angle", "squared"))
        for name, width in (("histogram", self.COARSE_DEG), ("fine", self.RESOLUTION_DEG)):
            self.sums[name] = torch.zeros(round(180 / width) + 1, dtype=torch.int64)

    def notes(self) -> dict[str, Any]:
        return {"resolution_deg": self.RESOLUTION_DEG}

    def totals(self) -> dict[str, NDArray[Any]]:
        """The histogram of angles and its bins' edges [deg]; the first and last bin are half as wide."""
        edges = (np.arange(len(self.sums["histogram"]) + 1) - 0.5) * self.COARSE_DEG
        return {"histogram": self.sums["histogram"].numpy(), "edges": edges.clip(0, 180)}

    @staticmethod
    def constants(values: NDArray[Any]) -> dict[str, Constant]:
        """The normalised mean vector, for every metric."""
        mean = values.mean(0, dtype=np.float64)
        return dict.fromkeys(Normals.METRICS, mean / np.linalg.norm(mean))

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        apart, together = ((prediction + sign * target).square().sum(1).sqrt() for sign in (-1, 1))
        counts = valid[:, 0]
        # In float64: torch's float32 function rounds differently where a vector ends, and bins would depend on the batch.
        angle = (torch.atan2(apart.double(), together.double()) * math.degrees(2)).where(counts, 0.0)

        def histogram(groups: Tensor, number: int, width: float) -> Tensor:
            """Angles counted apart in `number` groups, given as (B, 1, 1) or a scalar: (number, bins)."""
            bins = round(180 / width) + 1
            # A prediction that is not finite makes the mean NaN; the comparison keeps it out of the index.
            index = groups * bins + (angle / width).round().where(angle < 180, bins - 1).long()
            index = index.where(counts, number * bins)  # a last bin, which is dropped
            return torch.bincount(index.flatten(), minlength=number * bins + 1)[:-1].view(number, bins)

        def below(limit: float) -> Tensor:
            return per_image(counts & (angle < limit))

        images = torch.arange(len(angle), device=angle.device).view(-1, 1, 1)
        return {
            "pixels": lambda: per_image(counts),
            **{name: partial(below, limit) for name, limit in self.LIMITS_DEG.items()},
            "angle": lambda: per_image(angle),
            "squared": lambda: per_image(angle.square()),
            "histogram": lambda: histogram(images, len(angle), self.COARSE_DEG),
            "fine": lambda: histogram(images[:1], 1, self.RESOLUTION_DEG)[0],
        }

    def _figure(self, metric: str, sums: Sums) -> NDArray[np.float64]:
        if metric != "median":
            return super()._figure(metric, sums)
        counted = np.asarray(sums["fine" if "fine" in sums else "histogram"])
        return _median(counted, 180 / (counted.shape[-1] - 1))


def _median(counted: NDArray[Any], width: float) -> NDArray[np.float64]:
    """The median of histograms (..., bins) whose bins are centred on multiples of `width`; NaN of an empty one."""
    upto = counted.cumsum(-1)
    number = upto[..., -1:]
    total = np.zeros(number.shape[:-1])
    for rank in ((number + 1) // 2, number // 2 + 1):  # from 1; the same if the number is odd
        index = (upto < rank).sum(-1, keepdims=True).clip(max=counted.shape[-1] - 1)
        inside = np.take_along_axis(counted, index, -1)
        before = np.take_along_axis(upto, index, -1) - inside
        # From the bin's centre, so that two middle ranks of one bin lie at equal distances from it.
        offset = (2 * (rank - before) - 1 - inside) / (2 * inside)
        total += (index + offset)[..., 0]
    return np.asarray((total / 2 * width).clip(0, 180))
