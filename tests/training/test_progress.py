"""What a training shows while it runs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from mult.training.experiment import build_experiment
from mult.training.loop import train
from tests.run_files import (
    Configured,
    TrainRun,
    open_signalled,
    read_lines,
)

CPU = torch.device("cpu")


def test_tensorboard_has_what_the_log_has_once(configured: Configured, train_run: TrainRun) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = configured("run.log=[tensorboard]")
    run = open_signalled(config, 3, signal.SIGTERM)
    train(build_experiment(config), run, CPU)
    os.truncate(run.folder / "checkpoints" / "3" / "state.pt", 5)  # step 3 will be done, and logged, a second time
    train_run(config, resume=True)
    board = EventAccumulator(str(run.folder / "tensorboard"))
    board.Reload()
    for name in ("normal/loss", "grad_norm", "lr"):
        expected = [(line["step"], line[name]) for line in read_lines(run.folder) if line["split"] == "train"]
        logged = [(event.step, event.value) for event in board.Scalars(f"train/{name}")]
        assert [step for step, _ in logged] == [1, 2, 3, 4]
        assert [value for _, value in logged] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert [event.step for event in board.Scalars("val/reshading/l1")] == [2, 4]
    assert all(event.value > 0 for event in board.Scalars("machine/images_per_second"))
    assert all(0 <= event.value <= 1 for event in board.Scalars("machine/data_share"))
    assert [event.step for event in board.Images("gallery")] == [2, 4]


def test_the_log_says_what_the_machine_did(trained: Path) -> None:
    for line in map(json.loads, (trained / "metrics.jsonl").read_text().splitlines()):
        if line["split"] == "train":
            assert 0 < line["data_seconds"] < line["seconds"]
            assert 50 < line["peak_memory_mib"] < 100_000  # an interpreter with torch takes more, a machine has less
