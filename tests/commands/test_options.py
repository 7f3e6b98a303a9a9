"""Options that a command would not look at, and inputs given twice, are refused before anything is read or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Script = Callable[..., Any]
UNUSED = ", which makes no use of it; expected "


@pytest.mark.parametrize(
    ("command", "line", "message"),
    [
        (
            "compare",
            "no_run --row row.json --out cmpout",
            "--out: got cmpout beside --row" + UNUSED + "it with --rows or RUN_OR_JSON; leave it out",
        ),
        (
            "compare",
            "no_run --row row.json --published nyud4",
            "--published: got nyud4 beside --row" + UNUSED + "it with --rows; ",
        ),
        (
            "compare",
            "no_run other --published nope.yaml",
            "--published: got nope.yaml beside RUN_OR_JSON" + UNUSED + "it with --rows",
        ),
        (
            "compare",
            "no_run other --name z",
            "--name: got z beside RUN_OR_JSON" + UNUSED + "it with --row; ",
        ),
        (
            "compare",
            "--rows R --row other.json",
            "--row: got other.json beside --rows" + UNUSED + "either --row or --rows",
        ),
        (
            "compare",
            "--rows R --eval foo",
            "--eval: got foo beside --rows" + UNUSED + "it with --row or RUN_OR_JSON",
        ),
        ("compare", "--rows R --name bar", "--name: got bar beside --rows" + UNUSED + "it with --row"),
        (
            "compare",
            "--rows R --baseline nope.json",
            "--baseline: got nope.json beside --rows" + UNUSED + "it with --row or RUN_OR_JSON",
        ),
        ("compare", "one.json one.json --eval foo", "got --eval foo and only files; expected a run's folder to find it in"),
        ("compare", "one.json ./one.json", "compare: got one.json 2 times; expected it once; leave out the others"),
        ("compare", "one.json one.json one.json --row row.json", "compare: got one.json 3 times; expected it once"),
        ("compare", "--rows . one.json", "--rows: got one.json 2 times; expected it once"),
        ("compare", "--rows empty", "--rows: got empty without a JSON; expected rows; give a suite's rows/<evaluation>"),
        ("report", "no_run no_run --out page.html", "report: got no_run 2 times; expected it once"),
        ("report", "no_run --images 0 --config eval_nyu", "--config: got eval_nyu with --images 0, which reads no images; "),
    ],
)
def test_what_a_command_would_not_look_at_is_refused(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    ended = script(command, *line.split())
    assert ended.status == 2
    assert message in ended.err
    assert ended.err.count("error: ") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "one.json"]


def test_a_run_and_its_own_evaluation_are_one(script: Script, trained: Path) -> None:
    file = trained / "eval" / "taskonomy-val.json"
    ended = script("compare", trained, file, "--eval", "taskonomy-val")
    assert ended.status == 2
    assert f"compare: got {file} 2 times; expected it once" in ended.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--seeds 0 x", "--seeds: got 'x'; expected whole numbers of at least 0; write e.g. --seeds 0 1 2"),
        ("--seeds 1.5", "--seeds: got '1.5'; expected whole numbers"),
        ("--seeds 0 optim.stepps=1", "did you mean 'steps'?"),
        ("--seeds optim.stepps=1", "did you mean 'steps'?"),
    ],
)
def test_overrides_may_follow_the_seeds_of_a_suite(script: Script, line: str, message: str) -> None:
    ended = script("suite", "smoke", *line.split())
    assert ended.status == 2
    assert message in ended.err


def test_a_suite_stays_out_of_a_run_s_folder_and_a_run_out_of_a_suite_s(
    script: Script, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "smoke").mkdir(parents=True)
    (tmp_path / "runs" / "smoke" / "config.yaml").write_text("run: {name: smoke}")
    ended = script("suite", "smoke", "--out", "runs")
    assert ended.status == 2
    assert (
        "--out: got runs, where runs/smoke is the folder of a run; expected another place; give e.g. --out suites" in ended.err
    )
    assert [path.name for path in (tmp_path / "runs" / "smoke").iterdir()] == ["config.yaml"]

    (tmp_path / "suites" / "smoke" / "shared-0").mkdir(parents=True)
    ended = script("train", "--config", config_file, "run.output=suites", "run.name=smoke")
    assert ended.status == 2
    assert "smoke holds files already; expected a new folder; choose another run.name or delete it" in ended.err
    assert [path.name for path in (tmp_path / "suites" / "smoke").iterdir()] == ["shared-0"]


def test_a_suite_s_folder_is_in_suites(
    script: Script, calls: list[str], config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(f"base: {config_file}\nmembers: {{broken: [data.root=nowhere]}}")
    assert script("suite", "one.yaml").status == 1
    assert calls == ["train broken-0"]
    assert (tmp_path / "suites" / "one" / "results.md").is_file()
