"""Loader and model -> every metric of every task, with the trivial baseline beside it (metrics.md).

The trivial baseline of a metric is the constant, learnt on training pixels, that is best for it. `learn_constants` finds the
constants, `evaluate` scores them on the same pixels as the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset
from tqdm import tqdm

from mult.evaluation import bootstrap
from mult.evaluation.results import Results, header
from mult.evaluation.task_score import Score, interleave
from mult.runtime import distributed
from mult.tasks import TASKS


class Samples(Protocol):
    """A map-style dataset of samples (architecture.md, Contract)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Views(Samples, Protocol):
    """Samples, and what a dataset knows of all of them."""

    @property
    def classes(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def metric_depth(self) -> bool: ...
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
        """An evaluation's file (architecture.md, Contract); `corruption` says {"kind", "severity"} of spoilt images."""
        return {
            **header(dataset, split, self.images, corruption),
            "interval_over": self.interval_over,
            "tasks": self.results,
        }


def share(views: Samples) -> Subset[Any]:
    """This process's part of a dataset: every view is in one process's, and none twice, evenly or not."""
    return Subset(views, range(distributed.rank(), len(views), distributed.world()))  # type: ignore[arg-type]


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
) -> Evaluation:
    """Score a model on this process's share of the views, and add up over all processes.

    batches: `data.sample.EvalBatch`es of `share(views)`, in order. tasks: those to score, outputs of the model. constants:
    as `learn_constants` gives them; a task without has no trivial baseline. absent: {task: why it cannot be scored}.
    Results are equal on all processes.
    """
    scores = {task: Score(TASKS[task], views.classes.get(task), constants.get(task, {}), views.metric_depth) for task in tasks}
    names: list[str] = []
    was_training = model.training
    model.eval()
    for batch in tqdm(batches, desc="evaluate", leave=False, disable=not distributed.is_main()):
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            outputs = model(batch["image"].to(device, non_blocking=True))
        names += batch["id"]
        for task, score in scores.items():
            score.update(outputs[task], batch["targets"][task], batch["valid"][task])
    model.train(was_training)

    columns = {"id": _gather_names(names), "group": np.array([views.group(i) for i in range(len(views))], dtype=np.str_)}
    interval_over, unit_of = bootstrap.units(columns["group"])
    results: Results = {task: {TASKS[task].primary: {"value": None, "reason": why}} for task, why in (absent or {}).items()}
    for task, score in scores.items():
        of_images = score.reduce()
        results[task] = score.entries(of_images, unit_of)
        columns |= {f"{task}/{name}": column for name, column in of_images.items()}
        columns |= {f"total/{task}/{name}": total for name, total in score.model.totals().items()}
    return Evaluation({task: results[task] for task in TASKS if task in results}, columns, interval_over)


def _gather_names(names: list[str]) -> NDArray[np.str_]:
    text = torch.from_numpy(np.frombuffer(json.dumps(names).encode(), np.uint8).copy())
    return interleave([np.array(json.loads(part.numpy().tobytes()), dtype=np.str_) for part in distributed.gather(text)])


@torch.inference_mode()
def predictions(
    model: nn.Module, samples: Sequence[Any], transform: Callable[[Any], Any], device: torch.device
) -> list[dict[str, Any]]:
    """The samples, each with "predictions" {task: array} at its own size beside its targets, for `draw.gallery`.

    transform: what brings a sample's image to the size of the network, as in the evaluation.
    """
    was_training = model.training
    model.eval()
    shown = []
    for sample in samples:
        size = tuple(sample["image"].shape[-2:])
        outputs = model(transform(sample)["image"][None].to(device))
        maps = {task: TASKS[task].predict(outputs[task], size)[0].cpu().numpy() for task in sample["targets"]}
        shown.append({**sample, "predictions": maps})
    model.train(was_training)
    return shown
