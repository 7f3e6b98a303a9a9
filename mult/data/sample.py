"""What every dataset gives to the rest of the library: samples, batches of them, and the interface `Reader`.

A sample is one view: an image and a label for each task. A task of which the view has no label gets an empty target, valid
nowhere, so that all samples of a dataset have the same tasks and can be stacked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypedDict

import torch
from torch import Tensor

from mult.errors import UserError
from mult.labels import Intrinsics
from mult.tasks import IGNORE, Task


class Camera(NamedTuple):
    """A pinhole: (fx, fy, cx, cy) in pixel indices, the first pixel's centre being 0, and its images' (height, width)."""

    intrinsics: Intrinsics
    size: tuple[int, int]


class BadFileError(UserError):
    """A file of a dataset is missing or cannot be used; the message names it and says what to do.

    `kind`: "missing", "damaged", or the property that is wrong: "mode", "size" or "range" (of values).
    """

    def __init__(self, message: str, kind: str = "damaged") -> None:
        super().__init__(message)
        self.kind = kind


class _RequiredKeys(TypedDict):
    """The keys of every sample."""

    image: Tensor
    targets: dict[str, Tensor]
    valid: dict[str, Tensor]
    id: str
    derived: tuple[str, ...]


class Sample(_RequiredKeys, total=False):
    """One view: image float32 (3, H, W) in [0, 1]; a target and a bool mask (1, H, W) for each task; its id, for messages.

    Targets are int64 (H, W) class ids (255 = ignore) or float32 (C, H, W) in the task's unit, 0 where invalid. `derived`
    names the tasks whose labels were computed from depth or colour (disk/derived.py); the others are the dataset's own. The
    key `bad` is there only if the view was skipped because of a bad file: it holds the message, and no pixel is valid.
    """

    bad: str


class Batch(TypedDict):
    """Samples of one size, stacked: image (B, 3, H, W), targets (B, H, W) or (B, C, H, W), valid (B, 1, H, W).

    `bad` holds the messages of the skipped samples.
    """

    image: Tensor
    targets: dict[str, Tensor]
    valid: dict[str, Tensor]
    id: list[str]
    bad: list[str]


class EvalBatch(TypedDict):
    """Images of one size, stacked; targets and masks at their own sizes, in lists of B tensors; `bad` as in Batch."""

    image: Tensor
    targets: dict[str, list[Tensor]]
    valid: dict[str, list[Tensor]]
    id: list[str]
    bad: list[str]


class Reader(Protocol):
    """The interface of a dataset.

    tasks: those of its samples; classes: the class names of the categorical ones. labelled: the tasks of which some sample has
    a label of the dataset's own, whether or not it is among `tasks`; available: these and those with derived labels.
    metric_depth: whether depth is in metres, otherwise it is known up to a scale. underivable: {task of which no label can be
    derived from this dataset: why}.
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
        """The id of a sample, without reading its files."""

    def group(self, i: int, /) -> str:
        """The building, scene or map of a sample; "" if there is none."""

    def native(self, i: int, /) -> frozenset[str]:
        """The tasks of which a sample has a label of the dataset's own, whether or not they are among `tasks`."""

    def camera(self, i: int, /) -> Camera:
        """The camera of a sample; UserError where it is unknown."""


def empty_target(task: Task, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The target and mask of a missing label: zeros, or class ids 255; valid nowhere."""
    if task.channels is None:
        target = torch.full((height, width), IGNORE, dtype=torch.int64)
    else:
        target = torch.zeros(task.channels, height, width)
    return target, torch.zeros(1, height, width, dtype=torch.bool)


def wrap_index(i: int, length: int) -> int:
    """The index from 0 on of the i-th of `length` samples, counted from the end if i < 0; IndexError where there is none."""
    if not -length <= i < length:
        raise IndexError(f"sample {i} of {length}")
    return i % length


def crop(sample: Sample, rows: slice, columns: slice) -> Sample:
    """Some rows and columns of a sample's image, targets and masks."""
    return {
        **sample,
        "image": sample["image"][..., rows, columns],
        "targets": {task: target[..., rows, columns] for task, target in sample["targets"].items()},
        "valid": {task: valid[..., rows, columns] for task, valid in sample["valid"].items()},
    }


def collect_bad(batches: Iterable[EvalBatch], messages: list[str]) -> Iterator[EvalBatch]:
    """Yield the same batches and add their messages about bad files to `messages`."""
    for batch in batches:
        messages += batch["bad"]
        yield batch


def collate_train(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one size and one set of tasks."""
    batch = collate_eval(samples)
    return {
        **batch,
        "targets": {task: torch.stack(targets) for task, targets in batch["targets"].items()},
        "valid": {task: torch.stack(masks) for task, masks in batch["valid"].items()},
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
