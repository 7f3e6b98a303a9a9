"""A run's folder: its config, its provenance, its log and a lock. A crash leaves no half of a file.

<folder>/config.yaml  provenance.json  metrics.jsonl  trivial.json  gallery.png  eval/*.json  eval/*.npz  bad_files.txt
<folder>/checkpoints/ (checkpoint.py)
"""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mult.config import Config, load_config, to_yaml
from mult.errors import UserError
from mult.files import read_json, sync, write_json, write_text
from mult.runs.errors import explain_write_error
from mult.runs.provenance import collect_provenance
from mult.runtime.determinism import resolve_deterministic
from mult.runtime.distributed import pick_device
from mult.runtime.precision import resolve_precision

BEFORE_FIRST_CHECKPOINT = {
    "config.yaml",
    "provenance.json",
    "metrics.jsonl",
    "trivial.json",
    "bad_files.txt",
    "checkpoints",
    "tensorboard",
    "wandb",
    "logger_id",
    ".lock",
}
"""What a run's folder holds before the first checkpoint, and so before the first evaluation: nothing worth keeping."""

MAY_CHANGE = (
    "run.name",
    "run.output",
    "run.device",
    "run.deterministic",
    "run.checkpoint_every",
    "run.keep",
    "run.log",
    "run.tensorboard",
    "run.activation_checkpointing",
    "data.root",
    "data.workers",
    "data.on_bad_file",
    "model.pretrained",
    "optim.steps",
    "optim.non_finite",
    "optim.max_skipped",
    "eval",
)
"""Keys of the config that may change at --resume: places, determinism, what is saved and evaluated, about faults, length."""


class Run:
    """One training run on the disk. `Run.open` makes the folder or resumes the run in it; only the main process opens."""

    def __init__(self, config: Config) -> None:
        self.config, self.config_yaml = config, to_yaml(config)
        self.folder = Path(config.run.output) / config.run.name

    @classmethod
    def open(cls, config: Config, resume: bool) -> Run:
        """Start a run or, with `resume`, go on with the one in the folder; raises what `check` raises.

        The process has the folder's lock until it ends. A run that ended before its first checkpoint starts over.
        """
        run = cls(config)
        run.check(resume)
        run.folder.mkdir(parents=True, exist_ok=True)
        lock = run.folder / ".lock"
        if not _has_lock(lock):
            _LOCKS.append(_take_lock(lock))
        run._check_content(resume)  # another process may have been faster
        path = run.folder / "provenance.json"
        device = pick_device(config.run.device)
        provenance = collect_provenance(
            config.run.seed,
            resolve_precision(config.run.precision, device),
            resolve_deterministic(config.run.deterministic, device),
        ) | {"selected": config.eval.select, "device": device.type}
        if run._is_early():
            if any(path.name != ".lock" for path in run.folder.iterdir()):
                _print(f"{run.folder}: the run in it ended before its first checkpoint; starting it over")
            for name in ("metrics.jsonl", "trivial.json", "bad_files.txt", "logger_id"):
                (run.folder / name).unlink(missing_ok=True)
            write_json(path, provenance)
        else:
            for key, change in run._changes().items():
                _print(f"--resume: {key} changes, {change}")
            first = read_json(path, "delete it: the run goes on without") if path.exists() else {}
            write_json(path, first | {"resumed": [*first.get("resumed", []), provenance]})
        write_text(run.folder / "config.yaml", run.config_yaml)
        return run

    def check(self, resume: bool) -> None:
        """Raise UserError, before any work, where `open` would overwrite or mix runs, or there is none or one in use."""
        lock = self.folder / ".lock"
        if lock.exists() and not _has_lock(lock):
            os.close(_take_lock(lock))
        self._check_content(resume)

    def _check_content(self, resume: bool) -> None:
        folder, config_file = self.folder, self.folder / "config.yaml"
        if folder.exists() and not folder.is_dir():
            raise UserError(f"run folder: got {folder}, a file; expected a new folder; choose another run.name")
        if resume and not config_file.exists():
            raise UserError(f"run folder: got {folder} with --resume; expected a run to go on with; start it without --resume")
        if self._is_early():
            return
        if not resume:
            is_run = config_file.exists()
            raise UserError(
                f"run folder: {folder} holds {'a run' if is_run else 'files'} already; "
                f"expected a new folder; {'go on with --resume, ' if is_run else ''}choose another run.name or delete it"
            )
        refused = {
            key: change
            for key, change in self._changes().items()
            if not any(key == permitted or key.startswith(f"{permitted}.") for permitted in MAY_CHANGE)
        }
        if refused:
            differences = "; ".join(f"{key}: {change}" for key, change in refused.items())
            raise UserError(
                f"--resume: the config differs from {config_file} in {differences}; expected the same but for "
                f"{', '.join(MAY_CHANGE)}; undo it or start another run.name"
            )
        done = max(self._checkpoint_steps(), default=0)
        if self.config.optim.steps < done:
            raise UserError(
                f"--resume: got optim.steps {self.config.optim.steps} of a run in which {done} steps are done; expected at "
                f"least {done}; raise it, or start another run.name"
            )

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint, whole or damaged: `Checkpoints.recover` looks closer."""
        return bool(self._checkpoint_steps())

    def _checkpoint_steps(self) -> list[int]:
        return [int(path.name) for path in self.folder.glob("checkpoints/*") if path.name.isdigit()]

    def _is_early(self) -> bool:
        """Whether the folder is missing, empty, or of a run that ended before its first checkpoint."""
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        results = {name for name in names if not name.endswith(".tmp")} - BEFORE_FIRST_CHECKPOINT
        return not self.has_checkpoint() and not results

    def _changes(self) -> dict[str, str]:
        return find_differences(load_config(self.folder / "config.yaml"), self.config)

    # --- metrics.jsonl ---

    def log(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Append one line. Raises UserError where the disk does not take it or the folder is gone."""
        with self._writing_log() as path, open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **values}, allow_nan=False) + "\n")

    def sync_log(self) -> None:
        """Bring all lines to the disk. Raises as `log` does."""
        with self._writing_log() as path:
            sync(path)

    @contextmanager
    def _writing_log(self) -> Iterator[Path]:
        path = self.folder / "metrics.jsonl"
        try:
            yield path
        except OSError as error:
            raise explain_write_error(error, path, self.folder, "room", "the last checkpoint stands") from error

    def cut_log(self, step: int) -> dict[int, float | None]:
        """Drop the lines after `step`, and a last line that a crash cut short: the resumed run writes them again.

        Returns {step: "improvement"} of the evaluations that are left, of the config's split. Raises as `read_log` does.
        """
        path = self.folder / "metrics.jsonl"
        scores: dict[int, float | None] = {}
        if not path.exists():
            return scores
        end = last = 0
        for entry, end_of_line in _read_lines(path):
            if entry["step"] > step:
                break
            last, end = entry["step"], end_of_line
            if "improvement" in entry and entry["split"] == self.config.eval.split:
                scores[last] = entry["improvement"]
        os.truncate(path, end)
        if last < step:
            _print(f"{path}: ends at step {last}, the checkpoint is of step {step}; the lines between are lost")
        return scores

    def list_bad_files(self, messages: Iterable[str]) -> None:
        """Append to bad_files.txt the messages that it does not hold yet, one line each."""
        path = self.folder / "bad_files.txt"
        listed = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        lines = [" ".join(message.splitlines()) for message in messages]
        new = [line for line in dict.fromkeys(lines) if line not in listed]
        if new:
            write_text(path, "".join(f"{line}\n" for line in [*listed, *new]))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a metrics.jsonl, each with "step" and "split"; none where there is no file.

    A last line that a crash cut short is left out. Raises UserError, naming the line, for one that no crash explains.
    """
    return [entry for entry, _ in _read_lines(path)] if path.exists() else []


def _read_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Each entry of a log and the number of bytes up to the end of its line."""
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                entry = json.loads(line.decode())
            except (ValueError, RecursionError):
                entry = None
            if not _is_entry(entry):
                raise UserError(
                    f"{path}, line {number}: got {line[:40]!r}; expected an object with step and split; remove the line"
                )
            end += len(line)
            yield entry, end


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("step"), int)
        and isinstance(value.get("split"), str)
        and isinstance(value.get("improvement"), int | float | None)
    )


def find_differences(old: Config, new: Config) -> dict[str, str]:
    """{dotted key: "old -> new"} of the values that differ."""

    def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        items: dict[str, Any] = {}
        for name, value in tree.items():
            items |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        return items

    before, after = flat(asdict(old)), flat(asdict(new))
    return {
        key: f"{before.get(key, 'nothing')} -> {after.get(key, 'nothing')}"
        for key in before | after
        if before.get(key) != after.get(key)
    }


_LOCKS: list[int] = []
"""The descriptors of the locks of this process. The system frees a lock when the process closes any descriptor of its file, so
one that this process has is not opened again."""


def _has_lock(path: Path) -> bool:
    """Whether this process has the lock, since it opened the run before."""
    return path.exists() and any(os.path.samestat(path.stat(), os.fstat(descriptor)) for descriptor in _LOCKS)


def _take_lock(path: Path) -> int:
    """Take the lock of a run's folder, which this process has until it ends or closes the descriptor that is returned.

    It is a record lock, because the workers of a data loader, which may outlive a killed process for seconds, do not inherit
    one, as they would a lock of `flock`. Raises UserError where a live process has it. On a file system or a system without
    such locks there is a message and no lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl
    except ImportError:  # Windows
        _print(f"{path}: this system has no locks of this kind; make sure that no other process uses the folder")
        return descriptor
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 200).decode(errors="replace").strip()
        os.close(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UserError(
                f"run folder: {path.parent} is in use by {owner or 'another process'}; expected one process at a time; "
                "wait for its end or choose another run.name"
            ) from None
        _print(f"{path}: cannot be locked ({error.strerror}); make sure that no other process uses the folder")
        return os.open(path, os.O_RDONLY)
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
    return descriptor


def _print(text: str) -> None:
    """To stderr, above the progress bars."""
    tqdm.write(text, file=sys.stderr)
