"""The checkpoints of a run: each is whole or not there, is checked before it is used, and goes when newer ones replace it.

checkpoints/<step>/  model.safetensors  config.json  config.yaml  trivial.json  state.pt  manifest.json
checkpoints/checkpoints.json          {"last": step, "best": step}
checkpoints/last, best -> <step>      relative links for people, where the disk has links; nothing here depends on them

A numbered folder appears by one rename when all that is in it is on the disk, never changes after, and leaves by one rename.
A process killed at any moment leaves whole checkpoints and, under a temporary name, what the next `save` removes.
`manifest.json` has the SHA-256 of every other file, because a disk may lose what it reported as written.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from mult.config import Config, load_config
from mult.errors import UserError
from mult.files import read_file, read_json, remove_folder, write_file, write_folder, write_json, write_link, write_text
from mult.models import MulT
from mult.runs.errors import explain_write_error
from mult.tasks import TASKS

FORMAT_VERSION = 2
"""Changes when the content of `state.pt` does: training does not go on from a checkpoint of another version."""

POINTERS = "checkpoints.json"
"""The file beside the checkpoints that says which is the last and which the best."""

MODEL_FILES = ("model.safetensors", "config.json")
"""The files from which a model is loaded."""

STATE = "state.pt"
"""The loop's state, which only a training that goes on reads, and checks then."""


class Saveable(Protocol):
    """What a checkpoint needs of a model."""

    def save_pretrained(self, save_directory: Path) -> Any: ...


class Checkpoints:
    """The checkpoints in `folder`, a folder in that of the run: the `keep` newest and the best.

    Only the process that has the run's lock saves, recovers and marks.
    """

    def __init__(self, folder: Path, config_yaml: str, keep: int) -> None:
        self.folder, self.config_yaml, self.keep = folder, config_yaml, keep

    def steps(self) -> list[int]:
        """The steps there are checkpoints of, damaged ones too, ascending."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdigit())

    def save(self, step: int, model: Saveable, state: Mapping[str, Any], constants: Mapping[str, Any]) -> None:
        """Write <step>/, point `last` at it, remove what need not be kept; <step>/ may be there if `last` is older.

        state: tensors and plain values only, so that `weights_only=True` can read it. Raises UserError where the disk does
        not take the checkpoint or the run's folder is gone. Whatever is raised, all older checkpoints stay as they were.
        """
        assert _is_plain(state), "weights_only=True could not read this state"

        def fill(folder: Path) -> None:
            model.save_pretrained(folder)
            write_text(folder / "config.yaml", self.config_yaml)
            write_json(folder / "trivial.json", constants)
            write_file(folder / STATE, lambda file: torch.save(dict(state), file))
            checksums = {file.name: compute_checksum(file) for file in sorted(folder.iterdir())}
            write_json(folder / "manifest.json", {"format_version": FORMAT_VERSION, "step": step, "sha256": checksums})

        path = self.folder / str(step)
        try:
            self.folder.mkdir(exist_ok=True)
            write_folder(path, fill)
            self._point(last=step)
        except OSError as error:
            last = _read_pointers(self.folder).get("last")
            remaining = "there is none yet" if last is None else f"checkpoint {last} stands"
            room = f"room for {self.keep + 2} checkpoints"
            raise explain_write_error(error, path, self.folder.parent, room, remaining) from error
        self._prune(step)

    def mark_best(self, step: int | None) -> None:
        """Point `best` at a checkpoint, or at none; the one that was best before is kept no longer for that."""
        self._point(best=step)
        if step is not None:
            self._prune(step)

    def recover(self) -> int | None:
        """The step of the newest whole checkpoint, with `last` pointing at it; None where there is none.

        A damaged one is passed over, with a message; training will write it again. Raises UserError where all are damaged,
        and at one of another format version.
        """
        damaged: list[str] = []
        for step in reversed(self.steps()):
            fault = _find_fault(self.folder / str(step))
            if fault is None:
                for other in damaged:
                    tqdm.write(f"{other}; using checkpoint {step} instead", file=sys.stderr)
                best = _read_pointers(self.folder).get("best")
                is_there = best is not None and best <= step and (self.folder / str(best)).is_dir()
                self._point(last=step, best=best if is_there else None)
                return step
            damaged.append(f"{self.folder / str(step)}: damaged ({fault})")
        if damaged:
            raise UserError(f"{'; '.join(damaged)}; expected at least one whole checkpoint; start another run.name")
        return None

    def load(self, step: int) -> tuple[Path, dict[str, Any]]:
        """The folder and the state of a checkpoint that `recover` returned. Raises UserError where the state is damaged."""
        folder = self.folder / str(step)
        state: dict[str, Any] = read_file(
            folder / STATE,
            lambda file: torch.load(file, map_location="cpu", weights_only=True),
            "the state of a training",
            f"delete {folder}: training goes on from the checkpoint before",
        )
        return folder, state

    def _prune(self, newest: int) -> None:
        """Remove all but the best and the `keep` newest up to `newest`: a later one is damaged, and was passed over."""
        kept = {*[step for step in self.steps() if step <= newest][-self.keep :], _read_pointers(self.folder).get("best")}
        for step in self.steps():
            if step not in kept:
                remove_folder(self.folder / str(step))
        for path in self.folder.glob(".*.tmp"):  # left by a killed process, since this one has the run's lock
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _point(self, **steps: int | None) -> None:
        """Change what `last` or `best` is; None: there is none."""
        pointers = {name: step for name, step in (_read_pointers(self.folder) | steps).items() if step is not None}
        write_json(self.folder / POINTERS, pointers)
        for name in ("last", "best"):
            link = self.folder / name
            if not link.is_symlink():
                remove_folder(link)  # what `cp -rL` and the like make of a link
            with suppress(OSError, NotImplementedError):  # a disk or a system without links
                if name in pointers:
                    write_link(link, str(pointers[name]))
                else:
                    link.unlink(missing_ok=True)


def find_checkpoint(path: str | Path) -> Path:
    """A checkpoint's folder: `path` itself, or the best checkpoint of the run at `path` (its last, if none is best).

    Raises UserError where there is neither.
    """
    path = Path(path)
    of_run, of_name = _read_pointers(path / "checkpoints"), _read_pointers(path.parent)
    steps = [path / "checkpoints" / str(of_run[name]) for name in ("best", "last") if name in of_run]
    if path.name in of_name:
        steps.insert(0, path.with_name(str(of_name[path.name])))
    for folder in (*steps, path):
        if (folder / "model.safetensors").is_file():
            return folder.resolve()
    if path.is_dir():
        reason = "no checkpoint was written there yet"
    else:
        reason = "it is a file" if path.exists() else "there is no such folder"
    raise UserError(
        f"checkpoint: got {path}; expected a run's folder or a checkpoint's (model.safetensors, config.json, config.yaml); "
        f"{reason}"
    )


def stands_for_run(checkpoint: Path) -> bool:
    """Whether a checkpoint is the one that `find_checkpoint` gives for its run's folder, as the run itself chose it."""
    with suppress(UserError):
        return find_checkpoint(checkpoint.parents[1]) == checkpoint.resolve()
    return False


def last_step(run: Path) -> int:
    """The step of a run's newest checkpoint, 0 without one."""
    return _read_pointers(run / "checkpoints").get("last", 0)


def _read_pointers(folder: Path) -> dict[str, int]:
    """{"last": step, "best": step}, as far as there are such, of a folder of checkpoints.

    Runs of the first version have links alone, or folders that were links before they were copied: their manifests tell.
    """
    with suppress(UserError):
        pointers = read_json(folder / POINTERS)
        return {name: step for name, step in pointers.items() if type(step) is int}
    pointers = {}
    for name in ("last", "best"):
        with suppress(UserError, KeyError):
            pointers[name] = read_json(folder / name / "manifest.json")["step"]
    return pointers


def load_checkpoint(path: str | Path) -> tuple[MulT, Config]:
    """The model, in eval mode, and the config it was trained with, of a checkpoint or of a run's best one.

    Raises UserError where there is none, or one that is damaged.
    """
    folder = find_checkpoint(path)
    check_files(folder)
    model = MulT.from_pretrained(folder)
    for task in model.tasks:
        if task not in TASKS:
            raise UserError(f"{folder}: got a model of task {task!r}; expected tasks among {', '.join(TASKS)}")
    return model, load_config(folder / "config.yaml")


def check_files(folder: Path) -> None:
    """Raise UserError where a file of a checkpoint, other than STATE, differs from what was written.

    Of a folder without a manifest, such as `save_pretrained` writes, it cannot be told.
    """
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return
    checksums = read_json(manifest).get("sha256")
    if not isinstance(checksums, dict) or not checksums.keys() >= {*MODEL_FILES, "config.yaml"}:
        raise UserError(
            f"{manifest}: got no checksums of the model and its config; expected what training wrote; it is damaged: take "
            "another checkpoint of the run"
        )
    for name, expected in checksums.items():
        if name != STATE and (fault := _find_difference(folder / name, expected)):
            raise UserError(
                f"{folder / name}: {fault}; expected the file that training saved; it is damaged or was replaced: take another "
                "checkpoint of the run"
            )


def _find_difference(path: Path, checksum: str) -> str | None:
    """How a file differs from the one with that checksum, in words, or None."""
    try:
        return None if compute_checksum(path) == checksum else "got another checksum than when it was written"
    except FileNotFoundError:
        return "got no such file"
    except OSError as error:
        return f"got {error.strerror or type(error).__name__!r}"


def _find_fault(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, in words, or None. Raises UserError for another format version."""
    try:
        manifest = read_json(folder / "manifest.json")
        version, checksums = manifest["format_version"], manifest["sha256"].items()
    except (UserError, KeyError, AttributeError):
        return "manifest.json cannot be read"
    if version != FORMAT_VERSION:
        raise UserError(
            f"{folder}: got a checkpoint of format version {version}; expected {FORMAT_VERSION}; go on with the version of "
            f"mult that wrote it, or start another run with run.init={folder}"
        )
    faults = (f"{name}: {fault}" for name, expected in checksums if (fault := _find_difference(folder / name, expected)))
    return next(faults, None)


def _is_plain(value: Any) -> bool:
    """Whether a state is made of tensors and plain values, not of subclasses of these, which only pickle could restore."""
    if isinstance(value, Mapping):
        return all(_is_plain(name) and _is_plain(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, torch.Tensor)


def compute_checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()
