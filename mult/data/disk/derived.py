"""TODOC"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mult.data.disk.encodings import ENCODINGS
from mult.data.disk.images import Array, Mask, read_pixels, write_png
from mult.data.sample import Reader, Sample, empty_target
from mult.errors import UserError
from mult.labels import edge_texture, keypoints2d
from mult.tasks import TASKS

FROM_COLOUR: dict[str, Callable[[Array], Array]] = {"keypoints2d": keypoints2d, "edge_texture": edge_texture}
FROM_DEPTH = ("normal", "reshading")
DERIVABLE = tuple(task for task in TASKS if task in FROM_COLOUR or task in FROM_DEPTH)
PLAUSIBLE_MEDIAN_M = (0.2, 100.0)


class Cache:
    """The derived labels beside a dataset at `root`; what they are called is settled when it is opened."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "derived"
        self.tasks = frozenset(task for task in DERIVABLE if (self.folder / task).is_dir())

    def path(self, task: str, sample_id: str) -> Path:
        return self.folder / task / f"{sample_id}.png"

    def covers(self, task: str, folders: Iterable[str]) -> bool:
        """Whether there are labels of a task in one of the folders that sample ids begin with ("": they have none)."""
        return task in self.tasks and any((self.folder / task / folder).is_dir() for folder in folders)

    def require(self, tasks: Iterable[str], labelled: Collection[str], folders: Collection[str], where: str) -> tuple[str, ...]:
        """All tasks that the dataset has labels of (`labelled`) or that were derived; UserError if one of `tasks` is not."""
        at_hand = [task for task in TASKS if task in labelled or self.covers(task, folders)]
        for task in tasks:
            if task not in at_hand:
                remedy = ", or let scripts/annotate.py --dataset derive it" if task in DERIVABLE else ""
                there = ", ".join(at_hand) or "(none)"
                raise UserError(
                    f"{self.folder.parent}: got task {task}, of which {where} has no file; expected some of {there}; "
                    f"leave the task out or add its files{remedy}"
                )
        return tuple(at_hand)

    def read(self, task: str, sample_id: str, size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        """A label as target and valid (1, H, W), None where there is none; UserError for a file that is damaged."""
        path = self.path(task, sample_id)
        if task not in self.tasks or not path.exists():
            return None
        pixels = read_pixels(path, ENCODINGS[task].modes, size)
        geometry = pixels[..., 0] > 0 if task == "reshading" else np.ones(size, np.bool_)
        target, valid = ENCODINGS[task].decode(pixels, geometry, path)
        return torch.from_numpy(target), torch.from_numpy(valid)[None]

    def write(self, task: str, sample_id: str, target: Array, valid: Mask) -> None:
        """Store a label (C, H, W) in the library's unit, whole or not at all."""
        if task == "reshading":
            target = np.where(valid, np.maximum(target, 1 / 255), 0)
        write_png(self.path(task, sample_id), ENCODINGS[task].encode(target, valid))

    def complete(
        self, sample_id: str, image: Tensor, native: Mapping[str, tuple[Tensor, Tensor]], tasks: Iterable[str]
    ) -> Sample:
        """A sample of `tasks`: the dataset's own labels {task: (target, valid)}, else the derived, else valid nowhere."""
        height, width = image.shape[-2:]
        labels, derived = dict(native), []
        for task in tasks:
            if task not in labels:
                made = self.read(task, sample_id, (height, width))
                labels[task] = made or empty_target(TASKS[task], height, width)
                derived += [task] if made else []
        return {
            "image": image,
            "targets": {task: labels[task][0] for task in tasks},
            "valid": {task: labels[task][1] for task in tasks},
            "id": sample_id,
            "derived": tuple(derived),
        }


def why_absent(reader: Reader, task: str) -> str:
    """Why a dataset has no labels of a task, and what would make some."""
    if task in reader.underivable:
        return reader.underivable[task]
    if task in FROM_DEPTH and "depth_zbuffer" not in reader.labelled:
        return "it is derived from depth, which the dataset does not have"
    if task in DERIVABLE:
        return "it is not derived yet; scripts/annotate.py --dataset makes it"
    return "the dataset has no labels of it"


def warn_of_median(median_m: float | None, question: str) -> None:
    """Warn, with the numbers, of a median depth that no room has and that a wrong depth scale would explain."""
    low, high = PLAUSIBLE_MEDIAN_M
    if median_m is not None and not low <= median_m <= high:
        warnings.warn(f"the median depth is {median_m:.4g} m, outside {low} to {high} m: {question}", stacklevel=4)
