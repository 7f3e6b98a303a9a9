"""A system without what Linux has, as Windows is, and environments that describe no group of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mult.errors import UserError
from mult.runtime.distributed import number_of_processes

ROOT = Path(__file__).resolve().parents[2]

LIKE_WINDOWS = """
import os, signal, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None
members = {name: value for name, value in signal.Signals.__members__.items() if name not in ("SIGHUP", "SIGUSR1")}
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
import enum
signal.Signals = enum.IntEnum("Signals", {name: int(value) for name, value in members.items()})
del os.symlink
sys.argv = ["mult", *sys.argv[1:]]
from mult.commands import main
main()
"""


def test_training_runs_without_locks_links_some_signals_and_the_module_resource(config_file: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        "--config",
        str(config_file),
        f"run.output={tmp_path}",
        "optim.steps=1",
        "optim.warmup=1",
        "eval.images=0",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIKE_WINDOWS]
    ended = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("this system has no locks of this kind; make sure that no other process uses the folder") == 1
    run = tmp_path / "tiny"
    assert (run / "checkpoints" / "1" / "model.safetensors").is_file()
    assert not (run / "checkpoints" / "last").exists()
    arguments = ["eval", "--ckpt", str(run), "--split", "val"]
    ended = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("text", ["", "two", "0", "-1", "1.0"])
def test_a_number_of_processes_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(UserError, match=f"WORLD_SIZE: got '{text}'; expected a number of processes; unset it"):
        number_of_processes()


def test_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert number_of_processes() == 1
    monkeypatch.setenv("WORLD_SIZE", "16")
    assert number_of_processes() == 16
