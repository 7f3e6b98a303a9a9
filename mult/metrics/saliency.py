"""Saliency, as detection of the salient pixels: maxF."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.metrics.accumulator import Accumulator, Constant, Sums, UnitAndDirection, sum_per_image, zeros


class Saliency(Accumulator):
    """maxF: the F-measure (1 + b) P R / (b P + R), b = 0.3, at the threshold that is best for the whole dataset.

    Predictions are probabilities in [0, 1], targets 0 or 1. A pixel is predicted at threshold k / 256, k = 1..255, if its
    probability is at least that; one that is not a number never is. P = hits / predicted and R = hits / truth are of counts
    pooled over the dataset's valid pixels. maxF is None where no pixel is salient.

    b = 0.3 is the beta^2 of Achanta et al. (CVPR 2009). Others use 19 or 256 thresholds, or the mean of F over images.

    An image takes 2,048 bytes.
    """

    THRESHOLDS = 255
    BETA_SQUARED = 0.3
    METRICS: Mapping[str, UnitAndDirection] = {"maxF": ("", "higher")}
    NEEDS: Mapping[str, tuple[str, ...]] = {"maxF": ("hits", "predicted", "truth")}
    PRIMARY = "maxF"

    def __init__(self) -> None:
        self.sums = zeros(("pixels", "truth"), ()) | {
            name: torch.zeros(self.THRESHOLDS, dtype=torch.int64) for name in ("hits", "predicted")
        }

    @property
    def notes(self) -> dict[str, Any]:
        """The threshold that maxF is of; None where it is None."""
        sums = {name: amount.numpy() for name, amount in self.sums.items()}
        best = (int(self._f_measures(sums).argmax()) + 1) / (self.THRESHOLDS + 1)
        return {"best_threshold": best if sums["truth"] > 0 else None}

    @staticmethod
    def fit_constants(values: NDArray[Any]) -> dict[str, Constant]:
        """1, by which every pixel is salient; below the lowest threshold none is, and maxF is 0."""
        return {"maxF": np.ones(1)}

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        images, bins = len(target), self.THRESHOLDS + 1
        true = (target > 0.5) & valid
        passed = (prediction.nan_to_num(0) * bins).clamp(0, self.THRESHOLDS).long()  # how many thresholds each pixel passes
        image = torch.arange(images, device=target.device).view(-1, 1, 1, 1)
        # Invalid pixels go to a last bin, which is dropped.
        place = ((image * 2 + true) * bins + passed).where(valid, images * 2 * bins)
        histogram = torch.bincount(place.flatten(), minlength=images * 2 * bins + 1)[:-1].view(images, 2, bins)
        at_least = histogram.flip(2).cumsum(2).flip(2)[..., 1:]  # (B, false or true, thresholds)
        return {
            "pixels": lambda: sum_per_image(valid),
            "truth": lambda: sum_per_image(true),
            "hits": lambda: at_least[:, 1],
            "predicted": lambda: at_least.sum(1),
        }

    def _divide(self, metric: str, sums: Sums) -> NDArray[np.float64]:
        return np.where(np.asarray(sums["truth"]) > 0, self._f_measures(sums).max(-1), math.nan)

    def _f_measures(self, sums: Sums) -> NDArray[np.float64]:
        """F at each threshold (..., thresholds) with P and R written out, 0 where nothing is true or predicted."""
        hits, predicted, truth = sums["hits"], sums["predicted"], np.asarray(sums["truth"])[..., None]
        # The sums of both sides round alike, so that a perfect prediction has exactly 1.
        wanted = predicted + self.BETA_SQUARED * truth
        return np.asarray((hits + self.BETA_SQUARED * hits) / np.where(wanted > 0, wanted, 1))
