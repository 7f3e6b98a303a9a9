"""Loader and model -> every metric of every task, with the trivial baseline scored on the same pixels beside it.

Sums and counts are pooled over the whole dataset and divided once at the end; under several processes the sums are added up,
and no view is scored twice (README.md beside this file).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Subset
from tqdm import tqdm

from mult.evaluation import bootstrap
from mult.evaluation.results import Results, comparability
from mult.evaluation.task_score import TaskScore, interleave
from mult.runtime import distributed
from mult.tasks import TASKS, cut


class Samples(Protocol):
    """A map-style dataset of samples (`mult.data.sample.Sample`)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Views(Samples, Protocol):
    """Samples, and what a dataset knows of all of them."""

    @property
    def classes(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def metric_depth(self) -> bool: ...
    @property
    def metric_arguments(self) -> Mapping[str, Mapping[str, float]]: ...
    def group(self, i: int, /) -> str: ...


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model on a split, and what each image contributed to them."""

    results: Results
    columns: dict[str, NDArray[Any]]
    """`id` and `group` (N,), `<task>/<sum>` (N, ...), and of the whole split `total/<task>/<name>`: histograms, confusion."""
    interval_over: str
    """What the intervals are over: "images" or "buildings"."""

    @property
    def images(self) -> int:
        return len(self.columns["id"])

    def as_json(self, dataset: str, split: str, corruption: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The content of an evaluation's file (README.md); corruption: {"kind", "severity"}, where the images have one."""
        return {
            **comparability(dataset, split, self.images, corruption),
            "interval_over": self.interval_over,
            "tasks": self.results,
        }


def views_of_this_process(views: Samples) -> Subset[Any]:
    """This process's part of a dataset: every view is in one part, and none in two, also where the parts differ in size."""
    return Subset(views, range(distributed.rank(), len(views), distributed.world_size()))  # type: ignore[arg-type]


def batch_size_of_this_process(batch_size: int) -> int:
    """This process's share of a batch of `batch_size` views, rounded up: together the processes hold one batch."""
    return math.ceil(batch_size / distributed.world_size())


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    tasks: Sequence[str],
    views: Views,
    constants: Mapping[str, Mapping[str, Any]],
    device: torch.device,
    precision: torch.dtype = torch.float32,
    absent: Mapping[str, str] | None = None,
    quick: bool = False,
) -> Evaluation:
    """Score a model on this process's part of the views, and add up over all processes.

    batches: `data.sample.EvalBatch`es of `views_of_this_process(views)`, in order. tasks: those to score, outputs of the
    model. constants: as `learn_constants` returns them; a task that has none has no trivial baseline. absent: {task: why it
    cannot be scored}. quick: metrics in the forms that `Task.quick` names. Results are equal on all processes.
    """
    scores = {
        task: TaskScore(
            TASKS[task],
            views.classes.get(task),
            constants.get(task, {}),
            views.metric_depth,
            **{**views.metric_arguments.get(task, {}), **(TASKS[task].quick if quick else {})},
        )
        for task in tasks
    }
    ids: list[str] = []
    with _evaluation_mode(model):
        for batch in tqdm(batches, desc="evaluate", leave=False, disable=not distributed.is_main()):
            outputs: dict[str, list[Tensor]] = {task: [] for task in scores}
            for images in batch["image"].stack_runs("image"):
                with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                    of_run = model(images.to(device, non_blocking=True))
                for task, maps in outputs.items():
                    maps += of_run[task]
            ids += batch["id"]
            for task, score in scores.items():
                views_of_task = [cut(output, box) for output, box in zip(outputs[task], batch["content"], strict=True)]
                score.update(views_of_task, batch["targets"][task], batch["valid"][task])

    columns = {"id": _gather_ids(ids), "group": np.array([views.group(i) for i in range(len(views))], dtype=np.str_)}
    units = bootstrap.assign_units(columns["group"])
    results: Results = {task: {TASKS[task].primary: {"value": None, "reason": why}} for task, why in (absent or {}).items()}
    for task, score in scores.items():
        of_images = score.reduce()
        results[task] = score.build_entries(of_images, units)
        columns |= {f"{task}/{name}": column for name, column in of_images.items()}
        columns |= {f"total/{task}/{name}": total for name, total in score.model.diagnostics.items()}
    return Evaluation({task: results[task] for task in TASKS if task in results}, columns, units.kind)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _gather_ids(ids: list[str]) -> NDArray[np.str_]:
    """The ids of all processes' views, in the order of the dataset."""
    text = torch.from_numpy(np.frombuffer(json.dumps(ids).encode(), np.uint8).copy())
    parts = distributed.all_gather_rows(text)
    return interleave([np.array(json.loads(part.numpy().tobytes()), dtype=np.str_) for part in parts])


@torch.inference_mode()
def predict_samples(
    model: nn.Module, samples: Sequence[Any], transform: Callable[[Any], Any], device: torch.device
) -> list[dict[str, Any]]:
    """The samples, each with "predictions" {task: array} at its own size beside its targets, for `draw.draw_gallery`.

    transform: what makes the network's input of a sample's image, as in the evaluation.
    """
    with_predictions = []
    with _evaluation_mode(model):
        for sample in samples:
            size = tuple(sample["image"].shape[-2:])
            fitted = transform(sample)
            outputs = model(fitted["image"][None].to(device))
            box = fitted.get("content", (0, 0, *fitted["image"].shape[-2:]))
            maps = {task: TASKS[task].predict(cut(outputs[task], box), size)[0].cpu().numpy() for task in sample["targets"]}
            with_predictions.append({**sample, "predictions": maps})
    return with_predictions
