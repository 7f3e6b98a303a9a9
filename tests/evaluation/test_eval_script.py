"""scripts/eval.py: the data it evaluates on, the files it writes, and tasks that the data lack."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mult import TASKS
from mult.build import build_eval_batches
from mult.data import Taskonomy
from mult.data.disk.encodings import ENCODINGS
from mult.evaluation.evaluate import evaluate
from mult.files import read_arrays, read_json
from mult.runs.checkpoint import load_checkpoint

Script = Callable[..., Any]


def test_the_script_takes_a_yaml_of_a_data_section_alone(script: Script, trained: Path, own_tree: Path, tmp_path: Path) -> None:
    (own_tree / "splits.csv").write_text("id,train,val,test\nalder,0,0,1\n")
    config, out = tmp_path / "mine.yaml", tmp_path / "mine.json"
    config.write_text(f"data: {{dataset: taskonomy, root: {own_tree}}}")
    ended = script("eval", "--ckpt", trained, "--config", config, "--split", "test", "--out", out)
    assert ended.status == 0, ended.err
    assert read_json(out)["images"] == 4  # alder's, and not the two of the checkpoint's own root
    assert read_json(out)["tasks"]["normal"]["mean"]["value"] > 0


def test_the_script_takes_the_place_of_the_data_as_a_word(
    script: Script, trained: Path, own_tree: Path, tmp_path: Path
) -> None:
    """In place of the YAML's root and of the run's own; what else an evaluation's file does not say must be in a YAML."""
    (own_tree / "splits.csv").write_text("id,train,val,test\nalder,0,0,1\n")
    config, out = tmp_path / "mine.yaml", tmp_path / "mine.json"
    config.write_text("data: {dataset: taskonomy, root: nowhere}")
    root = f"data.root={own_tree}"
    for line in (["--config", config, root, "--split", "test"], ["--split", "test", root]):
        ended = script("eval", "--ckpt", trained, *line, "--out", out)
        assert ended.status == 0, ended.err
        assert read_json(out)["images"] == 4  # alder's, and not the two of the checkpoint's own root
        out.unlink()
    ended = script("eval", "--ckpt", trained, "--out", out, "--baseline", trained / "eval" / "taskonomy-val.json", root)
    assert ended.status == 2
    assert re.search(r"--baseline \S*taskonomy-val\.json: got split val; expected test", ended.err)
    for word, message in {
        "data.max_depth_m=5": "got data.max_depth_m; expected data.root or data.workers or data.batch_size; write a YAML",
        "data.roots=x": "did you mean 'data.root'?",
        "optim.lr=1": "override 'optim.lr=1': got optim.lr; expected data.root or",
        "data.workers=-1": "data.workers: got -1",
        "nonsense": "override 'nonsense': got nonsense; expected data.root or",
    }.items():
        ended = script("eval", "--ckpt", trained, word, "--out", out)
        assert ended.status == 2
        assert message in ended.err
    assert not out.exists()


def test_the_script_repeats_the_training_s_evaluation(script: Script, trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved, symlinks=True)
    ended = script("eval", "--ckpt", moved / "checkpoints" / "last", "--split", "val")
    assert ended.status == 0, ended.err
    again, first = (read_json(moved / "eval" / f"taskonomy-val{step}.json") for step in ("-step4", ""))
    assert again["weights"] == first["weights"]
    assert again["tasks"]["reshading"]["l1"]["value"] == pytest.approx(first["tasks"]["reshading"]["l1"]["value"], rel=1e-5)
    assert again["tasks"]["normal"]["mean"]["pixels"] == first["tasks"]["normal"]["mean"]["pixels"]
    assert "depth_zbuffer" in ended.out


def test_an_evaluation_says_of_which_weights_and_overwrites_none_of_others(
    script: Script, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run, symlinks=True)
    stem, commit = "taskonomy-val", read_json(run / "provenance.json")["commit"]
    of_training = (run / "eval" / f"{stem}.json").read_bytes()
    for step in (2, 4):
        ended = script("eval", "--ckpt", run / "checkpoints" / str(step), "--split", "val", "--blur", "0,2")
        assert ended.status == 0, ended.err
        checksum = hashlib.sha256((run / "checkpoints" / str(step) / "model.safetensors").read_bytes()).hexdigest()
        for name in (f"{stem}-step{step}", f"{stem}-step{step}-blur2"):
            weights = read_json(run / "eval" / f"{name}.json")["weights"]
            assert weights == {"step": step, "checksum": checksum, "commit": commit}
    assert (run / "eval" / f"{stem}.json").read_bytes() == of_training
    assert read_json(run / "eval" / f"{stem}.json")["weights"] == weights  # training's own is of step 4

    (run / "checkpoints" / "checkpoints.json").write_text('{"last": 4, "best": 2}')
    (run / "eval" / f"{stem}-step2.json").unlink()
    assert script("eval", "--ckpt", run, "--split", "val").status == 0
    assert read_json(run / "eval" / f"{stem}-step2.json")["weights"]["step"] == 2
    assert (run / "eval" / f"{stem}.json").read_bytes() == of_training
    assert script("eval", "--ckpt", run, "--split", "test").status == 0  # training has none of that split
    assert read_json(run / "eval" / "taskonomy-test.json")["weights"]["step"] == 2

    # The file of the run is of the run as it stands: it is replaced where the best has moved on, and that is said.
    replaces = "taskonomy-test.json: replaces the evaluation of other weights of this run"
    assert replaces not in script("eval", "--ckpt", run, "--split", "test").out
    (run / "checkpoints" / "checkpoints.json").write_text('{"last": 4, "best": 4}')
    assert replaces in script("eval", "--ckpt", run, "--split", "test").out
    assert read_json(run / "eval" / "taskonomy-test.json")["weights"]["step"] == 4


def test_the_script_sweeps_severities(script: Script, trained: Path, tree_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "val.json"
    ended = script("eval", "--ckpt", trained, "--split", "val", "--blur", "0,2", "--corrupt", "contrast", "--out", out)
    assert ended.status == 0, ended.err
    suffixes = ["", "-blur2", *(f"-contrast{severity}" for severity in range(1, 6))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"val{s}{e}" for s in suffixes for e in (".json", ".npz"))
    clean, blurred = read_json(out), read_json(tmp_path / "val-blur2.json")
    assert clean["corruption"] is None
    assert blurred["corruption"] == {"kind": "blur", "severity": 2}
    views, (model, _) = Taskonomy(tree_root, split="val"), load_checkpoint(trained)
    evaluation = evaluate(model, build_eval_batches(views, (48, 40), 3, 0), model.tasks, views, {}, torch.device("cpu"))
    l1 = [file["tasks"]["edge_texture"]["l1"] for file in (clean, blurred)]
    assert l1[0]["value"] == pytest.approx(evaluation.results["edge_texture"]["l1"]["value"], rel=1e-4)
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
    assert list(tasks) == list(ENCODINGS)
    assert tasks["reshading"]["l1"]["value"] is None
    assert tasks["reshading"]["l1"]["reason"] == "it is not derived yet; `mult annotate --dataset` makes it"
    assert re.match(
        r"the checkpoint's 17 classes \(.*\) are not the 17 of taskonomy", tasks["segment_semantic"]["miou"]["reason"]
    )
    for task in ("depth_zbuffer", "normal", "keypoints2d", "edge_texture"):
        assert tasks[task][TASKS[task].primary]["value"] > 0
    assert not any(name.startswith(("reshading/", "segment_semantic/")) for name in read_arrays(out.with_suffix(".npz")))
    assert "are not the 17 of taskonomy" in ended.out
