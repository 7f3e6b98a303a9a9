"""The processes that load samples: whatever ends a command, they end with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mult.runtime.loader import Loader

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TIMEOUT_S = 300
"""Many times what a command takes on a busy machine; a process that hangs is ended and fails its test."""

Command = Callable[..., subprocess.CompletedProcess[str]]


def members(group: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group:
            found.append(int(path.parent.name))
    return found


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`command("train", ...)` runs a script in a process group of its own, and checks that nothing of the group outlives it."""
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS.parent))
    groups = []

    def call(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True
        ) as process:
            groups.append(process.pid)
            try:
                out, err = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                raise
        assert members(process.pid) == []
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    if not Path("/proc/self/stat").exists():
        pytest.skip("needs Linux's list of processes")
    yield call
    for group in groups:
        if members(group):
            os.killpg(group, 9)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def refused(ended: subprocess.CompletedProcess[str], start: str, status: int) -> None:
    assert ended.returncode == status, ended.stderr
    messages = [line for line in ended.stderr.splitlines() if line.startswith(("error:", "stopped:"))]
    assert len(messages) == 1, ended.stderr
    assert messages[0].startswith(start)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("building", ["alder", "cedar"], ids=["training", "evaluation while training"])
def test_a_bad_file_in_a_worker_ends_the_training(command: Command, config_file: Path, own_tree: Path, building: str) -> None:
    truncate(own_tree / "normal" / building / "point_0_view_0_domain_normal.png")
    settings = [f"data.root={own_tree}", f"run.output={own_tree.parent}/runs", "data.workers=2"]
    refused(command("train", "--config", config_file, *settings), f"error: {own_tree}/normal/{building}", 2)


def test_a_loss_that_is_not_finite_ends_the_training(command: Command, config_file: Path, tmp_path: Path) -> None:
    settings = [f"run.output={tmp_path}", "data.workers=2", "optim.lr=1e30", "optim.warmup=0", "eval.every=0"]
    refused(command("train", "--config", config_file, *settings), "stopped: the loss of ", 1)


def test_a_bad_file_in_a_worker_ends_an_evaluation(command: Command, trained: Path, own_tree: Path, tmp_path: Path) -> None:
    truncate(own_tree / "normal" / "cedar" / "point_0_view_0_domain_normal.png")
    config = tmp_path / "data.yaml"
    config.write_text(f"data: {{dataset: taskonomy, root: {own_tree}, workers: 2, batch_size: 1}}")
    options = ["--config", config, "--split", "val", "--out", tmp_path / "val.json"]
    refused(command("eval", "--ckpt", trained, *options), f"error: {own_tree}/normal/cedar", 2)


class Numbers:
    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(index)


def test_workers_end_when_the_batches_are_left() -> None:
    batches = iter(Loader(Numbers(), num_workers=2))
    assert next(batches) == 0
    workers = [process for process in torch.multiprocessing.active_children() if process.daemon]
    assert len(workers) >= 2
    batches.close()  # type: ignore[attr-defined]
    assert not any(worker.is_alive() for worker in workers)
