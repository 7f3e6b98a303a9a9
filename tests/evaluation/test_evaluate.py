"""The numbers of an evaluation against NumPy on the model's own outputs, and its file against the contract."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mult import TASKS, Predictor
from mult.build import build_eval_batches
from mult.data import Taskonomy
from mult.errors import UserError
from mult.evaluation import evaluate
from mult.evaluation.gain import against, delta_m_line, merge_baselines
from mult.evaluation.results import NOT_FINITE, Results, header, improvement, read_evaluation
from mult.evaluation.tables import table
from mult.evaluation.trivial import learn_constants
from mult.files import read_arrays, read_json
from mult.runs.checkpoint import load_checkpoint

Pixels = dict[str, tuple[NDArray[Any], NDArray[Any]]]
Script = Callable[..., Any]
CPU = torch.device("cpu")


def pixels(root: Path, split: str) -> dict[str, NDArray[Any]]:
    """All valid target pixels of a split: (N,) class ids or (N, C)."""
    found: dict[str, list[NDArray[Any]]] = {task: [] for task in TASKS}
    for view in list_of(Taskonomy(root, split=split)):
        for task, target in view["targets"].items():
            mask = view["valid"][task][0].numpy()
            found[task].append(target.numpy()[mask] if target.ndim == 2 else target.numpy()[:, mask].T)
    return {task: np.concatenate(parts) for task, parts in found.items()}


def list_of(dataset: Taskonomy) -> list[Any]:
    return [dataset[i] for i in range(len(dataset))]


@pytest.fixture(scope="module")
def predicted(trained: Path, tree_root: Path) -> Pixels:
    """(prediction, target) of all valid pixels of the validation split, by the last checkpoint."""
    model, _ = load_checkpoint(trained / "checkpoints" / "last")
    decode = Predictor(model, (48, 40)).tasks
    found: dict[str, list[tuple[Any, Any]]] = {task: [] for task in TASKS}
    for view in list_of(Taskonomy(tree_root, split="val")):
        with torch.no_grad():
            outputs = model(F.interpolate(view["image"][None], (48, 40), mode="bilinear", antialias=True))
        for task, output in outputs.items():
            native = F.interpolate(output, tuple(view["image"].shape[-2:]), mode="bilinear")
            prediction = decode[task].decode(native)[0].numpy()
            mask, target = view["valid"][task][0].numpy(), view["targets"][task].numpy()
            pair = [values[mask] if target.ndim == 2 else values[:, mask].T for values in (prediction, target)]
            found[task].append((pair[0], pair[1]))
    return {
        task: (np.concatenate([p for p, _ in parts]), np.concatenate([t for _, t in parts])) for task, parts in found.items()
    }


def measure(predicted: Pixels) -> dict[str, dict[str, float]]:
    """metrics.md in NumPy, pooled over all pixels."""
    p, t = (values[:, 0].astype(np.float64) for values in predicted["depth_zbuffer"])
    ratio = np.maximum(p / t, t / p)
    cosine = np.clip((predicted["normal"][0].astype(np.float64) * predicted["normal"][1]).sum(1), -1, 1)
    angle = np.degrees(np.arccos(cosine))
    classes, truth = predicted["segment_semantic"]
    present = np.union1d(classes, truth)
    iou = [((classes == c) & (truth == c)).sum() / ((classes == c) | (truth == c)).sum() for c in present]
    expected = {
        "segment_semantic": {"miou": np.mean(iou), "pixel_accuracy": (classes == truth).mean()},
        "depth_zbuffer": {
            "rmse": np.sqrt(((p - t) ** 2).mean()),
            "abs_rel": (abs(p - t) / t).mean(),
            "log10": abs(np.log10(p / t)).mean(),
            "delta1": (ratio < 1.25).mean(),
            "delta2": (ratio < 1.25**2).mean(),
            "delta3": (ratio < 1.25**3).mean(),
            "l1": abs(p - t).mean(),
        },
        "normal": {
            "mean": angle.mean(),
            "median": np.median(angle),
            "rmse": np.sqrt((angle**2).mean()),
            **{f"within_{limit}": (angle < limit).mean() for limit in (11.25, 22.5, 30)},
        },
    }
    for task in ("keypoints2d", "edge_texture", "reshading"):
        error = predicted[task][0].astype(np.float64) - predicted[task][1]
        expected[task] = {"l1": abs(error).mean(), "rmse": np.sqrt((error**2).mean())}
    return expected


def test_every_metric_is_numpys(trained: Path, predicted: Pixels) -> None:
    evaluation = read_json(trained / "eval" / "taskonomy-val.json")["tasks"]
    for task, metrics in measure(predicted).items():
        for metric, value in metrics.items():
            assert evaluation[task][metric]["value"] == pytest.approx(
                value, rel=1e-4, abs=2e-3 if task == "normal" else 1e-7
            ), metric
            assert evaluation[task][metric]["pixels"] == len(predicted[task][1])
    assert evaluation["normal"]["mean"]["images"] == 2  # one view of three has no normals
    assert evaluation["reshading"]["l1"]["images"] == 3
    names = {name for name in evaluation["segment_semantic"] if "/" not in name}
    assert names == {"miou", "pixel_accuracy"}


def test_the_trivial_baseline_is_the_best_constant_of_training_pixels(trained: Path, tree_root: Path) -> None:
    known, scored = pixels(tree_root, "train"), pixels(tree_root, "val")
    evaluation = read_json(trained / "eval" / "taskonomy-val.json")["tasks"]

    def trivial(task: str, metric: str) -> float:
        return float(evaluation[task][metric]["trivial"])

    depth, target = known["depth_zbuffer"].astype(np.float64), scored["depth_zbuffer"].astype(np.float64)
    assert trivial("depth_zbuffer", "rmse") == pytest.approx(np.sqrt(((target - depth.mean()) ** 2).mean()), rel=1e-5)
    assert trivial("depth_zbuffer", "l1") == pytest.approx(abs(target - np.median(depth)).mean(), rel=1e-5)
    for task in ("keypoints2d", "edge_texture", "reshading"):
        median, mean = np.median(known[task].astype(np.float64)), known[task].astype(np.float64).mean()
        assert trivial(task, "l1") == pytest.approx(abs(scored[task] - median).mean(), rel=1e-4)
        assert trivial(task, "rmse") == pytest.approx(np.sqrt(((scored[task] - mean) ** 2).mean()), rel=1e-4)
    direction = known["normal"].astype(np.float64).mean(0)
    cosine = scored["normal"].astype(np.float64) @ (direction / np.linalg.norm(direction))
    assert trivial("normal", "mean") == pytest.approx(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean(), rel=1e-4)
    common = np.bincount(known["segment_semantic"]).argmax()
    accuracy = (scored["segment_semantic"] == common).mean()
    assert trivial("segment_semantic", "pixel_accuracy") == pytest.approx(accuracy)
    assert trivial("segment_semantic", "miou") == pytest.approx(
        accuracy / len(np.unique([*scored["segment_semantic"], common]))
    )


def test_constants_come_from_a_sample_when_there_is_too_much(tree_root: Path) -> None:
    views = Taskonomy(tree_root, tasks=("reshading",))
    exact = learn_constants(views, ["reshading"], seed=0)["reshading"]["rmse"][0]
    sampled = learn_constants(views, ["reshading"], seed=0, most_pixels=400)["reshading"]["rmse"][0]
    assert sampled != exact
    assert sampled == pytest.approx(exact, rel=0.05)
    assert learn_constants(views, ["reshading"], seed=0, most_pixels=400)["reshading"]["rmse"][0] == sampled


def run_evaluation(trained: Path, root: Path, split: str, batch_size: int, **changes: Any) -> Results:
    model, _ = load_checkpoint(trained)
    views = Taskonomy(root, split=split)
    batches = build_eval_batches(views, (48, 40), batch_size, workers=0)
    constants = changes.get("constants", read_json(trained / "trivial.json"))
    return evaluate.evaluate(model, batches, model.tasks, views, constants, CPU).results


def test_the_batch_size_does_not_matter(trained: Path, tree_root: Path) -> None:
    one, three = (run_evaluation(trained, tree_root, "val", batch_size) for batch_size in (1, 3))
    for task, entries in one.items():
        for metric, entry in entries.items():
            assert (entry["value"] is None) == (three[task][metric]["value"] is None)
            if entry["value"] is not None:
                assert entry["value"] == pytest.approx(three[task][metric]["value"], rel=1e-4, abs=1e-3)
                assert (entry["pixels"], entry["images"]) == (three[task][metric]["pixels"], three[task][metric]["images"])


def test_the_file_is_as_the_contract_says(trained: Path) -> None:
    file = read_json(trained / "eval" / "taskonomy-val.json")
    assert (file["dataset"], file["split"], file["images"], file["metric_version"]) == ("taskonomy", "val", 3, 1)
    assert list(file["tasks"]) == list(TASKS)
    units = {"segment_semantic": "", "depth_zbuffer": "m", "normal": "deg", "reshading": TASKS["reshading"].unit}
    better = {"segment_semantic": "higher", "depth_zbuffer": "lower", "normal": "lower", "reshading": "lower"}
    for task in units:
        entry = file["tasks"][task][TASKS[task].primary]
        assert (entry["unit"], entry["better"]) == (units[task], better[task])
    for entries in file["tasks"].values():
        for entry in entries.values():
            if entry["value"] is None:
                assert entry["reason"]
            else:
                assert {"value", "unit", "better", "trivial", "pixels", "images"} <= entry.keys()
    assert "vase" in file["tasks"]["segment_semantic"]["miou"]["absent"]
    assert file["tasks"]["segment_semantic"]["iou/vase"]["value"] is None
    assert file["tasks"]["depth_zbuffer"]["rmse"]["nonpositive"] == 0
    assert "NaN" not in (trained / "eval" / "taskonomy-val.json").read_text()


def test_a_task_without_a_valid_pixel_is_null_and_says_why(script: Script, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "test.json"
    ended = script("eval", "--ckpt", trained, "--split", "test", "--out", out)
    assert ended.status == 0, ended.err
    file = read_json(out)
    assert (file["split"], file["images"]) == ("test", 2)
    assert file["tasks"]["segment_semantic"]["miou"]["value"] is None
    assert file["tasks"]["segment_semantic"]["miou"]["reason"] == "no valid pixel"
    assert file["tasks"]["normal"]["mean"]["value"] > 0
    assert not (trained / "eval" / "taskonomy-test.json").exists()


def test_without_constants_there_is_no_trivial_score(trained: Path, tree_root: Path) -> None:
    results = run_evaluation(trained, tree_root, "val", 3, constants={})
    assert results["normal"]["mean"]["trivial"] is None
    assert improvement(results) is None
    assert "normal" in table(evaluate.Evaluation(results, {}, "images"))


def test_evaluating_leaves_the_mode_and_the_weights(trained: Path, tree_root: Path) -> None:
    model, _ = load_checkpoint(trained)
    views = Taskonomy(tree_root, split="val")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    evaluate.evaluate(model, build_eval_batches(views, (48, 40), 2, 0), model.tasks, views, {}, CPU)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_each_image_s_columns_are_numpys(trained: Path, predicted: Pixels, tree_root: Path) -> None:
    """What an image contributed is in its own row, absent where it has no label, and adds up to the metrics."""
    columns = read_arrays(trained / "eval" / "taskonomy-val.npz")
    evaluation = read_json(trained / "eval" / "taskonomy-val.json")
    views = list_of(Taskonomy(tree_root, split="val"))
    assert columns["id"].tolist() == [view["id"] for view in views]
    assert columns["group"].tolist() == ["cedar"] * 3
    counts = [int(view["valid"]["normal"].sum()) for view in views]
    assert columns["normal/pixels"].tolist() == counts
    assert counts[1] == 0  # a view without normals
    p, t = (values.astype(np.float64) for values in predicted["normal"])
    angle = np.degrees(np.arccos(np.clip((p * t).sum(1), -1, 1)))
    each = [part.sum() for part in np.split(angle, np.cumsum(counts)[:-1])]
    np.testing.assert_allclose(columns["normal/angle"], each, rtol=1e-4)
    np.testing.assert_array_equal(columns["normal/histogram"].sum(1), counts)
    np.testing.assert_array_equal(columns["total/normal/histogram"], columns["normal/histogram"].sum(0))
    np.testing.assert_allclose(columns["total/normal/histogram"], np.histogram(angle, columns["total/normal/edges"])[0], atol=3)
    classes, truth = predicted["segment_semantic"]
    confusion = columns["total/segment_semantic/confusion"]
    np.testing.assert_array_equal(confusion, np.bincount(truth * 17 + classes, minlength=289).reshape(17, 17))
    np.testing.assert_array_equal(columns["segment_semantic/target"].sum(0), confusion.sum(1))
    np.testing.assert_array_equal(columns["segment_semantic/predicted"].sum(0), confusion.sum(0))
    np.testing.assert_array_equal(columns["segment_semantic/hits"].sum(0), confusion.diagonal())
    depth, target = (values[:, 0].astype(np.float64) for values in predicted["depth_zbuffer"])
    np.testing.assert_allclose(
        columns["total/depth_zbuffer/histogram"],
        np.histogram(np.clip(depth / target - 1, -1, 1), columns["total/depth_zbuffer/edges"])[0],
        atol=2,
    )
    rmse = np.sqrt(columns["depth_zbuffer/squared"].sum() / columns["depth_zbuffer/pixels"].sum())
    assert evaluation["tasks"]["depth_zbuffer"]["rmse"]["value"] == pytest.approx(rmse, rel=1e-12)
    assert evaluation["interval_over"] == "images"
    for task, metric in (("depth_zbuffer", "rmse"), ("normal", "median"), ("segment_semantic", "miou"), ("reshading", "l1")):
        entry = evaluation["tasks"][task][metric]
        assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]


def test_an_image_keeps_no_more_bytes_than_stated(trained: Path) -> None:
    columns = read_arrays(trained / "eval" / "taskonomy-val.npz")
    stated = {"segment_semantic": 208, "depth_zbuffer": 116, "normal": 1476, "keypoints2d": 20, "edge_texture": 20}
    for task, most in stated.items():
        kept = sum(column[:1].nbytes for name, column in columns.items() if name.startswith(f"{task}/"))
        assert kept == most, task


# --- The script ---


def test_the_script_takes_a_yaml_of_a_data_section_alone(script: Script, trained: Path, own_tree: Path, tmp_path: Path) -> None:
    (own_tree / "splits.csv").write_text("id,train,val,test\nalder,0,0,1\n")
    config, out = tmp_path / "mine.yaml", tmp_path / "mine.json"
    config.write_text(f"data: {{dataset: taskonomy, root: {own_tree}}}")
    ended = script("eval", "--ckpt", trained, "--config", config, "--split", "test", "--out", out)
    assert ended.status == 0, ended.err
    assert read_json(out)["images"] == 4  # alder's, and not the two of the checkpoint's own root
    assert read_json(out)["tasks"]["normal"]["mean"]["value"] > 0


def test_the_script_repeats_the_training_s_evaluation(script: Script, trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved, symlinks=True)
    (moved / "eval" / "taskonomy-val.json").unlink()
    ended = script("eval", "--ckpt", moved / "checkpoints" / "last", "--split", "val")
    assert ended.status == 0, ended.err
    again, first = (read_json(folder / "eval" / "taskonomy-val.json") for folder in (moved, trained))
    assert first.pop("step") == 4
    assert again["tasks"]["reshading"]["l1"]["value"] == pytest.approx(first["tasks"]["reshading"]["l1"]["value"], rel=1e-5)
    assert again["tasks"]["normal"]["mean"]["pixels"] == first["tasks"]["normal"]["mean"]["pixels"]
    assert "depth_zbuffer" in ended.out


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
    terms = [f"{task} {-100 * number:+.2f} %" for number, task in enumerate(TASKS)]  # all but the first are better if lower
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
    assert against(ours, ours)["delta_m"] == 0
    with pytest.raises(
        ValueError, match="--baseline: normal: got one of 91 valid pixels; expected 90; evaluate it on the same"
    ):
        against(ours, other)


def test_a_task_that_delta_m_leaves_out_is_said() -> None:
    compared = {"delta_m": 1.5, "terms": {"normal": 1.5}, "left_out": {"depth_zbuffer": "no valid pixel"}}
    expected = "Δm +1.50 % (95 % over buildings: +0.50 to +2.25): normal +1.50 %, depth_zbuffer left out (no valid pixel)"
    assert delta_m_line(compared, (0.5, 2.25), "buildings") == expected


BASELINES: list[tuple[str, dict[str, Any] | None, str]] = [
    ("another version", {"metric_version": 0}, "got metric_version 0; expected 1; evaluate it again on the same data"),
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


def of(task: str, **change: Any) -> Callable[[dict[str, Any]], None]:
    return lambda file: file["tasks"][task][TASKS[task].primary].update(change)


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a text for a number": (of("normal", value="20"), r"tasks\.normal\.mean {'value': '20'"),
    "not a number": (of("normal", value=float("nan")), r"tasks\.normal\.mean {'value': nan"),
    "no reason": (of("reshading", value=None), r"tasks\.reshading\.l1 {'value': None"),
    "a direction": (of("reshading", better="left"), r"tasks\.reshading\.l1 "),
    "half an interval": (of("normal", interval=[1.0]), r"tasks\.normal\.mean "),
    "an entry": (lambda file: file["tasks"]["normal"].update(mean=3), r"tasks\.normal\.mean 3;"),
    "a task": (lambda file: file["tasks"].update(normals={}), r"tasks\.normals, which is no task;"),
    "no primary metric": (lambda file: file["tasks"]["normal"].pop("mean"), r"tasks\.normal, which lacks its primary metric;"),
    "a corruption": (lambda file: file.update(corruption="blur"), "corruption 'blur';"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_evaluation_is_refused(trained: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "val.json"
    file: dict[str, Any] = read_evaluation(trained / "eval" / "taskonomy-val.json")
    spoil, message = DAMAGES[damage]
    spoil(file)
    path.write_text(json.dumps(file))
    with pytest.raises(UserError, match=rf"val\.json: got {message}.*expected an evaluation as eval\.py writes it; .*again"):
        read_evaluation(path)


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
    ours = header("taskonomy", "val", 3, None)
    with pytest.raises(UserError, match="--baseline b: got segment_semantic in two files; expected one a task; leave one out"):
        merge_baselines(ours, TASKS, {"a": file, "b": file})


@pytest.mark.parametrize(
    ("change", "got"), [({"value": 0.0}, "a baseline of 0"), ({"value": None, "reason": NOT_FINITE}, NOT_FINITE)]
)
def test_a_baseline_that_no_gain_is_a_part_of_is_refused_first(trained: Path, change: dict[str, Any], got: str) -> None:
    file: dict[str, Any] = read_json(trained / "eval" / "taskonomy-val.json")
    of("normal", **change)(file)
    ours = header("taskonomy", "val", 3, None)
    with pytest.raises(UserError, match=f"--baseline: normal: got {got}; expected a number that a gain .*; train that"):
        merge_baselines(ours, TASKS, {"a": file})


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


def test_the_script_sweeps_severities(script: Script, trained: Path, tree_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "val.json"
    ended = script("eval", "--ckpt", trained, "--split", "val", "--blur", "0,2", "--corrupt", "contrast", "--out", out)
    assert ended.status == 0, ended.err
    suffixes = ["", "-blur2", *(f"-contrast{severity}" for severity in range(1, 6))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"val{s}{e}" for s in suffixes for e in (".json", ".npz"))
    clean, blurred = read_json(out), read_json(tmp_path / "val-blur2.json")
    assert clean["corruption"] is None
    assert blurred["corruption"] == {"kind": "blur", "severity": 2}
    l1 = [file["tasks"]["edge_texture"]["l1"] for file in (clean, blurred)]
    assert l1[0]["value"] == pytest.approx(
        run_evaluation(trained, tree_root, "val", 3)["edge_texture"]["l1"]["value"], rel=1e-4
    )
    assert l1[0]["value"] != l1[1]["value"]
    assert l1[0]["trivial"] == l1[1]["trivial"]  # the labels are the same


def test_a_task_that_the_data_lack_is_absent_and_the_rest_evaluated(script: Script, trained: Path, own_tree: Path) -> None:
    """No file of reshading, and a checkpoint of other classes."""
    shutil.rmtree(own_tree / "reshading")
    data, checkpoint = own_tree / "data.yaml", own_tree / "checkpoint"
    data.write_text(f"data: {{dataset: taskonomy, root: {own_tree}}}\n")
    shutil.copytree((trained / "checkpoints" / "best").resolve(), checkpoint)
    saved = read_json(checkpoint / "config.json")
    saved["classes"]["segment_semantic"][3] = "imp"
    (checkpoint / "config.json").write_text(json.dumps(saved))
    (checkpoint / "manifest.json").unlink()  # it holds the file as it was
    out = own_tree / "val.json"
    ended = script("eval", "--ckpt", checkpoint, "--config", data, "--split", "val", "--out", out)
    assert ended.status == 0, ended.err
    tasks = read_json(out)["tasks"]
    assert list(tasks) == list(TASKS)
    assert tasks["reshading"]["l1"]["value"] is None
    assert tasks["reshading"]["l1"]["reason"] == "it is not derived yet; scripts/annotate.py --dataset makes it"
    assert re.match(
        r"the checkpoint's 17 classes \(.*\) are not the 17 of taskonomy", tasks["segment_semantic"]["miou"]["reason"]
    )
    for task in ("depth_zbuffer", "normal", "keypoints2d", "edge_texture"):
        assert tasks[task][TASKS[task].primary]["value"] > 0
    assert not any(name.startswith(("reshading/", "segment_semantic/")) for name in read_arrays(out.with_suffix(".npz")))
    assert "are not the 17 of taskonomy" in ended.out


def test_depth_of_an_unknown_unit_has_aligned_figures_alone(trained: Path, tree_root: Path) -> None:
    model, _ = load_checkpoint(trained)
    views = Taskonomy(tree_root, split="val", tasks=("depth_zbuffer",))
    metric = evaluate.evaluate(model, build_eval_batches(views, (48, 40), 3, 0), views.tasks, views, {}, CPU)
    views.metric_depth = False
    relative = evaluate.evaluate(model, build_eval_batches(views, (48, 40), 3, 0), views.tasks, views, {}, CPU)
    found, known = (evaluation.results["depth_zbuffer"] for evaluation in (relative, metric))
    assert found["rmse"] == {"value": None, "reason": "the unit of the dataset's labels is unknown"}
    assert {name for name in found if "/" not in name} == {"rmse"}
    for name, entry in found.items():
        if "/" in name:
            assert entry["unit"] == ""
            assert entry["value"] == known[name]["value"]
    assert "median_aligned/abs_rel" in table(relative)
    assert "rmse" in table(metric)
