"""Derived labels: those that are computed from a dataset's depth or colours, and stored beside it.

They are in `<root>/derived/<task>/<sample id>.png`, in Taskonomy's encodings. A file holds its own mask: a normal coded
(128, 128, 128) is invalid, as in Taskonomy; so is a reshading of 0, for which the darkest valid shade is stored as 1.
`mult annotate --dataset` computes them (prepare/derive.py), and every reader takes from here what its dataset lacks.
"""

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
"""{task: the function that computes its label from an image}."""
FROM_DEPTH = ("normal", "reshading")
DERIVABLE = tuple(task for task in TASKS if task in FROM_COLOUR or task in FROM_DEPTH)
PLAUSIBLE_MEDIAN_M = (0.2, 100.0)
"""The median depth of a dataset of rooms is between these; outside, its depth scale is probably wrong."""


class DerivedLabels:
    """The derived labels of a dataset at `root`; which tasks have some is looked up once, here."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "derived"
        self.tasks = frozenset(task for task in DERIVABLE if (self.folder / task).is_dir())

    def path(self, task: str, sample_id: str) -> Path:
        """The file of a label, whether or not it exists."""
        return self.folder / task / f"{sample_id}.png"

    def covers(self, task: str, folders: Iterable[str]) -> bool:
        """Whether there are labels of a task in one of the folders with which sample ids begin ("": ids without a folder)."""
        return task in self.tasks and any((self.folder / task / folder).is_dir() for folder in folders)

    def list_available(
        self, tasks: Iterable[str], labelled: Collection[str], folders: Collection[str], where: str
    ) -> tuple[str, ...]:
        """The tasks with labels: the dataset's own (`labelled`) and derived ones; UserError unless `tasks` are among them."""
        available = [task for task in TASKS if task in labelled or self.covers(task, folders)]
        for task in tasks:
            if task not in available:
                remedy = ", or let `mult annotate --dataset` derive it" if task in DERIVABLE else ""
                raise UserError(
                    f"{self.folder.parent}: got task {task}, of which {where} has no file; expected some of "
                    f"{', '.join(available) or '(none)'}; leave the task out or add its files{remedy}"
                )
        return tuple(available)

    def read(self, task: str, sample_id: str, size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        """A label as target and valid (1, H, W), None where there is none; BadFileError for a damaged file."""
        path = self.path(task, sample_id)
        if task not in self.tasks or not path.exists():
            return None
        pixels = read_pixels(path, ENCODINGS[task].modes, size)
        geometry = pixels[..., 0] > 0 if task == "reshading" else np.ones(size, np.bool_)
        target, valid = ENCODINGS[task].decode(pixels, geometry, path)
        return torch.from_numpy(target), torch.from_numpy(valid)[None]

    def write(self, task: str, sample_id: str, target: Array, valid: Mask) -> None:
        """Store a label (C, H, W) in the task's unit, valid where `valid` (H, W) is."""
        if task == "reshading":
            target = np.where(valid, np.maximum(target, 1 / 255), 0)
        write_png(self.path(task, sample_id), ENCODINGS[task].encode(target, valid))

    def build_sample(
        self, sample_id: str, image: Tensor, native: Mapping[str, tuple[Tensor, Tensor]], tasks: Iterable[str]
    ) -> Sample:
        """A sample of `tasks`, from the dataset's own labels {task: (target, valid)}, else derived ones, else empty ones."""
        height, width = image.shape[-2:]
        labels, derived = dict(native), []
        for task in tasks:
            if task not in labels:
                label = self.read(task, sample_id, (height, width))
                labels[task] = label or empty_target(TASKS[task], height, width)
                derived += [task] if label else []
        return {
            "image": image,
            "targets": {task: labels[task][0] for task in tasks},
            "valid": {task: labels[task][1] for task in tasks},
            "id": sample_id,
            "derived": tuple(derived),
        }


def explain_absence(reader: Reader, task: str) -> str:
    """Why a dataset has no labels of a task, and how to get them if there is a way."""
    if task in reader.underivable:
        return reader.underivable[task]
    if task in FROM_DEPTH and "depth_zbuffer" not in reader.labelled:
        return "it is derived from depth, which the dataset does not have"
    if task in DERIVABLE:
        return "it is not derived yet; `mult annotate --dataset` makes it"
    return "the dataset has no labels of it"


def warn_if_implausible(median_m: float | None, question: str) -> None:
    """Warn of a median depth that no dataset of rooms has, with a question that names the probable cause."""
    if median_m is not None and (implausible := describe_implausible_depth(median_m)):
        warnings.warn(f"{implausible}: {question}", stacklevel=4)


def describe_implausible_depth(median_m: float) -> str:
    """What is implausible about a median depth; "" for a plausible one."""
    low, high = PLAUSIBLE_MEDIAN_M
    return "" if low <= median_m <= high else f"the median depth is {median_m:.4g} m, outside {low} to {high} m"
