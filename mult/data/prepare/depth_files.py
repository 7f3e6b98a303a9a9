"""Depth files and masks of every format that people have, as numbers in the files' own unit.

16-bit png, pgm and tiff; tiff and pfm of floats; npy, and arrays by their key in npz, hdf5 (extra `nyu`) and exr (extra `exr`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mult.data.disk.images import Array, Mask, read_npy, read_pixels
from mult.data.disk.stored import bad_file, read_stored
from mult.data.sample import BadFileError
from mult.errors import UserError, pluralize

_REMEDY = "expected a whole depth map; fetch or make it again"
_PICTURES = ("I;16", "I", "I;16B", "I;16L", "F", "L", "1", "P", "RGB", "RGBA", "LA")
"""All modes: what is no depth is refused below, by its type and shape."""
_COMMENTS = rb"\s+(?:#[^\n]*\n\s*)*"
_NETPBM = re.compile(rb"(P5|Pf)" + _COMMENTS + rb"(\d+)" + _COMMENTS + rb"(\d+)" + _COMMENTS + rb"(-?[\d.eE+-]+)\s")


def read_depth(path: Path, key: str | None = None) -> Array:
    """The numbers (H, W) of a depth file, as it stores them; arrays (H, W, 1) and (1, H, W) are taken as (H, W).

    `key` names the array in npz and hdf5, and the channel in exr; without it the file must hold one. Raises BadFileError,
    naming the file, for a damaged one and for what cannot be depth, such as 8-bit or colour pictures.
    """
    stored = _read_array(path, key)
    if stored.ndim == 3 and 1 in (stored.shape[0], stored.shape[-1]):
        stored = stored[0] if stored.shape[0] == 1 else stored[..., 0]
    is_depth = stored.dtype.kind == "f" or (stored.dtype.kind in "ui" and stored.dtype.itemsize > 1)
    if stored.ndim != 2 or not is_depth:
        raise BadFileError(
            f"{path}: got {stored.dtype} {stored.shape}; expected depth, (H, W) numbers of 16 bits or floats; give the depth "
            "files as they were measured, no picture of them",
            "mode",
        )
    return stored


def read_mask(path: Path, minimum: float) -> Mask:
    """Where a mask or a map of confidence (H, W) is at least `minimum`; files as of depth, and 8-bit pictures."""
    stored = _read_array(path, None)
    if stored.ndim == 3 and 1 in (stored.shape[0], stored.shape[-1]):
        stored = stored[0] if stored.shape[0] == 1 else stored[..., 0]
    if stored.ndim != 2 or stored.dtype.kind not in "fuib":
        raise BadFileError(f"{path}: got {stored.dtype} {stored.shape}; expected a mask (H, W); give one channel", "mode")
    return np.asarray(stored >= minimum)


def _read_array(path: Path, key: str | None) -> Array:
    if key is not None and path.suffix.lower() not in _OF_SEVERAL:
        raise UserError(
            f"{path}: got the key {key!r} for a file of one array; expected one of {', '.join(_OF_SEVERAL)}; leave the key out"
        )
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        return read_npy(path) if path.suffix.lower() == ".npy" else read_pixels(path, _PICTURES)
    try:
        return reader(path, key)
    except UserError:
        raise
    except Exception as error:  # damage ends in any, as in `read_npy`
        raise bad_file(path, error, _REMEDY) from error


def _read_netpbm(path: Path, key: str | None) -> Array:
    """A pgm or pfm. Pillow stretches a pgm whose largest value is below 65535, which would change the unit of depth."""
    content = read_stored(path, _REMEDY)
    header = _NETPBM.match(content)
    if header is None:
        raise BadFileError(f"{path}: got no header of a gray pgm or pfm; {_REMEDY}")
    width, height, largest = int(header[2]), int(header[3]), float(header[4])
    of_floats = header[1] == b"Pf"  # rows from the bottom up; a negative scale means little-endian
    dtype: np.dtype[Any] = np.dtype(("<f4" if largest < 0 else ">f4") if of_floats else (">u2" if largest > 255 else "u1"))
    pixels = content[header.end() :]
    if len(pixels) != height * width * dtype.itemsize:
        raise BadFileError(f"{path}: got {len(pixels)} bytes for {height} x {width} pixels of {dtype}; {_REMEDY}")
    values = np.frombuffer(pixels, dtype).reshape(height, width)
    return (values[::-1] if of_floats else values).astype(dtype.newbyteorder("="))


def _read_npz(path: Path, key: str | None) -> Array:
    with np.load(io.BytesIO(read_stored(path, _REMEDY))) as arrays:
        return np.asarray(arrays[_choose(path, key, {name: name for name in arrays.files})])


def _read_hdf5(path: Path, key: str | None) -> Array:
    try:
        import h5py
    except ImportError as error:
        raise UserError(f'{path}: needs h5py; install it with: pip install "mult-dense[nyu]"') from error
    with h5py.File(io.BytesIO(read_stored(path, _REMEDY)), "r") as file:
        names: dict[str, Any] = {}
        file.visititems(lambda name, item: names.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        return np.asarray(_choose(path, key, names))


def _read_exr(path: Path, key: str | None) -> Array:
    try:
        import OpenEXR
    except ImportError as error:
        raise UserError(f'{path}: needs OpenEXR; install it with: pip install "mult-dense[exr]"') from error
    read_stored(path, _REMEDY)  # OpenEXR opens files by name alone; a missing one or a pipe is named as for other formats
    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    first, *others = channels.values()
    if key is None and others and all(np.array_equal(each, first, equal_nan=True) for each in others):
        return np.asarray(first)  # gray, stored as three channels
    return np.asarray(_choose(path, key, channels))


def _choose(path: Path, key: str | None, arrays: Mapping[str, Any]) -> Any:
    """The array of a key; without one, the only array."""
    name = next(iter(arrays), None) if key is None and len(arrays) == 1 else key
    if name is None or name not in arrays:
        raise UserError(
            f"{path}: got {f'no array {key!r}' if key else pluralize(len(arrays), 'array')}; expected one of "
            f"{', '.join(arrays) or '(none)'}; name it with --depth-key"
        )
    return arrays[name]


_OF_SEVERAL = (".npz", ".h5", ".hdf5", ".exr")
"""Files that may hold several arrays, of which a key names one."""
_READERS: dict[str, Callable[[Path, str | None], Array]] = {
    ".pgm": _read_netpbm,
    ".pfm": _read_netpbm,
    ".npz": _read_npz,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".exr": _read_exr,
}
