"""The operators that torch refuses on CUDA with deterministic algorithms, as data, and which of those that were called are such.

Source: the list "will throw a RuntimeError when mode=True" of torch.use_deterministic_algorithms
(docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html), each line with the name of its operator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

REFUSED = {
    "AvgPool3d, backward": "avg_pool3d_backward",
    "AdaptiveAvgPool2d, backward": "_adaptive_avg_pool2d_backward",
    "AdaptiveAvgPool3d, backward": "_adaptive_avg_pool3d_backward",
    "MaxPool3d, backward": "max_pool3d_with_indices_backward",
    "AdaptiveMaxPool2d, backward": "adaptive_max_pool2d_backward",
    "AdaptiveMaxPool3d, backward": "adaptive_max_pool3d_backward",
    "FractionalMaxPool2d, backward": "fractional_max_pool2d_backward",
    "FractionalMaxPool3d, backward": "fractional_max_pool3d_backward",
    "MaxUnpool1d and 2d": "max_unpool2d",
    "MaxUnpool3d": "max_unpool3d",
    "interpolate linear, backward": "upsample_linear1d_backward",
    "interpolate bilinear, backward": "upsample_bilinear2d_backward",
    "interpolate bilinear with antialias, backward": "_upsample_bilinear2d_aa_backward",
    "interpolate bicubic, backward": "upsample_bicubic2d_backward",
    "interpolate bicubic with antialias, backward": "_upsample_bicubic2d_aa_backward",
    "interpolate trilinear, backward": "upsample_trilinear3d_backward",
    "ReflectionPad1d, backward": "reflection_pad1d_backward",
    "ReflectionPad2d, backward": "reflection_pad2d_backward",
    "ReflectionPad3d, backward": "reflection_pad3d_backward",
    "NLLLoss": "nll_loss_forward",
    "NLLLoss of maps, unless reduction is none": "nll_loss2d_forward",
    "CTCLoss, backward": "_ctc_loss_backward",
    "EmbeddingBag, backward": "_embedding_bag_dense_backward",
    "put_": "put_",
    "histc": "histc",
    "bincount, with weights": "bincount",
    "median with indices": "median",
    "nanmedian with indices": "nanmedian",
    "kthvalue, as median": "kthvalue",
    "grid_sample, backward": "grid_sampler_2d_backward",
    "grid_sample of volumes, backward": "grid_sampler_3d_backward",
    "scatter_reduce": "scatter_reduce",
    "cumsum of floating point, in torch 2.6": "cumsum",
}
_DIFFERENTIATED = {
    "upsample_bilinear2d",
    "upsample_linear1d",
    "_upsample_bilinear2d_aa",
    "upsample_bicubic2d",
    "_upsample_bicubic2d_aa",
    "_adaptive_avg_pool2d",
}
"""Forward passes of some of these."""
_NO_REDUCTION = 0


def find_refused(calls: Iterable[tuple[str, str, tuple[Any, ...]]]) -> set[str]:
    """The names of the refused among calls (name, overload, arguments), where some forms of an operator are permitted."""
    return {name for name, overload, arguments in calls if name in REFUSED.values() and not _is_permitted(name, overload, arguments)}


def find_differentiated(calls: Iterable[tuple[str, str, tuple[Any, ...]]]) -> set[str]:
    """The forward passes whose backward pass is refused, for calls of which the backward pass is not recorded."""
    return {name for name, _, arguments in calls if name in _DIFFERENTIATED and arguments[0].requires_grad}


def _is_permitted(name: str, overload: str, arguments: tuple[Any, ...]) -> bool:
    if name == "nll_loss2d_forward":
        return bool(arguments[3] == _NO_REDUCTION)
    if name == "bincount":
        return len(arguments) < 2 or arguments[1] is None
    if name in ("median", "nanmedian"):
        return overload == "default"  # the median of all numbers has no indices
    return name == "cumsum" and not arguments[0].is_floating_point()
