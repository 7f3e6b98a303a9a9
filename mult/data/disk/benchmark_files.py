"""The files of NYUD_MT and PASCAL_MT: lists of names, maps of 0 and 255, and normals as 2 v / 255 - 1."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mult.data.disk.images import GRAY, Array, Mask, channels_first, read_npy, read_pixels
from mult.data.sample import BadFileError
from mult.errors import UserError

SHORTEST = 0.5
"""A stored normal below this length is none: the zero vector, which 8 bits cannot hold, has components of 1/255."""


def read_names(path: Path) -> list[str]:
    """The names of a list, one a line, each of which a file's name can begin with; UserError for any other list."""
    if not path.is_file():
        raise UserError(f"{path}: got no such file; expected a name a line; fetch the dataset again")
    try:
        names = path.read_text(encoding="utf-8").split()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: got bytes that are no text ({error}); expected a name a line; fetch it again") from error
    if not names:
        raise UserError(f"{path}: got no name; expected one a line; fetch the dataset again")
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(
                f"{path}: got the name {name!r}; expected letters, digits, '_', '-' and '.', so that its files are below the "
                "dataset's root; correct the list"
            )
    return names


def read_binary(path: Path, size: tuple[int, int]) -> Array:
    """A gray picture of 0 and 255 as float32 (1, H, W) of 0 and 1; BadFileError, naming the file, for other values."""
    pixels = read_pixels(path, GRAY, size)
    if pixels.dtype != np.bool_ and (others := np.setdiff1d(pixels, (0, 255))).size:
        raise BadFileError(f"{path}: got values such as {others[:3].tolist()}; expected 0 and 255; restore the file", "range")
    return (pixels > 0).astype(np.float32)[None]


def read_normals(path: Path, size: tuple[int, int]) -> tuple[Array, Mask]:
    """Unit vectors float32 (3, H, W), 0 where there is none, and where there is one, (H, W).

    A .png holds 2 v / 255 - 1, an .npy the components, (H, W, 3). A zero vector, or one that is not finite, is none. Raises
    BadFileError, naming the file, for another shape.
    """
    if path.suffix == ".npy":
        vectors = read_npy(path)
        if vectors.shape != (*size, 3):
            raise BadFileError(
                f"{path}: got {vectors.shape}; expected {(*size, 3)}: the height and width of the image, and three components; "
                "save it again",
                "size",
            )
        vectors = channels_first(vectors.astype(np.float32))
    else:
        vectors = channels_first(read_pixels(path, ("RGB",), size)) * np.float32(2 / 255) - 1
    length = np.sqrt(np.square(vectors).sum(0))
    valid = np.isfinite(length) & (length > SHORTEST)
    return np.where(valid, vectors / np.where(valid, length, 1), 0).astype(np.float32), valid
