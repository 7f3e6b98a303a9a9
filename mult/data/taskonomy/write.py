"""The writer of views in Taskonomy's layout and encodings: of rendered rooms and of annotated RGB-D folders."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mult.data.disk.encodings import ENCODINGS, require_encodable
from mult.data.disk.images import Array, Mask, write_png
from mult.errors import UserError, suggest
from mult.files import read_json, remove_folder, write_text
from mult.labels import Intrinsics
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
    intrinsics: Intrinsics,
    origin: Mapping[str, object] | None = None,
) -> None:
    """Write one view as `<root>/<task>/<building>/point_P_view_V_domain_D.png`, with `mask_valid` and `point_info`.

    image (H, W, 3); targets in the tasks' units: (C, H, W), or class ids (H, W) with 255 = uncertain; valid (H, W): where there
    is geometry. Elsewhere depth, normals and reshading are coded as missing whatever the targets hold, as are normals of zeros.
    intrinsics (fx, fy, cx, cy) in pixel indices; `point_info` holds them and the size, so that images need not be square, and
    what the labels were made from (`origin`).

    Every file appears whole or not at all, and `point_info` last: a view is complete when it exists. Raises UserError, before
    anything is written, for a task that Taskonomy does not have, for shapes that differ and for values that the encoding cannot
    hold.
    """
    height, width = valid.shape
    got = f"{image.dtype} {image.shape}"
    is_image = image.dtype == np.uint8 and image.shape == (height, width, 3)
    require_encodable(is_image, "an image", got, f"uint8 {(height, width, 3)}")
    name = f"point_{point}_view_{view}"
    files: dict[str, tuple[str, Array]] = {"rgb": (f"{name}_domain_rgb.png", image)}
    for task, target in targets.items():
        if task not in ENCODINGS:
            remedy = suggest(task, ENCODINGS, "leave it out")
            raise UserError(f"labels to write: got task {task!r}; expected one of {', '.join(ENCODINGS)}; {remedy}")
        channels = TASKS[task].channels
        shape = (height, width) if channels is None else (channels, height, width)
        require_encodable(target.shape == shape, f"{task} of shape", target.shape, str(shape))
        files[task] = ENCODINGS[task].file_name(name), ENCODINGS[task].encode(target, valid)
    files["mask_valid"] = f"{name}_domain_mask_valid.png", valid.astype(np.uint8) * 255
    for folder, (file_name, pixels) in files.items():
        write_png(Path(root, folder, building, file_name), pixels)

    fx, fy, cx, cy = (float(value) for value in intrinsics)
    info: dict[str, object] = {"intrinsics": [fx, fy, cx, cy], "size": [height, width]}
    if height == width and math.isclose(fx, fy):
        info["field_of_view_rads"] = 2 * math.atan(width / 2 / fx)
    if origin is not None:
        info["origin"] = origin
    write_text(_info_path(root, building, point, view), json.dumps(info))


def is_view_complete(root: str | Path, building: str, point: int, view: int) -> bool:
    """Whether `write_view` has finished this view."""
    return _info_path(root, building, point, view).exists()


def has_views(root: str | Path, building: str) -> bool:
    """Whether `write_view` has finished a view of a building."""
    return any(Path(root, "point_info", building).glob("*.json"))


def read_facts(root: str | Path, building: str, point: int, view: int) -> list[float] | None:
    """What `origin` says of the depth of a view that `write_view` has finished; None where its depth has no valid pixel."""
    facts: list[float] | None = read_json(_info_path(root, building, point, view))["origin"]["depth_facts"]
    return facts


def remove_building(root: str | Path, building: str) -> None:
    """Remove all views of a building that `write_view` has written."""
    for domain in ("point_info", "rgb", *ENCODINGS, "mask_valid"):
        remove_folder(Path(root, domain, building))


def _info_path(root: str | Path, building: str, point: int, view: int) -> Path:
    return Path(root, "point_info", building, f"point_{point}_view_{view}_domain_point_info.json")
