"""A damaged file is never data, and what the system fails at is not the file's fault."""

from __future__ import annotations

import errno
import io
import os
import resource
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mult.data.disk.images import MAX_PIXELS, read_npy, read_photograph, read_pixels
from mult.data.disk.stored import WAITS_S, check_png, read_stored
from mult.data.sample import BadFileError
from mult.errors import UserError

MODES = ("I;16", "RGB", "L")


def picture(kind: str) -> NDArray[Any]:
    """A picture whose compressed pixels are most of its file, as those of a photograph or of real depth are."""
    y, x = np.mgrid[:60, :90]
    noise = np.random.default_rng(3).integers(0, 40, (60, 90))
    gray = 5 * x + 300 * np.sin(y / 7) + noise
    if kind == "depth":
        return np.asarray(800 + 9 * gray, np.uint16)
    return np.stack([gray % 256, (gray / 3) % 256, (y * x + noise) % 256], axis=-1).astype(np.uint8)


def png(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(kind)).save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["depth", "rgb"])
def test_no_flipped_bit_of_a_png_is_data(tmp_path: Path, kind: str) -> None:
    content, path = png(kind), tmp_path / "picture.png"
    assert len(content) > 4000
    rng = np.random.default_rng(0)
    silent_in_pillow = 0
    for position in rng.integers(0, 8 * len(content), 1425):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        with pytest.raises(BadFileError, match=r"picture\.png: got a file that cannot be read \("):
            read_pixels(path, MODES)
        try:
            with Image.open(io.BytesIO(flipped)) as opened:
                silent_in_pillow += not np.array_equal(np.asarray(opened), picture(kind))
        except Exception:
            continue
    assert silent_in_pillow  # so that this test would see a reader without the check
    path.write_bytes(content)
    np.testing.assert_array_equal(read_pixels(path, MODES), picture(kind))


def test_every_cut_of_a_png_is_found() -> None:
    content = png("rgb")
    for length in range(8, len(content), 7):
        with pytest.raises(ValueError, match="the PNG ends within the chunk at byte"):
            check_png(content[:length])
    check_png(content + b"bytes after the end, as some programs write")


def test_the_checksum_is_that_of_the_standard() -> None:
    name, data = b"tEXt", b"Comment\0by hand"
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (name, data),
        (b"IDAT", zlib.compress(b"\0\7")),
        (b"IEND", b""),
    ]
    good = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    check_png(good)
    with pytest.raises(ValueError, match="the checksum of the PNG's chunk at byte 33 is wrong"):
        check_png(good.replace(data, data[::-1]))


@pytest.fixture
def no_descriptor_left() -> Iterator[list[int]]:
    """Descriptors, which are all that this process may have; to be closed by the test."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE  # noqa: PT017
    try:
        yield held
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_system_without_descriptors_is_no_damaged_file(tmp_path: Path, no_descriptor_left: list[int]) -> None:
    path = tmp_path / "picture.png"
    os.close(no_descriptor_left.pop())
    path.write_bytes(png("depth"))
    np.testing.assert_array_equal(read_pixels(path, MODES), picture("depth"))
    no_descriptor_left.append(os.open(os.devnull, os.O_RDONLY))
    with pytest.raises(
        UserError, match=r"picture\.png: got 'Too many open files' from the system in 4 attempts; .*ulimit -n"
    ) as raised:
        read_pixels(path, MODES)
    assert not isinstance(raised.value, BadFileError)


def test_descriptors_that_another_closes_are_waited_for(tmp_path: Path, no_descriptor_left: list[int]) -> None:
    path = tmp_path / "numbers.npy"
    os.close(no_descriptor_left.pop())
    file = io.BytesIO()
    np.save(file, np.arange(6.0))
    path.write_bytes(file.getvalue())
    no_descriptor_left.append(os.open(os.devnull, os.O_RDONLY))
    closing = threading.Timer(WAITS_S[0] * 2, lambda: os.close(no_descriptor_left.pop()))
    closing.start()
    np.testing.assert_array_equal(read_npy(path), np.arange(6.0))
    closing.join()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    os.mkfifo(path)
    started = time.monotonic()
    for read in (read_photograph, read_npy, lambda path: read_stored(path, "make it again")):
        with pytest.raises(BadFileError, match=r"picture\.png: got a file that cannot be read \(it is no regular file\)"):
            read(path)
    with pytest.raises(BadFileError, match=r"got a file that cannot be read \((Is a directory|it is no regular file)\)"):
        read_stored(tmp_path, "make it again")
    assert time.monotonic() - started < sum(WAITS_S)  # it was not tried again


def test_a_small_file_of_a_huge_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("1", (MAX_PIXELS // 4096, 4097)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(BadFileError, match=rf"too large \(8192 x 4097 pixels\); expected at most {MAX_PIXELS}") as raised:
        read_photograph(path)
    assert raised.value.kind == "size"
    Image.new("1", (MAX_PIXELS // 4096, 4096)).save(path)
    assert read_pixels(path, ("1",)).shape == (4096, 8192)


def test_what_would_run_a_program_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(picture("rgb")).save(path, format="EPS")
    with pytest.raises(BadFileError, match="cannot identify image file"):
        read_photograph(path)
