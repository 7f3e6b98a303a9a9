"""Checkpoints: whole or not there, checked before use, the newest and the best kept."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as safetensors

from mult.errors import UserError
from mult.files import read_json, write_file, write_text
from mult.runs.checkpoint import Checkpoints, find_checkpoint, last_step

YAML = "run: {name: a}\n"


class Weights:
    """The least that can be saved as a model: one tensor, of so many values."""

    def __init__(self, value: float, size: int = 2) -> None:
        self.value, self.size = value, size

    def save_pretrained(self, save_directory: Path) -> None:
        content = safetensors({"w": torch.full((self.size,), float(self.value))})
        write_file(save_directory / "model.safetensors", lambda file: file.write(content))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", YAML, keep=2)


def save(checkpoints: Checkpoints, step: int, state: Mapping[str, Any] | None = None) -> Path:
    checkpoints.save(step, Weights(step), {"step": step, **(state or {})}, {"depth": {"rmse": [1.5]}})
    return checkpoints.folder / str(step)


def snapshot(folder: Path) -> dict[str, Any]:
    """Every file's bytes and every link's target."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in folder.rglob("*")
    }


def links(checkpoints: Checkpoints) -> dict[str, str]:
    return {path.name: os.readlink(path) for path in checkpoints.folder.iterdir() if path.is_symlink()}


def test_a_checkpoint_holds_all_and_can_be_read_without_running_code(checkpoints: Checkpoints) -> None:
    moments = torch.arange(6.0).reshape(2, 3)
    folder = save(checkpoints, 5, {"optimizer": {"state": {0: {"exp_avg": moments}}}})
    assert load_file(folder / "model.safetensors")["w"].tolist() == [5.0, 5.0]
    assert (folder / "config.yaml").read_text() == YAML
    assert read_json(folder / "trivial.json") == {"depth": {"rmse": [1.5]}}
    assert checkpoints.recover() == 5
    where, state = checkpoints.load(5)
    assert where == folder
    assert state["step"] == 5
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], moments)


def test_the_newest_and_the_best_are_kept(checkpoints: Checkpoints) -> None:
    assert checkpoints.recover() is None
    seen = []
    for step, best in ((2, True), (4, False), (6, False), (10, True), (12, False), (14, False)):
        save(checkpoints, step)
        if best:
            checkpoints.mark_best(step)
        seen.append((links(checkpoints), checkpoints.steps()))
    assert seen == [
        ({"last": "2", "best": "2"}, [2]),
        ({"last": "4", "best": "2"}, [2, 4]),
        ({"last": "6", "best": "2"}, [2, 4, 6]),
        ({"last": "10", "best": "10"}, [6, 10]),
        ({"last": "12", "best": "10"}, [10, 12]),
        ({"last": "14", "best": "10"}, [10, 12, 14]),
    ]
    run = checkpoints.folder.parent.rename(checkpoints.folder.parent.with_name("moved"))
    assert find_checkpoint(run) == (run / "checkpoints" / "10").resolve()  # links are relative


# --- Where the disk fails ---


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: what a full disk looks like to a writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class LargeConfig(Weights):
    """A model whose weights find room and whose config does not."""

    def save_pretrained(self, save_directory: Path) -> None:
        super().save_pretrained(save_directory)
        write_text(save_directory / "config.json", "x" * 10_000)


@pytest.mark.parametrize(
    ("model", "state"),
    [(Weights(6, size=4000), {}), (LargeConfig(6), {}), (Weights(6), {"moments": torch.zeros(4000)})],
    ids=["weights", "config", "state"],
)
def test_a_full_disk_leaves_the_last_good_checkpoint(checkpoints: Checkpoints, model: Weights, state: dict[str, Any]) -> None:
    save(checkpoints, 2)
    checkpoints.mark_best(2)
    save(checkpoints, 4)
    before = snapshot(checkpoints.folder)
    with (
        largest_file(8_000),
        pytest.raises(
            UserError, match=r"checkpoints/6: cannot be written \(.*; checkpoint 4 stands; make room and go on with --re"
        ),
    ):
        checkpoints.save(6, model, {"step": 6, **state}, {})
    assert snapshot(checkpoints.folder) == before
    assert checkpoints.recover() == 4
    save(checkpoints, 6)
    assert checkpoints.recover() == 6


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("DataLoader worker (pid 691) is killed by signal: Killed. "),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ValueError("cannot reshape array of size 3 into shape (2, 2)"),
    ],
)
@pytest.mark.parametrize("where", ["model", "state"])
def test_another_fault_is_not_taken_for_a_full_disk(
    checkpoints: Checkpoints, fault: Exception, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise fault

    save(checkpoints, 2)
    before = snapshot(checkpoints.folder)
    model = Weights(4)
    monkeypatch.setattr(*((model, "save_pretrained", fail) if where == "model" else (torch, "save", fail)))
    with pytest.raises(type(fault)) as raised:
        checkpoints.save(4, model, {"step": 4}, {})
    assert raised.value is fault
    assert snapshot(checkpoints.folder) == before


def test_a_disk_that_refuses_for_another_reason_is_not_called_full(checkpoints: Checkpoints) -> None:
    class Unreadable(Weights):
        def save_pretrained(self, save_directory: Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(save_directory))

    save(checkpoints, 2)
    message = r"/4: cannot be written \(Input/output error\); expected a disk that can be written to; checkpoint 2 stands; see"
    with pytest.raises(UserError, match=message):
        checkpoints.save(4, Unreadable(4), {"step": 4}, {})


def test_a_run_folder_that_was_removed_is_said_to_be_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    checkpoints = Checkpoints(run / "checkpoints", YAML, keep=2)
    save(checkpoints, 2)
    shutil.rmtree(run)
    with pytest.raises(UserError, match=r"run: got no folder, since it was removed or moved while the run trained; .*; put it"):
        save(checkpoints, 4)
    assert not run.exists()


def test_a_full_disk_at_the_first_checkpoint(checkpoints: Checkpoints) -> None:
    with largest_file(8_000), pytest.raises(UserError, match=r"cannot be written .*; there is none yet; make room"):
        checkpoints.save(6, Weights(6, size=4000), {"step": 6}, {})
    assert checkpoints.recover() is None
    assert list(checkpoints.folder.iterdir()) == []


def test_a_state_that_could_not_be_read_is_not_written(checkpoints: Checkpoints) -> None:
    class Version(str):
        """Looks like a string; would need pickle."""

    save(checkpoints, 2)
    before = snapshot(checkpoints.folder)
    for bad in (Version("2.6"), torch.nn.Parameter(torch.zeros(2)), lambda: 0, {"deep": [{1, 2}]}):
        with pytest.raises(AssertionError, match="weights_only"):
            save(checkpoints, 4, {"bad": bad})
    assert snapshot(checkpoints.folder) == before


def test_what_a_killed_process_left_is_removed_by_the_next_save(checkpoints: Checkpoints) -> None:
    save(checkpoints, 2)
    for left in (".4.12345.tmp", ".1.old.tmp"):
        (checkpoints.folder / left).mkdir()
        (checkpoints.folder / left / "model.safetensors").write_bytes(b"half")
    (checkpoints.folder / ".last.12345.tmp").symlink_to("4")
    (checkpoints.folder / ".mult-0-12345-0.tmp").write_text("half a pointer")
    assert checkpoints.recover() == 2
    save(checkpoints, 4)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["2", "4", "checkpoints.json", "last"]


def test_the_newest_is_used_though_its_process_was_killed_before_the_link(checkpoints: Checkpoints) -> None:
    save(checkpoints, 2)
    save(checkpoints, 4)
    (checkpoints.folder / "last").unlink()
    (checkpoints.folder / "last").symlink_to("2")
    assert checkpoints.recover() == 4
    assert links(checkpoints) == {"last": "4"}


# --- Without links ---


def copy_links_as_folders(run: Path, out: Path) -> None:
    """As `cp -rL`, zip and `rsync -L` do."""
    shutil.copytree(run, out)


def leave_links_out(run: Path, out: Path) -> None:
    """As S3 and a disk without links do."""
    shutil.copytree(run, out, ignore=lambda folder, names: [name for name in names if (Path(folder) / name).is_symlink()])


def copy_from_first_version(run: Path, out: Path) -> None:
    shutil.copytree(run, out, symlinks=True)
    (out / "checkpoints" / "checkpoints.json").unlink()


def copy_links_of_first_version_as_folders(run: Path, out: Path) -> None:
    shutil.copytree(run, out)
    (out / "checkpoints" / "checkpoints.json").unlink()


@pytest.mark.parametrize(
    "copy", [copy_links_as_folders, leave_links_out, copy_from_first_version, copy_links_of_first_version_as_folders]
)
def test_a_copy_without_links_is_read_and_gone_on_with(
    tmp_path: Path, copy: Callable[[Path, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    first = Checkpoints(tmp_path / "run" / "checkpoints", YAML, keep=2)
    first.folder.parent.mkdir()
    for step in (2, 4, 6, 8):
        save(first, step)
        if step == 2:
            first.mark_best(2)
    run = tmp_path / "copy"
    copy(first.folder.parent, run)
    assert last_step(run) == 8
    assert load_file(find_checkpoint(run) / "model.safetensors")["w"].tolist() == [2.0, 2.0]
    again = Checkpoints(run / "checkpoints", YAML, keep=2)
    assert again.recover() == 8
    save(again, 10)
    assert again.steps() == [2, 8, 10]
    assert last_step(run) == 10
    again.mark_best(10)
    assert find_checkpoint(run).name == "10"
    for name in ("last", "best"):
        assert find_checkpoint(run / "checkpoints" / name) == (run / "checkpoints" / "10").resolve()
    assert links(again) == {"last": "10", "best": "10"}
    assert capsys.readouterr().err == ""


def test_a_disk_without_links_holds_checkpoints(tmp_path: Path) -> None:
    """In a process of its own, in which the system refuses links."""
    folder = Checkpoints(tmp_path / "checkpoints", YAML, keep=1)
    code = """
import errno, os, sys
from pathlib import Path

def refuse(event, arguments):
    if event == "os.symlink":
        raise OSError(errno.EPERM, "Operation not permitted")

sys.addaudithook(refuse)
from tests.runs.test_checkpoint import Checkpoints, YAML, save
checkpoints = Checkpoints(Path(sys.argv[1]), YAML, keep=1)
save(checkpoints, 2)
checkpoints.mark_best(2)
save(checkpoints, 4)
save(checkpoints, 6)
"""
    root = Path(__file__).resolve().parents[2]
    words = [sys.executable, "-c", code, str(folder.folder)]
    ended = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in folder.folder.iterdir()) == ["2", "6", "checkpoints.json"]
    assert find_checkpoint(tmp_path).name == "2"
    assert find_checkpoint(folder.folder / "last").name == "6"


# --- What was damaged ---


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bit of the weights": (
        lambda folder: flip_a_bit(folder / "model.safetensors"),
        "model.safetensors: got another checksum",
    ),
    "a bit of the state": (lambda folder: flip_a_bit(folder / "state.pt"), "state.pt: got another checksum"),
    "half a state": (lambda folder: os.truncate(folder / "state.pt", 300), "state.pt: got another checksum"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: got no such file"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json cannot be read"),
    "half a manifest": (lambda folder: os.truncate(folder / "manifest.json", 30), "manifest.json cannot be read"),
    "an empty folder": (empty, "manifest.json cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(checkpoints: Checkpoints, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    inflict, reason = DAMAGES[damage]
    for step in (2, 4, 6):
        save(checkpoints, step)
    checkpoints.mark_best(6)
    inflict(checkpoints.folder / "6")
    assert checkpoints.recover() == 4
    said = capsys.readouterr().err
    assert f"{checkpoints.folder}/6: damaged ({reason}" in said
    assert said.rstrip().endswith("; using checkpoint 4 instead")
    assert links(checkpoints) == {"last": "4"}  # the best was the damaged one
    assert checkpoints.load(4)[1]["step"] == 4
    save(checkpoints, 5)
    assert checkpoints.steps() == [4, 5]  # the damaged one does not count as one of the newest
    save(checkpoints, 6)
    assert checkpoints.recover() == 6
    assert capsys.readouterr().err == ""


def test_the_best_is_kept_where_a_later_one_is_damaged(checkpoints: Checkpoints) -> None:
    save(checkpoints, 2)
    checkpoints.mark_best(2)
    save(checkpoints, 4)
    flip_a_bit(checkpoints.folder / "4" / "state.pt")
    assert checkpoints.recover() == 2
    assert links(checkpoints) == {"last": "2", "best": "2"}
    save(checkpoints, 4)  # over the damaged one
    assert checkpoints.recover() == 4


def test_where_all_are_damaged_each_is_named(checkpoints: Checkpoints) -> None:
    for step in (2, 4):
        flip_a_bit(save(checkpoints, step) / "state.pt")
    with pytest.raises(
        ValueError,
        match=r"4: damaged \(state\.pt: .*2: damaged \(state\.pt: .*; expected at least one whole checkpoint; start an",
    ):
        checkpoints.recover()


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda _: b"", lambda content: content[::-1]])
def test_a_state_that_is_damaged_after_it_was_checked_is_one_message(
    checkpoints: Checkpoints, damage: Callable[[bytes], bytes]
) -> None:
    folder = save(checkpoints, 2, {"moments": torch.zeros(400)})
    assert checkpoints.recover() == 2
    (folder / "state.pt").write_bytes(damage((folder / "state.pt").read_bytes()))
    with pytest.raises(UserError, match=r"2/state\.pt: cannot be read as the state of a training .*; delete .*/2: training"):
        checkpoints.load(2)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"format_version": 2, "sha256": 3}', '{"format_version": 2, "sha256": {"": "0"}}', "[" * 100_000]
)
def test_any_damage_of_a_manifest_is_a_damaged_checkpoint(checkpoints: Checkpoints, content: str) -> None:
    save(checkpoints, 2)
    (save(checkpoints, 4) / "manifest.json").write_text(content)
    assert checkpoints.recover() == 2


def test_another_format_version_is_not_taken_for_damage(checkpoints: Checkpoints) -> None:
    save(checkpoints, 2)
    manifest = save(checkpoints, 4) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 7}))
    with pytest.raises(UserError, match=r"4: got a checkpoint of format version 7; expected 2; go on with .*run\.init="):
        checkpoints.recover()
