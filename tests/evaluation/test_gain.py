"""Delta m of an evaluation on single-task runs: its terms, its line on the terminal, and the baselines that are refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mult import TASKS
from mult.data.disk.encodings import ENCODINGS
from mult.errors import UserError
from mult.evaluation.gain import compute_delta_m, format_delta_m, merge_baselines
from mult.evaluation.results import NOT_FINITE, SavedEvaluation, comparability
from mult.files import read_json

Script = Callable[..., Any]


def test_the_script_prints_delta_m(script: Script, trained: Path, tmp_path: Path) -> None:
    last, ours = trained / "checkpoints" / "last", tmp_path / "ours.json"
    file: dict[str, Any] = read_json(trained / "eval" / "taskonomy-val.json")
    files = []
    for number, (task, entries) in enumerate(file["tasks"].items()):  # single-task runs that are 1, 1/2, 1/3, ... of ours
        single = {**file, "tasks": {task: json.loads(json.dumps(entries))}}
        single["tasks"][task][TASKS[task].primary]["value"] /= number + 1
        files.append(tmp_path / f"{task}.json")
        files[-1].write_text(json.dumps(single))
    ended = script("eval", "--ckpt", last, "--split", "val", "--out", ours, "--baseline", *files)
    assert ended.status == 0, ended.err
    terms = [f"{task} {-100 * number:+.2f} %" for number, task in enumerate(ENCODINGS)]  # all but the first are better if lower
    (line,) = [line for line in ended.out.splitlines() if line.startswith("Δm")]
    why = "no interval: a baseline has no .npz beside it, or there is one image"
    assert line.replace("-0.00", "+0.00") == f"Δm -250.00 % ({why}): {', '.join(terms)}"
    for path in files:  # what each image contributed is as ours, unlike the values
        shutil.copy(trained / "eval" / "taskonomy-val.npz", path.with_suffix(".npz"))
    ended = script("eval", "--ckpt", last, "--split", "val", "--out", ours, "--baseline", *files)
    (line,) = [line for line in ended.out.splitlines() if line.startswith("Δm")]
    assert "Δm -250.00 % (95 % over images: +0.00 to +0.00): " in line.replace("-0.00", "+0.00")


def test_a_baseline_of_other_pixels_is_refused() -> None:
    ours, other = ({"normal": {"mean": {"value": 20.0, "better": "lower", "pixels": pixels}}} for pixels in (90, 91))
    assert compute_delta_m(ours, ours)["delta_m"] == 0
    with pytest.raises(
        ValueError, match="--baseline: normal: got one of 91 valid pixels; expected 90; evaluate it on the same"
    ):
        compute_delta_m(ours, other)


def test_a_task_that_delta_m_leaves_out_is_said() -> None:
    compared = {"delta_m": 1.5, "terms": {"normal": 1.5}, "left_out": {"depth_zbuffer": "no valid pixel"}}
    expected = "Δm +1.50 % (95 % over buildings: +0.50 to +2.25): normal +1.50 %, depth_zbuffer left out (no valid pixel)"
    assert format_delta_m(compared, (0.5, 2.25), "buildings") == expected


BASELINES: list[tuple[str, dict[str, Any] | None, str]] = [
    (
        "another version",
        {"metric_version": 0},
        "got metric_version 0; expected 2; since version 2 images keep their proportions",
    ),
    ("another split", {"split": "test"}, "got split test; expected val; evaluate it again"),
    ("another dataset", {"dataset": "rooms"}, "got dataset rooms; expected taskonomy; evaluate it again"),
    ("other images", {"images": 4}, "got images 4; expected 3; evaluate it again"),
    (
        "blurred",
        {"corruption": {"kind": "blur", "severity": 2.0}},
        "got corruption {'kind': 'blur', .*}; expected None; evaluate",
    ),
    ("no evaluation", {"tasks": 3}, "got no evaluation; expected the JSON that eval.py writes; give one of a run's eval/"),
    ("a task missing", None, "--baseline: reshading: got no baseline; expected one; evaluate its single-task model"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in BASELINES], ids=[case[0] for case in BASELINES])
def test_a_baseline_that_does_not_fit(
    script: Script, trained: Path, tmp_path: Path, change: dict[str, Any] | None, message: str
) -> None:
    file: dict[str, Any] = read_json(trained / "eval" / "taskonomy-val.json")
    if change is None:
        del file["tasks"]["reshading"]
    path, out = tmp_path / "single.json", tmp_path / "out" / "val.json"
    path.write_text(json.dumps({**file, **(change or {})}))
    ended = script("eval", "--ckpt", trained, "--split", "val", "--out", out, "--baseline", path)
    assert ended.status == 2
    assert re.search(message, ended.err), ended.err
    assert not out.parent.exists()


def test_a_task_in_two_baselines_is_refused(trained: Path) -> None:
    file: dict[str, Any] = read_json(trained / "eval" / "taskonomy-val.json")
    ours = comparability("taskonomy", "val", 3, None)
    with pytest.raises(UserError, match="--baseline b: got segment_semantic in two files; expected one a task; leave one out"):
        merge_baselines(ours, ENCODINGS, [SavedEvaluation(Path(name), file, {}) for name in ("a", "b")])


@pytest.mark.parametrize(
    ("change", "got"), [({"value": 0.0}, "a baseline of 0"), ({"value": None, "reason": NOT_FINITE}, NOT_FINITE)]
)
def test_a_baseline_that_no_gain_is_a_part_of_is_refused_first(trained: Path, change: dict[str, Any], got: str) -> None:
    file: dict[str, Any] = read_json(trained / "eval" / "taskonomy-val.json")
    file["tasks"]["normal"]["mean"].update(change)
    ours = comparability("taskonomy", "val", 3, None)
    with pytest.raises(UserError, match=f"--baseline: normal: got {got}; expected a number that a gain .*; train that"):
        merge_baselines(ours, ENCODINGS, [SavedEvaluation(Path("a"), file, {})])


def test_each_severity_has_its_own_baselines(script: Script, trained: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "val.json", ("--ckpt", trained, "--split", "val", "--blur", "0,2")
    assert script("eval", *told, "--out", out).status == 0
    singles = [out, tmp_path / "val-blur2.json"]
    ended = script("eval", *told, "--out", tmp_path / "again.json", "--baseline", *singles)
    assert ended.status == 0, ended.err
    lines = [line for line in ended.out.splitlines() if line.startswith("Δm")]
    assert len(lines) == 2
    assert all(line.startswith("Δm +0.00 %") for line in lines)
    ended = script("eval", *told, "--out", tmp_path / "third.json", "--baseline", out)
    assert ended.status == 2
    assert "--baseline: segment_semantic: got no baseline; expected one" in ended.err
    of_none = tmp_path / "blur4.json"
    of_none.write_text(json.dumps({**read_json(out), "corruption": {"kind": "blur", "severity": 4.0}}))
    ended = script("eval", *told, "--out", tmp_path / "third.json", "--baseline", *singles, of_none)
    assert ended.status == 2
    assert "blur4.json: got corruption {'kind': 'blur', 'severity': 4.0}; expected None" in ended.err
    assert not (tmp_path / "third.json").exists()
