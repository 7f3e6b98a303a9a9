"""The numbers of an evaluation against NumPy on the model's own outputs, and its file against the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.testing._internal.distributed.fake_pg import FakeStore

from mult import TASKS, Predictor
from mult.build import build_eval_batches
from mult.data import Taskonomy
from mult.data.disk.encodings import ENCODINGS
from mult.evaluation import evaluate
from mult.evaluation.results import Results, compute_improvement
from mult.evaluation.tables import format_evaluation
from mult.evaluation.trivial import learn_constants
from mult.files import read_arrays, read_json
from mult.runs.checkpoint import load_checkpoint

Pixels = dict[str, tuple[NDArray[Any], NDArray[Any]]]
Script = Callable[..., Any]
CPU = torch.device("cpu")


def pixels(root: Path, split: str) -> dict[str, NDArray[Any]]:
    """All valid target pixels of a split: (N,) class ids or (N, C)."""
    found: dict[str, list[NDArray[Any]]] = {task: [] for task in ENCODINGS}
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
    found: dict[str, list[tuple[Any, Any]]] = {task: [] for task in ENCODINGS}
    for view in list_of(Taskonomy(tree_root, split="val")):
        with torch.no_grad():
            size = {(64, 64): (48, 48), (40, 48): (48, 58)}[tuple(view["image"].shape[-2:])]  # covers 48 x 40, in proportion
            outputs = model(F.interpolate(view["image"][None], size, mode="bilinear", antialias=True))
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
    """The metrics of mult/metrics/README.md in NumPy, pooled over all pixels."""
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
    sampled = learn_constants(views, ["reshading"], seed=0, max_pixels=400)["reshading"]["rmse"][0]
    assert sampled != exact
    assert sampled == pytest.approx(exact, rel=0.05)
    assert learn_constants(views, ["reshading"], seed=0, max_pixels=400)["reshading"]["rmse"][0] == sampled


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
    assert (file["dataset"], file["split"], file["images"], file["metric_version"]) == ("taskonomy", "val", 3, 2)
    assert list(file["tasks"]) == list(ENCODINGS)
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
    assert compute_improvement(results) is None
    assert "normal" in format_evaluation(evaluate.Evaluation(results, {}, "images"))


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


def test_an_image_takes_as_many_bytes_as_stated(trained: Path) -> None:
    columns = read_arrays(trained / "eval" / "taskonomy-val.npz")
    stated = {"segment_semantic": 208, "depth_zbuffer": 116, "normal": 1476, "keypoints2d": 20, "edge_texture": 20}
    for task, expected in stated.items():
        size = sum(column[:1].nbytes for name, column in columns.items() if name.startswith(f"{task}/"))
        assert size == expected, task


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
    assert "median_aligned/abs_rel" in format_evaluation(relative)
    assert "rmse" in format_evaluation(metric)


@pytest.mark.parametrize(("processes", "share"), [(1, 64), (8, 8), (24, 3), (100, 1)])
def test_processes_share_a_batch(processes: int, share: int) -> None:
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=processes - 1, world_size=processes)
    try:
        assert evaluate.batch_size_of_this_process(64) == share
    finally:
        torch.distributed.destroy_process_group()
