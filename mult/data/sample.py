"""What one view is to the rest of the library (architecture.md, Contract), and how views become batches.

Every dataset yields `Sample`s. A view that lacks a label holds an empty target, so that all samples have the same
keys and a batch can be stacked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypedDict

import torch
from torch import Tensor

from mult.errors import UserError
from mult.labels import Intrinsics
from mult.tasks import Task

IGNORE = 255
"""The class id of pixels that no loss or metric counts."""


class BadFileError(UserError):
    """A file of a dataset is missing or cannot be used; the message names it, and what to do.

    `kind`: "missing", "damaged", or of another "mode", "size" or "range" of values than it should be.
    """

    def __init__(self, message: str, kind: str = "damaged") -> None:
        super().__init__(message)
        self.kind = kind


class _View(TypedDict):
    """What every sample has."""

    image: Tensor
    targets: dict[str, Tensor]
    valid: dict[str, Tensor]
    id: str
    derived: tuple[str, ...]


class Sample(_View, total=False):
    """One view: image float32 (3, H, W) in [0, 1], a target and a bool mask (1, H, W) a task, and a name for messages.

    Targets are int64 (H, W) class ids (255 = ignore) or float32 (C, H, W) in the task's unit, 0 where invalid. `derived`
    names the tasks whose labels were made from depth or colour (derived.py), the others are the dataset's own. A view that was
    skipped has `bad`, which says what is wrong with its files, and nothing of it is valid.
    """

    bad: str


class Batch(TypedDict):
    """Samples of one size, stacked: image (B, 3, H, W), targets (B, H, W) or (B, C, H, W), valid (B, 1, H, W).

    `bad` says what is wrong with the files of the samples that were skipped.
    """

    image: Tensor
    targets: dict[str, Tensor]
    valid: dict[str, Tensor]
    id: list[str]
    bad: list[str]


class EvalBatch(TypedDict):
    """Images of one size, stacked, with every view's targets at their native size: lists of B tensors; `bad` as in Batch."""

    image: Tensor
    targets: dict[str, list[Tensor]]
    valid: dict[str, list[Tensor]]
    id: list[str]
    bad: list[str]


class Reader(Protocol):
    """What every dataset offers beside its samples.

    `tasks` are those of its samples, `classes` the class names of the categorical ones. `labelled` are the tasks of which
    some sample has a label of the dataset's own, asked for or not, `available` those and the derived ones. Without
    `metric_depth`, depth is known up to a scale. `underivable` says of which tasks no label can be derived, and why.
    """

    root: Path
    tasks: tuple[str, ...]
    classes: dict[str, list[str]]
    labelled: frozenset[str]
    available: tuple[str, ...]
    metric_depth: bool
    underivable: Mapping[str, str]

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Sample: ...
    def name(self, i: int, /) -> str:
        """The id of a sample, without reading it."""

    def group(self, i: int, /) -> str:
        """The building, scene or map of a sample; "" if there is none."""

    def native(self, i: int, /) -> frozenset[str]:
        """The tasks of which a sample has a label of the dataset's own, without reading it."""

    def camera(self, i: int, /) -> tuple[Intrinsics, tuple[int, int]]:
        """(fx, fy, cx, cy) in pixel indices and (height, width); UserError where they are unknown."""


def empty_target(task: Task, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The target and mask of a missing label: zeros (class ids 255), valid nowhere."""
    if task.channels is None:
        target = torch.full((height, width), IGNORE, dtype=torch.int64)
    else:
        target = torch.zeros(task.channels, height, width)
    return target, torch.zeros(1, height, width, dtype=torch.bool)


def note_bad(batches: Iterable[EvalBatch], noted: list[str]) -> Iterator[EvalBatch]:
    """The same batches; what they say of bad files is added to `noted` on the way."""
    for batch in batches:
        noted += batch["bad"]
        yield batch


def collate_train(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one size and one set of tasks."""
    tasks = samples[0]["targets"]
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "targets": {task: torch.stack([sample["targets"][task] for sample in samples]) for task in tasks},
        "valid": {task: torch.stack([sample["valid"][task] for sample in samples]) for task in tasks},
        "id": [sample["id"] for sample in samples],
        "bad": [sample["bad"] for sample in samples if "bad" in sample],
    }


def collate_eval(samples: Sequence[Sample]) -> EvalBatch:
    """Stack the images; leave the targets in lists, since their sizes may differ from view to view."""
    tasks = samples[0]["targets"]
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "targets": {task: [sample["targets"][task] for sample in samples] for task in tasks},
        "valid": {task: [sample["valid"][task] for sample in samples] for task in tasks},
        "id": [sample["id"] for sample in samples],
        "bad": [sample["bad"] for sample in samples if "bad" in sample],
    }
