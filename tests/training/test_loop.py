"""The loop: it learns, repeats itself to the bit, and parts of a step equal the whole step."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mult import TASKS
from mult.config import Config
from mult.data.disk.encodings import ENCODINGS
from mult.errors import UserError
from mult.files import read_json
from mult.runs.checkpoint import find_checkpoint
from mult.training.experiment import build_experiment
from tests.run_files import (
    ALL_RANDOM,
    REPEATABLE,
    Configured,
    TrainRun,
    find_differences,
    read_lines,
    read_state,
    read_weights,
)

CPU = torch.device("cpu")


def losses(folder: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key.endswith("/loss")} for line in read_lines(folder, "train")]


def test_one_batch_is_learnt_by_heart(configured: Configured, train_run: TrainRun) -> None:
    overrides = ["data.split=val", "data.augment=false", "data.batch_size=3", "optim.steps=60", "optim.lr=2e-3", "eval.every=0"]
    curve = losses(train_run(configured(*overrides)))
    first, last = curve[0], curve[-1]
    ratios = {task: last[task] / first[task] for task in first}
    assert len(ratios) == len(ENCODINGS)
    assert max(ratios.values()) < 0.6, ratios
    assert sum(last.values()) < 0.4 * sum(first.values())


def test_the_log_and_the_folder_are_as_the_contract_says(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in log] == [
        (1, "train"),
        (2, "train"),
        (2, "val"),
        (3, "train"),
        (4, "train"),
        (4, "val"),
    ]
    assert [line["lr"] for line in log if line["split"] == "train"] == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])
    for line in log:
        assert all(math.isfinite(value) for value in line.values() if not isinstance(value, str))
    names = {path.name for path in trained.iterdir()} - {".lock"}
    assert names == {"config.yaml", "provenance.json", "metrics.jsonl", "trivial.json", "checkpoints", "eval", "gallery.png"}
    checkpoint = find_checkpoint(trained)
    expected = {"model.safetensors", "config.json", "config.yaml", "trivial.json", "state.pt", "manifest.json"}
    assert expected <= {path.name for path in checkpoint.iterdir()}
    evaluation = json.loads((trained / "eval" / "taskonomy-val.json").read_text())
    assert evaluation["step"] == 4
    assert evaluation["tasks"]["reshading"]["l1"]["value"] == log[-1]["reshading/l1"]
    with Image.open(trained / "gallery.png") as gallery:
        pixels = np.asarray(gallery.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    best = max(read_lines(trained, "val"), key=lambda line: sum(_gains(line, evaluation)))
    assert checkpoint.name == str(best["step"])


def _gains(line: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Iterator[float]:
    """By how much a line of the log beats the trivial baseline, per task."""
    for task, entries in evaluation["tasks"].items():
        entry = entries[TASKS[task].primary]
        gain = line[f"{task}/{TASKS[task].primary}"] / entry["trivial"] - 1
        yield gain if entry["better"] == "higher" else -gain


def test_the_same_seed_gives_the_same_bits(configured: Configured, train_run: TrainRun) -> None:
    overrides = [*ALL_RANDOM, "optim.steps=3", "eval.every=0"]
    first = train_run(configured("run.name=first", *overrides))
    torch.rand(17)  # whatever else drew random numbers
    second = train_run(configured("run.name=second", *overrides))
    assert find_differences(read_weights(first), read_weights(second)) == []
    assert read_lines(first, "train") == read_lines(second, "train")
    assert read_lines(first, "val") == read_lines(second, "val")
    other = train_run(configured("run.name=other", "run.seed=1", *overrides))
    assert "decoder.heads.normal.linear.weight" in find_differences(read_weights(first), read_weights(other))


def test_the_number_of_workers_does_not_matter(configured: Configured, train_run: TrainRun) -> None:
    alone, helped = (
        train_run(configured(f"run.name=w{n}", f"data.workers={n}", *ALL_RANDOM, "optim.steps=2", "eval.every=1"))
        for n in (0, 2)
    )
    assert find_differences(read_weights(alone), read_weights(helped)) == []
    assert read_lines(alone, "train") == read_lines(helped, "train")
    assert read_lines(alone, "val") == read_lines(helped, "val")


def test_activation_checkpointing_changes_no_bit(configured: Configured, train_run: TrainRun) -> None:
    stored, recomputed = (
        train_run(configured(f"run.name=run_{on}", f"run.activation_checkpointing={on}", *ALL_RANDOM, "optim.steps=2"))
        for on in ("false", "true")
    )
    assert find_differences(read_weights(stored), read_weights(recomputed)) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf", "ignore::DeprecationWarning")
def test_a_compiled_run_is_close_to_an_eager_one(configured: Configured, train_run: TrainRun) -> None:
    changes = ("optim.steps=2", "tasks={normal: 1, depth_zbuffer: 1}", "model.backbone_args.depths=[1, 1, 1, 1]")
    eager, compiled = (
        train_run(configured(f"run.name=run_{on}", f"run.compile={on}", *changes, *REPEATABLE)) for on in ("false", "true")
    )
    for one, other in zip(read_lines(eager, "train"), read_lines(compiled, "train"), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_two_micro_batches_are_one_batch(configured: Configured, train_run: TrainRun) -> None:
    whole = train_run(configured("run.name=whole", "data.batch_size=4"))
    parts = train_run(configured("run.name=parts", "data.batch_size=2", "optim.accumulate=2"))
    for one, other in zip(read_lines(whole, "train"), read_lines(parts, "train"), strict=True):
        assert one == pytest.approx(other, rel=2e-4), one["step"]
    assert read_lines(whole, "val")[-1] == pytest.approx(read_lines(parts, "val")[-1], rel=2e-3, abs=2e-3)


def unlabelled_first(configured: Configured, view: str, *overrides: str) -> Config:
    """The config with the first seed whose first batch, of one view, is this one."""
    for seed in range(50):
        config = configured(f"run.seed={seed}", *overrides)
        if next(iter(build_experiment(config).batches(0, 0, 1)))["id"] == [view]:
            return config
    raise AssertionError("no such seed")


def test_a_missing_label_trains_as_if_the_task_were_absent(configured: Configured, train_run: TrainRun) -> None:
    """Against the same views and weight 0: all but the task's own parameters move alike, and those do not move at all."""
    overrides = ["data.batch_size=1", "optim.steps=1", *REPEATABLE]
    missing = unlabelled_first(configured, "alder/point_1_view_0", "run.name=missing", *overrides)  # it has no depth
    start = build_experiment(missing).model.state_dict()
    moved = read_weights(train_run(missing))
    seed = f"run.seed={missing.run.seed}"
    ignored = read_weights(train_run(configured("run.name=ignored", seed, "tasks.depth_zbuffer.weight=0", *overrides)))
    own = [name for name in start if "depth_zbuffer" in name]
    assert own
    assert all(torch.equal(moved[name], start[name]) for name in own)
    assert "decoder.heads.normal.linear.weight" in find_differences(moved, start)
    assert find_differences(moved, ignored) == []
    assert read_lines(Path(missing.run.output) / "missing", "train")[0]["depth_zbuffer/loss"] == 0


def test_task_weights_scale_the_gradient(configured: Configured, train_run: TrainRun) -> None:
    overrides = ["optim.steps=1", *REPEATABLE]
    tasks = ["segment_semantic", "normal", "reshading"]
    once, thrice = (
        train_run(configured(f"run.name=by{w}", f"tasks={{{', '.join(f'{task}: {w}' for task in tasks)}}}", *overrides))
        for w in (1, 3)
    )
    assert read_lines(thrice, "train")[0]["grad_norm"] == pytest.approx(3 * read_lines(once, "train")[0]["grad_norm"], rel=1e-5)
    assert losses(thrice) == losses(once)  # the log has the losses themselves


def test_the_gradient_is_clipped_at_its_norm(configured: Configured, train_run: TrainRun) -> None:
    """Adam's first moment after one step is (1 - beta1) times the gradient it was given."""
    folder = train_run(configured("optim.steps=1", "optim.warmup=1", "optim.clip=0.01", "eval.every=0"))
    moments = [moment["exp_avg"] for moment in read_state(folder)["optimizer"]["state"].values()]
    given = math.sqrt(sum(float(moment.square().sum()) for moment in moments)) / 0.1
    assert read_lines(folder, "train")[0]["grad_norm"] > 0.1
    assert given == pytest.approx(0.01, rel=1e-3)


def test_half_precision_trains_close_to_single(configured: Configured, train_run: TrainRun) -> None:
    single, half = (
        train_run(configured(f"run.name={p}", f"run.precision={p}", "optim.lr=1e-4", "eval.every=4")) for p in ("fp32", "bf16")
    )
    assert {tensor.dtype for tensor in read_weights(half).values() if tensor.is_floating_point()} == {torch.float32}
    assert find_differences(read_weights(half), read_weights(single))
    # The first step has the same weights; from the second on, Adam scales rounding in small gradients up to full steps.
    assert losses(single)[0] == pytest.approx(losses(half)[0], rel=0.05)
    assert all(math.isfinite(value) for step in losses(half) for value in step.values())


@pytest.mark.parametrize(("has_bf16", "precision"), [(False, "fp32"), (True, "bf16")])
def test_an_automatic_precision_is_said_and_kept(
    configured: Configured,
    train_run: TrainRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has_bf16: bool,
    precision: str,
) -> None:
    monkeypatch.setattr("mult.runtime.precision.multiplies_bf16", lambda device: has_bf16)
    overrides = ("optim.steps=2", "eval.every=0", "eval.images=0")
    named = train_run(configured("run.name=named", f"run.precision={precision}", *overrides))
    assert "run.precision" not in capsys.readouterr().out
    decided = train_run(configured("run.name=decided", "run.precision=auto", *overrides))
    assert f"run.precision: auto is {precision} on this cpu" in capsys.readouterr().out
    assert not find_differences(read_weights(named), read_weights(decided))
    assert read_json(decided / "provenance.json")["precision"] == precision
    assert read_state(decided)["conditions"]["precision"] == precision


def test_a_skipped_file_is_listed_once_and_counted_each_time(
    configured: Configured, train_run: TrainRun, own_tree: Path
) -> None:
    """Two epochs over six views, one of which is damaged, and one of three views to evaluate on."""
    damaged = own_tree / "rgb" / "birch" / "point_0_view_0_domain_rgb.png"
    unseen = own_tree / "normal" / "cedar" / "point_2_view_0_domain_normal.png"
    for path in (damaged, unseen):
        path.write_bytes(path.read_bytes()[:-100])
    overrides = [f"data.root={own_tree}", "data.on_bad_file=skip", "data.batch_size=3", "eval.every=4"]
    folder = train_run(configured(*overrides))
    listed = (folder / "bad_files.txt").read_text().splitlines()
    assert sorted(line.split(": got ")[0] for line in listed) == sorted(map(str, (damaged, unseen)))
    counts = [line["bad_samples"] for line in read_lines(folder, "train")]
    assert (len(counts), sum(counts)) == (4, 2)
    (evaluated,) = read_lines(folder, "val")
    assert evaluated["bad_samples"] == 1
    evaluation = json.loads((folder / "eval" / "taskonomy-val.json").read_text())
    assert (evaluation["images"], evaluation["bad_samples"]) == (3, 1)
    assert evaluation["tasks"]["depth_zbuffer"]["rmse"]["images"] == 2
    stops = configured(f"data.root={own_tree}", "run.name=stops")
    with pytest.raises(UserError, match=rf"{damaged}: got a file that cannot be read"):
        train_run(stops)
