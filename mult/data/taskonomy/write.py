"""TODOC"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mult.data.disk.encodings import ENCODINGS, require
from mult.data.disk.images import Array, Mask, write_png
from mult.data.taskonomy.dataset import _known
from mult.files import write_text
from mult.tasks import TASKS


def write_view(
    root: str | Path,
    building: str,
    point: int,
    view: int,
    *,
    image: NDArray[np.uint8],
    targets: Mapping[str, Array],
    valid: Mask,
    intrinsics: tuple[float, float, float, float],
) -> None:
    """Write one view as `<root>/<task>/<building>/point_P_view_V_domain_D.png`, with `mask_valid` and, last,
    `point_info`.

    image (H, W, 3); targets in the library's units: (C, H, W), class ids (H, W) with 255 = uncertain; valid (H, W):
    where there is geometry, without which depth, normals and reshading are coded as missing whatever they hold. So is
    a normal of zeros. intrinsics (fx, fy, cx, cy) in pixel indices. Every file is written under a temporary name and
    then renamed, so the view is complete as soon as its `point_info` exists. Raises UserError, before anything is
    written, for a task that Taskonomy does not have, for shapes that differ and for values that the encoding cannot
    hold.
    """
    height, width = valid.shape
    got = f"{image.dtype} {image.shape}"
    require(image.dtype == np.uint8 and image.shape == (height, width, 3), "an image", got, f"uint8 {(height, width, 3)}")
    coded: dict[str, tuple[str, Array]] = {"rgb": ("rgb", image)}
    for task, target in targets.items():
        _known("write_view", task, ENCODINGS)
        channels = TASKS[task].channels
        shape = (height, width) if channels is None else (channels, height, width)
        require(target.shape == shape, f"{task} of shape", target.shape, str(shape))
        coded[task] = (ENCODINGS[task].ending, ENCODINGS[task].encode(target, valid))
    coded["mask_valid"] = ("mask_valid", valid.astype(np.uint8) * 255)
    for folder, (ending, pixels) in coded.items():
        write_png(Path(root, folder, building, f"point_{point}_view_{view}_domain_{ending}.png"), pixels)

    fx, fy, cx, cy = (float(value) for value in intrinsics)
    info: dict[str, object] = {"intrinsics": [fx, fy, cx, cy], "size": [height, width]}
    if height == width and math.isclose(fx, fy):
        info["field_of_view_rads"] = 2 * math.atan(width / 2 / fx)
    write_text(_info_path(root, building, point, view), json.dumps(info))


def view_complete(root: str | Path, building: str, point: int, view: int) -> bool:
    """Whether `write_view` has finished this view."""
    return _info_path(root, building, point, view).exists()


def _info_path(root: str | Path, building: str, point: int, view: int) -> Path:
    return Path(root, "point_info", building, f"point_{point}_view_{view}_domain_point_info.json")
