"""Distances, in metres or in a unit that nobody knows.

Names keep the two apart. `rmse`, `abs_rel`, ... compare metres and are there only where the labels are in metres. Those
that begin with `median_aligned/` or `lstsq_aligned/` are of predictions brought to the scale of each image's own labels
first, and have no unit: they alone are there where the labels' unit is unknown (a game's depth, a relative depth map), and
beside the others where it is known, so that two worlds can be compared in one column. A column never mixes the two.

    median_aligned: p * median(t) / median(p), the lower median of an even number. Keeps the model's zero.
    lstsq_aligned:  a p + b with the a, b that make sum (a p + b - t)^2 least. Forgives an offset as well, and so flatters.

Both are over the image's pixels that count. Where an image's predicted median is not positive no scale brings it there:
its prediction becomes 0, which fails every delta and has abs_rel 1. A constant has no slope: lstsq makes it the mean of t.
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

from mult.metrics.accumulator import Accumulator, Constant, Kind, per_image, zeros

MEDIAN, LSTSQ = ALIGNED = ("median_aligned/", "lstsq_aligned/")
RATIOS: Mapping[str, float] = {"delta1": 1.25, "delta2": 1.25**2, "delta3": 1.25**3}
WITHOUT_UNIT: Mapping[str, Kind] = {
    "abs_rel": ("", "lower"),
    "log10": ("", "lower"),
    **dict.fromkeys(RATIOS, ("", "higher")),
}
UNITLESS_SUMS = ("positive", *RATIOS, "relative", "log10")
EDGES = np.linspace(-1, 1, 81)


class Depth(Accumulator):
    """Depth errors over valid pixels with target t > 0; delta_k is the fraction with max(p/t, t/p) < 1.25^k.

    A prediction that is not positive and finite fails every delta and is left out of log10 (base 10);
    `notes()["nonpositive"]` counts them. log10 is None where nothing else is predicted. `metric` False: the labels' unit is
    unknown, and only the aligned figures are measured (the module says how).

    An image keeps 116 bytes, 68 without metric figures.
    """

    METRICS: Mapping[str, Kind] = {
        "rmse": ("m", "lower"),
        **WITHOUT_UNIT,
        "l1": ("m", "lower"),
        **{align + name: kind for align in ALIGNED for name, kind in WITHOUT_UNIT.items()},
    }
    NEEDS: Mapping[str, tuple[str, ...]] = {
        "rmse": ("squared", "pixels"),
        "l1": ("absolute", "pixels"),
        **{
            align + name: (align + total, align + "positive" if total == "log10" else "pixels")
            for align in ("", *ALIGNED)
            for name, total in {"abs_rel": "relative", "log10": "log10", **dict(zip(RATIOS, RATIOS, strict=True))}.items()
        },
    }
    PRIMARY = "rmse"
    RELATIVE_PRIMARY = MEDIAN + "abs_rel"
    TOTALS = ("histogram",)

    def __init__(self, metric: bool = True) -> None:
        self.metric = metric
        aligns = ("", *ALIGNED) if metric else ALIGNED
        if not metric:
            self.METRICS = {name: kind for name, kind in Depth.METRICS.items() if name.startswith(ALIGNED)}
            self.PRIMARY = self.RELATIVE_PRIMARY
        self.sums = zeros(
            ("pixels", *(align + name for align in aligns for name in ("positive", *RATIOS))),
            [
                *(["squared", "absolute"] if metric else []),
                *(align + name for align in aligns for name in ("relative", "log10")),
            ],
        )
        self.sums["histogram"] = torch.zeros(len(EDGES) - 1, dtype=torch.int64)

    def notes(self) -> dict[str, Any]:
        align = "" if self.metric else MEDIAN
        return {"nonpositive": self.pixels - int(self.sums[align + "positive"])}

    def totals(self) -> dict[str, NDArray[Any]]:
        """The histogram of (p - t) / t, of median-aligned p where the unit is unknown; the end bins hold all beyond them."""
        return {"histogram": self.sums["histogram"].numpy(), "edges": EDGES}

    @staticmethod
    def constants(values: NDArray[Any]) -> dict[str, Constant]:
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
        # The constants within a ratio of a depth are an interval of its logarithm: the fullest window, and its middle.
        log_depth = np.log(depth)
        for name, limit in RATIOS.items():
            ends = np.searchsorted(log_depth, log_depth + 2 * math.log(limit), side="left")
            first = int((ends - np.arange(len(depth))).argmax())
            constants[name] = np.array([math.sqrt(depth[first] * depth[ends[first] - 1])])
        # Aligned, all constants are the same.
        return constants | dict.fromkeys([align + name for align in ALIGNED for name in WITHOUT_UNIT], median)

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        counts = valid & (target > 0)
        # What does not count becomes a perfect 1, which adds to no sum of errors.
        true, predicted = target.where(counts, 1.0), prediction.where(counts, 1.0)
        aligned = {
            align: bring(predicted, true, counts).where(counts, 1.0)
            for align, bring in ALIGNMENTS.items()
            if any(align + name in self.sums for name in UNITLESS_SUMS)
        }
        measures: dict[str, Callable[[], Tensor]] = {
            "pixels": lambda: per_image(counts),
            "squared": lambda: per_image((predicted - true).square()),
            "absolute": lambda: per_image((predicted - true).abs()),
            "histogram": lambda: _histogram(aligned["" if self.metric else MEDIAN] / true - 1, counts),
        }
        for align, values in aligned.items():
            measures |= {align + name: measure for name, measure in _unitless(values, true, counts).items()}
        return measures


def _unitless(predicted: Tensor, true: Tensor, counts: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What a depth's scale cancels in, per image."""
    positive = counts & (predicted > 0) & (predicted < torch.inf)
    quotient = predicted / true
    ratio = torch.maximum(quotient, true / predicted)
    failing = ratio.where(positive, torch.inf)

    def below(limit: float) -> Tensor:
        return per_image(failing < limit)

    return {
        "positive": lambda: per_image(positive),
        **{name: partial(below, limit) for name, limit in RATIOS.items()},
        "relative": lambda: per_image((quotient - 1).abs()),
        # float64: see normals.py
        "log10": lambda: per_image(ratio.where(positive, 1.0).double().log10()),
    }


def _histogram(error: Tensor, counts: Tensor) -> Tensor:
    """Counts between EDGES, errors beyond them in the end bins and those that are not numbers in the last."""
    bins = len(EDGES) - 1
    index = ((error - EDGES[0]) * (bins / (EDGES[-1] - EDGES[0]))).nan_to_num(bins).clamp(0, bins - 1).long()
    return torch.bincount(index.where(counts, bins).flatten(), minlength=bins + 1)[:-1]


def _median_aligned(predicted: Tensor, true: Tensor, counts: Tensor) -> Tensor:
    ours, theirs = (values.where(counts, torch.nan).flatten(1).nanmedian(1).values for values in (predicted, true))
    return predicted * (theirs / ours).where(ours > 0, 0.0).view(-1, 1, 1, 1)


def _lstsq_aligned(predicted: Tensor, true: Tensor, counts: Tensor) -> Tensor:
    number = per_image(counts).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (per_image(values.where(counts, 0.0)) / number).to(values.dtype).view(-1, 1, 1, 1)

    centre = mean(true)
    ours, theirs = predicted - mean(predicted), true - centre
    spread = mean(ours.square())
    return ours * (mean(ours * theirs) / spread).where(spread != 0, 0.0) + centre


ALIGNMENTS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "": lambda predicted, true, counts: predicted,
    MEDIAN: _median_aligned,
    LSTSQ: _lstsq_aligned,
}
"""Prefix of sums and metrics -> (prediction, target, which pixels count) to the prediction that they are of."""
