"""Which parameters the losses of several tasks reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mult.models import MulT
from mult.training.balance.gradients import SharedGradients, reached_parameters


@pytest.mark.parametrize("scales_start_at_zero", [False, True])
@pytest.mark.parametrize(
    ("attention", "decoder"),
    [("shared", "paper"), ("independent", "paper"), ("self", "paper"), ("shared", "released"), ("independent", "released")],
)
def test_shared_is_what_two_losses_move(attention: Any, decoder: Any, scales_start_at_zero: bool) -> None:
    """Against one backward pass a task: a parameter is reached if its gradient is not 0."""
    torch.manual_seed(0)
    args = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    reference = "b" if attention == "shared" else None
    model = MulT({"a": 3, "b": 1, "c": 2}, reference, attention=attention, decoder=decoder, window_size=4, backbone_args=args)
    scales = [p for name, p in model.named_parameters() if name.endswith("norm2.weight")]
    if scales_start_at_zero:
        for scale in scales:
            nn.init.zeros_(scale)
    reached = reached_parameters(model(torch.zeros(1, 3, 48, 40)), model.parameters())
    for scale in scales:
        nn.init.ones_(scale)
    moved: dict[str, set[int]] = {}
    for task, output in model(torch.rand(2, 3, 48, 40)).items():
        gradients_of_task = torch.autograd.grad(
            output.square().mean(), list(model.parameters()), allow_unused=True, retain_graph=True
        )
        moved[task] = {
            id(p) for p, g in zip(model.parameters(), gradients_of_task, strict=True) if g is not None and bool(g.any())
        }
    assert {task: {id(parameter) for parameter in parameters} for task, parameters in reached.items()} == moved
    gradients = SharedGradients(reached)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    shared = {names[id(parameter)] for parameter in gradients.shared}
    assert shared == {names[key] for key in names if sum(key in each for each in moved.values()) > 1}
    assert {name for name in names.values() if name.startswith("encoder.")} <= shared
    beyond = {name for name in shared if not name.startswith("encoder.")}
    if decoder == "paper":
        assert all(".b.query_key." in name for name in beyond)
        assert bool(beyond) == (attention == "shared")
    else:
        assert any("context_norm" in name for name in beyond)
        assert any(".b.mlp." in name for name in beyond) == (attention == "shared")
