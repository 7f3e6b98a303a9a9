"""What a training step of six tasks costs a device, counted on the CPU: Swin-T, 224 pixels, bfloat16 by autocast.

A GPU launches a kernel for each operator that is not a view, and waits for each number that the host reads. The first version
counted 4665 operators and 855 parameter tensors, and kept 593 MiB for the backward pass of a float32 image.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mult.models import MulT
from mult.tasks import TASKS

SIX = {"segment_semantic": 17, "depth_zbuffer": 1, "normal": 3, "keypoints2d": 1, "edge_texture": 1, "reshading": 1}
HOST_WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique")
"""Operators whose result, or its shape, the host must know before it goes on."""


class Operators(TorchDispatchMode):
    """Counts all operators but views, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = function.overloadpacket.__name__
        if not function.is_view and name != "_unsafe_view":
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))

    def waits(self) -> dict[str, int]:
        return {name: count for name, count in self.counts.items() if name.startswith(HOST_WAITS)}


def six_tasks(**arguments: Any) -> MulT:
    torch.manual_seed(0)
    return MulT(SIX, **{"reference": "normal"} | arguments).train()


def loss_of(outputs: dict[str, Tensor]) -> Tensor:
    losses = []
    for name, output in outputs.items():
        valid = torch.ones(output.shape[0], 1, *output.shape[2:], dtype=torch.bool)
        target = torch.zeros_like(output[:, 0], dtype=torch.long) if TASKS[name].categorical else torch.zeros_like(output)
        losses.append(TASKS[name].loss(output, target, valid))
    return torch.stack(losses).sum()


@pytest.mark.parametrize(
    ("arguments", "operators", "parameters"),
    [
        ({}, 2300, 350),
        ({"reference": "learned"}, 2300, 350),
        ({"attention": "independent"}, 2300, 350),
        ({"attention": "self"}, 2300, 350),
        ({"decoder": "released"}, 2300, 350),
        ({"decoder": "pyramid"}, 1850, 260),
        ({"drop_path": 0.1, "dropout": 0.1}, 2450, 350),
    ],
    ids=str,
)
def test_a_step(arguments: dict[str, Any], operators: int, parameters: int) -> None:
    model, images = six_tasks(**arguments), torch.rand(1, 3, 224, 224)
    assert len(list(model.parameters())) <= parameters
    with torch.no_grad():
        model(images)  # masks and indices of this size are made once
    with Operators() as step:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(images)
        loss_of(outputs).backward()
    assert sum(step.counts.values()) <= operators


def test_no_pass_of_the_network_makes_the_host_wait() -> None:
    model, images = six_tasks(), torch.rand(1, 3, 224, 224)
    with Operators() as step:
        torch.stack([output.sum() for output in model(images).values()]).sum().backward()
    assert step.waits() == {}
    with Operators() as reading:
        float(images.sum())
    assert reading.waits() == {"_local_scalar_dense": 1}


def test_the_decoders_cost_as_many_operators_for_one_task_as_for_six() -> None:
    counts = []
    for tasks in (SIX, {"normal": 3}):
        model = MulT(tasks, "normal", backbone_args={"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}).eval()
        features = model.encode(torch.rand(1, 3, 64, 64))
        with torch.no_grad(), Operators() as first:
            model.decode(features, (64, 64))
        with torch.no_grad(), Operators() as second:
            model.decode(features, (64, 64))
        assert sum(second.counts.values()) < sum(first.counts.values()), "masks and indices are kept"
        counts.append(sum(second.counts.values()))
    heads = 5 * 5
    assert counts[0] <= counts[1] + heads


def test_activations_of_an_image_in_float32() -> None:
    model, kept = six_tasks(), dict[int, int]()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model(torch.rand(1, 3, 224, 224)))
    assert loss.requires_grad
    assert sum(kept.values()) <= 450 * 2**20
