"""Photographs of every mode become RGB, and what cannot be read is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mult.data.disk.images import read_photograph, read_photograph_beside, read_size, to_rgb
from mult.data.sample import BadFileError
from mult.errors import UserError

Array = NDArray[Any]
COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY_16 = np.linspace(0, 65535, 35).astype(np.uint16).reshape(5, 7)
ORIENTATION = 0x0112


def pixels(image: Image.Image) -> Array:
    assert image.mode == "RGB"
    return np.asarray(image)


def test_colours_stay(tmp_path: Path) -> None:
    path = tmp_path / "photograph.png"
    Image.fromarray(COLOURS).save(path)
    np.testing.assert_array_equal(pixels(read_photograph(path)), COLOURS)
    assert read_size(path) == (5, 7)


def test_16_bit_gray_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "photograph.png"
    Image.fromarray(GRAY_16).save(path)
    expected = np.repeat((GRAY_16 // 257)[..., None], 3, axis=2)
    assert expected.max() == 255
    np.testing.assert_array_equal(pixels(read_photograph(path)), expected)


def test_16_bit_gray_of_other_modes_is_scaled_too() -> None:
    scaled = np.repeat((GRAY_16 // 257)[..., None], 3, axis=2)
    for image in (Image.fromarray(GRAY_16.astype(np.int32)), Image.fromarray(GRAY_16.astype(">u2"))):
        np.testing.assert_array_equal(pixels(to_rgb(image)), scaled)


@pytest.mark.parametrize("values", [GRAY_16.astype(np.float32) / 65535, GRAY_16.astype(np.int32) * 3])
def test_numbers_of_an_unknown_range_are_refused(tmp_path: Path, values: Array) -> None:
    path = tmp_path / "photograph.tiff"
    Image.fromarray(values).save(path)
    with pytest.raises(UserError, match=r"^got an image of mode [FI] with values of .*; expected a photograph of 8 or 16 bits"):
        to_rgb(Image.fromarray(values))
    with pytest.raises(BadFileError, match=r"photograph.tiff: got an image of mode [FI]"):
        read_photograph(path)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "YCbCr", "RGB"])
def test_other_modes_are_converted_as_pillow_does(mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    np.testing.assert_array_equal(pixels(to_rgb(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright_unless_its_depth_is_not(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "photograph.png"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(COLOURS).save(path, exif=exif)
    upright = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2),
        6: COLOURS[::-1].transpose(1, 0, 2),
        7: COLOURS[::-1, ::-1].transpose(1, 0, 2),
        8: COLOURS[:, ::-1].transpose(1, 0, 2),
    }
    np.testing.assert_array_equal(pixels(read_photograph(path)), upright[orientation])
    np.testing.assert_array_equal(pixels(read_photograph(path, upright=False)), COLOURS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_beside_a_depth_map_has_its_order_or_is_refused(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "photograph.png"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(COLOURS).save(path, exif=exif)
    if orientation == 1:
        np.testing.assert_array_equal(pixels(read_photograph_beside(path, (10, 14))), COLOURS)
    elif orientation < 5:
        with pytest.raises(
            UserError, match=rf"photograph.png: got EXIF orientation {orientation} beside a depth map of \(10, 14"
        ):
            read_photograph_beside(path, (10, 14))
    else:
        np.testing.assert_array_equal(pixels(read_photograph_beside(path, (10, 14))), COLOURS)
        upright = pixels(read_photograph_beside(path, (14, 10)))
        np.testing.assert_array_equal(upright, pixels(read_photograph(path)))
        assert upright.shape == (7, 5, 3)
        with pytest.raises(UserError, match="got EXIF orientation"):
            read_photograph_beside(path, (9, 9))


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "photograph.png"
    if content is not None:
        path.write_bytes(content)
    for read in (read_photograph, read_size):
        with pytest.raises(
            BadFileError, match=r"photograph\.png: got a file that cannot be read \(.*\); expected a whole"
        ) as caught:
            read(path)
        assert caught.value.kind == ("missing" if content is None else "damaged")


def test_a_cut_photograph_is_named(tmp_path: Path) -> None:
    path = tmp_path / "photograph.jpg"
    Image.fromarray(COLOURS).resize((300, 200)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(BadFileError, match=r"photograph\.jpg: got a file that cannot be read"):
        read_photograph(path)
