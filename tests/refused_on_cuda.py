"""The operators that torch refuses on CUDA with deterministic algorithms, as data, and which calls are of such.

Source: the list "will throw a RuntimeError when mode=True" of torch.use_deterministic_algorithms
(docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html), each line with the name of its operator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

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
    "EmbeddingBag, backward": "_embedding_bag_backward",
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
_WITH_REFUSED_BACKWARD = {name.removesuffix("_backward") for name in REFUSED.values() if name.endswith("_backward")}
_NO_REDUCTION = 0


class Call(NamedTuple):
    """A call of an operator."""

    name: str
    overload: str
    arguments: tuple[Any, ...]

    @classmethod
    def of(cls, function: Any, arguments: tuple[Any, ...]) -> Call:
        return cls(function._schema.name.split("::")[1], function._overloadname, arguments)


def find_refused(calls: Iterable[Call]) -> set[str]:
    """The names of the operators among these calls that are refused in the form that was called."""
    return {call.name for call in calls if call.name in REFUSED.values() and not _is_permitted(call)}


def find_refused_backward(calls: Iterable[Call]) -> set[str]:
    """The names of those whose backward pass, which was not recorded, would be refused."""
    return {call.name for call in calls if call.name in _WITH_REFUSED_BACKWARD and call.arguments[0].requires_grad}


def _is_permitted(call: Call) -> bool:
    if call.name == "nll_loss2d_forward":
        return bool(call.arguments[3] == _NO_REDUCTION)
    if call.name == "bincount":
        return len(call.arguments) < 2 or call.arguments[1] is None
    if call.name in ("median", "nanmedian"):
        return call.overload == "default"  # the median of all numbers has no indices
    return call.name == "cumsum" and not call.arguments[0].is_floating_point()
