"""The reader of a pack: the samples of the dataset that it was made from, at about the network's size.

The table of views is mapped into memory and shared by all workers; nothing else is kept of a view. A view's bytes are read at
once, not mapped: a mapped page that the disk cannot give ends the process without a word, a failed read is a message.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from mult.data.packed.index import REMEDY, Rows, checksum, open_index, read_facts, shard_path
from mult.data.packed.view import Layout, decode_view
from mult.data.sample import BadFileError, Camera, Sample, wrap_index
from mult.errors import UserError
from mult.tasks import TASKS

DEPTH = "depth_zbuffer"


class Packed(Dataset[Sample]):
    """Map-style dataset of a pack; `dataset[i]` is the `Sample` that the packed dataset had at i, at the packed size.

    Names, order, splits, classes and cameras are the packed dataset's. A view that was no larger than the pack's `image_size`
    has the same bits; a larger one was resized (`batches.resize.resize`), with class ids, depth and masks to the bit, and
    interpolated values rounded: images to 1/255, normals to 1/32767, other labels to 1/65535. The CRC-32 of a view's bytes is
    checked whenever it is read.

    `tasks`: by default all of the pack. `image_size` (height, width): what a network will get; UserError where it is larger
    than what the views were packed for. Depth beyond `max_depth_m` is invalid; the pack may have a lower limit of its own, with
    which a higher one is refused. Raises UserError for a folder of another kind, a split that was not packed and, on access,
    BadFileError for a view that is damaged or was when it was packed.
    """

    benchmark_splits = frozenset[str]()  # they are not packed: `pack` refuses them
    border = 0

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        tasks: Iterable[str] | None = None,
        *,
        image_size: tuple[int, int] | None = None,
        max_depth_m: float | None = None,
    ) -> None:
        self.root, self.split = Path(root), split
        if not (self.root / "pack.json").is_file():
            raise UserError(f"{self.root}: got no pack.json; expected a folder that `mult pack` wrote; correct the path")
        facts = read_facts(self.root / "pack.json", "pack the dataset again, into another folder")
        path = self.root / split / "split.json"
        if not path.is_file():
            packed = ", ".join(sorted(each.parent.name for each in self.root.glob("*/split.json"))) or "none"
            raise UserError(
                f"{self.root}: got split {split!r}; expected one that is packed ({packed}); "
                "pack it with `mult pack`, or choose another"
            )
        own = read_facts(path)
        self._index: Rows = open_index(self.root, split)
        if checksum(self._index) != own["index_crc"]:
            raise UserError(f"{self.root / split / 'index.npy'}: got other rows than were written (CRC-32); {REMEDY}")
        self._all_tasks: list[str] = facts["tasks"]
        self._shard_views: int = facts["shard_views"]
        self._check_size(facts["image_size"], image_size)
        self._max_depth_m = self._check_depth(facts["source"]["max_depth_m"], max_depth_m)
        self.labelled = frozenset(own["labelled"])
        self.available: tuple[str, ...] = tuple(own["available"])
        requested = set(self.available if tasks is None else tasks)
        if unknown := sorted(requested.difference(self.available)):
            raise UserError(
                f"{self.root}: got task {unknown[0]}; expected some of {', '.join(self.available)}, which were packed; "
                "leave it out, or pack the dataset again with it"
            )
        self.tasks = tuple(task for task in TASKS if task in requested)
        self.classes: dict[str, list[str]] = {task: own["classes"][task] for task in self.tasks if task in own["classes"]}
        self.metric_depth: bool = own["metric_depth"]
        self.metric_arguments: dict[str, dict[str, float]] = own["metric_arguments"]
        self.underivable: dict[str, str] = own["underivable"]

    def _check_size(self, packed: list[int], requested: tuple[int, int] | None) -> None:
        if requested is not None and (requested[0] > packed[0] or requested[1] > packed[1]):
            raise UserError(
                f"data.image_size: got {list(requested)}; expected at most {packed} (height, width), for which {self.root} was "
                "packed; choose a smaller size, or pack the dataset again with a larger one"
            )

    def _check_depth(self, packed_m: float | None, requested_m: float | None) -> float | None:
        if packed_m is not None and requested_m is not None and requested_m > packed_m:
            raise UserError(
                f"data.max_depth_m: got {requested_m}; expected at most {packed_m}, with which {self.root} was packed; "
                "pack the dataset again without it"
            )
        return requested_m

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> Sample:
        i = wrap_index(i, len(self))
        row = self._index[i]
        data = self._read(i, row)
        if not row["height"]:
            raise BadFileError(data.decode())
        layout = Layout(int(row["height"]), int(row["width"]), int(row["image"]), row["codes"].tolist(), row["masks"].tolist())
        image, maps = decode_view(data, layout, self._all_tasks, self.tasks)
        if self._max_depth_m is not None and DEPTH in maps:
            target, valid = maps[DEPTH]
            near = valid & (target <= self._max_depth_m)
            maps[DEPTH] = torch.where(near, target, 0.0), near
        return {
            "image": image,
            "targets": {task: maps[task][0] for task in self.tasks},
            "valid": {task: maps[task][1] for task in self.tasks},
            "id": self.name(i),
            "derived": tuple(task for task in self._name_tasks(row["derived"]) if task in self.tasks),
        }

    def _read(self, i: int, row: Any) -> bytes:
        """The bytes of a view, whose checksum is right."""
        path = shard_path(self.root, self.split, i // self._shard_views * self._shard_views)
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(int(row["offset"]))
                data = file.read(int(row["size"]))
        except OSError as error:
            raise BadFileError(
                f"{path}: got no view ({error.strerror}); expected the file that `mult pack` wrote; {REMEDY}",
                "missing" if isinstance(error, FileNotFoundError) else "damaged",
            ) from error
        if len(data) != row["size"] or zlib.crc32(data) != row["crc"]:
            raise BadFileError(f"{path}: got other bytes than were packed for {self.name(i)} (CRC-32); {REMEDY}")
        return data

    def name(self, i: int) -> str:
        """The id of the i-th sample."""
        return bytes(self._index[wrap_index(i, len(self))]["name"]).decode()

    def group(self, i: int) -> str:
        """The building, scene or map of the i-th sample."""
        return bytes(self._index[wrap_index(i, len(self))]["group"]).decode()

    def native(self, i: int) -> frozenset[str]:
        """The tasks of which the packed dataset has a label of its own of the i-th view."""
        return frozenset(self._name_tasks(self._index[wrap_index(i, len(self))]["native"]))

    def camera(self, i: int) -> Camera:
        """The camera of the i-th view as it is stored, its intrinsics scaled with the image; UserError where it is unknown."""
        row = self._index[wrap_index(i, len(self))]
        fx, fy, cx, cy = row["intrinsics"].tolist()
        if fx != fx:
            raise UserError(f"{self.root}: got no camera of {self.name(i)}; expected one; leave out what needs it")
        return Camera((fx, fy, cx, cy), (int(row["height"]), int(row["width"])))

    def _name_tasks(self, bits: Any) -> list[str]:
        return [task for position, task in enumerate(self._all_tasks) if int(bits) >> position & 1]

    # --- Workers of a loader ---

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_index"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._index = open_index(self.root, self.split)
