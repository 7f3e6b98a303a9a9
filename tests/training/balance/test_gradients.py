"""Which parameters the losses of several tasks reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mult.models import MulT
from mult.models.stacked import split_parameters, stacked_tasks
from mult.training.balance.gradients import SharedGradients, reached_parts


@pytest.mark.parametrize("scales_start_at_zero", [False, True])
@pytest.mark.parametrize(
    ("attention", "decoder"),
    [("shared", "paper"), ("independent", "paper"), ("self", "paper"), ("shared", "released"), ("independent", "released")],
)
def test_shared_is_what_two_losses_move(attention: Any, decoder: Any, scales_start_at_zero: bool) -> None:
    """Against one backward pass a task: a parameter, or a task's slice of one, is reached if its gradient is not 0."""
    torch.manual_seed(0)
    args = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    reference = "b" if attention == "shared" else None
    model = MulT({"a": 3, "b": 1, "c": 2}, reference, attention=attention, decoder=decoder, window_size=4, backbone_args=args)
    scales = [p for name, p in model.named_parameters() if name.endswith("norm2.weight")]
    if scales_start_at_zero:
        for scale in scales:
            nn.init.zeros_(scale)
    parts = split_parameters(model)
    reached = reached_parts(model(torch.zeros(1, 3, 48, 40)), parts)
    for scale in scales:
        nn.init.ones_(scale)
    moved = {}
    for task, output in model(torch.rand(2, 3, 48, 40)).items():
        gradients_of_task = torch.autograd.grad(
            output.square().mean(), list(model.parameters()), allow_unused=True, retain_graph=True
        )
        by_id = {id(p): g for p, g in zip(model.parameters(), gradients_of_task, strict=True) if g is not None}
        moved[task] = {part for part in parts if id(part.parameter) in by_id and part.of(by_id[id(part.parameter)]).any()}
    assert {task: set(parts) for task, parts in reached.items()} == moved
    gradients = SharedGradients(reached)
    assert set(gradients.shared) == {part for part in parts if sum(part in each for each in moved.values()) > 1}
    assert sum(part.numel() for part in parts) == sum(p.numel() for p in model.parameters())

    names, tasks = {id(parameter): name for name, parameter in model.named_parameters()}, stacked_tasks(model)
    shared = {(names[id(part.parameter)], part.index) for part in gradients.shared}
    assert {name for name in names.values() if name.startswith("encoder.")} <= {name for name, _ in shared}
    beyond = {
        (name, None if index is None else tasks[name][index]) for name, index in shared if not name.startswith("encoder.")
    }
    if decoder == "paper":
        assert all(".query_key." in name and task == "b" for name, task in beyond)
        assert bool(beyond) == (attention == "shared")
    else:
        assert any("context_norm" in name for name, _ in beyond)
        assert any(".mlp." in name and task == "b" for name, task in beyond) == (attention == "shared")
        assert all(task in (None, "b") for _, task in beyond)
