"""The table of tasks: one record says what a task is, from its unit to its loss, metric and colours.

The first six have Taskonomy's names, encodings and order; the benchmarks NYUD-v2 and PASCAL-Context have the others too. A
network regresses `encode(target)`; `decode(output)` brings a raw output back to physical units. The constants are those
published with Task Grouping (Standley et al., ICML 2020), converted to our units: there depth is in 1/512 m, and keypoints and
edges are 16-bit values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from mult import draw, losses, metrics

IGNORE = losses.IGNORE
"""The class id of a pixel that no loss or metric counts."""


@dataclass(frozen=True)
class Task:
    """All that the library knows of a task; what another file needs to know of it becomes a field here.

    `channels` None means categorical: as many outputs as the dataset has classes, and targets int64 (H, W) with 255 = ignore.
    All other targets are float32 (channels, H, W) in `unit`. `encode` and `decode` take (B, C, H, W).
    """

    name: str
    channels: int | None
    unit: str
    resize: Literal["nearest", "normals", "area"]
    """How targets are resized: normals are interpolated over valid pixels and normalised again."""
    flip: Literal["mirror", "mirror_negate_x"]
    """What a mirrored image does to the target; normals also change the sign of x."""
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    loss: losses.Loss
    metric: Callable[..., metrics.Accumulator]
    """Makes an empty accumulator. The argument is the names of the classes, None for a task that is not categorical; keyword
    arguments are those that a dataset gives in `metric_arguments` (mult/data/sample.py)."""
    primary: str
    """The metric that stands for the task in comparisons."""
    colours: draw.Colours
    of_colours: bool = False
    """Whether the label is a function of the image's colours, so that it is wrong of an image whose colours were changed."""
    scaling: Literal["same", "divided", "unknown"] = "same"
    """The values of a view that is enlarged by s: the same, divided by s, or not to be told from those of the view."""
    error_label: str | None = None
    """What an evaluation's histogram of errors shows; None: the metric has no histogram."""
    quick: Mapping[str, float] = field(default_factory=dict)
    """Arguments of `metric` that take less time, for `eval.quick`; the metric's notes say which it had."""
    unitless_metric: Callable[[], metrics.Accumulator] | None = None
    """Takes the place of `metric` where the unit of the dataset's labels is unknown; None: `metric` needs no unit."""

    @property
    def categorical(self) -> bool:
        return self.channels is None

    def predict(self, output: Tensor, size: tuple[int, int]) -> Tensor:
        """Raw outputs (B, C, h, w) -> predictions at (height, width); resized first, so that logits blend and not classes.

        float32 (B, channels, H, W) in `unit`, or int64 (B, H, W) for a categorical task.
        """
        output = output.float()
        if self.categorical:  # puts the logits of a pixel side by side: argmax over planes takes several times as long
            output = output.contiguous(memory_format=torch.channels_last)
        if output.shape[-2:] != size:
            output = F.interpolate(output, size=size, mode="bilinear", align_corners=False)
        return self.decode(output)


def cut(output: Tensor, content: tuple[int, int, int, int]) -> Tensor:
    """The part of an output (..., H, W), at the size of the network's input, where the view is: (top, left, height, width)."""
    top, left, height, width = content
    return output[..., top : top + height, left : left + width]


def _identity(values: Tensor) -> Tensor:
    return values


def _normalise(vectors: Tensor) -> Tensor:
    """Unit vectors, as F.normalize(vectors, dim=1), whose norm over planes takes 20 times as long on a CPU."""
    return vectors / vectors.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-12)


class _Code(TypedDict):
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


def _affine(offset: float, scale: float) -> _Code:
    """encode(v) = (v - offset) / scale and its inverse."""
    return {"encode": lambda values: (values - offset) / scale, "decode": lambda output: output * scale + offset}


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="segment_semantic",
            channels=None,
            unit="class",
            resize="nearest",
            flip="mirror",
            encode=_identity,
            decode=lambda output: output.argmax(dim=1),
            loss=losses.cross_entropy,
            metric=lambda classes: metrics.Segmentation(list(classes or ())),
            primary="miou",
            colours=draw.Classes(ignore=IGNORE),
        ),
        Task(
            name="depth_zbuffer",
            channels=1,
            unit="m",
            resize="nearest",
            flip="mirror",
            scaling="divided",  # what is s times as large looks s times as near
            **_affine(1500 / 512, 1000 / 512),
            loss=losses.rotate_l1,
            metric=lambda classes: metrics.Depth(),
            primary="rmse",
            colours=draw.Scalar("viridis"),  # not a rainbow: lightness says near and far to every eye
            error_label="(prediction - truth) / truth; ends hold all beyond",
            unitless_metric=lambda: metrics.Depth(metric=False),
        ),
        Task(
            name="normal",
            channels=3,
            unit="unit vector",
            resize="normals",
            flip="mirror_negate_x",
            encode=_identity,
            decode=_normalise,
            loss=losses.l1,
            metric=lambda classes: metrics.Normals(),
            primary="mean",
            colours=draw.Directions(),
            error_label="angle between prediction and truth, deg",
        ),
        Task(
            name="keypoints2d",
            channels=1,
            unit="of full scale",
            resize="area",
            flip="mirror",
            of_colours=True,
            scaling="unknown",  # it is a function of the image at one scale
            **_affine(50 / 65535, 100 / 65535),
            loss=losses.l1,
            metric=lambda classes: metrics.Regression(),
            primary="l1",
            colours=draw.Scalar("inferno"),
        ),
        Task(
            name="edge_texture",
            channels=1,
            unit="of full scale",
            resize="area",
            flip="mirror",
            of_colours=True,
            scaling="unknown",
            **_affine(718 / 65535, 1070 / 65535),
            loss=losses.l1,
            metric=lambda classes: metrics.Regression(),
            primary="l1",
            colours=draw.Scalar("inferno"),
        ),
        Task(
            name="reshading",
            channels=1,
            unit="of full scale",
            resize="area",
            flip="mirror",
            scaling="unknown",  # its fall-off depends on the distance
            **_affine(0.4962, 0.2846),
            loss=losses.l1,
            metric=lambda classes: metrics.Regression(),
            primary="l1",
            colours=draw.Scalar("gray", low=0.0, high=1.0),
        ),
        Task(
            name="boundary",
            channels=1,
            unit="probability",
            resize="nearest",  # lines stay 0 or 1, as the loss and the metric need
            flip="mirror",
            encode=_identity,
            decode=torch.sigmoid,
            loss=losses.balanced_cross_entropy,
            # 0.0075 of the diagonal is BSDS500's and PASCAL-Context's; a dataset with another one says so.
            metric=lambda classes, max_distance=0.0075, thresholds=99: metrics.Boundary(max_distance, thresholds),
            quick={"thresholds": 24},
            primary="odsF",
            colours=draw.Scalar("gray", low=0.0, high=1.0),
        ),
        Task(
            name="saliency",
            channels=1,
            unit="probability",
            resize="nearest",
            flip="mirror",
            encode=_identity,
            decode=torch.sigmoid,
            loss=losses.binary_cross_entropy,
            metric=lambda classes: metrics.Saliency(),
            primary="maxF",
            colours=draw.Scalar("gray", low=0.0, high=1.0),
        ),
        Task(
            name="human_parts",
            channels=None,
            unit="class",
            resize="nearest",
            flip="mirror",
            encode=_identity,
            decode=lambda output: output.argmax(dim=1),
            loss=losses.cross_entropy,
            metric=lambda classes: metrics.Segmentation(list(classes or ())),
            primary="miou",
            colours=draw.Classes(ignore=IGNORE),
        ),
    )
}
