"""Whole training steps, and an evaluation, on CUDA tensors without numbers: no devices are mixed, and who waits for the GPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch

from mult import TASKS
from mult.data.sample import Batch
from mult.errors import UserError
from mult.evaluation.task_score import TaskScore
from mult.runs.folder import Run
from mult.training.experiment import Experiment, build_experiment
from mult.training.loop import train
from tests.fake_cuda import CUDA, ReadViews, Record, fake_cuda
from tests.refused_on_cuda import find_refused, find_refused_backward
from tests.run_files import Configured

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by torch, to copy a model


class _EndError(Exception):
    pass


class _OneStepRun(Run):
    """A run that ends with its first step."""

    def log(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        raise _EndError


@dataclass(frozen=True)
class _ReadExperiment(Experiment):
    """An experiment whose batches were read before."""

    read: list[Batch]

    def batches(self, start: int, rank: int, world_size: int) -> Iterable[Batch]:
        return self.read


def train_one_step(configured: Configured, *overrides: str) -> Record:
    small = "tasks={segment_semantic: 1, normal: {weight: 1, loss: rotate_l1}}"
    config = configured("run.deterministic=true", "optim.steps=1", "optim.warmup=0", small, *overrides)
    real = build_experiment(config)
    batches, views = list(real.batches(0, 0, 1)), ReadViews(real.train_data)
    with fake_cuda() as record:
        built = build_experiment(config)
        parts = {part.name: getattr(built, part.name) for part in fields(Experiment)} | {"train_data": views}
        run = _OneStepRun.open(config, resume=False)
        record.calls.clear()
        record.waits.clear()
        with pytest.raises(_EndError):
            train(_ReadExperiment(**parts, read=batches), run, CUDA)
    assert len(record.calls) > 1000
    return record


@pytest.mark.parametrize(
    ("overrides", "waits"),
    [
        (("optim.ema=0.9", "optim.accumulate=2", "run.activation_checkpointing=true"), ["backward", "backward", "tolist"]),
        (("optim.name=muon", "optim.clip=null", "model.decoder=released", "balance.method=dwa"), ["backward", "tolist"]),
        (("balance.method=uncertainty", "model.attention=independent"), ["tolist", "backward", "tolist"]),
    ],
    ids=["average", "muon", "uncertainty"],
)
def test_a_step_waits_once_and_not_before_its_backward_pass(
    configured: Configured, overrides: tuple[str, ...], waits: list[str]
) -> None:
    """Uncertainty reads its weights, which it learns, before the forward pass."""
    record = train_one_step(configured, *overrides)
    assert record.waits == waits
    assert find_refused(record.calls) | find_refused_backward(record.calls) == set()


def test_positions_of_a_plain_vit_are_deterministic_at_their_own_grid_alone(configured: Configured) -> None:
    """48 x 40 pixels are 3 x 3 tokens, 42 x 42 pixels for patches of 14."""
    vit = ("model.backbone=vit_small_patch14_dinov2", "model.num_heads=1")
    sizes = "model.backbone_args={embed_dim: 32, depth: 1, num_heads: 2"
    record = train_one_step(configured, *vit, sizes + ", img_size: [42, 42]}")
    assert record.waits == ["backward", "tolist"]
    assert find_refused(record.calls) | find_refused_backward(record.calls) == set()
    with pytest.raises(UserError, match=r"run\.deterministic: got true .* \(37, 37\) .* \(3, 3\); .*; .*img_size=\[42, 42\]"):
        train_one_step(configured, *vit, sizes + "}")


@pytest.mark.parametrize("method", ["gradnorm", "fixed"])
def test_methods_that_see_the_gradients_of_the_tasks_wait_after_the_backward_passes_alone(
    configured: Configured, method: str
) -> None:
    """fixed: with the cosines in the log. Plain decoders have the fewest parameters, each of which these methods look at."""
    plain = ("model.decoder=fpn", "model.reference=null", "model.window_size=7")
    record = train_one_step(configured, *plain, f"balance.method={method}", "balance.log_cosine_every=1")
    last_backward = len(record.waits) - record.waits[::-1].index("backward")
    assert "tolist" not in record.waits[:last_backward]
    assert find_refused(record.calls) | find_refused_backward(record.calls) == set()


@pytest.mark.parametrize("task", TASKS)
def test_a_metric_is_on_the_device_of_the_output(task: str) -> None:
    record, classes = TASKS[task], ["wall", "floor", "lamp"]
    target = torch.randint(3, (2, 24, 32)) if record.categorical else torch.rand(2, record.channels or 1, 24, 32)
    constant: Any = 0 if record.categorical else [0.5] * (record.channels or 1)
    valid = list(torch.rand(2, 1, 24, 32) > 0.2)
    with fake_cuda() as called:
        output = torch.rand(2, record.channels or len(classes), 12, 16).to(CUDA)
        for metric_depth in (True, False):
            score = TaskScore(record, classes, {record.primary: constant}, metric_depth)
            score.update(list(output), list(target), valid)
    assert find_refused(called.calls) == set()
    assert any(argument.device == CUDA for call in called.calls for argument in call.arguments if hasattr(argument, "device"))


def test_mixed_devices_and_waits_are_found() -> None:
    with fake_cuda() as record:
        there, here = torch.rand(3).to(CUDA, non_blocking=True), torch.rand(3)
        assert record.waits == []
        with pytest.raises(RuntimeError, match="at least two devices"):
            there + here
        float(there.sum())
        (there > 0.5).tolist()
        here.tolist()
        here.to(CUDA)
        there.cpu()
        there[there > 0.5]
    assert record.waits == ["__float__", "tolist", "copy", "copy", "index"]
