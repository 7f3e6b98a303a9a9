"""Every method of balancing in the loop: it trains, goes on to the bit, takes accumulation and half precision, and is the same
on two processes as on one.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mult.runs.folder import Run
from mult.training.balance.choose import METHODS
from mult.training.balance.weighted_sum import WeightedSum
from mult.training.experiment import build_experiment
from mult.training.loop import train
from tests.run_files import Configured, KilledRun, TrainRun, is_same, read_lines, read_state

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "dwa": "{period: 1}",
    "CAGrad": "{c: 0.4}",
    "FairGrad": "{alpha: 1.0}",
    "NashMTL": "{update_weights_every: 3}",
    "TrimmedMean": "{trim_number: 0}",
}
# Of every kind one: a solver with a memory, random draws, a sum of rows, none, a memory of losses.
THEIRS = ["NashMTL", "PCGrad", "UPGrad", "GradDrop", "ExcessMTL"]
OTHERS = [
    "AlignedMTL",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "FairGrad",
    "GradVac",
    "IMTLG",
    "MGDA",
    "PCD",
    "Random",
    "TrimmedMean",
]
"""Run with -m slow. Krum is not among them: it needs three tasks with labels in every step, which these batches lack."""
NAMES = list(METHODS) + THEIRS + [pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]
SMALL = (
    "tasks={segment_semantic: 1, depth_zbuffer: 0.5, normal: 1}",
    "model.window_size=2",
    "model.backbone_args.window_size=2",
    "data.image_size=32",
    "data.split=val",
    "eval.every=0",
    "eval.images=0",
    "balance.log_cosine_every=2",
    "run.checkpoint_every=2",
)
"""Three views: batches of two have one without normals and none that lacks all."""


def overrides(method: str) -> list[str]:
    return [f"balance.method={method}", f"balance.options={OPTIONS.get(method, '{}')}", *SMALL]


def skip_without_torchjd(method: str) -> None:
    if method not in METHODS:
        pytest.importorskip("torchjd", reason="the extra `balance` is not installed")


@pytest.mark.parametrize("method", NAMES)
def test_a_balance_trains_and_goes_on_to_the_bit(configured: Configured, train_run: TrainRun, method: str) -> None:
    skip_without_torchjd(method)
    uninterrupted = train_run(configured("run.name=whole", *overrides(method)))
    config = configured("run.name=parts", *overrides(method))
    folder = Path(config.run.output) / "parts"
    Run.open(config, resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(build_experiment(config), KilledRun(config), torch.device("cpu"))
    assert is_same(read_state(folder)["step"], 2)
    parts = train_run(config, resume=True)
    assert is_same(read_state(uninterrupted), read_state(parts))
    assert read_lines(uninterrupted, "train") == read_lines(parts, "train")
    is_weighted_sum = isinstance(build_experiment(config).balance, WeightedSum)
    for step, line in enumerate(read_lines(uninterrupted, "train")):
        assert all(map(math.isfinite, line.values()))
        measures = not is_weighted_sum or step % 2 == 0
        assert ("cosine/segment_semantic/depth_zbuffer" in line) == measures
        assert ("depth_zbuffer/grad_norm" in line) == measures
        assert all(-1.001 <= value <= 1.001 for name, value in line.items() if name.startswith("cosine/"))
    weights = [
        {name: value for name, value in line.items() if name.startswith("weight/")}
        for line in read_lines(uninterrupted, "train")
    ]
    assert bool(weights[0]) == (method not in {"ConFIG", "GradDrop", "TrimmedMean"})
    # ExcessMTL puts all weight on one task at once here, and keeps it there.
    constant = {"fixed", "ExcessMTL", "ConFIG", "GradDrop", "TrimmedMean"}
    assert method in constant or len({json.dumps(each) for each in weights}) > 1


# One start of two processes for all methods: a runner that reads overrides, a line a run.
RUNNER = """
import sys
import torch
from mult.config import load_config
from mult.runs.folder import Run
from mult.runtime import distributed
from mult.training.experiment import build_experiment
from mult.training.loop import train

distributed.start(torch.device("cpu"))
for line in open(sys.argv[2]).read().splitlines():
    config = load_config(sys.argv[1], line.split(";"))
    experiment = build_experiment(config)
    run = Run.open(config, resume=False) if distributed.is_main() else Run(config)
    train(experiment, run, torch.device("cpu"))
distributed.stop()
"""


@pytest.mark.parametrize("methods", [[*METHODS, *THEIRS], pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["some", "others"])
def test_every_balance_is_the_same_on_two_processes(
    configured: Configured, config_file: Path, train_run: TrainRun, tmp_path: Path, methods: list[str]
) -> None:
    """Two micro-batches a step, one view a process, so that labels are missing on one; no step lacks a task."""
    pytest.importorskip("torchjd", reason="the extra `balance` is not installed")
    shared = ["optim.accumulate=2", "optim.steps=3", "run.checkpoint_every=0"]
    (tmp_path / "runner.py").write_text(RUNNER)
    runs = [[f"run.output={tmp_path}/runs", f"run.name=pair-{name}", *overrides(name), *shared] for name in methods]
    (tmp_path / "runs.txt").write_text("\n".join(";".join(run) for run in runs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(tmp_path / "runner.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [*command, str(config_file), str(tmp_path / "runs.txt")]
    ended = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stderr
    for method in methods:
        alone = train_run(configured(f"run.name=alone-{method}", *overrides(method), *shared))
        for one, other in zip(read_lines(alone, "train"), read_lines(alone.with_name(f"pair-{method}"), "train"), strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-4), (method, one["step"])
