"""Metrics of dense predictions, pooled over a dataset in bounded memory, and delta_m, which compares two sets of them."""

from mult.metrics.accumulator import Accumulator, Constant
from mult.metrics.boundary import Boundary
from mult.metrics.delta import delta_m, relative_gain
from mult.metrics.depth import Depth
from mult.metrics.normals import Normals
from mult.metrics.regression import Regression
from mult.metrics.saliency import Saliency
from mult.metrics.segmentation import Segmentation

__all__ = [
    "Accumulator",
    "Boundary",
    "Constant",
    "Depth",
    "Normals",
    "Regression",
    "Saliency",
    "Segmentation",
    "delta_m",
    "relative_gain",
]
