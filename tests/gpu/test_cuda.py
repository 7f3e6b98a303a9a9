"""What training, evaluation and prediction do on one GPU: run with -m gpu; minutes. Without CUDA every test is skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from mult import Predictor
from mult.build import build_eval_batches
from mult.config import Config
from mult.runs.folder import Run
from mult.training.balance.choose import METHODS
from mult.training.experiment import build_experiment
from mult.training.loop import train
from tests.run_files import ALL_RANDOM, Configured, find_differences, is_same, read_lines, read_state, read_weights

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]
SHORT = ("run.device=cuda:0", "eval.images=0")
EXACT = (*SHORT, "run.deterministic=true")


def run(config: Config, resume: bool = False) -> Path:
    """As scripts/train.py does on one process."""
    experiment = build_experiment(config, resumes=Run(config).has_checkpoint())
    opened = Run.open(config, resume)
    assert train(experiment, opened, torch.device(config.run.device)) is not None
    assert next(experiment.model.parameters()).is_cuda
    return opened.folder


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains_and_evaluates(configured: Configured, precision: str) -> None:
    folder = run(configured(*SHORT, f"run.precision={precision}", "run.deterministic=auto"))
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    assert json.loads((folder / "provenance.json").read_text())["deterministic"] is False
    assert len(read_lines(folder, "val")) == 2


@pytest.mark.parametrize(
    "overrides",
    [
        (*ALL_RANDOM, "optim.accumulate=2"),
        ("optim.name=muon", "run.activation_checkpointing=true"),
        ("balance.method=gradnorm", "run.precision=bf16", "model.decoder=released"),
    ],
    ids=["average", "muon", "gradnorm"],
)
def test_two_runs_are_equal_to_the_bit_and_a_resumed_one_too(configured: Configured, overrides: tuple[str, ...]) -> None:
    whole, again = (run(configured(f"run.name={name}", *EXACT, *overrides)) for name in ("whole", "again"))
    settings = (*EXACT, *overrides, "optim.schedule=constant", "run.name=parts")
    straight = run(configured(*settings[:-1], "run.name=straight"))
    run(configured(*settings, "optim.steps=2"))
    parts = run(configured(*settings, "optim.steps=4"), resume=True)
    for one, other in ((whole, again), (straight, parts)):
        assert find_differences(read_weights(one), read_weights(other)) == []
        assert is_same(read_state(one)["optimizer"], read_state(other)["optimizer"])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_ours_measures_and_trains(configured: Configured, method: str) -> None:
    run(configured(*EXACT, f"balance.method={method}", "balance.log_cosine_every=2"))


@pytest.mark.parametrize("method", ["PCGrad", "UPGrad", "NashMTL"])
def test_aggregators_of_torchjd_train(configured: Configured, method: str) -> None:
    pytest.importorskip("torchjd")
    run(configured(*EXACT, f"balance.method={method}"))


def test_compiled_blocks_train_and_go_on_between_two_measurements(configured: Configured) -> None:
    settings = (*SHORT, "run.compile=true", "balance.log_cosine_every=4", "optim.schedule=constant", "eval.every=0")
    run(configured(*settings, "optim.steps=2"))
    folder = run(configured(*settings, "optim.steps=5"), resume=True)
    assert len(read_lines(folder, "train")) == 5


def test_the_gpu_s_losses_are_the_cpu_s(configured: Configured) -> None:
    on_gpu = run(configured(*EXACT, "run.name=gpu", "eval.every=0", "optim.steps=2"))
    config = configured("run.name=cpu", "eval.every=0", "optim.steps=2", "eval.images=0")
    opened = Run.open(config, resume=False)
    train(build_experiment(config), opened, torch.device("cpu"))
    first, other = (
        {name: value for name, value in read_lines(folder, "train")[0].items() if name.endswith("/loss")}
        for folder in (on_gpu, opened.folder)
    )
    assert first == pytest.approx(other, rel=1e-2)  # TF32 convolutions


def test_predictions_are_the_cpu_s(configured: Configured, trained: Path) -> None:
    picture = Image.linear_gradient("L").resize((61, 47)).convert("RGB")
    there, here = (Predictor.from_checkpoint(trained, device)(picture) for device in ("cuda:0", "cpu"))
    for task in ("normal", "depth_zbuffer", "reshading"):
        assert there[task] == pytest.approx(here[task], rel=1e-2, abs=1e-2)


def test_batches_to_evaluate_are_in_pinned_memory(configured: Configured) -> None:
    config = configured()
    for batch in build_eval_batches(build_experiment(config).eval_data, config.data.image_size, 2, workers=0):
        assert all(images.is_pinned() for images in batch["image"].stack_runs("image"))
        assert all(target.is_pinned() for target in batch["targets"]["depth_zbuffer"])


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_under_nccl_with_batch_norm(
    config_file: Path, script: Callable[..., object], tmp_path: Path, processes: int
) -> None:
    if torch.cuda.device_count() < processes:
        pytest.skip("one GPU")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
        "scripts/train.py",
    ]
    settings = ["--config", str(config_file), f"run.output={tmp_path}/runs", "run.device=auto", "model.backbone=test_resnet"]
    settings += ["model.backbone_args={}", "model.num_heads=1", "tasks={normal: 1, depth_zbuffer: 1}", "eval.images=0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([*command, *settings], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    folder, alone = tmp_path / "runs" / "tiny", tmp_path / "alone.json"
    script("eval", "--ckpt", folder / "checkpoints" / "last", "--split", "val", "--out", alone)
    of_run, of_one = (json.loads(file.read_text())["tasks"] for file in (folder / "eval" / "taskonomy-val.json", alone))
    assert of_run["normal"]["mean"]["value"] == pytest.approx(of_one["normal"]["mean"]["value"], rel=1e-3)
