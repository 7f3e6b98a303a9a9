"""A suite of two very small networks: what it runs, what it leaves alone, what of it fails, and its tables."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mult.errors import UserError
from mult.suite import read_suite, run_suite
from mult.suite.file import check_members

ROOT = Path(__file__).resolve().parents[1]
SINGLE = ["tasks={normal: 1}", "model.reference=null"]


@pytest.fixture
def write(tmp_path: Path, config_file: Path) -> Callable[..., Path]:
    def call(members: dict[str, list[str]], **more: Any) -> Path:
        path = tmp_path / "few.yaml"
        path.write_text(
            yaml.safe_dump({"base": os.path.relpath(config_file, tmp_path), "members": members, **more}, sort_keys=False)
        )
        return path

    return call


def test_a_suite_trains_evaluates_compares_and_goes_on(write: Callable[..., Path], calls: list[str], tmp_path: Path) -> None:
    members = {"both": ["tasks={normal: 1, depth_zbuffer: 1}"], "alone": SINGLE, "tuned": ["run.init={alone}", *SINGLE]}
    plans = {"seen": {"split": "val", "blur": "0,2"}, "held": {"split": "val", "members": ["both", "alone"]}}
    path = write({**members, "broken": ["data.root=nowhere"]}, seeds=[3], evaluate=plans)
    text, missing = run_suite(path, tmp_path / "runs", ["eval.images=0"])
    assert missing == 1  # the broken member's, of "seen"
    runs = tmp_path / "runs" / "few"
    trained = ["both-3", "eval both-3", "eval both-3", "alone-3", "eval alone-3", "eval alone-3"]
    assert [call.removeprefix("train ") for call in calls[:6]] == trained
    assert calls[6:9] == ["train tuned-3", "eval tuned-3", "train broken-3"]
    assert calls[9:] == ["report alone-3"]
    assert yaml.safe_load((runs / "tuned-3" / "config.yaml").read_text())["run"]["init"] == str(runs / "alone-3")
    assert yaml.safe_load((runs / "both-3" / "config.yaml").read_text())["run"]["seed"] == 3
    table = (runs / "results.md").read_text()
    assert table.startswith("# few with eval.images=0\n")
    overview = [line.split(" | ")[:2] for line in table.splitlines()[4:12]]
    assert (
        overview == [[f"| {stem}", row] for stem in ("seen", "seen-blur2", "held") for row in ("both", "alone", "tuned")][:-1]
    )
    broken = "| broken | missing: seed 3: train ended with status 2: error: data.root: got 'nowhere'"
    assert table.count(broken) == 4  # in the overview and in the tables of both
    for stem, rows in (("seen", 4), ("seen-blur2", 4), ("held", 2)):
        assert f"## {stem}\n" in table
        with open(runs / f"{stem}.csv") as file:
            lines = list(csv.DictReader(file))
        assert len({line["run"] for line in lines}) == rows
        value = next(float(line["value"]) for line in lines if (line["run"], line["metric"]) == ("alone", "mean"))
        assert f"{value:.4g}" in text
    page = (runs / "report.html").read_text()
    assert "under blur" in page
    assert "<p>Missing: broken, seed 3: train ended with status 2: error: data.root: got " in page

    calls.clear()  # what is done is not done again; what failed is tried again
    assert run_suite(path, tmp_path / "runs", ["eval.images=0"]) == (text, 1)
    assert calls[:-1] == ["train broken-3"]

    calls.clear()  # a config that changed is not taken for the run that is there
    changed = write({**members, "alone": [*SINGLE, "optim.lr=1e-2"]}, seeds=[3], evaluate=plans)
    again, missing = run_suite(changed, tmp_path / "runs", ["eval.images=0"])
    assert calls[:-1] == ["train alone-3"]
    assert missing == 2  # its evaluations "seen" and "held"
    assert "alone  missing: seed 3: train ended with status 2: error: --resume: the config differs from" in again
    assert "optim.lr: 0.001 -> 0.01" in again

    calls.clear()  # neither is an evaluation with other options
    run_suite(write(members, seeds=[3], evaluate={"seen": {"split": "test", "blur": "0,2"}}), tmp_path / "runs")
    assert [call for call in calls if call.startswith("eval")] == ["eval both-3", "eval alone-3", "eval tuned-3"]


@pytest.mark.usefixtures("calls")
def test_delta_m_is_against_the_runs_of_the_same_seed(write: Callable[..., Path], tmp_path: Path) -> None:
    members = {
        "both": ["tasks={normal: 1, depth_zbuffer: 1}"],
        "normal": SINGLE,
        "depth": ["tasks={depth_zbuffer: 1}", SINGLE[1]],
    }
    path = write(members, seeds=[0, 1], baselines=["normal", "depth"], evaluate={"val": {"split": "val", "blur": "0,2"}})
    run_suite(path, tmp_path / "runs", ["eval.images=0", "optim.steps=2"])
    with open(tmp_path / "runs" / "few" / "val.csv") as file:
        lines = list(csv.DictReader(file))
    values = {}
    for name in ("both", "normal", "depth"):
        for seed in (0, 1):
            content = yaml.safe_load((tmp_path / "runs" / "few" / f"{name}-{seed}" / "eval" / "val.json").read_text())
            for task, metric in (("normal", "mean"), ("depth_zbuffer", "rmse")):
                if task in content["tasks"]:
                    values[name, seed, task] = content["tasks"][task][metric]["value"]
    gains = [
        100 * (1 - values["both", seed, task] / values[single, seed, task])
        for seed in (0, 1)
        for single, task in (("normal", "normal"), ("depth", "depth_zbuffer"))
    ]
    (found,) = [line for line in lines if line["metric"] == "delta_m"]
    assert (found["run"], found["seeds"]) == ("both", "2")
    assert float(found["value"]) == pytest.approx(sum(gains) / 4)
    deviation = abs(sum(gains[:2]) - sum(gains[2:])) / 2 / 2**0.5
    assert float(found["deviation"]) == pytest.approx(deviation)
    overview = (tmp_path / "runs" / "few" / "results.md").read_text().splitlines()[2:10]
    assert overview[0].endswith(" | Δm % ↑ |")
    assert overview[2].startswith("| val | both | ")
    marks = {"better": " ▲", "worse": " ▼", "": ""}
    assert overview[2].endswith(f" | {sum(gains) / 4:+.2f} ± {deviation:.2g}{marks[found['mark']]} |")
    assert float(found["low"]) < float(found["value"]) < float(found["high"])
    assert [line.split(" | ")[-1] for line in overview[3:5]] == ["- |"] * 2  # the baselines themselves


def test_a_training_that_stopped_early_is_not_taken_for_a_finished_one(
    write: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A signal may end it, with status 0; stderr is passed on, and the last line of a script that fails is the reason."""
    fake = tmp_path / "fake.py"
    program = [sys.executable, str(fake)]
    fake.write_text("import sys\nprint('half', file=sys.stderr)\n")
    text, _ = run_suite(write({"one": []}), tmp_path / "runs", program=program)
    assert "one: seed 0: train stopped at step 0 of 4" in text
    assert "half" in capfd.readouterr().err
    fake.write_text("import sys\nprint('first\\nerror: no room', file=sys.stderr)\nsys.exit(2)\n")
    text, missing = run_suite(write({"one": []}), tmp_path / "runs", program=program)
    assert missing == 1
    assert "one: seed 0: train ended with status 2: no room" in text


def test_ctrl_c_and_sigterm_end_the_suite_after_the_command(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "fake.py").write_text(
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[0]).with_name('saved').touch(), sys.exit(0)))\n"
        "pathlib.Path(sys.argv[0]).with_name('begun').touch()\n"
        "time.sleep(60)\n"
    )
    code = (
        "import sys; from pathlib import Path; from mult.cli import exit_on_user_error; from mult.suite import run_suite\n"
        "with exit_on_user_error(): run_suite(Path(sys.argv[1]), Path(sys.argv[2]), program=[sys.executable, sys.argv[3]])"
    )
    suite_file = write({"one": [], "two": []})
    command: list[str | Path] = [sys.executable, "-c", code, suite_file, tmp_path / "runs", tmp_path / "fake.py"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert b"stopped: interrupted" in stderr
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("members", "more", "message"),
    [
        ({}, {}, "got 0 members and the seeds"),
        ({"a": []}, {"seeds": []}, r"got 1 members and the seeds \[\]"),
        ({"a": []}, {"seeds": [1, 1]}, r"the seeds \[1, 1\]; expected at least one of each, none twice"),
        ({"a": []}, {"baselines": ["b"]}, "baselines: got 'b'; expected some of a; add it to members"),
        (
            {"a": ["tasks={normal: 1, depth_zbuffer: 1}"], "b": SINGLE},
            {"baselines": ["b"]},
            "baselines: got none of depth_zbuffer, which a has; expected a single-task member a task; add them",
        ),
        ({"a": []}, {"evaluate": {"x": {"members": ["b"]}}}, r"evaluate.x.members: got 'b'; expected some of a"),
        ({"a": []}, {"evaluate": {"x": {"blur": "-1"}}}, "--blur: got '-1'; expected sigmas"),
        ({"a": ["optim.lrr=1"]}, {}, "lrr"),
        ({"../a": []}, {}, "members: got '../a'; expected the name of a folder"),
        ({"a": []}, {"sedes": [1]}, "sedes"),
        ({"a": []}, {"evaluate": {"a/b": {}}}, "evaluate: got 'a/b'; expected the name of a file"),
        ({"a": []}, {"evaluate": {"x": {"split": "tset"}}}, r"evaluate\.x\.split: got 'tset'; .*; did you mean 'test'\?"),
        ({"a": []}, {"evaluate": {"x": {"config": "none.yaml"}}}, r"evaluate\.x\.config: got none\.yaml; expected a YAML file"),
    ],
)
def test_a_mistake_in_a_suite_is_reported_before_any_work(
    write: Callable[..., Path], members: dict[str, list[str]], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_suite(write(members, **more))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.pretrained=flase", "model.pretrained: got 'flase'; .* or a weights file; did you mean 'false'"),
        ("model.attention=shard", r"model.attention: got 'shard'; expected .*; did you mean 'shared'\?"),
        ("model.decoder=fpn", "model.reference: got 'normal' with decoder fpn"),
        ("model.backbone=swin_tinny", "model.backbone: got 'swin_tinny'"),
        ("model.backbone_args={embed_dims: 16}", "embed_dims"),
        ("model.num_heads=5", "model.num_heads: got "),
        ("model.pretrained=package", "model.pretrained: got 'package' for "),
        ("data.dataset=taskonmy", "did you mean 'taskonomy'"),
        ("data.options={x: 1}", "data.options: got 'x' for taskonomy"),
        ("eval.split=held_out", "split: got 'held_out' without data.hold_out"),
        ("tasks.normal.loss=l3", r"tasks\.normal\.loss: got 'l3'"),
        ("balance.method=gradnrom", "did you mean 'gradnorm'"),
        ("balance.options={x: 1}", "balance.options of fixed"),
        ("run.log=tensorbord", "did you mean 'tensorboard'"),
        (
            "run.device=cpuu",
            "run.device: got 'cpuu'; expected auto, cpu, cuda, or cuda:N for .*; did you mean 'cpu'",
        ),
        ("run.init=nowhere", "checkpoint: got nowhere"),
        ("optim.freeze_encoder=true optim.layer_decay=0.9", "optim.freeze_encoder: got true"),
    ],
)
def test_what_can_be_known_without_data_is_refused_before_the_first_member(
    write: Callable[..., Path], calls: list[str], tmp_path: Path, override: str, message: str
) -> None:
    words = [override] if "{" in override else override.split()
    path = write({"first": [], "second": ["run.init={first}"]}, evaluate={"val": {"split": "val"}})
    with pytest.raises(UserError, match=f"member first: .*{message}"):
        run_suite(path, tmp_path / "runs", words)
    with pytest.raises(UserError, match=f"member second: .*{message}"):
        run_suite(write({"first": [], "second": words}), tmp_path / "runs")
    assert calls == []
    assert not (tmp_path / "runs").exists()


def test_the_data_of_an_evaluation_are_checked_before_the_first_member(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("data: {dataset: nyu, root: nowhere, options: {spaces: 40}}")
    with pytest.raises(UserError, match=r"member one: data\.options: got 'spaces' for nyu; .*; did you mean 'space'\?"):
        run_suite(write({"one": []}, evaluate={"x": {"config": "other.yaml"}}), tmp_path / "runs")


@pytest.mark.parametrize("name", ["ablation_encoder", "smoke"])
def test_the_check_refuses_no_backbone_of_the_suites_here_and_loads_no_weights(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = ROOT / "configs" / "suites" / f"{name}.yaml"
    monkeypatch.setattr("timm.models._builder.load_pretrained", None)
    check_members(read_suite(path)[0], path, tmp_path, ["model.pretrained=true"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "suites").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_suites_here_can_be_read(path: Path) -> None:
    assert read_suite(path)[0].members


def test_what_is_missing_shows_in_the_exit_status(
    write: Callable[..., Path], calls: list[str], script: Callable[..., Any], tmp_path: Path
) -> None:
    ended = script("suite", write({"broken": ["data.root=nowhere"]}), "--out", tmp_path / "runs")
    assert ended.status == 1
    assert "incomplete: missing 1 evaluation; the tables say why" in ended.err
    assert "data.root: got 'nowhere'" in ended.out
    assert calls == ["train broken-0"]


def test_no_suite_there(script: Callable[..., Any], tmp_path: Path) -> None:
    ended = script("suite", tmp_path / "none.yaml")
    assert ended.status == 2
    assert "expected a YAML file; no such file" in ended.err
