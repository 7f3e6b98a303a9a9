"""What befalls a training on a shared machine: signals, losses that are not finite, dead workers, damaged checkpoints."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mult.config import Config
from mult.errors import UserError
from mult.files import read_json
from mult.runs.folder import Run
from mult.runtime.signals import HANDLED, InterruptibleBatches, Signals, StoppedError
from mult.training.experiment import Experiment, build_experiment
from mult.training.loop import train

Configured = Callable[..., Config]
Train = Callable[..., Path]
CPU = torch.device("cpu")


def lines(folder: Path) -> list[dict[str, Any]]:
    """The log, without what the clock and the machine say."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith(("seconds", "_mib"))} for line in read]


def weights(folder: Path, checkpoint: str = "last") -> dict[str, Tensor]:
    return load_file(folder / "checkpoints" / checkpoint / "model.safetensors")


def is_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def last(folder: Path) -> str:
    return os.readlink(folder / "checkpoints" / "last")


# --- Signals ---


class Signalled(Run):
    """A run whose process gets a signal in the middle of a step."""

    at: tuple[int, signal.Signals]

    def log(self, step: int, split: str, values: Any) -> None:
        super().log(step, split, values)
        if (step, split) == (self.at[0], "train"):
            os.kill(os.getpid(), self.at[1])


@pytest.mark.parametrize(
    ("step", "number"),
    [(2, signal.SIGTERM), (3, signal.SIGUSR1), (1, signal.SIGINT)],
    ids=["SIGTERM before an evaluation", "SIGUSR1", "SIGINT"],
)
def test_a_signal_ends_the_run_after_its_step(
    configured: Configured, train_run: Train, trained: Path, step: int, number: signal.Signals, capsys: Any
) -> None:
    """The evaluation that would be next is left to the resumed run, which ends as if never stopped."""
    config = configured()
    run = Signalled.open(config, resume=False)
    assert isinstance(run, Signalled)
    run.at = step, number
    before = [signal.getsignal(handled) for handled in HANDLED]
    assert train(build_experiment(config), run, CPU) is None
    assert [signal.getsignal(handled) for handled in HANDLED] == before
    assert f"{number.name}: stopped after step {step} of 4; go on with --resume" in capsys.readouterr().out
    assert last(run.folder) == str(step)
    assert lines(run.folder)[-1]["step"] == step
    assert lines(run.folder)[-1]["split"] == "train"
    train_run(config, resume=True)
    assert lines(run.folder) == lines(trained)
    assert is_same(weights(run.folder), weights(trained))
    assert os.readlink(run.folder / "checkpoints" / "best") == os.readlink(trained / "checkpoints" / "best")


class Views:
    """A dataset that signals the process when it is first read."""

    def __init__(self, views: Any) -> None:
        self.views, self.read = views, 0

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        if self.read == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.views[index]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.views, name)


def test_an_evaluation_is_left_at_a_signal_and_done_by_the_resumed_run(
    configured: Configured, train_run: Train, trained: Path
) -> None:
    config = configured("data.batch_size=2", "eval.batch_size=1")
    experiment = build_experiment(config)
    views = Views(experiment.eval_data)
    run = Run.open(config, resume=False)
    assert train(dataclasses.replace(experiment, eval_data=views), run, CPU) is None  # type: ignore[arg-type]
    assert views.read == 1  # of three
    assert last(run.folder) == "2"
    assert not (run.folder / "eval").exists()
    train_run(config, resume=True)
    assert [(line["step"], line["split"]) for line in lines(run.folder)] == [
        (line["step"], line["split"]) for line in lines(trained)
    ]
    assert is_same(weights(run.folder), weights(trained))


def test_batches_end_at_a_signal() -> None:
    with Signals() as signals:
        assert list(InterruptibleBatches([1, 2], 3, signals)) == [1, 2]  # another process has three
        batches = iter(InterruptibleBatches([1, 2, 3], 3, signals))
        assert next(batches) == 1
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(StoppedError):
            next(batches)
        assert signals.received == "SIGUSR1"


def test_ctrl_c_twice_ends_at_once() -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_signals_stay_as_they_are() -> None:
    before, inside = signal.getsignal(signal.SIGTERM), []

    def enter() -> None:
        with Signals():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == [before]


@pytest.fixture
def when_logged(configured: Configured) -> Iterator[Callable[[Path, Callable[[], None]], None]]:
    """`when_logged(folder, act)` acts, in a thread, as soon as a run has logged its first step."""
    threads = []

    def call(folder: Path, act: Callable[[], None]) -> None:
        def wait() -> None:
            while not (folder / "metrics.jsonl").exists():
                time.sleep(0.01)
            act()

        threads.append(threading.Thread(target=wait))
        threads[-1].start()

    yield call
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_the_command_ends_with_status_0(script: Any, config_file: Path, tmp_path: Path, when_logged: Any) -> None:
    when_logged(tmp_path / "tiny", lambda: os.kill(os.getpid(), signal.SIGTERM))
    settings = [f"run.output={tmp_path}", "optim.steps=500", "eval.every=0", "data.workers=1"]
    ended = script("train", "--config", config_file, *settings)
    assert ended.status == 0, ended.err
    said = re.search(r"SIGTERM: stopped after step (\d+) of 500; go on with --resume", ended.out)
    assert said
    assert "look at" not in ended.out
    assert said[1] == last(tmp_path / "tiny") == str(len(lines(tmp_path / "tiny")))


# --- A worker of the data loader ---


def children() -> list[int]:
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not path.exists():
        pytest.skip("needs Linux's list of child processes")
    return [int(child) for child in path.read_text().split()]


# torch raises from its SIGCHLD handler, at any bytecode of the main thread: a socket that multiprocessing has just made and not
# yet put into its `with` is then closed by the garbage collector, which is no fault of the run that ends.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_dead_worker_ends_the_run_with_a_message(script: Any, config_file: Path, tmp_path: Path, when_logged: Any) -> None:
    before = set(children())

    def kill() -> None:
        for child in set(children()) - before:
            os.kill(child, signal.SIGKILL)

    when_logged(tmp_path / "tiny", kill)
    settings = [f"run.output={tmp_path}", "optim.steps=500", "eval.every=0", "data.workers=1"]
    ended = script("train", "--config", config_file, *settings)
    assert ended.status == 1, ended.err
    said = [line for line in ended.err.splitlines() if line.startswith("stopped:")]
    assert len(said) == 1
    assert re.match(r"stopped: DataLoader worker \(pid.*; expected it to run until the end; .*lower data\.workers .*--resume$", said[0])
    assert "Traceback" not in ended.err


# --- What is not finite ---


def spoilt(experiment: Experiment, calls: set[int], spoil: Callable[[Tensor, Tensor], Tensor]) -> Experiment:
    """The experiment, the loss of normals spoilt in some calls: (loss, output) -> loss."""
    objective, count = experiment.objectives["normal"], 0

    def loss(output: Tensor, *others: Any) -> Tensor:
        nonlocal count
        count += 1
        value = objective.loss(output, *others)
        return spoil(value, output) if count in calls else value

    objectives = experiment.objectives | {"normal": dataclasses.replace(objective, loss=loss)}
    return dataclasses.replace(experiment, objectives=objectives)


def nan_loss(loss: Tensor, output: Tensor) -> Tensor:
    return loss * math.nan


def nan_gradient(loss: Tensor, output: Tensor) -> Tensor:
    return loss + (0 * output.sum()).sqrt()  # 0, and its gradient 0 / 0


SKIP = ("optim.non_finite=skip", "run.checkpoint_every=1", "run.keep=9", "eval.every=0", "optim.warmup=0")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [(nan_loss, "the loss of normal is nan"), (nan_gradient, "the gradient's norm is nan")],
    ids=["loss", "gradient"],
)
def test_a_step_that_is_not_finite_is_left_out_and_counted(
    configured: Configured, spoil: Any, what: str, capsys: Any, tmp_path: Path
) -> None:
    config = configured(*SKIP)
    run = Run.open(config, resume=False)
    assert train(spoilt(build_experiment(config), {2}, spoil), run, CPU) is not None
    assert f"step 2 left out, 1 of at most 10: {what}" in capsys.readouterr().err
    assert not is_same(weights(run.folder, "1"), weights(run.folder, "3"))
    assert is_same(weights(run.folder, "1"), weights(run.folder, "2"))
    steps = [line for line in lines(run.folder) if line["split"] == "train"]
    assert [line.get("skipped") for line in steps] == [None, 1, None, None]
    assert "normal/loss" in steps[0]
    assert ("normal/loss" in steps[1]) == (spoil is nan_gradient)
    assert "grad_norm" not in steps[1]
    state = torch.load(run.folder / "checkpoints" / "4" / "state.pt", weights_only=True)
    assert state["skipped"] == 1


def test_too_many_steps_left_out_end_the_run(configured: Configured) -> None:
    config = configured(*SKIP, "optim.max_skipped=1")
    run = Run.open(config, resume=False)
    with pytest.raises(
        FloatingPointError, match=r"the loss of normal is nan at step 4 after 1 skipped steps; training stopped"
    ):
        train(spoilt(build_experiment(config), {2, 4}, nan_loss), run, CPU)
    assert last(run.folder) == "3"
    with pytest.raises(FloatingPointError, match="after 1 skipped steps"):  # the resumed run goes on counting
        train(spoilt(build_experiment(config), {1}, nan_loss), Run.open(config, resume=True), CPU)


def test_a_gradient_that_is_not_finite_stops(configured: Configured) -> None:
    config = configured("eval.every=0")
    run = Run.open(config, resume=False)
    with pytest.raises(FloatingPointError, match=r"the gradient's norm is nan at step 1; training stopped before the weights"):
        train(spoilt(build_experiment(config), {1}, nan_gradient), run, CPU)


# --- Going on under other conditions ---


def test_a_damaged_checkpoint_costs_steps_not_bits(
    configured: Configured, train_run: Train, trained: Path, capsys: Any
) -> None:
    config = configured("run.checkpoint_every=1", "run.keep=2")
    run = Signalled.open(config, resume=False)
    assert isinstance(run, Signalled)
    run.at = 3, signal.SIGTERM
    train(build_experiment(config), run, CPU)
    state = run.folder / "checkpoints" / "3" / "state.pt"
    os.truncate(state, state.stat().st_size - 1)
    train_run(config, resume=True)
    assert "3: damaged (state.pt has another checksum than when it was written); using checkpoint 2" in capsys.readouterr().err
    assert lines(run.folder) == lines(trained)
    assert is_same(weights(run.folder), weights(trained))


def test_more_steps_are_as_if_they_had_been_asked_for_at_once(configured: Configured, train_run: Train) -> None:
    """With a schedule that does not look ahead; the rate of the first new step is that of the new length."""
    settings = ["optim.schedule=constant", "eval.every=0", "data.workers=0"]
    train_run(configured("run.name=parts", "optim.steps=2", *settings))
    parts = train_run(configured("run.name=parts", "optim.steps=4", *settings), resume=True)
    whole = train_run(configured("run.name=whole", "optim.steps=4", *settings))
    assert is_same(weights(parts), weights(whole))
    rates = [line["lr"] for line in lines(parts) if line["split"] == "train"]
    assert rates == [line["lr"] for line in lines(whole) if line["split"] == "train"]
    with pytest.raises(UserError, match=r"optim\.steps: got 3, of which 4 are done; expected at least as many; raise it"):
        train_run(configured("run.name=parts", "optim.steps=3", *settings), resume=True)


def test_a_longer_schedule_holds_from_the_first_new_step(configured: Configured, train_run: Train) -> None:
    settings = ["run.name=long", "eval.every=0", "optim.warmup=0"]
    train_run(configured("optim.steps=1", *settings))
    folder = train_run(configured("optim.steps=3", *settings), resume=True)
    rates = [line["lr"] for line in lines(folder) if line["split"] == "train"]
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.25e-3])  # half a cosine over three steps


def test_what_will_differ_is_said(configured: Configured, train_run: Train, capsys: Any) -> None:
    config = configured("optim.steps=1", "eval.images=0")
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
    assert [line["step"] for line in lines(tmp_path / "tiny")] == [1, 2, 2]
    assert read_json(tmp_path / "tiny" / "provenance.json")["command"][-1] == "optim.steps=2"


# --- Watching ---


def test_tensorboard_has_what_the_log_has_once(configured: Configured, train_run: Train) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = configured("run.tensorboard=true")
    run = Signalled.open(config, resume=False)
    assert isinstance(run, Signalled)
    run.at = 3, signal.SIGTERM
    train(build_experiment(config), run, CPU)
    os.truncate(run.folder / "checkpoints" / "3" / "state.pt", 5)  # step 3 will be done, and told, a second time
    train_run(config, resume=True)
    board = EventAccumulator(str(run.folder / "tensorboard"))
    board.Reload()
    for name in ("normal/loss", "grad_norm", "lr"):
        expected = [(line["step"], line[name]) for line in lines(run.folder) if line["split"] == "train"]
        told = [(event.step, event.value) for event in board.Scalars(f"train/{name}")]
        assert [step for step, _ in told] == [1, 2, 3, 4]
        assert [value for _, value in told] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert [event.step for event in board.Scalars("val/reshading/l1")] == [2, 4]
    assert all(event.value > 0 for event in board.Scalars("machine/images_per_second"))
    assert all(0 <= event.value <= 1 for event in board.Scalars("machine/data_share"))
    assert [event.step for event in board.Images("gallery")] == [2, 4]


def test_the_log_says_what_the_machine_did(trained: Path) -> None:
    for line in map(json.loads, (trained / "metrics.jsonl").read_text().splitlines()):
        if line["split"] == "train":
            assert 0 < line["data_seconds"] < line["seconds"]
            assert 50 < line["peak_memory_mib"] < 100_000  # an interpreter with torch takes more, a machine has less
