"""Packing a dataset: every view once, at the size at which a network will be trained on it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch

from mult.data.batches.fit import Size, input_size, training_scale
from mult.data.batches.resize import resize
from mult.data.packed import index
from mult.data.packed.index import Rows, read_rows, row_type, shard_path
from mult.data.packed.view import encode_view
from mult.data.parallel import map_with_progress
from mult.data.sample import BadFileError, Reader
from mult.errors import UserError
from mult.files import is_temporary, write_file

SHARD_VIEWS = 256
"""At 224 pixels and six tasks about 250 MB: what a killed process has to make again, and what a damaged file costs."""


class Packed(NamedTuple):
    """What was done with a split."""

    views: int
    present: int
    """Views that were there before."""
    bad: int
    """Views that are left out because a file was damaged."""
    without_camera: int


def pack(
    readers: Mapping[str, Reader],
    root: Path,
    image_size: Size,
    source: Mapping[str, Any],
    *,
    skip_bad_files: bool = False,
    workers: int | None = None,
    shard_views: int = SHARD_VIEWS,
) -> dict[str, Packed]:
    """Write the views of {split: its reader} below `root`, in `workers` processes (by default one a processor).

    A view larger than `image_size` is resized until it just covers that size; no view is enlarged. All readers have the same
    tasks. `source` is what JSON can hold of the data's config. Interrupted at any moment, the same call goes on: shards that
    are there are kept. Raises UserError without a split, for a folder that holds anything else or a pack of other settings or
    views, for a split on which a benchmark compares and, unless `skip_bad_files`, for a damaged file.
    """
    if not readers:
        raise UserError("split: got none; expected at least one to pack; name one that the dataset has")
    for split, reader in readers.items():
        if split in reader.benchmark_splits:
            raise UserError(
                f"split: got {split} of {reader.root}, on which a benchmark compares at the labels' own size; expected a split "
                "to train on or to choose by; evaluate on the dataset itself"
            )
    tasks = next(iter(readers.values())).tasks
    facts = {
        "format_version": index.FORMAT_VERSION,
        "image_size": list(image_size),
        "tasks": list(tasks),
        "shard_views": shard_views,
        "source": dict(source),
    }
    _claim(root, facts)
    results = {}
    for split, reader in readers.items():
        firsts = range(0, len(reader), shard_views)
        shards = {first: _read_shard(root, split, first, reader, shard_views) for first in firsts}
        missing = [first for first, rows in shards.items() if rows is None]
        write = partial(_write_shard, reader, root, split, image_size, skip_bad_files, shard_views)
        for first, rows in map_with_progress(write, missing, workers, f"packing {split}", "shard"):
            shards[first] = rows
        tables = [rows for rows in shards.values() if rows is not None]
        made = sum(len(tables[first // shard_views]) for first in missing)
        _finish(root, split, reader, tables)
        results[split] = Packed(
            views=len(reader),
            present=len(reader) - made,
            bad=sum(int((rows["height"] == 0).sum()) for rows in tables),
            without_camera=sum(int(np.isnan(rows["intrinsics"][:, 0]).sum()) for rows in tables),
        )
    return results


def _claim(root: Path, facts: dict[str, Any]) -> None:
    """Write pack.json into a new folder; UserError for one with other files or with a pack of other settings."""
    path = root / "pack.json"
    if not path.exists():
        if root.exists() and not all(is_temporary(each) for each in root.iterdir()):
            raise UserError(f"{root}: got files but no pack.json; expected a new folder or a pack; choose another folder")
        index.write_facts(path, facts)
        return
    stored = index.read_facts(path, "pack into another folder")
    flat = [{**each, **each["source"]} for each in (stored, facts)]
    different = [key for key in flat[1] if key not in ("source", "root") and flat[0].get(key) != flat[1][key]]
    if different:
        key = different[0]
        raise UserError(
            f"{root}: got {key} {flat[1][key]}; expected {flat[0].get(key)}, with which it was packed; "
            "use that, or another folder"
        )


def _read_shard(root: Path, split: str, first: int, reader: Reader, shard_views: int) -> Rows | None:
    """The rows of a shard, None if it is not there; UserError if it holds other views than the reader has."""
    path = shard_path(root, split, first)
    if not path.exists():
        return None
    rows = read_rows(path)
    numbers = range(first, min(first + shard_views, len(reader)))
    if len(rows) != len(numbers) or any(
        bytes(row["name"]).decode() != reader.name(number) for row, number in zip(rows, numbers, strict=True)
    ):
        raise UserError(f"{path}: got views that the dataset no longer has there; expected its own; pack into another folder")
    return rows


def _write_shard(
    reader: Reader, root: Path, split: str, image_size: Size, skip_bad_files: bool, shard_views: int, first: int
) -> tuple[int, Rows]:
    """Write the views from number `first` on as a file; returns `first` and their rows."""
    torch.set_num_threads(1)  # the processes share the processors among them
    numbers = range(first, min(first + shard_views, len(reader)))
    names = [reader.name(number).encode() for number in numbers]
    groups = [reader.group(number).encode() for number in numbers]
    rows: Rows = np.zeros(len(numbers), row_type(len(reader.tasks), max(map(len, names)), max(map(len, groups))))
    rows["name"], rows["group"] = names, groups

    def write(file: BinaryIO) -> None:
        for number, row in zip(numbers, rows, strict=True):
            data = _pack_view(reader, number, image_size, skip_bad_files, row)
            row["offset"], row["size"], row["crc"] = file.tell(), len(data), zlib.crc32(data)
            file.write(data)
        index.write_footer(file, rows)

    write_file(shard_path(root, split, first), write)
    return first, rows


def _pack_view(reader: Reader, number: int, image_size: Size, skip_bad_files: bool, row: Any) -> bytes:
    """The bytes of a view; fills its row but for their place. Of a damaged view they are the message."""
    row["native"] = _set_bits(reader.tasks, reader.native(number))
    row["intrinsics"] = np.nan
    try:
        sample = reader[number]
    except BadFileError as error:
        if not skip_bad_files:
            raise
        return str(error).encode()
    height, width = sample["image"].shape[-2:]
    size = covering_size((height, width), image_size)
    if size != (height, width):
        sample = resize(sample, size)
    data, layout = encode_view(sample, reader.tasks, resized=size != (height, width))
    row["height"], row["width"], row["image"], row["codes"], row["masks"] = layout
    row["derived"] = _set_bits(reader.tasks, sample["derived"])
    with suppress(UserError):  # a dataset of unknown cameras; they are counted
        (fx, fy, cx, cy), (source_height, source_width) = reader.camera(number)
        y, x = size[0] / source_height, size[1] / source_width
        row["intrinsics"] = fx * x, fy * y, (cx + 0.5) * x - 0.5, (cy + 0.5) * y - 0.5
    return data


def covering_size(size: Size, image_size: Size) -> Size:
    """The smallest (height, width) of a view's proportions that covers `image_size`; its own where that is smaller."""
    return input_size(size, image_size, "short_side") if training_scale(size, image_size, "short_side") < 1 else size


def _set_bits(tasks: Sequence[str], present: Sequence[str] | frozenset[str]) -> int:
    return sum(1 << position for position, task in enumerate(tasks) if task in present)


def _finish(root: Path, split: str, reader: Reader, tables: list[Rows]) -> None:
    """Write the table of a split and what its reader says of it."""
    path = root / split / "split.json"
    crc = index.write_index(root, split, tables)
    own = {
        "views": len(reader),
        "index_crc": crc,
        "classes": reader.classes,
        "labelled": [task for task in reader.tasks if task in reader.labelled],
        "available": list(reader.tasks),
        "metric_depth": reader.metric_depth,
        "metric_arguments": {task: dict(arguments) for task, arguments in reader.metric_arguments.items()},
        "underivable": dict(reader.underivable),
    }
    index.write_facts(path, own)
