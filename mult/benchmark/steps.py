"""What is measured: a training step and a prediction of a model on random data, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mult.config import load_config
from mult.models import MulT
from mult.tasks import TASKS

CLASSES, SIZE, BATCH = 17, 224, 2
REFERENCE = str(load_config("taskonomy6").model.reference)
Step = Callable[[], None]


@dataclass(frozen=True)
class Place:
    """On which device, in which type (by autocast) and on how large a batch a step runs."""

    batch: int = BATCH
    size: int = SIZE
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    dtype: torch.dtype = torch.float32

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def build_network(tasks: Sequence[str], place: Place, **arguments: Any) -> MulT:
    torch.manual_seed(0)
    reference = REFERENCE if REFERENCE in tasks and arguments.get("decoder") != "fpn" else None
    return MulT({task: TASKS[task].channels or CLASSES for task in tasks}, reference, **arguments).to(place.device)


def build_training_step(
    tasks: Sequence[str], prepare: Callable[[MulT], Any] = lambda model: None, place: Place = Place(), **arguments: Any
) -> Step:
    """A function that runs one step of a model of these tasks on random data; `prepare` is called with the model first."""
    model = build_network(tasks, place, **arguments)
    prepare(model)
    shape = (place.batch, place.size, place.size)
    images = torch.rand(place.batch, 3, *shape[1:]).to(place.device)
    valid = torch.ones(place.batch, 1, *shape[1:], dtype=torch.bool, device=place.device)
    targets: dict[str, Tensor] = {}
    for task in tasks:
        channels = TASKS[task].channels
        target = (
            torch.randint(CLASSES, shape)
            if channels is None
            else TASKS[task].encode(torch.rand(place.batch, channels, *shape[1:]))
        )
        targets[task] = target.to(place.device)

    def step() -> None:
        with place.autocast():
            outputs = model(images)
        model.zero_grad(set_to_none=True)
        torch.stack([TASKS[task].loss(outputs[task], targets[task], valid) for task in tasks]).sum().backward()

    return step


def build_forward_pass(tasks: Sequence[str], place: Place, **arguments: Any) -> Step:
    """A function that predicts these tasks for a batch of images, as evaluation does."""
    network = build_network(tasks, place, **arguments).eval()
    images = torch.rand(place.batch, 3, place.size, place.size).to(place.device)

    @torch.inference_mode()
    def step() -> None:
        with place.autocast():
            network(images)

    return step
