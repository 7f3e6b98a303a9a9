"""Every method of balancing in the loop: it trains, goes on to the bit, takes accumulation and half precision, and is the same
on two processes as on one.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mult.config import Config
from mult.runs.folder import Run
from mult.training.experiment import build_experiment
from mult.training.loop import train

ROOT = Path(__file__).resolve().parents[2]
Configured = Callable[..., Config]
Train = Callable[..., Path]

OURS = ["fixed", "uncertainty", "dwa", "gradnorm"]
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
METHODS = OURS + THEIRS + [pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]
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


def lines(folder: Path) -> list[dict[str, float]]:
    """The training steps of the log, without what the clock and the machine say."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in read if line.pop("split") == "train"]
    return [{key: value for key, value in line.items() if not key.endswith(("seconds", "_mib"))} for line in steps]


def equal(one: Any, other: Any) -> bool:
    """Nested states, to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def state(folder: Path) -> Any:
    """All that the last checkpoint holds beside the weights: moments, and what the balance remembers."""
    return torch.load(folder / "checkpoints" / "last" / "state.pt", weights_only=True)


def skip_without_torchjd(method: str) -> None:
    if method not in OURS:
        pytest.importorskip("torchjd", reason="the extra `balance` is not installed")


class Interrupted(Run):
    """A run that is killed in its third step."""

    def log(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        super().log(step, split, values)
        if step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", METHODS)
def test_a_balance_trains_and_goes_on_to_the_bit(configured: Configured, train_run: Train, method: str) -> None:
    skip_without_torchjd(method)
    whole = train_run(configured("run.name=whole", *overrides(method)))
    config = configured("run.name=parts", *overrides(method))
    folder = Path(config.run.output) / "parts"
    Run.open(config, resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(build_experiment(config), Interrupted(config), torch.device("cpu"))
    assert equal(state(folder)["step"], 2)
    parts = train_run(config, resume=True)
    assert equal(state(whole), state(parts))
    assert lines(whole) == lines(parts)
    for step, line in enumerate(lines(whole)):
        assert all(map(math.isfinite, line.values()))
        measures = method not in OURS[:3] or step % 2 == 0
        assert ("cosine/segment_semantic/depth_zbuffer" in line) == measures
        assert ("depth_zbuffer/grad_norm" in line) == measures
        assert all(-1.001 <= value <= 1.001 for name, value in line.items() if name.startswith("cosine/"))
    weights = [{name: value for name, value in line.items() if name.startswith("weight/")} for line in lines(whole)]
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


@pytest.mark.parametrize("methods", [OURS + THEIRS, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["some", "others"])
def test_every_balance_is_the_same_on_two_processes(
    configured: Configured, config_file: Path, train_run: Train, tmp_path: Path, methods: list[str]
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
        for one, other in zip(lines(alone), lines(alone.with_name(f"pair-{method}")), strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-4), (method, one["step"])
