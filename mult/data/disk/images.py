"""TODOC"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mult.data.sample import BadFileError
from mult.files import write_atomically

Array = NDArray[Any]
Mask = NDArray[np.bool_]
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow and NumPy raise on damaged files."""
GRAY_16_BIT = ("I;16", "I", "I;16B", "I;16L")
GRAY = ("L", "1", *GRAY_16_BIT)


def read_pixels(path: Path, modes: tuple[str, ...], size: tuple[int, int] | None = None, convert: str | None = None) -> Array:
    """The stored values, (H, W) or (H, W, 3), of an image brought to the mode `convert`, if there is one.

    Raises BadFileError naming the file if it is damaged, of another mode than one of `modes` or of another size.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            image.load()
            pixels = np.asarray(image if convert is None else image.convert(convert))
    except UNREADABLE as error:
        raise BadFileError(
            f"{path}: got a file that cannot be read ({error}); expected a whole image; "
            "fetch or make it again, or delete it to go without this label",
            "missing" if isinstance(error, FileNotFoundError) else "damaged",
        ) from error
    if mode not in modes:
        raise BadFileError(
            f"{path}: got an image of mode {mode}; expected {' or '.join(modes)}; "
            "store it in Taskonomy's encoding, unchanged by any converter",
            "mode",
        )
    if size is not None and pixels.shape[:2] != size:
        raise BadFileError(
            f"{path}: got {pixels.shape[:2]} pixels (height, width); expected {size}, as the view's rgb file has; "
            "make all files of a view in one size",
            "size",
        )
    return pixels


def read_image(path: Path, modes: tuple[str, ...] = ("RGB",)) -> Array:
    """A picture as float32 (3, H, W) in [0, 1]; raises as `read_pixels` does."""
    return _planes(read_pixels(path, modes)) / np.float32(255)


def read_npy(path: Path) -> Array:
    """The numbers of an npy, of any shape; BadFileError, naming the file, for one that is damaged or holds anything else."""
    try:
        values = np.load(path)
    except UNREADABLE as error:
        raise BadFileError(
            f"{path}: got no array ({error}); expected numbers in npy; save it again",
            "missing" if isinstance(error, FileNotFoundError) else "damaged",
        ) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fui" or not values.size:
        got = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else "several arrays"
        raise BadFileError(f"{path}: got {got}; expected numbers in npy; save it again", "mode")
    return values


def _planes(pixels: Array) -> Array:
    """(H, W, C) -> contiguous (C, H, W), along which NumPy computes several times faster."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def write_png(path: Path, pixels: Array) -> None:
    """Store pixels (H, W) or (H, W, 3), uint8 or uint16, as they are, whole or not at all."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    write_atomically(path, lambda file: picture.save(file, format="PNG", compress_level=1))
