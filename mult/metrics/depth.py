"""Errors of depth, in metres or, where the labels' unit is unknown, without a unit.

The names of the metrics keep the two apart. `rmse`, `abs_rel`, ... compare metres and exist only where the labels are in
metres. Names that begin with `median_aligned/` or `lstsq_aligned/` are of predictions brought to the scale of each image's
own labels first, and have no unit. They are the only ones where the labels' unit is unknown (a game's depth, a relative depth
map), and stand beside the others where it is known, so that both kinds of dataset can be compared in one column.

    median_aligned: p * median(t) / median(p), with the lower median of an even number. It keeps the model's zero.
    lstsq_aligned:  a p + b with the a, b that minimise sum (a p + b - t)^2. It forgives an offset too, and so reads better.

Both are over the image's pixels that count. Where the median of a prediction is not positive no factor aligns it: the
prediction becomes 0, which fails every delta and has abs_rel 1. A constant prediction becomes the mean of t under lstsq.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.metrics.accumulator import Accumulator, Constant, UnitAndDirection, sum_per_image, zeros

MEDIAN, LSTSQ = ALIGNED = ("median_aligned/", "lstsq_aligned/")
RATIO_LIMITS: Mapping[str, float] = {"delta1": 1.25, "delta2": 1.25**2, "delta3": 1.25**3}
UNITLESS_METRICS: Mapping[str, UnitAndDirection] = {
    "abs_rel": ("", "lower"),
    "log10": ("", "lower"),
    **dict.fromkeys(RATIO_LIMITS, ("", "higher")),
}
UNITLESS_COUNTS, UNITLESS_TOTALS = ("positive", *RATIO_LIMITS), ("relative", "log10")
EDGES = np.linspace(-1, 1, 81)
"""Of the bins of the histogram of relative errors."""


class Depth(Accumulator):
    """Depth errors over valid pixels with target t > 0; delta_k is the fraction with max(p/t, t/p) < 1.25^k.

    A prediction that is not positive and finite fails every delta and is left out of log10 (base 10);
    `notes["nonpositive"]` counts them. log10 is None where all predictions are such. With `metric` False the labels' unit is
    unknown, and only the aligned metrics are measured (see the module).

    An image takes 116 bytes, 68 without the metrics in metres.
    """

    METRICS: Mapping[str, UnitAndDirection] = {
        "rmse": ("m", "lower"),
        **UNITLESS_METRICS,
        "l1": ("m", "lower"),
        **{prefix + name: kind for prefix in ALIGNED for name, kind in UNITLESS_METRICS.items()},
    }
    NEEDS: Mapping[str, tuple[str, ...]] = {
        "rmse": ("squared", "pixels"),
        "l1": ("absolute", "pixels"),
        **{
            prefix + name: (prefix + total, prefix + "positive" if total == "log10" else "pixels")
            for prefix in ("", *ALIGNED)
            for name, total in [("abs_rel", "relative"), ("log10", "log10"), *((name, name) for name in RATIO_LIMITS)]
        },
    }
    PRIMARY = "rmse"
    DATASET_SUMS = ("histogram",)

    def __init__(self, metric: bool = True) -> None:
        self.metric = metric
        prefixes = ("", *ALIGNED) if metric else ALIGNED
        if not metric:
            self.METRICS = {name: kind for name, kind in Depth.METRICS.items() if name.startswith(ALIGNED)}
            self.PRIMARY = MEDIAN + "abs_rel"
        counts = ["pixels", *(prefix + name for prefix in prefixes for name in UNITLESS_COUNTS)]
        totals = [prefix + name for prefix in prefixes for name in UNITLESS_TOTALS]
        self.sums = zeros(counts, ["squared", "absolute", *totals] if metric else totals)
        self.sums["histogram"] = torch.zeros(len(EDGES) - 1, dtype=torch.int64)

    @property
    def notes(self) -> dict[str, Any]:
        """How many predictions were not positive and finite."""
        prefix = "" if self.metric else MEDIAN
        return {"nonpositive": self.pixels - int(self.sums[prefix + "positive"])}

    @property
    def diagnostics(self) -> dict[str, NDArray[Any]]:
        """The histogram of (p - t) / t, with p median-aligned where the unit is unknown; the end bins hold all beyond them."""
        return {"histogram": self.sums["histogram"].numpy(), "edges": EDGES}

    @staticmethod
    def fit_constants(values: NDArray[Any]) -> dict[str, Constant]:
        """For each metric the constant that is best for it, over the pixels with a positive depth."""
        depth = np.sort(values[values > 0]).astype(np.float64)
        median = np.array([np.median(depth)])
        # sum |c - t| / t is least at the median under weights 1 / t.
        weight = np.cumsum(1 / depth)
        constants: dict[str, Constant] = {
            "rmse": np.array([depth.mean()]),
            "l1": median,
            "log10": median,
            "abs_rel": np.array([depth[np.searchsorted(weight, weight[-1] / 2)]]),
        }
        # A constant passes at the depths within the ratio: in a window of log depth, twice log(limit) wide. The best one is in
        # the middle of the window that holds the most depths.
        log_depth = np.log(depth)
        for name, limit in RATIO_LIMITS.items():
            ends = np.searchsorted(log_depth, log_depth + 2 * math.log(limit), side="left")
            first = int((ends - np.arange(len(depth))).argmax())
            constants[name] = np.array([math.sqrt(depth[first] * depth[ends[first] - 1])])
        # After alignment all constants are the same prediction.
        return constants | dict.fromkeys([prefix + name for prefix in ALIGNED for name in UNITLESS_METRICS], median)

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        mask = valid & (target > 0)
        # Pixels outside the mask become a perfect 1, which adds 0 to every sum of errors.
        true, predicted = target.where(mask, 1.0), prediction.where(mask, 1.0)
        aligned = {
            prefix: align(predicted, true, mask).where(mask, 1.0)
            for prefix, align in ALIGNMENTS.items()
            if any(prefix + name in self.sums for name in (*UNITLESS_COUNTS, *UNITLESS_TOTALS))
        }
        measures: dict[str, Callable[[], Tensor]] = {
            "pixels": lambda: sum_per_image(mask),
            "squared": lambda: sum_per_image((predicted - true).square()),
            "absolute": lambda: sum_per_image((predicted - true).abs()),
            "histogram": lambda: _count_relative_errors(aligned["" if self.metric else MEDIAN] / true - 1, mask),
        }
        for prefix, values in aligned.items():
            measures |= {prefix + name: measure for name, measure in _measure_unitless(values, true, mask).items()}
        return measures


def _measure_unitless(predicted: Tensor, true: Tensor, mask: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The sums per image that do not change when prediction and target are scaled alike."""
    positive = mask & (predicted > 0) & (predicted < torch.inf)
    quotient = predicted / true
    ratio = torch.maximum(quotient, true / predicted)
    ratio_or_inf = ratio.where(positive, torch.inf)

    def count_below(limit: float) -> Tensor:
        return sum_per_image(ratio_or_inf < limit)

    return {
        "positive": lambda: sum_per_image(positive),
        **{name: partial(count_below, limit) for name, limit in RATIO_LIMITS.items()},
        "relative": lambda: sum_per_image((quotient - 1).abs()),
        # In float64: torch's vectorised float32 function rounds the last elements of a tensor differently from the others.
        "log10": lambda: sum_per_image(ratio.where(positive, 1.0).double().log10()),
    }


def _count_relative_errors(error: Tensor, mask: Tensor) -> Tensor:
    """Counts between EDGES; errors beyond them go to the end bins, NaN to the last."""
    bins = len(EDGES) - 1
    index = ((error - EDGES[0]) * (bins / (EDGES[-1] - EDGES[0]))).nan_to_num(bins).clamp(0, bins - 1).long()
    return torch.bincount(index.where(mask, bins).flatten(), minlength=bins + 1)[:-1]


def _align_median(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    # Image by image: the median along an axis, which returns indices too, is not deterministic on a GPU.
    median, true_median = (
        torch.stack([image.nanmedian() for image in values.where(mask, torch.nan)]) for values in (predicted, true)
    )
    return predicted * (true_median / median).where(median > 0, 0.0).view(-1, 1, 1, 1)


def _align_lstsq(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    number = sum_per_image(mask).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (sum_per_image(values.where(mask, 0.0)) / number).to(values.dtype).view(-1, 1, 1, 1)

    true_mean = mean(true)
    deviation, true_deviation = predicted - mean(predicted), true - true_mean
    variance = mean(deviation.square())
    return deviation * (mean(deviation * true_deviation) / variance).where(variance != 0, 0.0) + true_mean


ALIGNMENTS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "": lambda predicted, true, mask: predicted,
    MEDIAN: _align_median,
    LSTSQ: _align_lstsq,
}
"""Prefix of sums and metrics -> (prediction, target, mask) to the prediction that is compared with the target."""
