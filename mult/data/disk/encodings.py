"""Taskonomy's PNG encodings: what the pixels of each task's files mean, in both directions.

The table in mult/data/README.md has the codes and their sources. Views of our own datasets, derived labels and predictions are
written in the same encodings. A task that Taskonomy's files label has an entry in ENCODINGS, from which the reader and the
index of files (mult/data/taskonomy/) learn of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mult.data.disk.images import GRAY_16_BIT, Array, Mask, channels_first
from mult.data.sample import BadFileError
from mult.errors import UserError
from mult.tasks import IGNORE

CLASSES = (
    "background",
    "bottle",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
)
"""The names of class ids 0..16, which are the files' codes 1..17."""

DEPTH_UNITS_PER_M = 512
NO_GEOMETRY = 65535
"""The code of depth where there is no surface."""
NO_NORMAL = 128
"""The code of all three components where there is no normal."""


def _scaled(pixels: Array, units: int) -> Array:
    """(H, W) -> float32 (1, H, W), in one pass over the pixels."""
    return np.divide(pixels, np.float32(units), dtype=np.float32)[None]


# Decoders: (pixels, geometry (H, W), file) -> target, valid (H, W).


def _decode_segmentation(pixels: Array, geometry: Mask, path: Path) -> tuple[Array, Mask]:
    highest = int(pixels.max())
    if highest > len(CLASSES):
        raise BadFileError(
            f"{path}: got label code {highest}; expected 0 (uncertain) to {len(CLASSES)}; "
            "map the labels to Taskonomy's classes",
            "range",
        )
    target = pixels - np.uint8(1)  # code 0 wraps around to 255, which is IGNORE
    return target.astype(np.int64), target != IGNORE


def _decode_depth(pixels: Array, geometry: Mask, path: Path) -> tuple[Array, Mask]:
    valid = geometry & (pixels != NO_GEOMETRY)
    return _scaled(pixels * valid, DEPTH_UNITS_PER_M), valid


def _decode_normal(pixels: Array, geometry: Mask, path: Path) -> tuple[Array, Mask]:
    red, green, blue = planes = channels_first(pixels)
    valid = geometry & ((red != NO_NORMAL) | (green != NO_NORMAL) | (blue != NO_NORMAL))
    normal = planes - np.float32(255 / 2)  # in proportion to the normal; never 0, as codes are integers
    normal *= valid / np.sqrt(np.einsum("chw,chw->hw", normal, normal))
    return normal, valid


def _decode_16bit(pixels: Array, geometry: Mask, path: Path) -> tuple[Array, Mask]:
    return _scaled(pixels, 65535), np.ones(pixels.shape, np.bool_)


def _decode_reshading(pixels: Array, geometry: Mask, path: Path) -> tuple[Array, Mask]:
    gray = pixels if pixels.ndim == 2 else pixels[..., 0]
    return _scaled(gray * geometry, 255), geometry


# Encoders: (target, geometry (H, W)) -> pixels. They refuse values that the files cannot hold.


def require_encodable(condition: Any, what: str, got: object, expected: str) -> None:
    """Raise UserError unless `condition` holds, without which the files cannot hold the labels."""
    if not condition:
        raise UserError(f"labels to write: got {what} {got}; expected {expected}; check the units and the valid mask")


def _encode_segmentation(target: Array, geometry: Mask) -> Array:
    good = ((target >= 0) & (target < len(CLASSES))) | (target == IGNORE)
    require_encodable(good.all(), "class ids", np.unique(target[~good])[:5], f"0..{len(CLASSES) - 1} or {IGNORE}")
    return np.where(target == IGNORE, 0, target.astype(np.int64) + 1).astype(np.uint8)


def _encode_depth(target: Array, geometry: Mask) -> Array:
    code = np.rint(np.where(geometry, target[0], 1).astype(np.float64) * DEPTH_UNITS_PER_M)
    good = (code >= 1) & (code < NO_GEOMETRY)
    require_encodable(good.all(), "depths", target[0][~good][:5], f"metres in (0, {DEPTH_LIMITS_M[1]:.3f}] where valid")
    return np.where(geometry, code, NO_GEOMETRY).astype(np.uint16)


def _encode_normal(target: Array, geometry: Mask) -> Array:
    normal = np.where(geometry, target, 0)
    length = np.linalg.norm(normal, axis=0)
    good = (np.abs(length - 1) < 1e-2) | (length == 0)
    require_encodable(good.all(), "normals of length", length[~good][:5], "unit vectors, or zeros where there is none")
    # 0 becomes 127.5, which rint rounds to the even 128: NO_NORMAL.
    return np.rint((normal + 1) / 2 * 255).astype(np.uint8).transpose(1, 2, 0)


def _encode_16bit(target: Array, geometry: Mask) -> Array:
    good = (target >= 0) & (target <= 1)
    require_encodable(good.all(), "values", target[~good][:5], "16-bit values / 65535, in [0, 1]")
    return np.rint(target[0].astype(np.float64) * 65535).astype(np.uint16)


def _encode_reshading(target: Array, geometry: Mask) -> Array:
    shade = np.where(geometry, target[0], 0)
    good = (shade >= 0) & (shade <= 1)
    require_encodable(good.all(), "reshading", shade[~good][:5], "values in [0, 1]")
    return np.repeat(np.rint(shade * 255).astype(np.uint8)[..., None], 3, axis=2)


@dataclass(frozen=True)
class Encoding:
    """How a task's files are named and coded.

    endings: what follows `_domain_` in the names of files, in those that we write the first. modes: Pillow's, of the files.
    needs_geometry: whether a pixel is valid only where there is a surface. limits: the lowest and the highest value that a file
    can hold; None where values are not quantities (class ids, unit vectors).
    """

    endings: tuple[str, ...]
    modes: tuple[str, ...]
    needs_geometry: bool
    decode: Callable[[Array, Mask, Path], tuple[Array, Mask]]
    encode: Callable[[Array, Mask], Array]
    limits: tuple[float, float] | None = None

    def file_name(self, view: str) -> str:
        """The name of the file that we write of a view."""
        return f"{view}_domain_{self.endings[0]}.png"


DEPTH_LIMITS_M = (1 / DEPTH_UNITS_PER_M, (NO_GEOMETRY - 1) / DEPTH_UNITS_PER_M)
"""The nearest and the farthest depth that a file can hold."""

ENCODINGS: dict[str, Encoding] = {
    "segment_semantic": Encoding(
        ("segmentsemantic", "segment_semantic"), ("L",), False, _decode_segmentation, _encode_segmentation
    ),
    "depth_zbuffer": Encoding(("depth_zbuffer",), GRAY_16_BIT, True, _decode_depth, _encode_depth, DEPTH_LIMITS_M),
    "normal": Encoding(("normal",), ("RGB",), True, _decode_normal, _encode_normal),
    "keypoints2d": Encoding(("keypoints2d",), GRAY_16_BIT, False, _decode_16bit, _encode_16bit, (0, 1)),
    "edge_texture": Encoding(("edge_texture",), GRAY_16_BIT, False, _decode_16bit, _encode_16bit, (0, 1)),
    "reshading": Encoding(("reshading",), ("L", "RGB"), True, _decode_reshading, _encode_reshading, (0, 1)),
}


def encode_prediction(task: str, prediction: Array) -> tuple[Array, int]:
    """The pixels of the file of a prediction, all of them valid, and how many of its values were clipped to the file's limits.

    prediction: class ids (H, W) or (C, H, W) in the task's unit. UserError for values that are not finite.
    """
    if not np.isfinite(prediction).all():
        raise UserError(f"{task}: got a prediction that is not finite; expected numbers; the checkpoint is of a diverged model")
    encoding, clipped = ENCODINGS[task], prediction
    if encoding.limits is not None:
        clipped = np.clip(prediction, *encoding.limits)
    pixels = encoding.encode(clipped, np.ones(prediction.shape[-2:], np.bool_))
    return pixels, int((clipped != prediction).sum())
