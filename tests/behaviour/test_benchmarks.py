"""Training and evaluation on tiny folders of NYUD_MT and PASCAL_MT: four tasks, and five of which two have classes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult.config import Config
from mult.files import read_json
from mult.runs.checkpoint import find_checkpoint
from mult.training.experiment import build_experiment
from tests.data.pascal.tree import write_pascal

MODEL = {
    "window_size": 4,
    "backbone_args": {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "drop_path_rate": 0},
}


def write_nyud(root: Path) -> None:
    """NYUD_MT of two images to train and two to test on; every label follows from the picture."""
    for folder in ("images", "segmentation", "depth", "normals", "edge", "gt_sets"):
        (root / folder).mkdir(parents=True)
    y, x = np.mgrid[:40, :56]
    for split, names in (("train", ("0001", "0002")), ("val", ("0003", "0004"))):
        (root / "gt_sets" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            block = (x > 10 + 3 * int(name)) & (y > 8) & (y < 30)
            picture = np.stack([4 * x, 200 * block, 5 * y], axis=2).astype(np.uint8)
            Image.fromarray(picture).save(root / "images" / f"{name}.jpg")
            Image.fromarray(np.where(block, 5, 1).astype(np.uint8)).save(root / "segmentation" / f"{name}.png")
            np.save(root / "depth" / f"{name}.npy", np.where(block, 1.5, 2 + x / 40))
            edges = np.zeros(block.shape, np.uint8)
            edges[:, 1:][block[:, 1:] != block[:, :-1]] = 255
            Image.fromarray(edges).save(root / "edge" / f"{name}.png")
            normals = np.where(block[..., None], (0.6, 0, -0.8), (0, -0.8, -0.6))
            Image.fromarray(np.rint((normals + 1) * 127.5).astype(np.uint8)).save(root / "normals" / f"{name}.png")


def tiny_config(tmp_path: Path, dataset: str, options: Any, tasks: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": {"name": "tiny", "output": str(tmp_path / "runs"), "device": "cpu"},
        "data": {
            "dataset": dataset,
            "root": str(tmp_path / "data"),
            "image_size": [32, 48],
            "batch_size": 2,
            "workers": 0,
            "options": options,
        },
        "model": {"reference": "normal", **MODEL},
        "tasks": tasks,
        "optim": {"lr": 1e-3, "steps": 1},
        "eval": {"split": "test", "select": "last", "images": 1},
    }


def train_one_step(tmp_path: Path, train_run: Callable[..., Path], dataset: str, options: Any, tasks: dict[str, Any]) -> Path:
    return train_run(Config.from_dict(tiny_config(tmp_path, dataset, options, tasks)))


def check_evaluation(file: dict[str, Any], primaries: dict[str, str]) -> None:
    assert list(file["tasks"]) == list(primaries)
    for task, metric in primaries.items():
        entry = file["tasks"][task][metric]
        assert np.isfinite(entry["value"]), task
        assert np.isfinite(entry["trivial"]), task


def test_nyud_in_four_tasks(tmp_path: Path, train_run: Callable[..., Path], script: Callable[..., Any]) -> None:
    write_nyud(tmp_path / "data")
    tasks = {"segment_semantic": 1, "depth_zbuffer": 1, "normal": 10, "boundary": {"weight": 50, "positive_weight": 0.8}}
    folder = train_one_step(tmp_path, train_run, "nyu", {"normals": "file"}, tasks)
    primaries = {"segment_semantic": "miou", "depth_zbuffer": "rmse", "normal": "mean", "boundary": "odsF"}
    file = read_json(folder / "eval" / "nyu-test.json")
    check_evaluation(file, primaries)
    assert file["tasks"]["boundary"]["odsF"]["max_distance"] == 0.011
    assert file["tasks"]["boundary"]["odsF"]["trivial"] == 0
    out = tmp_path / "again.json"
    ended = script("eval", "--ckpt", folder, "--split", "test", "--out", out)
    assert ended.status == 0, ended.err
    check_evaluation(read_json(out), primaries)
    assert script("compare", folder, out, "--out", tmp_path / "table").status == 0


def test_a_checkpoint_is_chosen_by_a_part_of_the_training_split(
    tmp_path: Path, train_run: Callable[..., Path], script: Callable[..., Any]
) -> None:
    write_nyud(tmp_path / "data")
    tree = tiny_config(tmp_path, "nyu", {}, {"segment_semantic": 1, "depth_zbuffer": 1})
    tree["model"]["reference"] = "depth_zbuffer"
    tree["data"] |= {"hold_out": 0.5, "batch_size": 1}
    tree["optim"] = {"lr": 1e-3, "steps": 3, "non_finite": "stop"}
    tree["eval"] = {"split": "held_out", "every": 1, "images": 1}
    folder = train_run(Config.from_dict(tree))
    assert read_json(folder / "provenance.json")["selected"] == "val"
    lines = [line for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if "improvement" in line]
    assert [(line["step"], line["split"]) for line in lines] == [(1, "held_out"), (2, "held_out"), (3, "held_out")]
    best = max(lines, key=lambda line: float(line["improvement"]))["step"]
    assert find_checkpoint(folder).name == str(best)
    with np.load(folder / "eval" / "nyu-held_out.npz") as arrays:
        (held_out,) = arrays["id"].tolist()
    assert held_out in {"0001", "0002"}
    # The image that is left to train on has the constants; the test images are read by eval.py alone, of the checkpoint chosen.
    ended = script("eval", "--ckpt", folder, "--split", "test")
    assert ended.status == 0, ended.err
    file = read_json(folder / "eval" / "nyu-test.json")
    assert (file["images"], file["selected"]) == (2, "val")
    other = next(step for step in (1, 2, 3) if step != best and (folder / "checkpoints" / str(step)).exists())
    ended = script(
        "eval", "--ckpt", folder / "checkpoints" / str(other), "--split", "held_out", "--out", tmp_path / "other.json"
    )
    assert ended.status == 0, ended.err
    assert read_json(tmp_path / "other.json")["selected"] == "by hand"


def test_the_last_step_counts_whatever_the_evaluations_say(
    tmp_path: Path, train_run: Callable[..., Path], script: Callable[..., Any]
) -> None:
    write_nyud(tmp_path / "data")
    tree = tiny_config(tmp_path, "nyu", {}, {"segment_semantic": 1, "depth_zbuffer": 1})
    tree["model"]["reference"] = "depth_zbuffer"
    tree["data"] |= {"hold_out": 0.5, "batch_size": 1}
    tree["optim"] = {"lr": 5.0, "steps": 2, "schedule": "constant", "clip": None}  # the second step is worse than the first
    tree["eval"] = {"split": "held_out", "every": 1, "images": 1}
    first = train_run(Config.from_dict(tree))
    assert find_checkpoint(first).name == "1"
    tree["run"]["name"], tree["eval"]["select"] = "last", "last"
    folder = train_run(Config.from_dict(tree))
    assert find_checkpoint(folder).name == "2"
    assert read_json(folder / "provenance.json")["selected"] == "last"
    # Resumed with the other choice, the run that had a best checkpoint stands for its last.
    tree["run"]["name"], tree["optim"]["steps"] = "tiny", 3
    assert find_checkpoint(train_run(Config.from_dict(tree), resume=True)).name == "3"
    assert read_json(first / "eval" / "nyu-held_out.json")["selected"] == "last"


def test_a_quick_form_is_of_the_training_alone_and_said(
    tmp_path: Path, train_run: Callable[..., Path], script: Callable[..., Any]
) -> None:
    write_nyud(tmp_path / "data")
    tree = tiny_config(tmp_path, "nyu", {}, {"boundary": 1})
    tree["model"]["reference"] = None
    tree["eval"]["quick"] = True
    folder = train_run(Config.from_dict(tree))
    quick = read_json(folder / "eval" / "nyu-test.json")["tasks"]["boundary"]["odsF"]
    assert (quick["thresholds"], quick["quick"], quick["max_distance"]) == (24, True, 0.011)
    out = tmp_path / "full.json"
    assert script("eval", "--ckpt", folder, "--split", "test", "--out", out).status == 0
    full = read_json(out)["tasks"]["boundary"]["odsF"]
    assert (full["thresholds"], full["quick"]) == (99, False)
    assert full["value"] >= quick["value"]
    ended = script("compare", folder, out)
    assert ended.status == 2
    assert "got boundary with 99 thresholds in" in ended.err
    assert "expected one form; evaluate both by eval.py" in ended.err
    ended = script("compare", folder, "--row", tmp_path / "row.json")
    assert "would be refused: got the quick form of odsF; expected the full one" in ended.out


def test_pascal_in_five_tasks(tmp_path: Path, train_run: Callable[..., Path], script: Callable[..., Any]) -> None:
    ids = {"train": ["2008_000001", "2008_000002"], "val": ["2009_000003", "2009_000004"]}
    write_pascal(tmp_path / "data", (40, 56), ids)
    tasks = {"segment_semantic": 1, "normal": 10, "boundary": 50, "saliency": 5, "human_parts": 2}
    folder = train_one_step(tmp_path, train_run, "pascal", {}, tasks)
    primaries = {"segment_semantic": "miou", "normal": "mean", "boundary": "odsF", "saliency": "maxF", "human_parts": "miou"}
    file = read_json(folder / "eval" / "pascal-test.json")
    check_evaluation(file, primaries)
    assert file["tasks"]["boundary"]["odsF"]["max_distance"] == 0.0075
    assert file["tasks"]["human_parts"]["miou"]["images"] == 1  # the other has no person
    ended = script("eval", "--ckpt", folder, "--split", "test", "--out", tmp_path / "again.json")
    assert ended.status == 0, ended.err
    check_evaluation(read_json(tmp_path / "again.json"), primaries)
    ended = script("report", folder, "--out", tmp_path / "report.html")
    assert ended.status == 0, ended.err
    page = (tmp_path / "report.html").read_text()
    assert "upper arm" in page
    assert "aeroplane" in page
    picture = tmp_path / "data/JPEGImages/2009_000003.jpg"
    ended = script("predict", "--ckpt", folder, picture, "--out", tmp_path / "maps")
    assert ended.status == 0, ended.err
    with np.load(tmp_path / "maps/2009_000003.npz") as maps:
        assert set(maps) == set(tasks)
        assert maps["human_parts"].max() < 7
        assert (maps["boundary"] > 0).all()
        assert (maps["saliency"] < 1).all()


@pytest.mark.parametrize("dataset", ["nyu", "pascal"])
def test_check_data_knows_both(tmp_path: Path, script: Callable[..., Any], dataset: str) -> None:
    if dataset == "nyu":
        write_nyud(tmp_path / "data")
    else:
        write_pascal(tmp_path / "data", (40, 56), {"train": ["2008_000001", "2008_000002"], "val": ["2009_000003"]})
    ended = script(
        "check_data", "--dataset", dataset, "--root", tmp_path / "data", "--split", "train", "--out", tmp_path / "check"
    )
    assert ended.status == 0, ended.err
    assert "boundary" in ended.out


@pytest.mark.parametrize("weight", [0, 1])
def test_a_positive_weight_of_no_use_is_refused(weight: int) -> None:
    tree = {
        "run": {"name": "x"},
        "data": {"dataset": "nyu", "root": "x", "image_size": 32, "batch_size": 1},
        "tasks": {"boundary": {"positive_weight": weight}},
        "optim": {"lr": 1e-3, "steps": 1},
    }
    with pytest.raises(ValueError, match=r"tasks.boundary.positive_weight: got .*; expected a number in \(0, 1\)"):
        Config.from_dict(tree)


@pytest.mark.parametrize("dataset", ["nyu", "pascal"])
def test_no_test_image_is_read_before_the_last_step(tmp_path: Path, dataset: str) -> None:
    if dataset == "nyu":
        write_nyud(tmp_path / "data")
    else:
        write_pascal(tmp_path / "data", (40, 56), {"train": ["0001", "0002"], "val": ["0003", "0004"]})
    tasks = {"segment_semantic": 1, "normal": 1, "boundary": 1} | ({"depth_zbuffer": 1} if dataset == "nyu" else {})
    tree = tiny_config(tmp_path, dataset, {"normals": "file"} if dataset == "nyu" else {}, tasks)
    opened: set[str] = set()
    records = True

    def record(event: str, arguments: tuple[Any, ...]) -> None:
        if records and event == "open":
            opened.add(Path(str(arguments[0])).stem)

    sys.addaudithook(record)  # Python has no way to remove it
    try:
        experiment = build_experiment(Config.from_dict(tree))
        for _ in experiment.batches(0, 0, 1):
            pass
        assert opened >= {"0001", "0002"}
        assert opened.isdisjoint({"0003", "0004"})
        _ = experiment.eval_data[0]
        assert "0003" in opened
    finally:
        records = False
