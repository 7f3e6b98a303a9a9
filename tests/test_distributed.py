"""Two processes under torchrun against one process: the same losses, weights that act alike, the same evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mult import distributed
from mult.config import Config
from mult.runs import read_arrays

ROOT = Path(__file__).resolve().parents[1]


def lines(folder: Path, split: str) -> list[dict[str, float]]:
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("split", "seconds", "data_seconds", "peak_memory_mib")
    return [{key: value for key, value in line.items() if key not in clock} for line in read if line["split"] == split]


def test_two_processes_are_one(
    configured: Callable[..., Config], config_file: Path, train_run: Callable[..., Path], tmp_path: Path
) -> None:
    """Each step two micro-batches of two views, some unlabelled, three views to evaluate: nothing divides evenly."""
    overrides = ["optim.accumulate=2", "optim.ema=0.5"]
    alone = train_run(configured("run.name=alone", *overrides))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "scripts/train.py"]
    settings = ["--config", str(config_file), f"run.output={tmp_path}/runs", "run.name=pair", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([*command, *settings], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("look at") == 1  # one process speaks
    pair = alone.with_name("pair")
    for one, other in zip(lines(alone, "train"), lines(pair, "train"), strict=True):
        assert one == pytest.approx(other, rel=2e-4), one["step"]
    for one, other in zip(lines(alone, "val"), lines(pair, "val"), strict=True):
        assert one == pytest.approx(other, rel=5e-3, abs=5e-3)
    results: list[Any] = [json.loads((folder / "eval" / "taskonomy-val.json").read_text())["tasks"] for folder in (alone, pair)]
    for task, entries in results[0].items():
        for metric, entry in entries.items():
            other = results[1][task][metric]
            assert (entry["value"] is None) == (other["value"] is None)
            if entry["value"] is not None:
                assert (entry["pixels"], entry["images"]) == (other["pixels"], other["images"])  # no view twice
                assert entry["trivial"] == pytest.approx(other["trivial"], rel=1e-12)
    kept = [read_arrays(folder / "eval" / "taskonomy-val.npz") for folder in (alone, pair)]
    assert kept[1]["id"].tolist() == [f"cedar/point_{point}_view_0" for point in range(3)]  # one process has 0 and 2
    for name, column in kept[0].items():
        assert kept[1][name].dtype == column.dtype
        if name.endswith("/pixels"):
            assert kept[1][name].tolist() == column.tolist(), name
    assert json.loads((pair / "provenance.json").read_text())["processes"] == 2
    assert json.loads((alone / "provenance.json").read_text())["processes"] == 1


def test_one_process_needs_no_group() -> None:
    assert (distributed.rank(), distributed.world(), distributed.is_main()) == (0, 1, True)
    amount = torch.tensor([1.5, 2.0])
    assert distributed.add(amount).tolist() == [1.5, 2.0]
    distributed.start(torch.device("cpu"))
    distributed.barrier()
    distributed.stop()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu:x"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"run\.device: got '{name}' \(.*\); expected auto, cpu or a device of this machine"):
        distributed.pick_device(name)
    assert distributed.pick_device("cpu") == torch.device("cpu")
