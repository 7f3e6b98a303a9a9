"""The facts that explain a result later: which code, on which machine, by which command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mult.runtime.distributed import number_of_processes


def collect_provenance(seed: int, precision: str, deterministic: bool) -> dict[str, Any]:
    """Commit, versions, hardware, threads, precision, determinism, processes, seed, command and time of a run that starts."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "seed": seed,
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in ("mult-dense", "torch", "timm", "numpy")},
        "hardware": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "threads": torch.get_num_threads(),
        "precision": precision,
        "deterministic": deterministic,
        "processes": number_of_processes(),
    }


def _commit() -> str | None:
    """The commit of the source tree, `+changes` if it was edited; None where no git repository tracks the package's files.

    An environment that lies in some other project's repository is not tracked by it.
    """

    def git(*arguments: str) -> str:
        command = ("git", *arguments)
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = git("rev-parse", "--short=12", "HEAD")
        changes = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
