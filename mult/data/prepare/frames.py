"""The pixels of one frame of RGB-D: colour, metres along z and the camera, on one grid, whatever its files are like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mult.data.disk.camera import check_intrinsics, scale_intrinsics
from mult.data.disk.encodings import NO_GEOMETRY
from mult.data.disk.images import Array, Mask, read_photograph_beside
from mult.data.prepare.cameras import StoredCamera, find_camera_file, read_camera
from mult.data.prepare.depth_files import read_depth, read_mask
from mult.data.prepare.layouts import Layout
from mult.data.prepare.pairs import Frame, fill_in
from mult.data.sample import BadFileError
from mult.errors import UserError
from mult.labels import Intrinsics

_SAME_SHAPE = 0.015
"""By which share the ratios of the sides of colour and depth may differ: ScanNet's do by 0.004."""


@dataclass(frozen=True)
class Pixels:
    """A frame. image: uint8 (H, W, 3), of the camera `intrinsics`. depth_m: (h, w) metres along z, 0 where not `measured`, of
    the camera `depth_intrinsics`; (h, w) is (H, W) unless colour is the grid and has another size."""

    image: NDArray[np.uint8]
    intrinsics: Intrinsics
    depth_m: NDArray[np.float64]
    measured: Mask
    depth_intrinsics: Intrinsics


def read_frame(frame: Frame, root: Path, layout: Layout) -> Pixels:
    """Read a frame below `root`; UserError, naming the file, for what does not belong together."""
    stored = read_depth(frame.depth, layout.depth_key)
    if layout.rotated_bits:
        stored = _rotate_bits(frame.depth, stored, layout.rotated_bits)
    measured = np.isfinite(stored) & (stored > 0)
    if stored.dtype.kind != "f":
        measured &= stored != NO_GEOMETRY
    if layout.mask is not None:
        measured &= _read_mask(Path(root, fill_in(layout.mask, frame)), layout.mask_min, stored.shape)
    picture = read_photograph_beside(frame.rgb, (stored.shape[0], stored.shape[1]))
    rgb_size, depth_size = (picture.height, picture.width), (stored.shape[0], stored.shape[1])
    ratio = rgb_size[1] / rgb_size[0] / (depth_size[1] / depth_size[0])
    if abs(ratio - 1) > _SAME_SHAPE:
        raise UserError(
            f"{frame.depth}: got {depth_size} pixels (height, width); expected the shape of {rgb_size}, as {frame.rgb} has; "
            "bring depth and colour to one camera"
        )
    camera, where = _find_camera(frame, root, layout)
    of_size = camera.size or _size_of_intrinsics(frame, layout, rgb_size, depth_size)
    depth_intrinsics = check_intrinsics(where, scale_intrinsics(camera.intrinsics, of_size, depth_size), depth_size)
    size = rgb_size if layout.grid == "rgb" else depth_size
    if size != rgb_size:
        smaller = size[0] <= rgb_size[0]
        picture = picture.resize(size[::-1], Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC)
    depth_m = np.where(measured, stored, 0).astype(np.float64) / layout.depth_scale
    if layout.depth_kind == "ray":
        depth_m /= _ray_lengths(depth_size, depth_intrinsics)
    return Pixels(
        np.asarray(picture), scale_intrinsics(depth_intrinsics, depth_size, size), depth_m, measured, depth_intrinsics
    )


def _rotate_bits(path: Path, stored: Array, bits: int) -> Array:
    """16-bit numbers rotated to the right, as SUN RGB-D's toolbox does."""
    if stored.dtype.kind == "f" or stored.min() < 0 or stored.max() > 65535:
        raise BadFileError(f"{path}: got {stored.dtype} depth to rotate by bits; expected 16 bits; leave --rotated-bits out")
    values = stored.astype(np.uint16)
    return values >> bits | values << (16 - bits)


def _read_mask(path: Path, minimum: float, size: tuple[int, ...]) -> Mask:
    mask = read_mask(path, minimum)
    if mask.shape != size:
        raise UserError(f"{path}: got a mask of {mask.shape} pixels; expected {size}, as depth has; give masks of depth's size")
    return mask


def _find_camera(frame: Frame, root: Path, layout: Layout) -> tuple[StoredCamera, str]:
    """The camera of a frame, and what messages call it."""
    given = layout.intrinsics
    if given is None:
        raise UserError(f"{frame.rgb}: got no camera; expected --intrinsics; give fx fy cx cy in pixels, or a file's pattern")
    if isinstance(given, str):
        path = find_camera_file(Path(root, fill_in(given, frame)))
        return read_camera(path, "".join(frame.names)), str(path)
    if isinstance(given, Mapping):
        path_text = str(frame.rgb.resolve())
        numbers = next((numbers for text, numbers in given.items() if text in path_text), None)
        if numbers is None:
            raise UserError(
                f"{frame.rgb}: got a path without {', '.join(given)}, which say the camera; expected one of them; name the "
                "folder so, or give --intrinsics"
            )
        return StoredCamera(numbers, None), "intrinsics"
    return StoredCamera(check_intrinsics("intrinsics", given), None), "intrinsics"


def _size_of_intrinsics(
    frame: Frame, layout: Layout, rgb_size: tuple[int, int], depth_size: tuple[int, int]
) -> tuple[int, int]:
    if layout.intrinsics_of is None and rgb_size != depth_size:
        raise UserError(
            f"{frame.rgb}: got {rgb_size} pixels (height, width) of colour and {depth_size} of depth; expected to know of "
            "which the intrinsics are; give --intrinsics-of rgb or --intrinsics-of depth"
        )
    return rgb_size if layout.intrinsics_of == "rgb" else depth_size


def _ray_lengths(size: tuple[int, int], intrinsics: Intrinsics) -> NDArray[np.float64]:
    """The length of each pixel's ray up to the plane one metre from the camera."""
    fx, fy, cx, cy = intrinsics
    x, y = (np.arange(size[1]) - cx) / fx, (np.arange(size[0]) - cy) / fy
    return np.sqrt(1 + x**2 + y[:, None] ** 2)
