"""Losses and gradients that are not finite."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mult import TASKS
from mult.runs.checkpoint import find_checkpoint
from mult.runs.folder import Run
from mult.training.experiment import Experiment, build_experiment
from mult.training.loop import train
from tests.run_files import (
    Configured,
    is_same,
    read_lines,
    read_state,
    read_weights,
)

CPU = torch.device("cpu")


def replace_loss(experiment: Experiment, calls: set[int], replace: Callable[[Tensor, Tensor], Tensor]) -> Experiment:
    """The experiment with another loss of normals in some calls: replace(loss, output) -> loss."""
    objective, count = experiment.objectives["normal"], 0

    def loss(output: Tensor, *others: Any) -> Tensor:
        nonlocal count
        count += 1
        value = objective.loss(output, *others)
        return replace(value, output) if count in calls else value

    objectives = experiment.objectives | {"normal": dataclasses.replace(objective, loss=loss)}
    return dataclasses.replace(experiment, objectives=objectives)


def nan_loss(loss: Tensor, output: Tensor) -> Tensor:
    return loss * math.nan


def nan_gradient(loss: Tensor, output: Tensor) -> Tensor:
    return loss + (0 * output.sum()).sqrt()  # 0, and its gradient 0 / 0


SKIP = ("optim.non_finite=skip", "run.checkpoint_every=1", "run.keep=9", "eval.every=0", "optim.warmup=0")


@pytest.mark.parametrize(
    ("replace", "what"),
    [(nan_loss, "the loss of normal is nan"), (nan_gradient, "the gradient's norm is nan")],
    ids=["loss", "gradient"],
)
def test_a_step_that_is_not_finite_is_left_out_and_counted(
    configured: Configured, replace: Any, what: str, capsys: Any, tmp_path: Path
) -> None:
    config = configured(*SKIP)
    run = Run.open(config, resume=False)
    assert train(replace_loss(build_experiment(config), {2}, replace), run, CPU) is not None
    assert f"step 2 left out, 1 of at most 10: {what}" in capsys.readouterr().err
    assert not is_same(read_weights(run.folder, "1"), read_weights(run.folder, "3"))
    assert is_same(read_weights(run.folder, "1"), read_weights(run.folder, "2"))
    steps = [line for line in read_lines(run.folder) if line["split"] == "train"]
    assert [line.get("skipped") for line in steps] == [None, 1, None, None]
    assert "normal/loss" in steps[0]
    assert ("normal/loss" in steps[1]) == (replace is nan_gradient)
    assert "grad_norm" not in steps[1]
    state = torch.load(run.folder / "checkpoints" / "4" / "state.pt", weights_only=True)
    assert state["skipped"] == 1


def test_too_many_steps_left_out_end_the_run(configured: Configured) -> None:
    config = configured(*SKIP, "optim.max_skipped=1")
    run = Run.open(config, resume=False)
    with pytest.raises(
        FloatingPointError, match=r"the loss of normal is nan at step 4 after 1 skipped steps; training stopped"
    ):
        train(replace_loss(build_experiment(config), {2, 4}, nan_loss), run, CPU)
    assert os.readlink(run.folder / "checkpoints" / "last") == "3"
    with pytest.raises(FloatingPointError, match="after 1 skipped steps"):  # the resumed run goes on counting
        train(replace_loss(build_experiment(config), {1}, nan_loss), Run.open(config, resume=True), CPU)


def test_a_gradient_that_is_not_finite_stops(configured: Configured) -> None:
    config = configured("eval.every=0")
    run = Run.open(config, resume=False)
    with pytest.raises(FloatingPointError, match=r"the gradient's norm is nan at step 1; training stopped before the weights"):
        train(replace_loss(build_experiment(config), {1}, nan_gradient), run, CPU)


def test_a_loss_that_is_not_finite_stops_before_harm(configured: Configured) -> None:
    config = configured("optim.lr=1e30", "optim.warmup=0", "optim.schedule=constant", "eval.every=1", "run.name=diverged")
    run = Run.open(config, resume=False)
    names = "|".join(TASKS)
    message = rf"the loss of ({names}) is (nan|inf) at step \d; .*the last checkpoint stands; try a lower optim\.lr"
    with pytest.raises(FloatingPointError, match=message) as caught:
        train(build_experiment(config), run, CPU)
    done = len(read_lines(run.folder, "train"))
    assert 1 <= done < 4
    assert f"at step {done + 1};" in str(caught.value)  # the step that the log would have had next
    assert find_checkpoint(run.folder / "checkpoints" / "last").name == str(done)
    assert read_state(run.folder)["step"] == done
    assert sorted(path.name for path in run.folder.rglob("*.tmp")) == []


def test_steps_that_overflow_in_fp16_are_counted_and_said(configured: Configured, capsys: Any) -> None:
    """Losses times 1e8, and 65,536 of the scaler, overflow in the gradients of half precision, and not in themselves."""
    config = configured(*SKIP, "run.precision=fp16", "optim.steps=3")
    run = Run.open(config, resume=False)
    train(replace_loss(build_experiment(config), {1, 2, 3}, lambda loss, output: loss * 1e8), run, CPU)
    said = capsys.readouterr().err
    for step, scale in ((1, 32768), (2, 16384), (3, 8192)):
        overflow = f"step {step} left out: a gradient overflows in fp16, number {step} of the run; the losses are scaled by"
        assert overflow in said
        assert f"scaled by {scale} from now on" in said
    for line in (run.folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    steps = read_lines(run.folder, "train")
    assert [line["overflows"] for line in steps] == [1, 2, 3]
    assert not any("grad_norm" in line for line in steps)
    assert is_same(read_weights(run.folder, "1"), read_weights(run.folder, "3"))
    assert (read_state(run.folder)["overflows"], read_state(run.folder)["skipped"]) == (3, 0)
