"""Errors of maps of numbers, in the task's own unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mult.metrics.accumulator import Accumulator, Constant, UnitAndDirection, sum_per_image, zeros


class Regression(Accumulator):
    """Mean absolute and root mean squared difference: the mean over channels, then over valid pixels.

    An image takes 20 bytes.
    """

    METRICS: Mapping[str, UnitAndDirection] = {"l1": (None, "lower"), "rmse": (None, "lower")}
    NEEDS: Mapping[str, tuple[str, ...]] = {"l1": ("absolute", "pixels"), "rmse": ("squared", "pixels")}
    PRIMARY = "l1"

    def __init__(self) -> None:
        self.sums = zeros(("pixels",), ("absolute", "squared"))

    @staticmethod
    def fit_constants(values: NDArray[Any]) -> dict[str, Constant]:
        """The median of each channel for l1, its mean for rmse."""
        return {"l1": np.median(values, axis=0), "rmse": values.mean(0, dtype=np.float64)}

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        error = (prediction - target).where(valid, 0.0)
        channels = error.shape[1]
        return {
            "pixels": lambda: sum_per_image(valid),
            "absolute": lambda: sum_per_image(error.abs()) / channels,
            "squared": lambda: sum_per_image(error.square()) / channels,
        }
