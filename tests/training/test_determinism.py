"""`run.deterministic`, and that no operator of training or evaluation is one that torch refuses on CUDA with it.

The operators are recorded on the CPU. Their forms there and on CUDA differ in one: `F.interpolate` (bilinear) is there made of
others, whose backward passes are deterministic. tests/training/test_fake_cuda.py looks at that one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mult import TASKS
from mult.evaluation.task_score import TaskScore
from mult.losses import LOSSES, TARGETS
from mult.runtime.determinism import resolve_deterministic, set_deterministic
from mult.training.balance.choose import METHODS
from tests.refused_on_cuda import Call, find_refused
from tests.run_files import ALL_RANDOM, Configured, TrainRun, read_lines
from tests.training.balance.toy import Toy, list_aggregators

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MADE_OF_OTHERS = {"upsample_bilinear2d_backward"}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append(Call.of(function, args))
        return function(*args, **(kwargs or {}))


@contextmanager
def refusing() -> Iterator[None]:
    """Fails where the body calls an operator that torch refuses."""
    with _Recorder() as recorder:
        yield
    assert len(recorder.calls) > 50
    assert find_refused(recorder.calls) - MADE_OF_OTHERS == set()


@pytest.mark.parametrize(
    "overrides",
    [
        (*ALL_RANDOM, "optim.accumulate=2"),
        ("optim.name=muon", "run.activation_checkpointing=true", "balance.log_cosine_every=1"),
        ("model.decoder=released", "run.precision=fp16", "optim.clip=null"),
    ],
    ids=["average", "muon", "released"],
)
def test_training_and_its_evaluation_call_nothing_refused(
    configured: Configured, train_run: TrainRun, overrides: tuple[str, ...]
) -> None:
    config = configured("optim.steps=2", *overrides)
    with refusing():
        train_run(config)


@pytest.mark.parametrize("method", [*METHODS, *list_aggregators()])
def test_no_balance_method_calls_anything_refused(method: str) -> None:
    with refusing():
        toy = Toy()
        balance = toy.build(method, measure_every=1)
        for step in range(3):
            toy.step(balance, {"a": 1.0, "b": 2.0}, step=step)


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_calls_anything_refused(name: str) -> None:
    output = torch.rand(2, 3 if TARGETS[name] == "classes" else 1, 9, 7, requires_grad=True)
    target = torch.randint(3, (2, 9, 7)) if TARGETS[name] == "classes" else (torch.rand(2, 1, 9, 7) > 0.5).float()
    with refusing():
        for _ in range(3):
            LOSSES[name][0](output, target, torch.rand(2, 1, 9, 7) > 0.2).backward()


@pytest.mark.parametrize("task", TASKS)
def test_no_metric_calls_anything_refused(task: str) -> None:
    record, classes = TASKS[task], ["wall", "floor", "lamp"]
    output = torch.rand(2, record.channels or len(classes), 12, 16)
    target = (
        torch.randint(3, (2, 24, 32)) if record.categorical else (torch.rand(2, record.channels or 1, 24, 32) > 0.5).float()
    )
    constant: Any = 0 if record.categorical else [0.5] * (record.channels or 1)
    with refusing():
        for metric_depth in (True, False):
            score = TaskScore(record, classes, {record.primary: constant}, metric_depth)
            score.update(list(output), list(target), list(torch.rand(2, 1, 24, 32) > 0.2))
            score.model.compute()


def test_what_is_refused_is_found() -> None:
    """The forms of operators that the first version had, and those that stand in their place."""
    output, target = torch.rand(1, 3, 4, 5, requires_grad=True), torch.zeros(1, 4, 5, dtype=torch.int64)
    with _Recorder() as refused:
        F.cross_entropy(output, target, reduction="sum").backward()
        torch.rand(2, 9).nanmedian(1)
        target.flatten().bincount(weights=torch.rand(20))
        torch.rand(5).cumsum(0)
        F.interpolate(output, scale_factor=2, mode="bilinear").sum().backward()
    assert find_refused(refused.calls) == {
        "nll_loss2d_forward",
        "nanmedian",
        "bincount",
        "cumsum",
        "upsample_bilinear2d_backward",
    }
    with _Recorder() as permitted:
        F.cross_entropy(output, target, reduction="none").sum().backward()
        torch.rand(9).nanmedian()
        target.flatten().bincount(minlength=3)
        target.cumsum(1)
    assert find_refused(permitted.calls) == set()


def test_automatic_determinism_is_that_of_the_cpu() -> None:
    assert [resolve_deterministic(value, CPU) for value in ("auto", True, False)] == [True, True, False]
    assert [resolve_deterministic(value, CUDA) for value in ("auto", True, False)] == [False, True, False]


def test_cublas_gets_a_workspace_unless_the_user_gave_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_deterministic(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    set_deterministic(False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert not torch.are_deterministic_algorithms_enabled()
    set_deterministic(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.are_deterministic_algorithms_enabled()


def test_a_run_of_the_first_version_goes_on_and_a_change_is_said(
    configured: Configured, train_run: TrainRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first version had true for what is auto now."""
    folder = train_run(configured("run.deterministic=true", "optim.steps=2"))
    train_run(configured("optim.steps=3"), resume=True)
    said = capsys.readouterr().err
    assert "--resume: run.deterministic changes, True -> auto" in said
    assert "not equal to the bit" not in said
    train_run(configured("optim.steps=4", "run.deterministic=false"), resume=True)
    assert "False deterministic instead of True" in capsys.readouterr().err
    assert [line["step"] for line in read_lines(folder, "train")] == [1, 2, 3, 4]
    provenance = json.loads((folder / "provenance.json").read_text())
    assert [provenance["deterministic"], *(each["deterministic"] for each in provenance["resumed"])] == [True, True, False]
