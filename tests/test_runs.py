"""A run's folder: nothing half-written, nothing overwritten, and found again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mult.runs import Run, find_checkpoint, provenance, read_json, write_json, write_text

YAML = "run:\n  name: a\noptim:\n  lr: 0.001\n  steps: 8\n"


class Weights:
    """The least that can be saved as a model: one tensor."""

    def __init__(self, value: float) -> None:
        self.value = value

    def save_pretrained(self, save_directory: Path) -> None:
        save_file({"w": torch.tensor([self.value, 2.5])}, save_directory / "model.safetensors")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.open(tmp_path / "out" / "a", YAML, seed=3, resume=False)


def save(run: Run, step: int, best: bool, state: Mapping[str, Any] | None = None) -> Path:
    return run.save(step, Weights(step), {"step": step, **(state or {})}, {"depth": {"rmse": [1.5]}}, best)


def snapshot(folder: Path) -> dict[str, Any]:
    """Every file's bytes and every link's target."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in folder.rglob("*")
    }


def test_a_new_run_says_what_made_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (run.folder / "config.yaml").read_text() == YAML
    made = json.loads((run.folder / "provenance.json").read_text())
    assert made["seed"] == 3
    assert torch.__version__.startswith(made["versions"]["torch"])
    assert set(made["versions"]) == {"python", "torch", "timm", "numpy"}
    assert made["threads"] == torch.get_num_threads()
    assert made["hardware"]["cores"] == os.cpu_count()
    assert made["hardware"]["cpu"]
    assert "commit" in made
    assert made["processes"] == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr("sys.argv", ["scripts/train.py", "--config", "x.yaml"])
    later = provenance(7)
    assert (later["seed"], later["processes"], later["command"]) == (7, 4, ["scripts/train.py", "--config", "x.yaml"])


def test_a_checkpoint_holds_all_and_can_be_read_without_running_code(run: Run) -> None:
    moments = torch.arange(6.0).reshape(2, 3)
    folder = save(run, 5, best=True, state={"optimizer": {"state": {0: {"exp_avg": moments}}}})
    assert folder == run.folder / "checkpoints" / "5"
    assert load_file(folder / "model.safetensors")["w"].tolist() == [5.0, 2.5]
    assert (folder / "config.yaml").read_text() == YAML
    assert read_json(folder / "trivial.json") == {"depth": {"rmse": [1.5]}}
    found = run.last_state()
    assert found is not None
    where, state = found
    assert where == folder.resolve()
    assert state["step"] == 5
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], moments)


def test_links_are_relative_and_what_none_points_at_is_removed(run: Run) -> None:
    checkpoints = run.folder / "checkpoints"
    assert run.last_state() is None
    seen = []
    for step, best in ((2, True), (4, False), (6, True), (8, False), (10, False)):
        save(run, step, best)
        names = sorted(path.name for path in checkpoints.iterdir() if not path.is_symlink())
        seen.append((os.readlink(checkpoints / "best"), os.readlink(checkpoints / "last"), names))
    assert seen == [
        ("2", "2", ["2"]),
        ("2", "4", ["2", "4"]),
        ("6", "6", ["6"]),
        ("6", "8", ["6", "8"]),
        ("6", "10", ["10", "6"]),
    ]
    moved = run.folder.rename(run.folder.with_name("moved"))
    assert find_checkpoint(moved) == (moved / "checkpoints" / "6").resolve()


class CannotBeSaved:
    """A disk that is full in the middle of a checkpoint."""

    def save_pretrained(self, save_directory: Path) -> None:
        (save_directory / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")


def test_a_failing_save_leaves_all_as_it_was(run: Run) -> None:
    save(run, 2, best=True)
    save(run, 4, best=False)
    before = snapshot(run.folder)
    with pytest.raises(OSError, match="No space left"):
        run.save(6, CannotBeSaved(), {"step": 6}, {}, best=True)
    assert snapshot(run.folder) == before
    with pytest.raises(Exception, match="pickle"):
        save(run, 6, best=True, state={"cannot": lambda: 0})
    assert snapshot(run.folder) == before
    with pytest.raises(OSError, match="No space left"):  # the step that is there already
        run.save(4, CannotBeSaved(), {"step": 4}, {}, best=True)
    assert snapshot(run.folder) == before


def test_what_a_killed_save_left_is_removed_by_the_next(run: Run) -> None:
    save(run, 2, best=True)
    left = run.folder / "checkpoints" / ".4.12345.tmp"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    save(run, 4, best=False)
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["2", "4", "best", "last"]


def test_a_damaged_state_is_the_users_to_know(run: Run) -> None:
    folder = save(run, 2, best=True)
    whole = (folder / "state.pt").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        (folder / "state.pt").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"state\.pt: cannot be read .*; expected .*; "):
            run.last_state()


def test_the_log_is_cut_after_a_step_and_a_torn_line_is_dropped(run: Run) -> None:
    run.cut_log(0)  # no log yet
    for step in (1, 2, 3, 4):
        run.log(step, "train", {"depth/loss": step / 10})
    run.log(4, "val", {"depth/rmse": 0.5})
    log = run.folder / "metrics.jsonl"
    lines = log.read_text().splitlines()
    assert json.loads(lines[1]) == {"step": 2, "split": "train", "depth/loss": 0.2}
    assert json.loads(lines[4]) == {"step": 4, "split": "val", "depth/rmse": 0.5}
    with log.open("a") as file:
        file.write('{"step": 5, "spl')
    run.cut_log(4)
    assert log.read_text().splitlines() == lines
    run.cut_log(3)
    assert log.read_text().splitlines() == lines[:3]
    run.cut_log(0)
    assert log.read_text() == ""


def test_a_folder_that_holds_something_is_refused(run: Run, tmp_path: Path) -> None:
    before = snapshot(run.folder)
    with pytest.raises(ValueError, match=r"holds a run already; expected a new folder; .*--resume"):
        Run.open(run.folder, YAML, seed=3, resume=False)
    assert snapshot(run.folder) == before
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("x")
    with pytest.raises(ValueError, match="holds files already; expected a new folder"):
        Run.open(other, YAML, seed=3, resume=False)
    assert sorted(path.name for path in other.iterdir()) == ["chapter.tex"]
    with pytest.raises(ValueError, match=r"expected a .*folder; "):
        Run.open(other / "chapter.tex", YAML, seed=3, resume=False)
    empty = tmp_path / "empty"
    empty.mkdir()
    Run.open(empty, YAML, seed=3, resume=False)
    assert (empty / "config.yaml").exists()


def test_resuming_needs_the_same_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got .*nothing with --resume; expected a run to go on with; .*without --resume"):
        Run.open(tmp_path / "nothing", YAML, seed=3, resume=True)
    assert not (tmp_path / "nothing").exists()
    changed = YAML.replace("lr: 0.001", "lr: 0.002")
    with pytest.raises(
        ValueError, match=r"config differs .*lr: 0\.001.*lr: 0\.002.*; expected the same; .*run\.name"
    ) as caught:
        Run.open(run.folder, changed, seed=3, resume=True)
    assert "steps" not in str(caught.value)
    before = snapshot(run.folder)
    Run.open(run.folder, YAML, seed=3, resume=True)
    assert snapshot(run.folder) == before


def test_checkpoints_are_found_from_the_run_or_their_own_folder(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"checkpoint: got .*; expected a run's folder .*no checkpoint was written"):
        find_checkpoint(run.folder)
    with pytest.raises(ValueError, match=r"checkpoint: got .*missing; expected .*there is no such folder"):
        find_checkpoint(tmp_path / "missing")
    save(run, 2, best=False)
    assert find_checkpoint(str(run.folder)).name == "2"  # none was best: the last
    save(run, 4, best=True)
    save(run, 6, best=False)
    assert find_checkpoint(run.folder).name == "4"
    assert find_checkpoint(run.folder / "checkpoints" / "last").name == "6"
    assert find_checkpoint(run.folder / "checkpoints" / "6").name == "6"


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert read_json(path) == {"a": 1}
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match=r"file\.json: cannot be read as JSON .*; expected a file that mult wrote"):
        read_json(path)
    with pytest.raises(ValueError, match=r"none\.json: cannot be read as JSON"):
        read_json(tmp_path / "none.json")
