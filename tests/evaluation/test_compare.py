"""Runs side by side: paired intervals against a plain loop over resamples, marks, tables, and what must not be compared."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mult import TASKS
from mult.data.disk.encodings import ENCODINGS
from mult.errors import UserError
from mult.evaluation import bootstrap, compare
from mult.evaluation.gain import DeltaM
from mult.evaluation.results import SavedEvaluation, find_evaluation, read_evaluation
from mult.evaluation.tables import format_comparison, format_comparison_as_csv, format_comparison_as_markdown
from mult.files import write_arrays, write_json
from mult.metrics import Regression

Script = Callable[..., Any]
Array = NDArray[Any]
IMAGES = 40


def l1_of_images(seed: int, shift: float = 0.0) -> Array:
    """Errors with a large part that images have in common, the same for every seed."""
    common = np.random.default_rng(99).gamma(2.0, 0.05, IMAGES)
    return common + shift + np.random.default_rng(seed).normal(0, 0.002, IMAGES)


def write(
    folder: Path,
    tasks: dict[str, Array],
    conditions: dict[str, Any] | None = None,
    ids: list[str] | None = None,
    buildings: int = 1,
) -> Path:
    """A run's folder with one evaluation: tasks whose metrics are l1 and rmse, and each image's l1."""
    pixels = np.random.default_rng(5).integers(100, 900, IMAGES).astype(np.int32)
    columns: dict[str, Array] = {"id": np.array(ids or [f"view {i}" for i in range(IMAGES)])}
    columns["group"] = np.array([f"house {i % buildings}" for i in range(IMAGES)])
    results = {}
    for task, l1 in tasks.items():
        sums = {"pixels": pixels, "absolute": pixels * l1, "squared": pixels * l1**2 * 1.5}
        columns |= {f"{task}/{name}": column for name, column in sums.items()}
        values = Regression().divide({name: column.sum() for name, column in sums.items()})
        results[task] = {metric: {"value": float(value), "unit": "u", "better": "lower"} for metric, value in values.items()}
    file = {"dataset": "rooms", "split": "test", "corruption": None, "images": IMAGES, "metric_version": 2, "tasks": results}
    write_arrays(folder / "eval" / "rooms-test.npz", columns)
    write_json(folder / "eval" / "rooms-test.json", {**file, **(conditions or {})})
    return folder


def load(folder: Path) -> SavedEvaluation:
    return read_evaluation(find_evaluation(folder))


def row(folder: Path, *more: Path) -> compare.Row:
    return compare.Row(folder.name, [load(path) for path in (folder, *more)])


def measurement(comparison: compare.Comparison, name: str, task: str = "reshading", metric: str = "l1") -> compare.Measurement:
    (one,) = [one for one in comparison.measurements[name] if (one.task, one.metric) == (task, metric)]
    return one


@pytest.mark.parametrize("buildings", [1, 8])
def test_the_difference_is_paired(tmp_path: Path, buildings: int) -> None:
    """Redrawn in a loop: the same images on both sides. The interval is a small part of either side's own."""
    a, b = l1_of_images(1), l1_of_images(2, shift=-0.002)
    folders = [write(tmp_path / name, {"reshading": l1}, buildings=buildings) for name, l1 in (("a", a), ("b", b))]
    comparison = compare.compare([row(folder) for folder in folders])
    assert comparison.over == ("buildings" if buildings == 8 else "images")
    pixels = np.random.default_rng(5).integers(100, 900, IMAGES)
    house = np.arange(IMAGES) % buildings if buildings > 1 else np.arange(IMAGES)
    number = int(house.max()) + 1
    differences = []
    for units in np.random.default_rng(bootstrap.SEED).integers(number, size=(bootstrap.RESAMPLES, number)):
        images = np.concatenate([np.flatnonzero(house == unit) for unit in units])
        weight = pixels[images] / pixels[images].sum()
        differences.append((weight * b[images]).sum() - (weight * a[images]).sum())
    got = measurement(comparison, "b")
    assert got.difference == pytest.approx((pixels * (b - a)).sum() / pixels.sum())
    assert got.interval == pytest.approx(bootstrap.estimate_interval(np.array(differences), number))
    assert got.mark == "better"
    units = bootstrap.Units("buildings", house)
    own = bootstrap.estimate_interval(comparison.rows[0].evaluations[0].resample("reshading", units)["l1"], number) or (0, 0)
    assert got.interval is not None
    assert 5 * (got.interval[1] - got.interval[0]) < own[1] - own[0]
    first = measurement(comparison, "a")
    assert (first.difference, first.interval, first.mark) == (None, None, "")


def test_marks_say_which_way_and_only_beyond_chance(tmp_path: Path) -> None:
    shifts = {"reference": 0.0, "same": 0.0, "worse": 0.01, "better": -0.01}
    rows = [
        row(write(tmp_path / name, {"reshading": l1_of_images(i, shift)})) for i, (name, shift) in enumerate(shifts.items())
    ]
    comparison = compare.compare(rows)
    assert [measurement(comparison, name).mark for name in shifts] == ["", "", "worse", "better"]
    higher = compare.Measurement("t", "m", "", "higher", 1.0, difference=0.1, interval=(0.05, 0.2))
    assert higher.mark == "better"
    assert compare.Measurement("t", "m", "", "higher", 1.0, difference=0.1, interval=(-0.05, 0.2)).mark == ""


def test_seeds_are_averaged_and_their_spread_shown(tmp_path: Path) -> None:
    one = [write(tmp_path / f"one{seed}", {"reshading": l1_of_images(seed)}) for seed in (1, 2, 3)]
    two = [write(tmp_path / f"two{seed}", {"reshading": l1_of_images(seed, 0.003)}) for seed in (4, 5)]
    comparison = compare.compare([row(*one), row(*two), compare.Row("three", missing="training failed: | no data")])
    values = [load(folder).tasks["reshading"]["l1"]["value"] for folder in two]
    got = measurement(comparison, "two4")
    assert got.value == pytest.approx(np.mean(values))
    assert got.deviation == pytest.approx(np.std(values, ddof=1))
    assert got.difference == pytest.approx(np.mean(values) - (measurement(comparison, "one1").value or 0))
    assert got.mark == "worse"
    text, markdown = format_comparison(comparison), format_comparison_as_markdown(comparison)
    assert f"{got.value:.4g} ± {got.deviation:.2g} ▼" in text
    assert "missing: training failed: | no data" in text
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1  # a column more would break the table
    assert "rooms, test split, 40 images" in markdown
    written = list(csv.DictReader(format_comparison_as_csv(comparison).splitlines()))
    assert [line["run"] for line in written] == ["one1"] * 2 + ["two4"] * 2 + ["three"]
    assert float(written[2]["value"]) == got.value
    assert (float(written[2]["low"]), float(written[2]["high"])) == got.interval
    assert written[2]["mark"] == "worse"
    assert written[4]["missing"] == "training failed: | no data"


def test_equal_seeds_have_no_deviation(tmp_path: Path) -> None:
    assert float(np.std([0.1] * 3, ddof=1)) > 0  # their mean is rounded
    assert bootstrap.estimate_deviation([0.1] * 3) == DeltaM([0.1] * 3).deviation == 0
    assert bootstrap.estimate_deviation([0.1]) is None
    assert bootstrap.estimate_deviation([1.0, 2.0, 6.0]) == pytest.approx(7**0.5)
    folders = [write(tmp_path / str(seed), {"reshading": l1_of_images(1)}) for seed in range(3)]
    equal = measurement(compare.compare([row(*folders)]), "0")
    assert equal.value == pytest.approx(load(folders[0]).tasks["reshading"]["l1"]["value"])
    assert equal.deviation == 0


def test_tasks_that_a_run_lacks_leave_a_gap(tmp_path: Path) -> None:
    both = write(tmp_path / "both", {"edge_texture": l1_of_images(1), "reshading": l1_of_images(2)})
    single = write(tmp_path / "single", {"edge_texture": l1_of_images(3, 0.02)})
    comparison = compare.compare([row(both), row(single)])
    assert {one.task for one in comparison.measurements["single"]} == {"edge_texture"}
    line = next(line for line in format_comparison_as_markdown(comparison).splitlines() if line.startswith("| single"))
    assert line.endswith("| - |")
    turned = compare.compare([row(single), row(both)])
    assert measurement(turned, "both", "edge_texture").mark == "better"
    assert measurement(turned, "both", "reshading").interval is None


def test_delta_m_against_single_task_runs(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours", {"edge_texture": l1_of_images(1), "reshading": l1_of_images(1)})
    singles = [
        load(write(tmp_path / "single_edge", {"edge_texture": l1_of_images(1) * 2})),  # ours is 50 % better
        load(write(tmp_path / "single_shade", {"reshading": l1_of_images(1) / 1.25})),  # and 25 % worse
    ]
    both = compare.Row("ours", [load(ours)], baselines=[singles])
    comparison = compare.compare([both, row(tmp_path / "single_edge")])
    gain = comparison.delta_m["ours"]
    assert gain.of_seeds == pytest.approx([(50 - 25) / 2])
    assert gain.mean == pytest.approx(12.5)
    assert gain.deviation is None
    # What images have in common cancels: here all, though they differ much among themselves.
    assert gain.interval == pytest.approx((12.5, 12.5))
    assert "single_edge" not in comparison.delta_m
    assert "  +12.50 ▲" in format_comparison(comparison)
    assert "ours: Δm +12.50 % (+12.50 to +12.50) better" in format_comparison(comparison)
    markdown = format_comparison_as_markdown(comparison)
    assert markdown.splitlines()[-4].endswith("| - |")  # the baseline has no delta_m of its own
    with pytest.raises(UserError, match="--baseline: edge_texture: got no baseline; expected one"):
        compare.compare([compare.Row("ours", [load(ours)], baselines=[singles[1:]])])


@pytest.mark.parametrize("buildings", [1, 8])
def test_the_interval_of_delta_m_is_redrawn_in_a_loop(tmp_path: Path, buildings: int) -> None:
    """Two seeds of two tasks: each resample gives the mean over seeds of the mean over tasks."""
    pixels = np.random.default_rng(5).integers(100, 900, IMAGES)
    l1 = {
        (task, kind, seed): l1_of_images(10 * seed + n, shift)
        for seed in (0, 1)
        for n, (task, kind, shift) in enumerate(
            [
                ("edge_texture", "ours", 0.0),
                ("edge_texture", "single", 0.002),
                ("reshading", "ours", 0.001),
                ("reshading", "single", 0.0),
            ]
        )
    }
    evaluations, baselines = [], []
    for seed in (0, 1):
        tasks = {task: l1[task, "ours", seed] for task in ("edge_texture", "reshading")}
        evaluations.append(load(write(tmp_path / f"ours{seed}", tasks, buildings=buildings)))
        folders = [write(tmp_path / f"{task}{seed}", {task: l1[task, "single", seed]}, buildings=buildings) for task in tasks]
        baselines.append([read_evaluation(folder / "eval" / "rooms-test.json") for folder in folders])
    house = np.arange(IMAGES) % buildings if buildings > 1 else np.arange(IMAGES)
    number = int(house.max()) + 1
    gains = []
    for units in np.random.default_rng(bootstrap.SEED).integers(number, size=(bootstrap.RESAMPLES, number)):
        images = np.concatenate([np.flatnonzero(house == unit) for unit in units])
        mean = {key: (pixels[images] * values[images]).sum() / pixels[images].sum() for key, values in l1.items()}
        gains.append(
            np.mean([100 * (1 - mean[task, "ours", seed] / mean[task, "single", seed]) for task in tasks for seed in (0, 1)])
        )
    expected = bootstrap.estimate_interval(np.array(gains), number)
    gain = compare.compare([compare.Row("ours", evaluations, baselines=baselines)]).delta_m["ours"]
    assert gain.interval == pytest.approx(expected)
    assert gain.interval is not None
    assert gain.interval[0] < gain.mean < gain.interval[1]
    assert DeltaM([1.0], (-0.5, 2.0)).mark == ""
    assert DeltaM([-1.0], (-2.0, -0.5)).mark == "worse"
    table = format_comparison_as_csv(compare.compare([compare.Row("o", evaluations, baselines=baselines)]))
    written = list(csv.DictReader(table.splitlines()))
    assert (float(written[-1]["low"]), float(written[-1]["high"])) == gain.interval


def test_a_baseline_whose_images_are_unknown_gives_no_interval_and_one_of_others_is_refused(tmp_path: Path) -> None:
    ours = load(write(tmp_path / "ours", {"reshading": l1_of_images(1)}))
    single = write(tmp_path / "single", {"reshading": l1_of_images(2)}) / "eval" / "rooms-test.json"
    single.with_suffix(".npz").unlink()
    comparison = compare.compare([compare.Row("ours", [ours], baselines=[[read_evaluation(single)]])])
    assert comparison.delta_m["ours"].interval is None
    assert comparison.delta_m["ours"].mark == ""
    others = [f"frame {i}" for i in range(IMAGES)]
    other = write(tmp_path / "other", {"reshading": l1_of_images(2)}, ids=others) / "eval" / "rooms-test.json"
    with pytest.raises(UserError, match=r"got other images in .*other/eval/rooms-test.json \(number 0 is frame 0\)"):
        compare.compare([compare.Row("ours", [ours], baselines=[[read_evaluation(other)]])])


@pytest.mark.parametrize(
    ("conditions", "ids", "message"),
    [
        (
            {"split": "val"},
            None,
            r"got split val in .*/b/eval/rooms-test.json, test in .*/a/eval/rooms-test.json; expected one;",
        ),
        ({"metric_version": 1}, None, "got metric_version 1 in .*b/eval.*; since version 2 images keep .*; evaluate both"),
        (
            {"corruption": {"kind": "blur", "severity": 1.0}},
            None,
            "got corruption {'kind': 'blur', 'severity': 1.0} in .*b/eval",
        ),
        (
            {},
            ["other", *(f"view {i}" for i in range(1, IMAGES))],
            r"got other images in .*/b/.* \(number 0 is other\) than in .*/a/",
        ),
    ],
)
def test_what_is_not_of_the_same_images(
    tmp_path: Path, conditions: dict[str, Any], ids: list[str] | None, message: str
) -> None:
    a = row(write(tmp_path / "a", {"reshading": l1_of_images(1)}))
    b = row(write(tmp_path / "b", {"reshading": l1_of_images(2)}, conditions, ids))
    with pytest.raises(UserError, match=f"compare: {message}"):
        compare.compare([a, b])


def test_other_images_of_the_same_names(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"reshading": l1_of_images(1)})
    b = write(tmp_path / "b", {"reshading": l1_of_images(2)})
    columns = dict(load(b).columns)
    columns["reshading/pixels"] = columns["reshading/pixels"] + (np.arange(IMAGES) == 3)
    write_arrays(b / "eval" / "rooms-test.npz", columns)
    with pytest.raises(
        ValueError, match=r"got other labels in .*/b/.* than in .*/a/.* \(reshading/pixels of their images diff"
    ):
        compare.compare([row(a), row(b)])


def test_which_evaluation_of_a_run(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"reshading": l1_of_images(1)})
    path = folder / "eval" / "rooms-test.json"
    assert find_evaluation(folder) == find_evaluation(folder, "rooms-test") == find_evaluation(path) == path
    with pytest.raises(UserError, match=r"got evaluations rooms-test; expected rooms-val; run `mult eval` for it first"):
        find_evaluation(folder, "rooms-val")
    (folder / "eval" / "other.json").write_text("{}")
    with pytest.raises(UserError, match=r"got 2 evaluations \(other, rooms-test\); expected one; name it with --eval"):
        find_evaluation(folder)
    with pytest.raises(UserError, match=r"other.json: got no evaluation; expected the JSON that eval.py writes"):
        read_evaluation(find_evaluation(folder, "other"))
    (folder / "eval" / "other.json").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"got 0 evaluations \(none\); expected one; run `mult eval` first"):
        find_evaluation(tmp_path / "empty")
    (folder / "eval" / "rooms-test.npz").write_bytes(b"PK broken")
    with pytest.raises(UserError, match=r"rooms-test.npz: cannot be read as arrays \(.*\); expected .*; evaluate again"):
        read_evaluation(path)
    (folder / "eval" / "rooms-test.npz").unlink()
    with pytest.raises(UserError, match=r"got .*rooms-test.json and no .npz beside it; expected both files; evaluate again"):
        compare.compare([row(folder)])
    with pytest.raises(UserError, match="compare: got no evaluation of x; expected at least one"):
        compare.compare([compare.Row("x", missing="failed")])


def test_the_script_on_real_evaluations(script: Script, trained: Path, tmp_path: Path) -> None:
    """Of the tiny run, clean against blurred is refused; against itself every difference is 0 and unmarked."""
    again = tmp_path / "again"
    file = trained / "eval" / "taskonomy-val.json"
    write_json(again / "taskonomy-val.json", json.loads(file.read_text()))
    (again / "taskonomy-val.npz").write_bytes(file.with_suffix(".npz").read_bytes())
    ended = script("compare", trained, again / "taskonomy-val.json", "--eval", "taskonomy-val", "--out", tmp_path / "table")
    assert ended.status == 0, ended.err
    for task in ENCODINGS:
        assert f"taskonomy-val: {task} {TASKS[task].primary} +0 (+0 to +0)" in ended.out
    written = list(csv.DictReader((tmp_path / "table" / "comparison.csv").read_text().splitlines()))
    assert {line["metric"] for line in written} >= {"miou", "iou/chair", "median", "rmse", "median_aligned/abs_rel"}
    assert all(line["mark"] == "" for line in written)
    assert "| tiny |" in (tmp_path / "table" / "comparison.md").read_text()
    ended = script("compare", trained, "--eval", "taskonomy-test")
    assert ended.status == 2
    assert "expected taskonomy-test; run `mult eval` for it first" in ended.err
