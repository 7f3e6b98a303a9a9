"""Two processes under torchrun against one process: the same losses, weights that act alike, the same evaluation."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mult.files import read_arrays
from mult.training.experiment import build_experiment
from tests.run_files import Configured, TrainRun, find_differences, read_lines, read_state, read_weights

ROOT = Path(__file__).resolve().parents[2]
HANG_S = 600
"""Seconds after which a process is taken to hang."""


def find_free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def start(config_file: Path, *settings: str) -> list[subprocess.Popen[str]]:
    """Two processes of scripts/train.py, as a scheduler would start them."""
    command = [sys.executable, "scripts/train.py", "--config", str(config_file), *settings]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": find_free_port()}
    return [start_one(command, {**group, "RANK": str(rank)}) for rank in range(2)]


def start_one(command: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """(status, stdout, stderr) of each.

    A process whose peer ended fails too, but how is not certain: gloo raises, and the status is 1, or aborts (-6).
    """
    outputs = [process.communicate(timeout=HANG_S) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, outputs, strict=True)]


def test_two_processes_are_one(
    configured: Configured, config_file: Path, train_run: TrainRun, own_tree: Path, tmp_path: Path
) -> None:
    """Ten steps of two micro-batches of two views, some unlabelled, one damaged, three to evaluate: nothing divides evenly."""
    damaged = own_tree / "depth_zbuffer" / "alder" / "point_2_view_0_domain_depth_zbuffer.png"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    # At a rate of 1e-3 the training itself makes 1e-3 of a last bit in ten steps, with one process as with two; at 1e-4, 1e-5.
    overrides = ["optim.accumulate=2", "optim.ema=0.5", "optim.steps=10", "optim.lr=1e-4", "eval.every=5"]
    overrides += [f"data.root={own_tree}", "data.on_bad_file=skip"]
    alone = train_run(configured("run.name=alone", *overrides))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "scripts/train.py"]
    settings = ["--config", str(config_file), f"run.output={tmp_path}/runs", "run.name=pair", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([*command, *settings], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("look at") == 1  # one process prints
    assert ended.stdout.count("step 5, val split") == 1
    pair = alone.with_name("pair")
    for one, other in zip(read_lines(alone, "train"), read_lines(pair, "train"), strict=True):
        assert one == pytest.approx(other, rel=5e-5), one["step"]
    for one, other in zip(read_lines(alone, "val"), read_lines(pair, "val"), strict=True):
        assert one == pytest.approx(other, rel=5e-5, abs=5e-5)
    begun = build_experiment(configured(*overrides)).model.state_dict()
    for mine, theirs in zip(read_average_and_weights(alone), read_average_and_weights(pair), strict=True):
        # Adam makes full steps of gradients that are rounding alone, as of the keys' biases: up to 5e-4 in ten steps.
        assert max(float((mine[name] - theirs[name]).abs().max()) for name in begun) < 1e-5
        moved, apart = (sum(float((mine[name] - to[name]).square().sum()) for name in begun) for to in (begun, theirs))
        assert apart < 1e-8 * moved
    results: list[Any] = [json.loads((folder / "eval" / "taskonomy-val.json").read_text())["tasks"] for folder in (alone, pair)]
    for task, entries in results[0].items():
        for metric, entry in entries.items():
            other = results[1][task][metric]
            assert (entry["value"] is None) == (other["value"] is None)
            if entry["value"] is not None:
                assert (entry["pixels"], entry["images"]) == (other["pixels"], other["images"])  # no view twice
                assert entry["trivial"] == pytest.approx(other["trivial"], rel=1e-12)
    columns = [read_arrays(folder / "eval" / "taskonomy-val.npz") for folder in (alone, pair)]
    assert columns[1]["id"].tolist() == [f"cedar/point_{point}_view_0" for point in range(3)]  # one process has 0 and 2
    for name, column in columns[0].items():
        assert columns[1][name].dtype == column.dtype
        if name.endswith("/pixels"):
            assert columns[1][name].tolist() == column.tolist(), name
    assert sum(line["bad_samples"] for line in read_lines(pair, "train")) >= 2
    assert (pair / "bad_files.txt").read_text() == (alone / "bad_files.txt").read_text()
    assert (pair / "bad_files.txt").read_text().count("\n") == 1
    assert json.loads((pair / "provenance.json").read_text())["processes"] == 2
    assert json.loads((alone / "provenance.json").read_text())["processes"] == 1


def test_one_of_two_processes_has_loggers(config_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    settings = ["run.log=tensorboard", "optim.steps=1", "optim.warmup=0", "eval.images=0"]
    for status, _, err in wait_for(start(config_file, f"run.output={tmp_path}", *settings)):
        assert status == 0, err
    assert len(list((tmp_path / "tiny" / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_two_nodes_are_one(config_file: Path, tmp_path: Path) -> None:
    """Two agents of torchrun that meet by its rendezvous, with a process each, against two processes of one node."""
    settings = [f"run.output={tmp_path}/runs", "optim.steps=2", "run.deterministic=true"]
    of_one_node = start(config_file, "run.name=node", *settings)
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d"]
    agent += [f"--rdzv_endpoint=127.0.0.1:{find_free_port()}", "--rdzv_id=mult", "--local_addr=127.0.0.1"]
    command = [*agent, "scripts/train.py", "--config", str(config_file), "run.name=nodes", *settings]
    for status, _, err in wait_for(of_one_node):
        assert status == 0, err
    ended = wait_for([start_one(command, {}) for _ in range(2)])
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert sum(out.count("look at") for _, out, _ in ended) == 1
    node, nodes = tmp_path / "runs" / "node", tmp_path / "runs" / "nodes"
    assert find_differences(read_weights(node), read_weights(nodes)) == []
    assert read_lines(node) == read_lines(nodes)
    assert json.loads((nodes / "provenance.json").read_text())["processes"] == 2


def read_average_and_weights(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The average and the weights of the last checkpoint."""
    return read_weights(folder), read_state(folder)["model"]


def test_a_signal_to_one_process_ends_both_at_the_same_step(config_file: Path, tmp_path: Path) -> None:
    steps = 1_000_000  # more than a run can take before the signal reaches it, however busy the machine
    settings = [f"run.output={tmp_path}", f"optim.steps={steps}", "eval.every=0"]
    processes = start(config_file, *settings)
    while not (tmp_path / "tiny" / "metrics.jsonl").exists() and processes[0].poll() is None:
        time.sleep(0.05)
    processes[1].terminate()
    (main, out, err), (other, *other_output) = wait_for(processes)
    assert (main, other) == (0, 0), err
    last = os.readlink(tmp_path / "tiny" / "checkpoints" / "last")
    assert f"a signal to another process: stopped after step {last} of {steps}; go on with --resume" in out
    assert [line["step"] for line in read_lines(tmp_path / "tiny", "train")] == list(range(1, int(last) + 1))
    assert other_output == ["", ""]  # one process prints


def test_a_failure_of_one_process_ends_both(config_file: Path, own_tree: Path, tmp_path: Path) -> None:
    """The second of three views to evaluate is read by the second process alone."""
    image = own_tree / "rgb" / "cedar" / "point_1_view_0_domain_rgb.png"
    image.write_bytes(image.read_bytes()[:60])
    settings = [f"data.root={own_tree}", f"run.output={tmp_path}/runs", "eval.images=0"]
    (main, _, _), (other, _, err) = wait_for(start(config_file, *settings))
    assert other == 2
    assert re.search(r"^error: .*cedar/point_1_view_0_domain_rgb\.png: got a file that cannot be read", err, re.M)
    assert "Traceback" not in err
    assert main != 0
    assert os.readlink(tmp_path / "runs" / "tiny" / "checkpoints" / "last") == "2"


def test_a_mistake_in_the_config_is_said_once(config_file: Path, tmp_path: Path) -> None:
    (main, _, err), (other, _, other_err) = wait_for(start(config_file, f"run.output={tmp_path}", "model.reference=nothing"))
    assert main == 2
    assert err.count("error: ") == 1
    assert "model.reference: got 'nothing'" in err
    assert other != 0
    assert "model.reference" not in other_err
    assert list(tmp_path.glob("*/tiny")) == []


def test_batch_statistics_are_those_of_the_checkpoint_on_all_processes(
    config_file: Path, script: Callable[..., Any], tmp_path: Path
) -> None:
    """Each process has seen other images; what one process makes of the checkpoint is what two made in training."""
    settings = [f"run.output={tmp_path}/runs", "model.backbone=test_resnet", "model.backbone_args={}", "model.num_heads=1"]
    settings += ["tasks={normal: 1, depth_zbuffer: 1}", "eval.images=0", "optim.ema=0.5", "balance.method=gradnorm"]
    ended = wait_for(start(config_file, *settings))
    assert [status for status, _, _ in ended] == [0, 0], ended[0][2]
    folder, alone = tmp_path / "runs" / "tiny", tmp_path / "alone.json"
    assert script("eval", "--ckpt", folder / "checkpoints" / "last", "--split", "val", "--out", alone).status == 0
    of_two, of_one = (json.loads(file.read_text())["tasks"] for file in (folder / "eval" / "taskonomy-val.json", alone))
    for task, metric in (("normal", "mean"), ("depth_zbuffer", "rmse")):
        assert of_two[task][metric]["value"] == pytest.approx(of_one[task][metric]["value"], rel=1e-5)
