"""The camera of a frame: from numbers, or from a file a frame or a scene in the forms that people have.

Text: a matrix (3, 3), (3, 4) or (4, 4) row by row, `fx fy cx cy`, or ARKitScenes' `width height fx fy cx cy`. npy: the same
shapes. JSON: `fx`, `fy`, `cx`, `cy` (also `fl_x`, `fl_y`), a matrix under `K`, `camera_matrix`, `intrinsic_matrix` or
`intrinsics`, as rows or flat (Open3D and Record3D go column by column: the place of the zeros tells), with the size of its
images if it is there; and Record3D's list with a camera a frame.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mult.data.disk.camera import check_intrinsics
from mult.data.disk.images import Array, read_npy
from mult.errors import UserError, pluralize
from mult.labels import Intrinsics

_MATRICES = ("K", "camera_matrix", "intrinsic_matrix", "intrinsic", "intrinsics")
_NUMBERS = (("fx", "fy", "cx", "cy"), ("fl_x", "fl_y", "cx", "cy"), ("fx", "fy", "ppx", "ppy"))
_SIZES = (("height", "width"), ("h", "w"))


class StoredCamera(NamedTuple):
    """Intrinsics in pixel indices, and the (height, width) of the images that they are of, None if the file does not say."""

    intrinsics: Intrinsics
    size: tuple[int, int] | None


def read_camera(path: Path, frame: str = "") -> StoredCamera:
    """The camera in a file, of a frame where the file has several. Raises UserError, naming the file, if it holds none."""
    try:
        if path.suffix.lower() == ".npy":
            return StoredCamera(_to_intrinsics(path, read_npy(path)), None)
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            return _from_json(path, json.loads(text), frame)
        numbers = np.array([float(number) for number in re.split(r"[\s,;]+", text.strip().strip("[]")) if number])
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: got no camera ({error}); expected intrinsics as text, npy or JSON; correct it") from error
    if numbers.size == 6:
        width, height, *of_image = numbers.tolist()
        return StoredCamera(check_intrinsics(str(path), of_image), (int(height), int(width)))
    return StoredCamera(_to_intrinsics(path, numbers), None)


def find_camera_file(path: Path, limit_s: float = 0.01) -> Path:
    """The file itself or, where there is none of that name, the one nearest in time, by the last number of the names.

    ARKitScenes' cameras may be a thousandth of a second off their images' names. Raises UserError where there is none.
    """
    if path.is_file():
        return path
    time = _last_number(path)
    others = list(path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() and time is not None else []
    near = [(abs(other_time - time), other) for other in others if (other_time := _last_number(other)) is not None and time]
    if not near or min(near)[0] > limit_s:
        raise UserError(f"{path}: got no such file; expected the camera of a frame; fetch it, or give --intrinsics as numbers")
    return min(near)[1]


def _last_number(path: Path) -> float | None:
    found = re.findall(r"\d+\.\d+", path.stem)
    return float(found[-1]) if found else None


def _from_json(path: Path, content: Any, frame: str) -> StoredCamera:
    if not isinstance(content, dict):
        raise UserError(f"{path}: got a {type(content).__name__}; expected an object with fx, fy, cx, cy; correct the file")
    size = next(((int(content[h]), int(content[w])) for h, w in _SIZES if h in content and w in content), None)
    cameras = content.get("perFrameIntrinsicCoeffs")
    if cameras:
        number = int(frame) if frame.isdecimal() else -1
        if not 0 <= number < len(cameras):
            raise UserError(
                f"{path}: got {pluralize(len(cameras), 'camera')} for frame {frame!r}; expected one a frame, by its number; "
                "export it again"
            )
        return StoredCamera(check_intrinsics(str(path), cameras[number]), size)
    for names in _NUMBERS:
        if all(name in content for name in names):
            return StoredCamera(check_intrinsics(str(path), [content[name] for name in names]), size)
    for name in _MATRICES:
        if name in content:
            return StoredCamera(_to_intrinsics(path, np.array(content[name], float)), size)
    raise UserError(
        f"{path}: got the keys {', '.join(content) or '(none)'}; expected fx, fy, cx, cy or a matrix under "
        f"{', '.join(_MATRICES)}; rename them"
    )


def _to_intrinsics(path: Path, numbers: Array) -> Intrinsics:
    """Four numbers, or a matrix."""
    flat = numbers.ravel()
    if flat.size == 4:
        return check_intrinsics(str(path), flat.tolist())
    shapes = {9: (3, 3), 12: (3, 4), 16: (4, 4)}
    if flat.size in shapes:
        matrix = flat.reshape(shapes[flat.size])[:3, :3]
        if numbers.ndim == 1 and flat.size == 9 and not matrix[:2, 2].any() and matrix[2, :2].all():
            matrix = matrix.T
        is_camera = not matrix[1, 0] and not matrix[2, :2].any() and matrix[2, 2] == 1
        if is_camera and abs(matrix[0, 1]) < 1e-3 * abs(matrix[0, 0]):
            return check_intrinsics(str(path), [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
    raise UserError(
        f"{path}: got {numbers.tolist()!s:.200}; expected fx fy cx cy, or a matrix (3, 3) or (4, 4) of fx 0 cx, 0 fy cy, "
        "0 0 1; write it so"
    )
