"""The checkpoints of a run: each written whole or not at all, checked before it is used, and pruned.

checkpoints/<step>/  model.safetensors  config.json  config.yaml  trivial.json  state.pt  manifest.json
checkpoints/last, best -> <step>      relative links, replaced atomically

A numbered folder appears by one rename when all that is in it is on the disk, never changes after, and leaves by one rename:
a process killed at any moment leaves whole checkpoints and, under a temporary name, what the next `save` removes.
`manifest.json` has the checksum of every other file, for disks that lose what they said they had written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from tqdm import tqdm

from mult.config import Config, load_config
from mult.errors import UserError
from mult.files import read_json, sync, write_json, write_text
from mult.models import MulT
from mult.tasks import TASKS

FORMAT_VERSION = 1
"""Changes when what `state.pt` holds does: training does not go on from a checkpoint of another version."""


MODEL = ("model.safetensors", "config.json")
"""The files that make a model again."""


class Saveable(Protocol):
    """What a checkpoint needs of a model."""

    def save_pretrained(self, save_directory: Path) -> Any: ...


class Checkpoints:
    """The checkpoints in `folder`: the `keep` newest and the best. Only the main process saves, recovers and marks."""

    def __init__(self, folder: Path, config_yaml: str, keep: int) -> None:
        self.folder, self.config_yaml, self.keep = folder, config_yaml, keep

    def steps(self) -> list[int]:
        """The steps there are checkpoints of, damaged ones too, ascending."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdigit())

    def save(self, step: int, model: Saveable, state: Mapping[str, Any], constants: Mapping[str, Any]) -> None:
        """Write <step>/, point `last` at it, remove what need not be kept; <step>/ may be there if `last` is older.

        state: tensors and plain values only, so that `weights_only=True` can read it. Raises OSError where the disk does not
        take it; all checkpoints are then as they were. So they are where a loader's worker dies meanwhile, a RuntimeError.
        """
        assert _is_plain(state), "weights_only=True could not read this state"
        final, temporary = self.folder / str(step), self.folder / f".{step}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            model.save_pretrained(temporary)
            write_text(temporary / "config.yaml", self.config_yaml)
            write_json(temporary / "trivial.json", constants)
            torch.save(dict(state), temporary / "state.pt")
            sums = {file.name: _checksum(file) for file in sorted(temporary.iterdir())}
            write_json(temporary / "manifest.json", {"format_version": FORMAT_VERSION, "step": step, "sha256": sums})
            for file in (*temporary.iterdir(), temporary):
                sync(file)
            _remove(final)
            os.replace(temporary, final)
        except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError: what torch.save makes of a full disk
            if str(error).startswith("DataLoader worker"):  # its death is raised in whatever this process is at
                raise
            last = self.folder / "last"
            stands = f"checkpoint {os.readlink(last)} stands" if last.is_symlink() else "there is none yet"
            raise UserError(
                f"{final}: cannot be written ({str(error).splitlines()[0]}); expected room for {self.keep + 2} checkpoints; "
                f"{stands}; make room and go on with --resume"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync(self.folder)
        _link(self.folder / "last", step)
        self._prune(step)

    def mark_best(self, step: int) -> None:
        """Point `best` at a checkpoint, and let the one before go."""
        _link(self.folder / "best", step)
        self._prune(step)

    def recover(self) -> int | None:
        """The step of the newest whole checkpoint, with `last` pointing at it; None where there is none.

        A damaged one is passed over, with a message; training will write it again. Raises UserError where all are damaged,
        and at one of another format version.
        """
        damaged: list[str] = []
        for step in reversed(self.steps()):
            fault = _fault(self.folder / str(step))
            if fault is None:
                for other in damaged:
                    tqdm.write(f"{other}; using checkpoint {step} instead", file=sys.stderr)
                _link(self.folder / "last", step)
                best = self.folder / "best"
                if best.is_symlink() and (not best.is_dir() or int(os.readlink(best)) > step):
                    best.unlink()
                return step
            damaged.append(f"{self.folder / str(step)}: damaged ({fault})")
        if damaged:
            raise UserError(f"{'; '.join(damaged)}; expected at least one whole checkpoint; start another run.name")
        return None

    def load(self, step: int) -> tuple[Path, dict[str, Any]]:
        """The folder and the state of a checkpoint that `recover` found whole."""
        folder = self.folder / str(step)
        return folder, torch.load(folder / "state.pt", map_location="cpu", weights_only=True)

    def _prune(self, newest: int) -> None:
        """Remove all but the `keep` newest up to `newest` and the best: a later one is damaged, and was passed over."""
        best = self.folder / "best"
        kept = {step for step in self.steps() if step <= newest}
        kept = {*sorted(kept)[-self.keep :], *([int(os.readlink(best))] if best.is_symlink() else [])}
        for step in self.steps():
            if step not in kept:
                _remove(self.folder / str(step))
        for left in self.folder.glob(".*.tmp"):  # by a process that was killed
            left.unlink() if left.is_symlink() else shutil.rmtree(left)


def check_model(folder: Path) -> None:
    """Raise UserError where a checkpoint's model is not what it was written with; without a manifest nobody can tell."""
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return
    try:
        sums = {name: read_json(manifest)["sha256"][name] for name in MODEL}
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{manifest}: got no checksums of {' and '.join(MODEL)}; expected what training wrote; the file is damaged: take "
            "another checkpoint of the run"
        ) from error
    for name, expected in sums.items():
        if _checksum(folder / name) != expected:
            raise UserError(
                f"{folder / name}: got another checksum than when it was written; expected the file that training saved; "
                "it is damaged or was replaced: take another checkpoint of the run"
            )


def _fault(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, in words, or None. Raises UserError for another format version."""
    try:
        manifest = read_json(folder / "manifest.json")
        version, sums = manifest["format_version"], manifest["sha256"].items()
    except (ValueError, TypeError, KeyError, AttributeError):
        return "manifest.json cannot be read"
    if version != FORMAT_VERSION:
        raise UserError(
            f"{folder}: got a checkpoint of format version {version}; expected {FORMAT_VERSION}; go on with the version of "
            f"mult that wrote it, or start another run with run.init={folder}"
        )
    for name, expected in sums:
        try:
            if _checksum(folder / name) != expected:
                return f"{name} has another checksum than when it was written"
        except FileNotFoundError:
            return f"{name} is missing"
    return None


def _is_plain(value: Any) -> bool:
    """Whether a state is made of tensors and plain values, not of subclasses of these, which only pickle could restore."""
    if isinstance(value, Mapping):
        return all(_is_plain(name) and _is_plain(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, torch.Tensor)


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _remove(folder: Path) -> None:
    """Remove a numbered folder, so that it is there whole or not at all."""
    if folder.is_dir():
        gone = folder.with_name(f".{folder.name}.old.tmp")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(folder, gone)
        shutil.rmtree(gone)


def _link(link: Path, step: int) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(str(step))
    os.replace(temporary, link)
    sync(link.parent)


def find_checkpoint(path: str | Path) -> Path:
    """A checkpoint's folder: `path` itself, or the best checkpoint of the run at `path` (its last, if none is best).

    Raises UserError where there is neither.
    """
    path = Path(path)
    for folder in (path, path / "checkpoints" / "best", path / "checkpoints" / "last"):
        if (folder / "model.safetensors").is_file():
            return folder.resolve()
    found = (
        "no checkpoint was written there yet"
        if path.is_dir()
        else "it is a file"
        if path.exists()
        else "there is no such folder"
    )
    raise UserError(
        f"checkpoint: got {path}; expected a run's folder or a checkpoint's (model.safetensors, config.json, config.yaml); "
        + found
    )


def load_checkpoint(path: str | Path) -> tuple[MulT, Config]:
    """The model, in eval mode, and the config it was trained with, of a checkpoint or of a run's best one.

    Raises UserError where there is none, or one that is damaged.
    """
    folder = find_checkpoint(path)
    model = MulT.from_pretrained(folder)
    check_model(folder)
    for task in model.tasks:
        if task not in TASKS:
            raise UserError(f"{folder}: got a model of task {task!r}; expected tasks among {', '.join(TASKS)}")
    return model, load_config(folder / "config.yaml")
