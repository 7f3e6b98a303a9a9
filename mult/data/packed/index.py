"""The files of a pack, and the table of its views.

    pack.json                   what was packed, with which settings; written first
    <split>/000000256.views     a shard: views 256 to 511 of the split, one after the other
    <split>/index.npy           a row a view (`row_type`), mapped into memory
    <split>/split.json          what the dataset says of the split, and the checksum of index.npy; written last

A shard ends in its own rows of the index and in a footer: where they begin, their CRC-32 and MAGIC. Each file appears whole or
not at all (mult/files.py), so a shard that is there is complete, and the table can be made from the shards alone.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mult.errors import UserError
from mult.files import map_array, read_file, read_json, write_array, write_json

FORMAT_VERSION = 1
MAGIC = b"MULTPACK"
_FOOTER = struct.Struct("<QI8s")
REMEDY = "remove it and run `mult pack` again, which makes anew what is missing"

Rows = NDArray[np.void]


def row_type(tasks: int, name_bytes: int, group_bytes: int) -> np.dtype[np.void]:
    """A row of the index. `height` is 0 where the bytes are not a view but the message about a damaged file, in UTF-8.

    offset, size: bytes in the shard; crc: their CRC-32; image, codes, masks: see view.py; native, derived: a bit for each task;
    intrinsics: of the stored image, NaN where they are unknown.
    """
    return np.dtype(
        [
            ("offset", "<u8"),
            ("size", "<u4"),
            ("crc", "<u4"),
            ("height", "<u4"),
            ("width", "<u4"),
            ("native", "<u4"),
            ("derived", "<u4"),
            ("image", "u1"),
            ("codes", "u1", (tasks,)),
            ("masks", "u1", (tasks,)),
            ("intrinsics", "<f8", (4,)),
            ("name", f"S{max(1, name_bytes)}"),
            ("group", f"S{max(1, group_bytes)}"),
        ]
    )


def shard_path(root: Path, split: str, first: int) -> Path:
    """The file of the views from number `first` on."""
    return root / split / f"{first:09d}.views"


def write_footer(file: BinaryIO, rows: Rows) -> None:
    """End a shard, whose views are written, with its rows."""
    start = file.tell()
    table = io.BytesIO()
    np.lib.format.write_array(table, rows, allow_pickle=False)
    file.write(table.getvalue())
    file.write(_FOOTER.pack(start, zlib.crc32(table.getvalue()), MAGIC))


def read_rows(path: Path) -> Rows:
    """The rows at the end of a shard; UserError, naming it, if it is damaged."""

    def read(file: BinaryIO) -> Rows:
        end = file.seek(-_FOOTER.size, io.SEEK_END)
        start, checksum, magic = _FOOTER.unpack(file.read())
        file.seek(start)
        table = file.read(end - start)
        if magic != MAGIC or zlib.crc32(table) != checksum:
            raise ValueError("its checksum is another")
        rows: Rows = np.load(io.BytesIO(table), allow_pickle=False)
        return rows

    return read_file(path, read, "packed views", REMEDY)


def write_index(root: Path, split: str, shards: list[Rows]) -> int:
    """Write the table of a split from the rows of its shards; returns its checksum."""
    widths = {key: max(rows.dtype[key].itemsize for rows in shards) for key in ("name", "group")}
    rows = np.empty(sum(map(len, shards)), row_type(shards[0]["codes"].shape[1], widths["name"], widths["group"]))
    start = 0
    for shard in shards:
        part = rows[start : start + len(shard)]
        for key in shard.dtype.names or ():
            part[key] = shard[key]
        start += len(shard)
    write_array(root / split / "index.npy", rows)
    return checksum(rows)


def open_index(root: Path, split: str) -> Rows:
    """The table of a split, mapped into memory."""
    return map_array(root / split / "index.npy")


def checksum(rows: Rows) -> int:
    """The CRC-32 of a table's type, length and bytes."""
    return zlib.crc32(rows.tobytes(), zlib.crc32(repr((rows.dtype.descr, rows.shape)).encode()))


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Write pack.json or split.json, with a checksum."""
    write_json(path, {**facts, "crc": _checksum_of_facts(facts)})


def read_facts(path: Path, remedy: str = REMEDY) -> dict[str, Any]:
    """What `write_facts` wrote; UserError where it is missing, damaged or of another version of this format."""
    facts = read_json(path, remedy)
    crc = facts.pop("crc", None)
    if facts.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise UserError(
            f"{path}: got format_version {facts['format_version']}; expected {FORMAT_VERSION}; pack the dataset again"
        )
    if crc != _checksum_of_facts(facts):
        raise UserError(f"{path}: got other values than were written (CRC-32); expected a file that mult wrote; {remedy}")
    return facts


def _checksum_of_facts(facts: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())
