"""A run's folder: resolved config, provenance, metrics.jsonl and checkpoints, each written so that a crash leaves no half.

<folder>/config.yaml  provenance.json  metrics.jsonl  trivial.json  gallery.png  eval/*.json  eval/*.npz
<folder>/checkpoints/<step>/  model.safetensors  config.json  config.yaml  trivial.json  state.pt
<folder>/checkpoints/last, best -> <step>      relative links, replaced atomically
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Saveable(Protocol):
    """What a checkpoint needs of a model."""

    def save_pretrained(self, save_directory: Path) -> Any: ...


class Run:
    """One training run on disk. `Run.open` makes the folder or goes on with it; only the main process opens."""

    def __init__(self, folder: Path, config_yaml: str) -> None:
        self.folder, self.config_yaml = folder, config_yaml

    @classmethod
    def open(cls, folder: Path, config_yaml: str, seed: int, resume: bool) -> Run:
        """Start a run or, with `resume`, go on with the one there; raises what `check` raises."""
        cls.check(folder, config_yaml, resume)
        if not resume:
            write_json(folder / "provenance.json", provenance(seed))
            write_text(folder / "config.yaml", config_yaml)
        return cls(folder, config_yaml)

    @staticmethod
    def check(folder: Path, config_yaml: str, resume: bool) -> None:
        """Raise ValueError, before any work, where `open` would overwrite a run, find none, or mix two configs in one."""
        written = folder / "config.yaml"
        if resume and not written.exists():
            raise ValueError(f"run folder: got {folder} with --resume; expected a run to go on with; start it without --resume")
        if resume and written.read_text() != config_yaml:
            lines = difflib.unified_diff(written.read_text().splitlines(), config_yaml.splitlines(), n=0, lineterm="")
            changes = "; ".join(line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---"))
            raise ValueError(
                f"--resume: the config differs from {written}: {changes}; expected the same; start another run.name"
            )
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"run folder: got {folder}, a file; expected a new folder; choose another run.name")
        if not resume and folder.exists() and any(folder.iterdir()):
            raise ValueError(
                f"run folder: {folder} holds {'a run' if written.exists() else 'files'} already; expected a new folder; "
                "go on with --resume, choose another run.name or delete it"
            )

    # --- metrics.jsonl ---

    def log(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Append one line; it is on its way to the disk when this returns."""
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, "split": split, **values}) + "\n")

    def cut_log(self, step: int) -> None:
        """Drop the lines after `step`, and a last line that a crash cut short: what is resumed writes them again."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        write_text(path, "".join(line for line in whole if json.loads(line)["step"] <= step))

    def list_bad_files(self, messages: Iterable[str]) -> None:
        """Append to bad_files.txt what it does not hold yet: a line a file, which says what is wrong with it."""
        path = self.folder / "bad_files.txt"
        listed = path.read_text().splitlines() if path.exists() else []
        lines = [" ".join(message.splitlines()) for message in messages]
        new = [line for line in dict.fromkeys(lines) if line not in listed]
        if new:
            write_text(path, "".join(f"{line}\n" for line in [*listed, *new]))

    # --- checkpoints ---

    def save(self, step: int, model: Saveable, state: Mapping[str, Any], constants: Mapping[str, Any], best: bool) -> Path:
        """Write checkpoints/<step>/, then point `last`, and `best` if it is, at it, then remove those none points at.

        state: tensors and plain values only, so that `weights_only=True` can read it.
        """
        checkpoints = self.folder / "checkpoints"
        final, temporary = checkpoints / str(step), checkpoints / f".{step}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            model.save_pretrained(temporary)
            write_text(temporary / "config.yaml", self.config_yaml)
            write_json(temporary / "trivial.json", constants)
            torch.save(dict(state), temporary / "state.pt")
            for file in temporary.iterdir():
                _sync(file)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync(checkpoints)
        for name in ("last", "best") if best else ("last",):
            _link(checkpoints / name, str(step))
        kept = {os.readlink(checkpoints / name) for name in ("last", "best") if (checkpoints / name).is_symlink()}
        for other in checkpoints.iterdir():
            if other.is_dir() and not other.is_symlink() and other.name not in kept:
                shutil.rmtree(other)
        return final

    def last_state(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint's folder and loop state, or None where the run stopped before its first."""
        folder = self.folder / "checkpoints" / "last"
        if not folder.is_dir():
            return None
        path = folder.resolve() / "state.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of the many that torch raises on damaged files, some cannot be named without pickle
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{path}: cannot be read ({reason}); expected the state that training saved; it is damaged: start another run "
                f"with run.init={self.folder}"
            ) from error
        return folder.resolve(), state


def find_checkpoint(path: str | Path) -> Path:
    """A checkpoint's folder: `path` itself, or the best checkpoint of the run at `path` (its last, if none is best).

    Raises ValueError where there is neither.
    """
    path = Path(path)
    for folder in (path, path / "checkpoints" / "best", path / "checkpoints" / "last"):
        if (folder / "model.safetensors").is_file():
            return folder.resolve()
    raise ValueError(
        f"checkpoint: got {path}; expected a run's folder or a checkpoint's (model.safetensors, config.json, config.yaml); "
        + ("no checkpoint was written there yet" if path.is_dir() else "there is no such folder")
    )


def read_json(path: Path) -> Any:
    """Raises ValueError, naming the file, where it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}); expected a file that mult wrote") from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, making its folder."""
    _write(path, lambda temporary: temporary.write_text(text))


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a compressed .npz whole or not at all, making its folder."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    _write(path, write)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Raises ValueError, naming the file, where it is missing or no .npz."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: cannot be read as arrays ({error}); expected a file that mult wrote; evaluate again"
        ) from error


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def provenance(seed: int) -> dict[str, Any]:
    """What it takes to explain a result: commit, versions, hardware, threads, seed, command, time."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "seed": seed,
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in ("torch", "timm", "numpy")},
        "hardware": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def _commit() -> str | None:
    """The commit of the source tree, `+changes` if it was edited; None where the package is not in a git checkout."""

    def git(*arguments: str) -> str:
        command = ("git", *arguments)
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
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
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _link(link: Path, target: str) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
