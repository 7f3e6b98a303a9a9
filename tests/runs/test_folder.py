"""A run's folder: nothing half-written, nothing overwritten, and resumed only as the same run."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as safetensors

import mult
from mult.config import Config, load_config
from mult.errors import UserError
from mult.files import read_json, write_file
from mult.runs.checkpoint import Checkpoints, find_checkpoint
from mult.runs.folder import Run, read_log
from mult.runs.provenance import collect_provenance

ROOT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, dict[str, Any]] = {
    "run": {"name": "a"},
    "data": {"dataset": "taskonomy", "root": "data", "image_size": 64, "batch_size": 2},
    "tasks": {"depth_zbuffer": 1},
    "optim": {"lr": 1e-3, "steps": 8},
}
Snapshot = dict[str, Any]


class Weights:
    """The least that can be saved as a model: one tensor."""

    def save_pretrained(self, save_directory: Path) -> None:
        write_file(save_directory / "model.safetensors", lambda file: file.write(safetensors({"w": torch.tensor([2.5])})))


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    """Changes, section by section, to CONFIG in the test's own folder."""

    def call(**changes: dict[str, Any]) -> Config:
        tree = {name: {**section, **changes.get(name, {})} for name, section in (CONFIG | {"eval": {}}).items()}
        tree["run"] = {"output": str(tmp_path / "out"), **tree["run"]}
        return Config.from_dict(tree)

    return call


Configs = Callable[..., Config]


@pytest.fixture
def run(config: Configs) -> Run:
    return Run.open(config(run={"seed": 3}), resume=False)


@pytest.fixture
def saved(run: Run) -> Run:
    """A run with a checkpoint, of step 2."""
    save(run, 2)
    return run


def save(run: Run, step: int) -> None:
    Checkpoints(run.folder / "checkpoints", run.config_yaml, keep=2).save(step, Weights(), {"step": step}, {})


def snapshot(folder: Path) -> Snapshot:
    """Every file's bytes and every link's target; not the lock, which says who looked last."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def test_a_new_run_says_what_made_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_config(run.folder / "config.yaml") == run.config
    made = json.loads((run.folder / "provenance.json").read_text())
    assert made["seed"] == 3
    assert torch.__version__.startswith(made["versions"]["torch"])
    assert set(made["versions"]) == {"python", "mult-dense", "torch", "timm", "numpy"}
    assert made["threads"] == torch.get_num_threads()
    assert made["hardware"]["cores"] == os.cpu_count()
    assert made["hardware"]["cpu"]
    assert "commit" in made
    assert (made["processes"], made["precision"], made["deterministic"]) == (1, "fp32", True)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr("sys.argv", ["scripts/train.py", "--config", "x.yaml"])
    later = collect_provenance(7, "bf16", deterministic=False)
    assert (later["seed"], later["processes"], later["deterministic"]) == (7, 4, False)
    assert later["command"] == ["scripts/train.py", "--config", "x.yaml"]


def test_the_commit_is_that_of_the_repository_that_tracks_the_package(tmp_path: Path) -> None:
    """An environment may lie in another project's repository, whose commit says nothing of this code."""

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    def commit_of_copy() -> str:
        code = "from mult.runs.provenance import collect_provenance as c; print(c(0, 'fp32', True)['commit'])"
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    shutil.copytree(Path(mult.__file__).parent, tmp_path / "site" / "mult", ignore=shutil.ignore_patterns("__pycache__"))
    git("init", "-q")
    (tmp_path / ".gitignore").write_text("/site/\n")
    git("add", ".gitignore")
    git("commit", "-qm", "other")
    assert commit_of_copy() == "None"
    git("add", "-f", "site")
    git("commit", "-qm", "own")
    assert commit_of_copy() == git("rev-parse", "--short=12", "HEAD")


def test_the_log_is_cut_after_a_step_and_a_torn_line_is_dropped(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.cut_log(0) == {}  # no log yet
    for step in (1, 2, 3, 4):
        run.log(step, "train", {"depth/loss": step / 10})
        if step in (2, 4):
            run.log(step, "val", {"depth/rmse": 0.5, "improvement": {2: -3.5, 4: None}[step]})
            run.log(step, "test", {"depth/rmse": 0.5, "improvement": 99.0})  # of another split than the config's
    log = run.folder / "metrics.jsonl"
    lines = log.read_text().splitlines()
    assert json.loads(lines[1]) == {"step": 2, "split": "train", "depth/loss": 0.2}
    assert json.loads(lines[2]) == {"step": 2, "split": "val", "depth/rmse": 0.5, "improvement": -3.5}
    for torn in ('{"step": 5, "spl', "\0\0\0"):
        with log.open("a") as file:
            file.write(torn)
        assert run.cut_log(4) == {2: -3.5, 4: None}
        assert log.read_text().splitlines() == lines
    assert run.cut_log(3) == {2: -3.5}
    assert log.read_text().splitlines() == lines[:5]
    assert capsys.readouterr().err == ""
    run.cut_log(7)
    assert "metrics.jsonl: ends at step 3, the checkpoint is of step 7; the lines between are lost" in capsys.readouterr().err
    run.cut_log(0)
    assert log.read_text() == ""


@pytest.mark.parametrize(
    "line",
    [
        "}{",
        "[1, 2]",
        "[" * 100_000,
        '{"step": "x", "split": "train"}',
        '{"step": 3}',
        '{"step": 3, "split": null}',
        '{"step": 3, "split": "val", "improvement": "much"}',
    ],
    ids=lambda line: line[:20],
)
def test_a_log_that_no_crash_explains_is_named(run: Run, line: str) -> None:
    run.log(1, "train", {})
    before = (run.folder / "metrics.jsonl").read_text() + line + "\n"
    (run.folder / "metrics.jsonl").write_text(before)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: got b'.*; expected an object with step and split; remove"):
        run.cut_log(1)
    assert (run.folder / "metrics.jsonl").read_text() == before


def test_a_full_disk_is_named_where_the_log_finds_no_room(run: Run) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    run.log(1, "train", {"loss": 0.5})
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, before[1]))
    try:
        with pytest.raises(
            UserError, match=r"metrics\.jsonl: cannot be written \(File too large\); .*make room and go on with -"
        ):
            run.log(2, "train", {"loss": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run.cut_log(1)  # what was written of the line goes
    run.log(2, "train", {"loss": 0.25})
    read = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in read] == [1, 2]


def test_a_folder_that_was_removed_is_said_to_be_removed(run: Run) -> None:
    run.log(1, "train", {})
    shutil.rmtree(run.folder)
    for write in (lambda: run.log(2, "train", {}), run.sync_log):
        with pytest.raises(UserError, match=r"out/a: got no folder, since it was removed or moved while the run trained;"):
            write()
    assert not run.folder.exists()


def test_a_log_is_read_up_to_a_torn_line(run: Run) -> None:
    run.log(1, "train", {"loss": 0.5})
    run.log(1, "val", {"improvement": None})
    with open(run.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 2, "sp')
    expected = [{"step": 1, "split": "train", "loss": 0.5}, {"step": 1, "split": "val", "improvement": None}]
    assert read_log(run.folder / "metrics.jsonl") == expected


def test_a_folder_that_holds_something_is_refused(saved: Run, config: Configs, tmp_path: Path) -> None:
    before = snapshot(saved.folder)
    with pytest.raises(UserError, match=r"holds a run already; expected a new folder; .*--resume"):
        Run.open(saved.config, resume=False)
    assert snapshot(saved.folder) == before
    thesis = config(run={"output": str(tmp_path), "name": "thesis"})
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(UserError, match="holds files already; expected a new folder"):
        Run.open(thesis, resume=False)
    assert sorted(path.name for path in (tmp_path / "thesis").iterdir()) == ["chapter.tex"]
    with pytest.raises(UserError, match=r"expected a .*folder; "):
        Run.open(config(run={"output": str(tmp_path), "name": "thesis/chapter.tex"}), resume=False)
    (tmp_path / "empty").mkdir()
    empty = Run.open(config(run={"output": str(tmp_path), "name": "empty"}), resume=False)
    assert (empty.folder / "config.yaml").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_what_ended_before_its_first_checkpoint_starts_over(
    run: Run, config: Configs, resume: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """With any config: nothing of the run is worth keeping."""
    run.log(1, "train", {"depth/loss": 0.5})
    (run.folder / "trivial.json").write_text("{}")
    (run.folder / "checkpoints" / ".1.99.tmp").mkdir(parents=True)
    capsys.readouterr()
    again = Run.open(config(run={"seed": 3}, optim={"lr": 0.5}), resume)
    assert "the run in it ended before its first checkpoint; starting it over" in capsys.readouterr().err
    assert not (again.folder / "metrics.jsonl").exists()
    assert load_config(again.folder / "config.yaml").optim.lr == 0.5
    assert "resumed" not in read_json(again.folder / "provenance.json")


@pytest.mark.parametrize("kept", ["eval", "gallery.png", "notes.txt"])
def test_results_without_checkpoints_are_not_started_over(run: Run, kept: str) -> None:
    """Who removed the checkpoints to make room still wants the results."""
    (run.folder / kept).mkdir()
    with pytest.raises(UserError, match="holds a run already"):
        Run.open(run.config, resume=False)
    assert (run.folder / kept).exists()


def test_resuming_needs_the_same_run(saved: Run, config: Configs) -> None:
    with pytest.raises(UserError, match=r"got .*nothing with --resume; expected a run to go on with; .*without --resume"):
        Run.open(config(run={"name": "nothing"}), resume=True)
    assert not saved.folder.with_name("nothing").exists()
    before = snapshot(saved.folder)
    changed = config(run={"seed": 3}, optim={"lr": 2e-3, "steps": 9}, tasks={"depth_zbuffer": 2, "normal": 1})
    message = (
        r"config differs from .*config\.yaml in tasks\.depth_zbuffer\.weight: 1\.0 -> 2\.0; optim\.lr: 0\.001 -> 0\.002; "
        r"tasks\.normal\.weight: nothing -> 1\.0; .*expected the same but for run\.name, .*eval; undo it or start another"
    )
    with pytest.raises(UserError, match=message) as caught:
        Run.open(changed, resume=True)
    assert "steps:" not in str(caught.value)
    assert snapshot(saved.folder) == before


def test_what_may_change_is_said(saved: Run, config: Configs, capsys: pytest.CaptureFixture[str]) -> None:
    Run.open(saved.config, resume=True)
    assert capsys.readouterr().err == ""
    longer = config(run={"seed": 3, "keep": 5}, optim={"steps": 90}, eval={"every": 3}, data={"workers": 7})
    Run.open(longer, resume=True)
    assert capsys.readouterr().err.splitlines() == [
        "--resume: run.keep changes, 2 -> 5",
        "--resume: data.workers changes, 2 -> 7",
        "--resume: optim.steps changes, 8 -> 90",
        "--resume: eval.every changes, 0 -> 3",
    ]
    assert load_config(saved.folder / "config.yaml") == longer
    made = read_json(saved.folder / "provenance.json")
    assert len(made["resumed"]) == 2  # with which code and on which machine it went on
    assert made["resumed"][1]["versions"] == made["versions"]


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "\xff"], ids=["empty", "half", "list", "nested", "bytes"])
def test_a_damaged_provenance_is_one_message_and_may_be_deleted(saved: Run, content: str) -> None:
    path = saved.folder / "provenance.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"provenance\.json: cannot be read as JSON .*; delete it: the run goes on without"):
        Run.open(saved.config, resume=True)
    path.unlink()
    Run.open(saved.config, resume=True)
    assert [each["seed"] for each in read_json(path)["resumed"]] == [3]


HOLD = "import sys; from mult.config import load_config; from mult.runs.folder import Run; "
HOLD += "run = Run.open(load_config(sys.argv[1], ['run.name=b']), resume=True); print('open', flush=True); sys.stdin.read()"


def test_a_second_look_at_a_run_keeps_its_lock(saved: Run) -> None:
    run = Run.open(saved.config, resume=True)
    run.check(resume=True)
    Run.open(saved.config, resume=True)
    command = [sys.executable, "-c", HOLD.replace("'run.name=b'", ""), str(saved.folder / "config.yaml")]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 1
    assert f"is in use by process {os.getpid()} on " in ended.stderr


def test_a_folder_in_use_is_refused_until_the_process_dies(saved: Run) -> None:
    """The process is killed: it has no time to tidy up. What it started lives on, as a loader's workers do for seconds."""
    code = "import os\nchild = os.fork()\nif child == 0: os.read(0, 1); os._exit(0)\n"
    hold = HOLD.replace("print('open'", f"exec({code!r}); print('open', child")
    config = load_config(saved.folder / "config.yaml", ["run.name=b"])
    other = shutil.copytree(saved.folder, saved.folder.with_name("b"), symlinks=True)
    command = [sys.executable, "-c", hold, str(saved.folder / "config.yaml")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[1])
        before = snapshot(other)
        for resume in (True, False):
            with pytest.raises(
                ValueError, match=rf"b is in use by process {process.pid} on .*; expected one process at a time"
            ):
                Run.open(config, resume)
        assert snapshot(other) == before
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        Run.open(config, resume=True)


def test_checkpoints_are_found_from_the_run_or_their_own_folder(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoint: got .*; expected a run's folder .*no checkpoint was written"):
        find_checkpoint(run.folder)
    with pytest.raises(UserError, match=r"checkpoint: got .*missing; expected .*there is no such folder"):
        find_checkpoint(tmp_path / "missing")
    save(run, 2)
    assert find_checkpoint(str(run.folder)).name == "2"  # none was best: the last
    save(run, 4)
    Checkpoints(run.folder / "checkpoints", run.config_yaml, keep=2).mark_best(4)
    save(run, 6)
    assert find_checkpoint(run.folder).name == "4"
    assert find_checkpoint(run.folder / "checkpoints" / "last").name == "6"
    assert find_checkpoint(run.folder / "checkpoints" / "6").name == "6"
