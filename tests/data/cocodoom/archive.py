"""A small archive in CocoDoom's layout, written byte by byte: no value is where a mirror or a transposition would leave it.

A palette PNG is put together from its chunks, so that what the indices mean does not depend on Pillow's writer.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
HEIGHT, WIDTH = SIZE = (8, 12)
Y, X = np.mgrid[:HEIGHT, :WIDTH]
PALETTE = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) * 7 % 256], 1).astype(np.uint8)
INDICES = (X * 20 + Y * 3).astype(np.uint8)
DEPTH = (1000 + 4000 * X + 900 * Y).astype(np.uint16)  # beyond 32767, where int16 turns negative
DEPTH[Y < 2] = 65535
DEPTH[3, 4] = 0
SKY, FLAT, WALL = 1 << 23, (1 << 23) + 1, (1 << 23) + 2
OBJECTS = np.select([Y < 2, Y > 5], [SKY, FLAT], WALL)
OBJECTS[3:5, 2:4] = 300  # 44 + 1 * 256
OBJECTS[4, 9] = 7  # listed nowhere
FIRST, SECOND, THIRD = 1_010_000_123, 1_020_000_060, 2_010_000_001
CATEGORIES = [{"id": 11, "name": "TROOP"}, {"id": 0, "name": "PLAYER"}, {"id": 3, "name": "VILE"}]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(path: Path, pixels: Array, kind: int) -> None:
    """An image of one of PNG's kinds: 0 gray (16-bit), 2 RGB (8-bit), 3 indices into PALETTE."""
    depth, stored = (16, pixels.astype(">u2")) if kind == 0 else (8, pixels.astype(np.uint8))
    rows = b"".join(b"\0" + row.tobytes() for row in stored)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, kind, 0, 0, 0)
    palette = chunk(b"PLTE", PALETTE.tobytes()) if kind == 3 else b""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = chunk(b"IHDR", head) + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def annotation(image: int, number: int, category: int, segmentation: Any, area: int) -> dict[str, Any]:
    identity = image * 10**6 + number  # beyond 2^53: a float would lose it
    return {"id": identity, "image_id": image, "category_id": category, "segmentation": segmentation, "area": area}


def image(identity: int, file: str) -> dict[str, Any]:
    return {"id": identity, "width": WIDTH, "height": HEIGHT, "file_name": file}


# Two of the masks overlap: TROOP's 2 x 2 lie inside VILE's 4 x 3, and stay on top though they come first.
TREE: dict[str, Any] = {
    "images": [image(SECOND, "run1/map02/rgb/000060.png"), image(FIRST, "run1/map01/rgb/000123.png")],
    "annotations": [
        annotation(FIRST, 300, 11, [[2, 3, 4, 3, 4, 5, 2, 5]], 4),
        annotation(FIRST, 301, 3, [[1, 3, 5, 3, 5, 6, 1, 6], [10, 0, 12, 0, 12, 1, 10, 1]], 14),
        annotation(FIRST, 302, 0, {"size": [HEIGHT, WIDTH], "counts": [7 * 8 + 2, 3, 96 - 61]}, 3),
        # 84 = 20 + 2 * 32, 2, 96 - 86 = 10: the twelfth column but one's fifth and sixth pixel.
        annotation(SECOND, 5, 0, {"size": [HEIGHT, WIDTH], "counts": chr(48 + 20 + 32) + "22:"}, 2),
    ],
    "categories": CATEGORIES,
}
CLASSES = np.zeros(SIZE, np.int64)  # background, PLAYER 1, VILE 2, TROOP 3: in the order of the categories' ids
CLASSES[3:6, 1:5] = 2
CLASSES[0, 10:12] = 2
CLASSES[3:5, 2:4] = 3
CLASSES[2:5, 7] = 1


def write(root: Path, tree: dict[str, Any], name: str = "run-full-train.json", full: bool = True) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(tree))
    for entry in tree["images"]:
        path = root / entry["file_name"]
        png(path, INDICES, 3)
        if full:
            png(root / entry["file_name"].replace("rgb", "depth"), DEPTH, 0)
            bytes_of_codes = np.stack([OBJECTS >> shift & 255 for shift in (0, 8, 16)], 2)
            png(root / entry["file_name"].replace("rgb", "objects"), bytes_of_codes, 2)
