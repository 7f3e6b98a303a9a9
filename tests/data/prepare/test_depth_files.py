"""Depth in every format, written by the format's own bytes or library, is the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mult.data.prepare.depth_files import read_depth, read_mask
from mult.data.sample import BadFileError
from mult.errors import UserError

CODES = (np.arange(15, dtype=np.uint16) * 311 + 500).reshape(3, 5)
METRES = (CODES / 1000).astype(np.float32)


def write_pgm(path: Path) -> None:
    path.write_bytes(b"P5\n# made by hand\n5 3\n6000\n" + CODES.astype(">u2").tobytes())


def write_pfm(path: Path) -> None:
    path.write_bytes(b"Pf\n5 3\n-1.0\n" + METRES[::-1].astype("<f4").tobytes())


def write_big_endian_pfm(path: Path) -> None:
    path.write_bytes(b"Pf 5 3 1.0\n" + METRES[::-1].astype(">f4").tobytes())


def write_exr(path: Path, *channels: str) -> None:
    openexr = pytest.importorskip("OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    openexr.File(header, {name: METRES.copy() for name in channels or ("R",)}).write(str(path))


def write_hdf5(path: Path, **arrays: Any) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("d.png", lambda path: Image.fromarray(CODES).save(path), CODES),
        ("d.tiff", lambda path: Image.fromarray(CODES).save(path), CODES),
        ("d.tif", lambda path: Image.fromarray(METRES).save(path), METRES),
        ("d.PGM", write_pgm, CODES),
        ("d.pfm", write_pfm, METRES),
        ("d.pfm", write_big_endian_pfm, METRES),
        ("d.npy", lambda path: np.save(path, METRES), METRES),
        ("d.npy", lambda path: np.save(path, METRES[..., None]), METRES),
        ("d.npy", lambda path: np.save(path, METRES[None]), METRES),
        ("d.npz", lambda path: np.savez_compressed(path, anything=METRES), METRES),
        ("d.exr", write_exr, METRES),
        ("d.exr", lambda path: write_exr(path, "R", "G", "B"), METRES),
        ("d.hdf5", lambda path: write_hdf5(path, dataset=METRES), METRES),
        ("d.h5", lambda path: write_hdf5(path, dataset=METRES.astype(np.float16)), METRES.astype(np.float16)),
    ],
)
def test_every_format_is_the_same_numbers(
    tmp_path: Path, name: str, write: Callable[[Path], None], expected: NDArray[Any]
) -> None:
    write(tmp_path / name)
    stored = read_depth(tmp_path / name)
    np.testing.assert_array_equal(stored, expected)
    assert stored.shape == (3, 5)


def test_a_key_names_the_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", depth=METRES, other=METRES + 1)
    write_hdf5(tmp_path / "d.h5", **{"a/depth": METRES, "b": METRES + 1})
    write_exr(tmp_path / "d.exr", "V")
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npz", "other"), METRES + 1)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.h5", "a/depth"), METRES)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.exr", "V"), METRES)
    with pytest.raises(UserError, match=r"d.npz: got 2 arrays; expected one of depth, other; name it with --depth-key"):
        read_depth(tmp_path / "d.npz")
    with pytest.raises(UserError, match=r"d.h5: got no array 'c'; expected one of a/depth, b"):
        read_depth(tmp_path / "d.h5", "c")


@pytest.mark.parametrize("name", ["d.png", "d.pgm", "d.pfm", "d.npy", "d.npz", "d.hdf5", "d.exr", "d.tiff"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", None])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFileError, match=rf"{name}: got .*; expected"):
        read_depth(tmp_path / name)


def test_what_is_no_depth_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray(np.zeros((3, 5), np.uint8)).save(tmp_path / "gray.png")
    (tmp_path / "gray.pgm").write_bytes(b"P5 5 3 255\n" + bytes(15))
    (tmp_path / "cut.pgm").write_bytes(b"P5 5 3 65535\n" + bytes(29))
    np.save(tmp_path / "bool.npy", np.ones((3, 5), np.bool_))
    for name, got in {
        "rgb.png": r"uint8 \(3, 5, 3\)",
        "gray.png": r"uint8 \(3, 5\)",
        "gray.pgm": "uint8",
        "bool.npy": "bool",
    }.items():
        with pytest.raises(BadFileError, match=rf"{name}: got {got}.*; expected depth, \(H, W\) numbers of 16 bits or floats"):
            read_depth(tmp_path / name)
    with pytest.raises(BadFileError, match=r"cut.pgm: got 29 bytes for 3 x 5 pixels"):
        read_depth(tmp_path / "cut.pgm")


def test_masks_count_from_a_minimum(tmp_path: Path) -> None:
    confidence = (np.arange(15) % 3).reshape(3, 5).astype(np.uint8)
    Image.fromarray(confidence).save(tmp_path / "c.png")
    np.save(tmp_path / "c.npy", confidence[..., None].astype(np.float32))
    np.save(tmp_path / "b.npy", confidence > 1)
    for name, minimum in (("c.png", 2), ("c.npy", 2), ("b.npy", 1)):
        np.testing.assert_array_equal(read_mask(tmp_path / name, minimum), confidence == 2)
    np.testing.assert_array_equal(read_mask(tmp_path / "c.png", 1), confidence > 0)


@pytest.mark.parametrize("name", ["d.png", "d.npy", "d.pgm"])
def test_a_key_for_a_file_of_one_array_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name}: got the key 'depth' for a file of one array; expected one of .npz, "):
        read_depth(tmp_path / name, "depth")
