"""What every dataset gives to the rest of the library: samples, batches of them, and the interface `Reader`.

A sample is one view: an image and a label for each task. A task of which the view has no label gets an empty target, valid
nowhere, so that all samples of a dataset have the same tasks and can be stacked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
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


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


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
    key `bad` is there only if the view was skipped because of a bad file: it holds the message, and no pixel is valid. The key
    `content` is there only if the image is larger than the view in it: the rest is padding.
    """

    bad: str
    content: Box


class Batch(TypedDict):
    """Samples of one size, stacked: image (B, 3, H, W), targets (B, H, W) or (B, C, H, W), valid (B, 1, H, W).

    `bad` holds the messages of the skipped samples.
    """

    image: Tensor
    targets: dict[str, Tensor]
    valid: dict[str, Tensor]
    id: list[str]
    bad: list[str]


class MapsOfAnySize:
    """{task: maps of B views, of any sizes}, copied into one tensor a dtype; reading returns views of these.

    A worker sends each tensor to the main process as an open file, of which a process may have few: six tasks and 32 views
    in tensors of their own are 384.
    """

    def __init__(self, maps: Mapping[str, Sequence[Tensor]]) -> None:
        flat: dict[torch.dtype, list[Tensor]] = {}
        ends: Counter[torch.dtype] = Counter()
        self._places: dict[str, list[tuple[torch.dtype, int, torch.Size]]] = {task: [] for task in maps}
        for task, of_task in maps.items():
            for each in of_task:
                self._places[task].append((each.dtype, ends[each.dtype], each.shape))
                flat.setdefault(each.dtype, []).append(each.flatten())
                ends[each.dtype] += each.numel()
        self._flat = {dtype: torch.cat(parts) for dtype, parts in flat.items()}

    def __getitem__(self, task: str) -> list[Tensor]:
        return [self._flat[dtype][start : start + math.prod(shape)].view(shape) for dtype, start, shape in self._places[task]]

    def pin_memory(self) -> MapsOfAnySize:
        """Called by torch's DataLoader with `pin_memory`: memory from which a GPU copies while the CPU goes on."""
        self._flat = {dtype: flat.pin_memory() for dtype, flat in self._flat.items()}
        return self

    def stack_runs(self, task: str) -> Iterator[Tensor]:
        """All maps in order, those that follow each other in one size as one tensor (n, ...)."""
        for (dtype, shape), places in groupby(self._places[task], key=lambda place: (place[0], place[2])):
            starts = [start for _, start, _ in places]
            size = (len(starts), *shape)
            yield self._flat[dtype][starts[0] : starts[0] + math.prod(size)].view(size)


IMAGE = "image"


class EvalBatch(TypedDict):
    """The network's inputs under the key IMAGE; B targets and B masks a task; all at their own sizes. `bad` as in Batch.

    `content`: where in its input each view is; the rest is padding.
    """

    image: MapsOfAnySize
    content: list[Box]
    targets: MapsOfAnySize
    valid: MapsOfAnySize
    id: list[str]
    bad: list[str]


class Reader(Protocol):
    """The interface of a dataset.

    tasks: those of its samples; classes: the class names of the categorical ones. labelled: the tasks of which some sample has
    a label of the dataset's own, whether or not it is among `tasks`; available: these and those with derived labels.
    metric_depth: whether depth is in metres, otherwise it is known up to a scale. metric_arguments: {task: what the dataset's
    benchmark fixes of its metric, as keyword arguments of `Task.metric`}. underivable: {task of which no label can be derived
    from this dataset: why}. benchmark_splits: the splits whose scores are published and compared; a run is evaluated on such
    a split once, at its last step, and nothing is chosen by it. border: at each side of an image so many pixels show nothing of
    the scene; keypoints and edges are derived as if the scene went on there, and are valid only inside.
    """

    root: Path
    tasks: tuple[str, ...]
    classes: dict[str, list[str]]
    labelled: frozenset[str]
    available: tuple[str, ...]
    metric_depth: bool
    metric_arguments: Mapping[str, Mapping[str, float]]
    underivable: Mapping[str, str]
    benchmark_splits: frozenset[str]
    border: int

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
    targets, valid = _by_task(samples)
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "targets": {task: torch.stack(maps) for task, maps in targets.items()},
        "valid": {task: torch.stack(masks) for task, masks in valid.items()},
        "id": [sample["id"] for sample in samples],
        "bad": [sample["bad"] for sample in samples if "bad" in sample],
    }


def collate_eval(samples: Sequence[Sample]) -> EvalBatch:
    """Leave images and targets at their own sizes, which may differ from view to view."""
    targets, valid = _by_task(samples)
    return {
        "image": MapsOfAnySize({IMAGE: [sample["image"] for sample in samples]}),
        "content": [sample.get("content", Box(0, 0, *sample["image"].shape[-2:])) for sample in samples],
        "targets": MapsOfAnySize(targets),
        "valid": MapsOfAnySize(valid),
        "id": [sample["id"] for sample in samples],
        "bad": [sample["bad"] for sample in samples if "bad" in sample],
    }


def _by_task(samples: Sequence[Sample]) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]:
    """The targets and the masks of samples, {task: (B)}."""
    tasks = samples[0]["targets"]
    targets = {task: [sample["targets"][task] for sample in samples] for task in tasks}
    return targets, {task: [sample["valid"][task] for sample in samples] for task in tasks}
