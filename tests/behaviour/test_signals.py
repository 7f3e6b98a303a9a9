"""Signals that ask a training to end, and the death of a worker of its data loader."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mult.runs.folder import Run
from mult.runtime.signals import HANDLED, InterruptibleBatches, Signals, StoppedError
from mult.training.experiment import build_experiment
from mult.training.loop import train
from tests.run_files import (
    Configured,
    TrainRun,
    is_same,
    open_signalled,
    read_lines,
    read_weights,
)

CPU = torch.device("cpu")
ENDLESS = 1_000_000
"""More steps than a run can take before a signal reaches it, however busy the machine."""


def last(folder: Path) -> str:
    return os.readlink(folder / "checkpoints" / "last")


@pytest.mark.parametrize(
    ("step", "number"),
    [(2, signal.SIGTERM), (3, signal.SIGUSR1), (1, signal.SIGINT)],
    ids=["SIGTERM before an evaluation", "SIGUSR1", "SIGINT"],
)
def test_a_signal_ends_the_run_after_its_step(
    configured: Configured, train_run: TrainRun, trained: Path, step: int, number: signal.Signals, capsys: Any
) -> None:
    """The evaluation that would be next is left to the resumed run, which ends as if never stopped."""
    config = configured()
    run = open_signalled(config, step, number)
    before = [signal.getsignal(handled) for handled in HANDLED]
    assert train(build_experiment(config), run, CPU) is None
    assert [signal.getsignal(handled) for handled in HANDLED] == before
    assert f"{number.name}: stopped after step {step} of 4; go on with --resume" in capsys.readouterr().out
    assert last(run.folder) == str(step)
    assert read_lines(run.folder)[-1]["step"] == step
    assert read_lines(run.folder)[-1]["split"] == "train"
    train_run(config, resume=True)
    assert read_lines(run.folder) == read_lines(trained)
    assert is_same(read_weights(run.folder), read_weights(trained))
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
    configured: Configured, train_run: TrainRun, trained: Path
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
    assert [(line["step"], line["split"]) for line in read_lines(run.folder)] == [
        (line["step"], line["split"]) for line in read_lines(trained)
    ]
    assert is_same(read_weights(run.folder), read_weights(trained))


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
    """`when_logged(folder, act)` acts, in a thread, as soon as a run has logged its first step, unless the test ends first."""
    threads = []
    is_over = threading.Event()

    def call(folder: Path, act: Callable[[], None]) -> None:
        def wait() -> None:
            while not (folder / "metrics.jsonl").exists():
                if is_over.wait(0.01):
                    return
            act()

        threads.append(threading.Thread(target=wait))
        threads[-1].start()

    yield call
    is_over.set()
    for thread in threads:
        thread.join()


def test_the_command_ends_with_status_0(script: Any, config_file: Path, tmp_path: Path, when_logged: Any) -> None:
    when_logged(tmp_path / "tiny", lambda: os.kill(os.getpid(), signal.SIGTERM))
    settings = [f"run.output={tmp_path}", f"optim.steps={ENDLESS}", "eval.every=0", "data.workers=1"]
    ended = script("train", "--config", config_file, *settings)
    assert ended.status == 0, ended.err
    message = re.search(rf"SIGTERM: stopped after step (\d+) of {ENDLESS}; go on with --resume", ended.out)
    assert message
    assert "look at" not in ended.out
    assert message[1] == last(tmp_path / "tiny") == str(len(read_lines(tmp_path / "tiny")))


def children() -> list[int]:
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not path.exists():
        pytest.skip("needs Linux's list of child processes")
    return [int(child) for child in path.read_text().split()]


# torch raises from its SIGCHLD handler, at any bytecode of the main thread: a socket that multiprocessing has created and not
# yet entered with `with` is then closed by the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_dead_worker_ends_the_run_with_a_message(script: Any, config_file: Path, tmp_path: Path, when_logged: Any) -> None:
    before = set(children())

    def kill() -> None:
        for child in set(children()) - before:
            os.kill(child, signal.SIGKILL)

    when_logged(tmp_path / "tiny", kill)
    settings = [f"run.output={tmp_path}", f"optim.steps={ENDLESS}", "eval.every=0", "data.workers=1"]
    ended = script("train", "--config", config_file, *settings)
    assert ended.status == 1, ended.err
    messages = [line for line in ended.err.splitlines() if line.startswith("stopped:")]
    assert len(messages) == 1
    assert re.match(
        r"stopped: DataLoader worker \(pid.*; expected it to run until the end; .*lower data\.workers .*--resume$", messages[0]
    )
    assert "Traceback" not in ended.err
