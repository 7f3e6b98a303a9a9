"""A run that was stopped, killed or damaged goes on as if nothing had happened, and says where it cannot."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mult.errors import UserError
from mult.files import read_json
from mult.runs.checkpoint import find_checkpoint
from mult.runs.folder import Run
from mult.training.experiment import build_experiment
from mult.training.loop import train
from tests.run_files import (
    ALL_RANDOM,
    Configured,
    KilledRun,
    TrainRun,
    find_differences,
    is_same,
    open_signalled,
    read_lines,
    read_state,
    read_weights,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "extra",
    [ALL_RANDOM, ("optim.accumulate=2",), ("optim.name=muon",)],
    ids=["random and averaged", "accumulated", "muon"],
)
def test_two_steps_and_two_resumed_are_four(configured: Configured, train_run: TrainRun, extra: tuple[str, ...]) -> None:
    uninterrupted = train_run(configured("run.name=whole", *extra))
    config = configured("run.name=parts", *extra)
    run = KilledRun.open(config, resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(build_experiment(config), run, CPU)
    assert find_checkpoint(run.folder / "checkpoints" / "last").name == "2"
    assert read_lines(run.folder, "train")[-1]["step"] == 3
    parts = train_run(config, resume=True)
    assert find_differences(read_weights(uninterrupted), read_weights(parts)) == []
    assert is_same(read_state(uninterrupted), read_state(parts))
    assert read_lines(uninterrupted, "train") == read_lines(parts, "train")
    assert read_lines(uninterrupted, "val") == read_lines(parts, "val")
    trivial, evaluation = Path("trivial.json"), Path("eval", "taskonomy-val.json")
    for file in (trivial, evaluation):
        assert (uninterrupted / file).read_bytes() == (parts / file).read_bytes()


def test_a_run_killed_before_its_first_checkpoint_starts_again(configured: Configured, train_run: TrainRun) -> None:
    config = configured("run.name=early", "eval.every=0")
    run = KilledRun.open(config, resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(build_experiment(config), run, CPU)
    resumed = train_run(config, resume=True)
    uninterrupted = train_run(configured("run.name=whole", "eval.every=0"))
    assert read_lines(resumed, "train") == read_lines(uninterrupted, "train")
    assert find_differences(read_weights(resumed), read_weights(uninterrupted)) == []


def test_a_finished_run_has_nothing_to_resume(configured: Configured, train_run: TrainRun) -> None:
    config = configured("optim.steps=2", "eval.every=0")
    folder = train_run(config)
    before = (folder / "metrics.jsonl").read_bytes(), read_weights(folder)
    train_run(config, resume=True)
    assert (folder / "metrics.jsonl").read_bytes() == before[0]
    assert find_differences(read_weights(folder), before[1]) == []


def test_a_damaged_checkpoint_costs_steps_not_bits(
    configured: Configured, train_run: TrainRun, trained: Path, capsys: Any
) -> None:
    config = configured("run.checkpoint_every=1", "run.keep=2")
    run = open_signalled(config, 3, signal.SIGTERM)
    train(build_experiment(config), run, CPU)
    state = run.folder / "checkpoints" / "3" / "state.pt"
    os.truncate(state, state.stat().st_size - 1)
    train_run(config, resume=True)
    assert "3: damaged (state.pt: got another checksum than when it was written); using checkpoint 2" in capsys.readouterr().err
    assert read_lines(run.folder) == read_lines(trained)
    assert is_same(read_weights(run.folder), read_weights(trained))


def test_more_steps_are_as_if_they_had_been_asked_for_at_once(
    configured: Configured, train_run: TrainRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a schedule that does not look ahead; the rate of the first new step is that of the new length."""
    settings = ["optim.schedule=constant", "eval.every=0", "data.workers=0"]
    train_run(configured("run.name=parts", "optim.steps=2", *settings))
    parts = train_run(configured("run.name=parts", "optim.steps=4", *settings), resume=True)
    uninterrupted = train_run(configured("run.name=whole", "optim.steps=4", *settings))
    assert is_same(read_weights(parts), read_weights(uninterrupted))
    rates = [line["lr"] for line in read_lines(parts) if line["split"] == "train"]
    assert rates == [line["lr"] for line in read_lines(uninterrupted) if line["split"] == "train"]
    before = {path: path.read_bytes() for path in parts.rglob("*") if path.is_file()}
    capsys.readouterr()
    fewer = configured("run.name=parts", "optim.steps=3", *settings)
    with pytest.raises(
        UserError, match=r"--resume: got optim\.steps 3 of a run in which 4 steps are done; expected at least 4"
    ):
        train_run(fewer, resume=True)
    assert "changes" not in "".join(capsys.readouterr())
    assert {path: path.read_bytes() for path in parts.rglob("*") if path.is_file()} == before


def test_a_longer_schedule_holds_from_the_first_new_step(configured: Configured, train_run: TrainRun) -> None:
    settings = ["run.name=long", "eval.every=0", "optim.warmup=0"]
    train_run(configured("optim.steps=1", *settings))
    folder = train_run(configured("optim.steps=3", *settings), resume=True)
    rates = [line["lr"] for line in read_lines(folder) if line["split"] == "train"]
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.25e-3])  # half a cosine over three steps


def test_what_will_differ_is_said(configured: Configured, train_run: TrainRun, capsys: Any) -> None:
    config = configured("optim.steps=1", "optim.warmup=1", "eval.images=0")
    folder = train_run(config)
    state_file = folder / "checkpoints" / "1" / "state.pt"
    threads = torch.get_num_threads()
    capsys.readouterr()
    train_run(config, resume=True)
    assert "instead of" not in capsys.readouterr().err
    torch.set_num_threads(threads + 1)
    try:
        train_run(config, resume=True)
    finally:
        torch.set_num_threads(threads)
    assert f"--resume: {threads + 1} threads instead of {threads}: the same samples" in capsys.readouterr().err
    conditions = torch.load(state_file, weights_only=True)["conditions"]
    assert conditions["processes"] == 1
    assert conditions["device"] == "cpu"


def test_a_failure_before_the_first_checkpoint_does_not_block_the_next_try(
    script: Any, config_file: Path, tmp_path: Path
) -> None:
    settings = [f"run.output={tmp_path}", "eval.every=0", "eval.images=0", "optim.steps=2"]
    failed = script("train", "--config", config_file, *settings, "optim.lr=1e30", "optim.warmup=0")
    assert failed.status == 1
    assert (tmp_path / "tiny" / "metrics.jsonl").exists()
    ended = script("train", "--config", config_file, *settings)
    assert ended.status == 0, ended.err
    assert "the run in it ended before its first checkpoint; starting it over" in ended.err
    assert [line["step"] for line in read_lines(tmp_path / "tiny")] == [1, 2, 2]
    assert read_json(tmp_path / "tiny" / "provenance.json")["command"][-1] == "optim.steps=2"


def test_a_finished_run_says_so_and_returns_its_last_results(
    script: Any, configured: Configured, config_file: Path, tmp_path: Path
) -> None:
    config = configured()
    first = train(build_experiment(config), Run.open(config, resume=False), CPU)
    before = read_lines(Path(config.run.output) / "tiny")
    again = train(build_experiment(config), Run.open(config, resume=True), CPU)
    assert again == first
    ended = script("train", "--config", config_file, f"run.output={config.run.output}", "--resume")
    assert ended.status == 0, ended.err
    assert "tiny: all 4 steps are done already; raise optim.steps to train on" in ended.out
    assert read_lines(Path(config.run.output) / "tiny") == before
