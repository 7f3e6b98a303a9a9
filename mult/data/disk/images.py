"""Pictures and arrays on the disk: every image file that a dataset or a command reads, and every PNG that we write.

Labels are read as the file stores them (`read_pixels`), photographs as RGB whatever their mode (`read_photograph`). Files go
through Pillow and NumPy rather than torchvision, which turns 16-bit PNG into int16: 65535, the code for "no depth", becomes -1.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from mult.data.disk.stored import bad_file, read_stored
from mult.data.sample import BadFileError
from mult.errors import UserError
from mult.files import write_file

Array = NDArray[Any]
Mask = NDArray[np.bool_]
MAX_PIXELS = 2**25
"""Of a picture, about 7680 x 4320: a small file cannot ask for all memory, of which a prediction takes 100 bytes a pixel."""
FORMATS = ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP")
"""Pillow's, of the pictures that are read. Others run programs, as EPS does Ghostscript."""
GRAY_16_BIT = ("I;16", "I", "I;16B", "I;16L")
GRAY = ("L", "1", *GRAY_16_BIT)
_ORIENTATION = ExifTags.Base.Orientation
_QUARTER_TURNS = (5, 6, 7, 8)


def read_pixels(path: Path, modes: tuple[str, ...], size: tuple[int, int] | None = None, convert: str | None = None) -> Array:
    """The values that a picture stores, (H, W) or (H, W, 3), after conversion to the mode `convert` if one is given.

    Raises BadFileError, naming the file, if it is damaged, its mode is none of `modes` or its (height, width) is not `size`.
    """
    with _open_picture(
        path, "expected a whole image; fetch or make it again, or delete it to go without this label"
    ) as picture:
        mode = picture.mode
        picture.load()
        pixels = np.asarray(picture if convert is None else picture.convert(convert))
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
    return channels_first(read_pixels(path, modes)) / np.float32(255)


def read_size(path: Path) -> tuple[int, int]:
    """The (height, width) of a picture, without decoding it; BadFileError, naming the file, if it cannot be read."""
    with _open_picture(path, "expected a whole image; fetch or make it again") as picture:
        return picture.height, picture.width


def read_photograph(path: Path, *, upright: bool = True) -> Image.Image:
    """A photograph of any mode in RGB; BadFileError, naming the file, if it cannot be read.

    With `upright` it is turned as its EXIF orientation says and as viewers show it. Without, its pixels stay in the order in
    which they are stored.
    """
    with _open_picture(path, "expected a whole picture, such as a jpg or png; fetch or make it again") as picture:
        picture.load()
        try:
            return to_rgb(picture, upright=upright)
        except UserError as error:
            raise BadFileError(f"{path}: {error}", "mode") from error


def read_photograph_beside(path: Path, size: tuple[int, int]) -> Image.Image:
    """A photograph in RGB, its pixels in the order of a depth map of (height, width) `size`, which has no orientation itself.

    The depth map may have been made before or after the picture was turned. After a quarter turn its sides tell which;
    otherwise, as for half a turn, UserError.
    """
    stored = read_photograph(path, upright=False)
    orientation = stored.getexif().get(_ORIENTATION, 1)
    if orientation == 1:
        return stored
    is_wide, depth_is_wide = stored.width > stored.height, size[1] > size[0]
    if orientation not in _QUARTER_TURNS or stored.width == stored.height or size[0] == size[1]:
        raise UserError(
            f"{path}: got EXIF orientation {orientation} beside a depth map of {size} (height, width); expected a picture of "
            "which the depth map shows whether it is turned; save it without the orientation, turned as the depth map is"
        )
    return stored if is_wide == depth_is_wide else to_rgb(stored)


def to_rgb(image: Image.Image, *, upright: bool = True) -> Image.Image:
    """An image of any mode in RGB, with `upright` turned as its EXIF orientation says.

    16-bit gray is scaled to 8 bits, where Pillow's `convert` alone clips it at 255. UserError for numbers of an unknown range:
    modes I beyond 16 bits, and F.
    """
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode in GRAY_16_BIT or image.mode == "F":
        pixels = np.asarray(image)
        if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
            raise UserError(
                f"got an image of mode {image.mode} with values of {pixels.min():g} to {pixels.max():g}; expected a photograph "
                "of 8 or 16 bits; scale it to 0..255 and convert it to uint8"
            )
        image = Image.fromarray((pixels // 257).astype(np.uint8))
    return image.convert("RGB")


@contextmanager
def _open_picture(path: Path, remedy: str) -> Iterator[Image.Image]:
    """Open a picture; what Pillow raises while it is decoded becomes a BadFileError."""
    content = read_stored(path, remedy)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{picture.width} x {picture.height} pixels")
            yield picture
    except Image.DecompressionBombError as error:
        raise BadFileError(
            f"{path}: got a picture that is too large ({error}); expected at most {MAX_PIXELS} pixels; make it smaller", "size"
        ) from error
    except MemoryError as error:
        raise UserError(
            f"{path}: got no memory to decode it; expected some; use fewer processes, or a smaller picture"
        ) from error
    except Exception as error:  # damage ends in any, of which Pillow names no common class
        raise bad_file(path, error, remedy) from error


def read_npy(path: Path) -> Array:
    """The numbers of an npy file, of any shape; BadFileError, naming it, if it is damaged or holds anything else."""
    remedy = "expected numbers in npy; save it again"
    content = read_stored(path, remedy)
    if not content.startswith((b"\x93NUMPY", b"PK")):  # of other contents NumPy says that they might be unpickled
        raise bad_file(path, "it does not begin as npy does", remedy)
    try:
        values = np.load(io.BytesIO(content))
    except Exception as error:  # damage ends in any: SyntaxError, TokenError, MemoryError, zipfile's, ...
        raise bad_file(path, error, remedy) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fuib" or not values.size:
        got = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else "several arrays"
        raise BadFileError(f"{path}: got {got}; expected numbers in npy; save it again", "mode")
    return values


def channels_first(pixels: Array) -> Array:
    """(H, W, C) -> contiguous (C, H, W), along which NumPy computes several times faster."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def write_png(path: Path, pixels: Array) -> None:
    """Store pixels (H, W) or (H, W, 3), uint8 or uint16, as they are, whole or not at all.

    A dataset has millions of such files, which can be made again: none waits for the disk.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    write_file(path, lambda file: picture.save(file, format="PNG", compress_level=1), durable=False)
