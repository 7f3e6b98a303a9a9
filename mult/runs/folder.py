"""A run's folder: resolved config, provenance, metrics.jsonl, and a lock, each written so that a crash leaves no half.

<folder>/config.yaml  provenance.json  metrics.jsonl  trivial.json  gallery.png  eval/*.json  eval/*.npz  bad_files.txt
<folder>/checkpoints/ (checkpoint.py)
"""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mult.config import Config, load_config, to_yaml
from mult.errors import UserError
from mult.files import read_json, sync, write_json, write_text
from mult.runs.provenance import provenance
from mult.runtime.distributed import pick_device
from mult.runtime.precision import chosen

EARLY = {
    "config.yaml",
    "provenance.json",
    "metrics.jsonl",
    "trivial.json",
    "bad_files.txt",
    "checkpoints",
    "tensorboard",
    ".lock",
}
"""What a run may leave that ended before its first checkpoint, and so before its first evaluation: nothing worth keeping."""

MAY_CHANGE = (
    "run.name",
    "run.output",
    "run.device",
    "run.checkpoint_every",
    "run.keep",
    "run.tensorboard",
    "run.activation_checkpointing",
    "data.root",
    "data.workers",
    "data.on_bad_file",
    "optim.steps",
    "optim.non_finite",
    "optim.max_skipped",
    "eval",
)
"""What may differ when a run goes on: places, what is saved and looked at, what is done about faults, how long it is."""


class Run:
    """One training run on disk. `Run.open` makes the folder or goes on with it; only the main process opens."""

    def __init__(self, config: Config) -> None:
        self.config, self.config_yaml = config, to_yaml(config)
        self.folder = Path(config.run.output) / config.run.name

    @classmethod
    def open(cls, config: Config, resume: bool) -> Run:
        """Start a run or, with `resume`, go on with the one there; raises what `check` raises.

        The folder is this process's until it ends. A run that ended before its first checkpoint starts over.
        """
        run = cls(config)
        run.check(resume)
        run.folder.mkdir(parents=True, exist_ok=True)
        _lock(run.folder / ".lock")
        run._check_content(resume)  # another process may have been faster
        made = run.folder / "provenance.json"
        now = provenance(config.run.seed, chosen(config.run.precision, pick_device(config.run.device)))
        if run._is_early():
            if any(path.name != ".lock" for path in run.folder.iterdir()):
                _say(f"{run.folder}: the run in it ended before its first checkpoint; starting it over")
            for name in ("metrics.jsonl", "trivial.json", "bad_files.txt"):
                (run.folder / name).unlink(missing_ok=True)
            write_json(made, now)
        else:
            for key, change in run._changes().items():
                _say(f"--resume: {key} changes, {change}")
            first = read_json(made)
            write_json(made, first | {"resumed": [*first.get("resumed", []), now]})
        write_text(run.folder / "config.yaml", run.config_yaml)
        return run

    def check(self, resume: bool) -> None:
        """Raise UserError, before any work, where `open` would overwrite a run, find none or one in use, or mix two."""
        if (self.folder / ".lock").exists():
            os.close(_lock(self.folder / ".lock"))
        self._check_content(resume)

    def _check_content(self, resume: bool) -> None:
        folder, written = self.folder, self.folder / "config.yaml"
        if folder.exists() and not folder.is_dir():
            raise UserError(f"run folder: got {folder}, a file; expected a new folder; choose another run.name")
        if resume and not written.exists():
            raise UserError(f"run folder: got {folder} with --resume; expected a run to go on with; start it without --resume")
        if self._is_early():
            return
        if not resume:
            raise UserError(
                f"run folder: {folder} holds {'a run' if written.exists() else 'files'} already; expected a new folder; "
                "go on with --resume, choose another run.name or delete it"
            )
        refused = {
            key: change
            for key, change in self._changes().items()
            if not any(key == may or key.startswith(f"{may}.") for may in MAY_CHANGE)
        }
        if refused:
            differences = "; ".join(f"{key}: {change}" for key, change in refused.items())
            raise UserError(
                f"--resume: the config differs from {written} in {differences}; expected the same but for "
                f"{', '.join(MAY_CHANGE)}; undo it or start another run.name"
            )

    def has_checkpoint(self) -> bool:
        """Whether training goes on from one, whole or not: `Checkpoints.recover` finds out."""
        return any(path.name.isdigit() for path in self.folder.glob("checkpoints/*"))

    def _is_early(self) -> bool:
        """Whether the folder is missing, empty, or of a run that ended before its first checkpoint."""
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        return not self.has_checkpoint() and not {name for name in names if not name.endswith(".tmp")} - EARLY

    def _changes(self) -> dict[str, str]:
        return _differences(load_config(self.folder / "config.yaml"), self.config)

    # --- metrics.jsonl ---

    def log(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Append one line; it is on its way to the disk when this returns. Raises OSError where the disk is full."""
        path = self.folder / "metrics.jsonl"
        try:
            with open(path, "a") as file:
                file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); expected room; the last checkpoint stands; make room and go on "
                "with --resume"
            ) from error

    def sync_log(self) -> None:
        """Bring all lines to the disk."""
        sync(self.folder / "metrics.jsonl")

    def cut_log(self, step: int) -> dict[int, float | None]:
        """Drop the lines after `step`, and a last line that a crash cut short: what is resumed writes them again.

        Returns the evaluations that are left, {step: "improvement"}, of the config's split. Raises UserError, with the line,
        for a log that no crash explains.
        """
        path = self.folder / "metrics.jsonl"
        scores: dict[int, float | None] = {}
        if not path.exists():
            return scores
        end, last = 0, 0
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = json.loads(line)
                    at, split = int(entry["step"]), entry["split"]
                except (ValueError, TypeError, KeyError) as error:
                    raise UserError(
                        f"{path}, line {number}: got {line[:40]!r}; expected an object with step and split; remove the line"
                    ) from error
                if at > step:
                    break
                end, last = end + len(line), at
                if "improvement" in entry and split == self.config.eval.split:
                    scores[at] = entry["improvement"]
        os.truncate(path, end)
        if last < step:
            _say(f"{path}: ends at step {last}, the checkpoint is of step {step}; the lines between are lost")
        return scores

    def list_bad_files(self, messages: Iterable[str]) -> None:
        """Append to bad_files.txt what it does not hold yet: a line a file, which says what is wrong with it."""
        path = self.folder / "bad_files.txt"
        listed = path.read_text().splitlines() if path.exists() else []
        lines = [" ".join(message.splitlines()) for message in messages]
        new = [line for line in dict.fromkeys(lines) if line not in listed]
        if new:
            write_text(path, "".join(f"{line}\n" for line in [*listed, *new]))


def _differences(old: Config, new: Config) -> dict[str, str]:
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


def _lock(path: Path) -> int:
    """Take the lock of a run's folder, which ends with this process; the file's descriptor, not to be closed before.

    A record lock: unlike one of `flock`, the workers of a data loader, which may outlive a killed process for seconds, do not
    inherit it. Raises UserError where a live process has it. A file system without locks is said to be one.
    """
    import fcntl  # not on Windows, where prediction shall work

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
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
        _say(f"{path}: cannot be locked ({error.strerror}); make sure that no other process uses the folder")
        return os.open(path, os.O_RDONLY)
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
    return descriptor


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
