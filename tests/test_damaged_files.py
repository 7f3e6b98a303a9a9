"""files.py: whatever is wrong with a file that it reads is one message, which names the file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mult.errors import UserError
from mult.files import map_array, read_arrays, read_json


def npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(
        file, rmse=np.linspace(0, 1, 40), views=np.array([f"alder/{i}" for i in range(9)]), empty=np.zeros((0, 3))
    )
    return file.getvalue()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(60, dtype=np.int32).reshape(20, 3))
    return file.getvalue()


JSON = json.dumps({"format_version": 1, "tasks": {"a": {"rmse": [0.5, None, 1e-7]}}, "names": ["ü", "\\"]}, indent=2).encode()

READERS: dict[str, tuple[Callable[[Path], Any], bytes]] = {
    "json": (read_json, JSON),
    "npz": (read_arrays, npz()),
    "npy": (lambda path: map_array(path).sum(), npy()),
}


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bits flipped, bytes replaced by zeros or noise, cut short, or with something of its own repeated in it."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(changed)))
        length = int(rng.integers(1, 9))
        match rng.integers(5):
            case 0:
                changed[start] ^= 1 << int(rng.integers(8))
            case 1:
                changed[start : start + length] = bytes(length)
            case 2:
                changed[start : start + length] = rng.bytes(length)
            case 3:
                del changed[max(1, start) :]
            case _:
                changed[start:start] = changed[start // 2 : start // 2 + 9 * length]
    return bytes(changed)


@pytest.mark.parametrize("kind", READERS)
def test_any_damage_is_one_message_that_names_the_file(tmp_path: Path, kind: str) -> None:
    read, content = READERS[kind]
    rng = np.random.default_rng(13)
    path = tmp_path / f"file.{kind}"
    messages = []
    for _ in range(600):
        path.write_bytes(damage(content, rng))
        try:
            read(path)
        except UserError as error:
            messages.append(str(error).removeprefix(str(path)))
    assert len(messages) > 200
    for message in messages:
        assert message.startswith(": cannot be read as ")
        assert "\n" not in message
        assert len(message) < 350


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("json", b""),
        ("json", b"[1, 2]"),
        ("json", b"null"),
        ("json", b'{"a": ' * 200_000),
        ("json", b"[" * 200_000),
        ("json", b'{"a": ' + b"9" * 5000 + b"}"),
        ("json", b'{"a": "\xff"}'),
        ("npz", b""),
        ("npz", npy()),
        ("npz", npz()[:200]),
        ("npz", npz().replace(b"\x08\x00", b"\x63\x00")),  # a compression that no zip has
        ("npy", b""),
        ("npy", npz()),
        ("npy", npy().replace(b"(20, 3), }", b"(2000000000000, 3), }")[: len(npy())]),
        ("npy", npy().replace(b"'<i4'", b"'|O' ")),  # only pickle could restore it
        ("npy", npy().replace(b"(20, 3)", b"((((((("[:7])),
    ],
)
def test_what_no_flip_makes_is_one_message_too(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / f"file.{kind}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"file\.{kind}: cannot be read as .*; expected a file that mult wrote; ") as raised:
        READERS[kind][0](path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", READERS)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"none: cannot be read as \w+.* \(No such file or directory\); expected a file"):
        READERS[kind][0](tmp_path / "none")
    with pytest.raises(UserError, match=r"cannot be read as .* \(Is a directory\)"):
        READERS[kind][0](tmp_path)
