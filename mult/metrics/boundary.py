"""Boundaries one pixel wide, matched one to one with the truth: odsF."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mult.errors import UserError
from mult.metrics.accumulator import Accumulator, Constant, Sums, UnitAndDirection, sum_per_image, zeros
from mult.metrics.thinning import Bool, Real, suppress, thin
from mult.runtime.workers import map_images

Counts = NDArray[np.int64]

BENCHMARK_THRESHOLDS = 99


class Boundary(Accumulator):
    """odsF: the F-measure 2PR / (P + R) at the threshold that is best for the whole dataset, of counts pooled over it.

    Predictions are probabilities in [0, 1], targets 0 or 1. An image is evaluated in the smallest rectangle that holds its
    valid pixels; what is predicted at an invalid pixel, or is not a number, counts as 0. Non-maximum suppression leaves the
    maxima across the prediction's lines (mult/metrics/thinning.py). For every threshold t = k / (thresholds + 1) the pixels
    of at least t are then thinned, and matched one to one with the truth's pixels, as many of them as possible, at distances
    of at most `max_distance` times the rectangle's diagonal: 0.011 for NYUD-v2, 0.0075 for PASCAL-Context. P = matched /
    predicted and R = matched / truth. The truth is not thinned, as in Berkeley's code: where its lines are wider than a
    pixel, or have stairs, even a perfect prediction stays below 1. odsF is None where there is no truth.

    99 thresholds are the benchmark's. Fewer are a quick form for use during training, and `notes` says so: 24 are every
    fourth of the 99, so that odsF is at most what it would be with 99.

    What is shown, in test_matching.py, test_boundary.py and test_thinning.py of tests/metrics: the number of matched pixels is
    that of the exact assignment; the thinned lines are those of scikit-image's `thin`. Against the C code that the package
    edgeval has, where that is installed: the maxima are those of the Structured Edge Detection toolbox, but for a few pixels
    that its float32 decides otherwise; Berkeley's `correspondPixels` never matches more pixels, and at most 0.5 % fewer. It
    looks for the cheapest assignment in a graph with a random sample of the edges that leave a pixel unmatched, and so misses
    a few pairs.
    What is not shown: parity with SEISM, which runs in Matlab, reads predictions rounded to 8 bits, and draws the truth's
    lines itself, from regions. The two have not been compared on the same files.

    An image takes 8 bytes a threshold and 8 more. One of 425 x 560 takes one to two seconds of a core, which is why images are
    counted in several processes within `mult.runtime.workers.image_workers`, as evaluations are.
    """

    METRICS: Mapping[str, UnitAndDirection] = {"odsF": ("", "higher")}
    NEEDS: Mapping[str, tuple[str, ...]] = {"odsF": ("matched", "predicted", "truth")}
    PRIMARY = "odsF"

    def __init__(self, max_distance: float, thresholds: int = BENCHMARK_THRESHOLDS) -> None:
        if not 0 < max_distance < 1 or thresholds < 1:
            raise UserError(
                f"Boundary: got max_distance {max_distance} and {thresholds} thresholds; expected a fraction of the image's "
                f"diagonal in (0, 1) and at least one threshold; the benchmarks have 0.011 or 0.0075, and 99"
            )
        if find_spec("scipy") is None:
            raise UserError('Boundary: got no SciPy; expected it to be installed; run: pip install "mult-dense[labels]"')
        self.max_distance, self.thresholds = max_distance, thresholds
        self.sums = zeros(("pixels", "truth"), ()) | {
            name: torch.zeros(thresholds, dtype=torch.int64) for name in ("matched", "predicted")
        }

    @property
    def notes(self) -> dict[str, Any]:
        """How odsF was computed, and the threshold, precision and recall that it is of (None where it is None)."""
        sums = {name: amount.numpy() for name, amount in self.sums.items()}
        best = int(self._f_measures(sums).argmax())
        matched, predicted, truth = int(sums["matched"][best]), int(sums["predicted"][best]), int(sums["truth"])
        return {
            "max_distance": self.max_distance,
            "thresholds": self.thresholds,
            "quick": self.thresholds < BENCHMARK_THRESHOLDS,
            "best_threshold": (best + 1) / (self.thresholds + 1) if truth else None,
            "precision": matched / predicted if truth and predicted else None,
            "recall": matched / truth if truth else None,
        }

    @staticmethod
    def fit_constants(values: NDArray[Any]) -> dict[str, Constant]:
        """0, for which odsF is 0: a constant has no lines. (Of another constant thinning leaves the skeleton of the frame.)"""
        return {"odsF": np.zeros(1)}

    def _measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Callable[[], Tensor]]:
        maps = (each[:, 0].cpu().numpy() for each in (prediction, target > 0.5, valid))
        count = partial(count_image, max_distance=self.max_distance, thresholds=self.thresholds)
        counts = map_images(count, *maps)
        matched, predicted, truth = (torch.from_numpy(np.stack(column)) for column in zip(*counts, strict=True))
        return {
            "pixels": lambda: sum_per_image(valid),
            "matched": lambda: matched,
            "predicted": lambda: predicted,
            "truth": lambda: truth,
        }

    def _divide(self, metric: str, sums: Sums) -> NDArray[np.float64]:
        return np.where(np.asarray(sums["truth"]) > 0, self._f_measures(sums).max(-1), math.nan)

    @staticmethod
    def _f_measures(sums: Sums) -> NDArray[np.float64]:
        """F of each threshold (..., thresholds), 0 where nothing is matched; 2PR / (P + R) with P and R written out."""
        return np.asarray(2 * sums["matched"] / np.maximum(sums["predicted"] + np.asarray(sums["truth"])[..., None], 1))


def count_image(
    probability: Real, truth: Bool, valid: Bool, max_distance: float, thresholds: int = BENCHMARK_THRESHOLDS
) -> tuple[Counts, Counts, Counts]:
    """The numbers of matched, predicted and true pixels of one image; the first two for each threshold, (thresholds,).

    `probability`, `truth` and `valid` are (H, W). It depends on its arguments alone.
    """
    matched, predicted = np.zeros((2, thresholds), np.int64)
    if not valid.any():
        return matched, predicted, np.zeros((), np.int64)
    box = tuple(slice(places[0], places[-1] + 1) for places in (np.flatnonzero(valid.any(axis)) for axis in (1, 0)))
    probability, truth = np.where(valid, np.nan_to_num(probability), 0)[box], (truth & valid)[box]
    levels = np.arange(1, thresholds + 1) / (thresholds + 1)
    maxima = suppress(probability, levels[0])
    matching = Matching(truth, max_distance * math.hypot(*truth.shape))
    before = -1
    for k, level in enumerate(levels):
        mask = maxima >= level
        number = int(np.count_nonzero(mask))
        if number == before:  # the masks shrink, so it is the same one
            matched[k], predicted[k] = matched[k - 1], predicted[k - 1]
            continue
        lines = thin(mask)
        matched[k], predicted[k], before = matching.count(lines), np.count_nonzero(lines), number
    return matched, predicted, np.asarray(truth.sum(dtype=np.int64))


class Matching:
    """Pairs of a predicted and a true pixel at most `reach` pixels apart, each pixel in one pair at most."""

    def __init__(self, truth: Bool, reach: float) -> None:
        # So that a distance equal to the limit counts, whichever way the limit is rounded.
        reach *= 1 + 1e-9
        self.margin = int(reach)
        padded = np.pad(truth, self.margin)
        self.number = int(np.count_nonzero(truth))
        self.index = np.full(padded.size, -1, np.int32)
        self.index[padded.ravel()] = np.arange(self.number)
        y, x = np.mgrid[-self.margin : self.margin + 1, -self.margin : self.margin + 1]
        self.steps = (y * padded.shape[1] + x)[y * y + x * x <= reach**2]

    def count(self, predicted: Bool) -> int:
        """The largest number of pairs that there can be."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_flow

        points = np.flatnonzero(np.pad(predicted, self.margin))
        partners = self.index[points[:, None] + self.steps]
        near = partners >= 0
        # A flow from a source by a predicted pixel and a true one to a sink, every edge for one unit; a row of the graph is a
        # node's edges. SciPy's `maximum_bipartite_matching` would count the same, but takes exponential time where graphs
        # are long and narrow, as those of lines are (SciPy's issue 26147).
        first, last = 1 + len(points), 1 + len(points) + self.number
        heads = np.concatenate([np.arange(1, first), first + partners[near], np.full(self.number, last)])
        degrees = np.concatenate([[len(points)], near.sum(1), np.ones(self.number, int), [0]])
        starts = np.append(0, degrees.cumsum())
        graph = csr_array((np.ones(len(heads), np.int32), heads, starts), shape=(last + 1, last + 1))
        return int(maximum_flow(graph, 0, last, method="dinic").flow_value)
