"""The learning rate over the steps, against torch's schedulers and rates written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, PolynomialLR

from mult.training.experiment import build_experiment
from tests.run_files import Configured

STEPS = 12
ORACLES: dict[str, Callable[[torch.optim.Optimizer], LRScheduler]] = {
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, T_max=STEPS),
    "poly": lambda optimizer: PolynomialLR(optimizer, total_iters=STEPS, power=0.7),
    "onecycle": lambda optimizer: OneCycleLR(optimizer, max_lr=2e-3, total_steps=STEPS, pct_start=5 / STEPS),
}


def rates(optimizer: torch.optim.Optimizer, schedule: LRScheduler, steps: int = STEPS) -> list[list[float]]:
    """The rate of every group at each step."""
    rate_lists = []
    for _ in range(steps):
        rate_lists.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return rate_lists


@pytest.mark.parametrize("name", ORACLES)
def test_a_schedule_is_torch_s(configured: Configured, name: str) -> None:
    warmup = 5 if name == "onecycle" else 0
    overrides = [f"optim.schedule={name}", "optim.lr=2e-3", f"optim.steps={STEPS}", f"optim.warmup={warmup}", "optim.power=0.7"]
    experiment = build_experiment(configured(*overrides))
    ours = [step[0] for step in rates(experiment.optimizer, experiment.schedule)]
    oracle = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=2e-3)
    theirs = [step[0] for step in rates(oracle, ORACLES[name](oracle))]
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-12)
    assert len(set(ours)) > STEPS / 2


def test_poly_begins_after_the_warmup(configured: Configured) -> None:
    experiment = build_experiment(configured("optim.schedule=poly", "optim.lr=1", "optim.steps=6", "optim.warmup=2"))
    expected = [1 / 2, 1, *((left / 4) ** 0.9 for left in (4, 3, 2, 1))]
    assert [step[0] for step in rates(experiment.optimizer, experiment.schedule, 6)] == pytest.approx(expected)


def test_every_group_follows_the_schedule(configured: Configured) -> None:
    overrides = ["optim.lr=1e-2", "optim.encoder_lr=1e-3", "optim.layer_decay=0.5", f"optim.steps={STEPS}", "optim.warmup=3"]
    experiment = build_experiment(configured(*overrides, "optim.schedule=poly"))
    starts = [float(group["initial_lr"]) for group in experiment.optimizer.param_groups]
    assert starts[0] == 1e-2  # the rate that the log has
    assert len(set(starts)) > 3
    factors = [1 / 3, 2 / 3, 1, *(((9 - step) / 9) ** 0.9 for step in range(9))]
    for factor, step in zip(factors, rates(experiment.optimizer, experiment.schedule), strict=True):
        assert step == pytest.approx([factor * start for start in starts])
