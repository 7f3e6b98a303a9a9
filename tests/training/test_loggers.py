"""What the loggers of `run.log` have of a run, read from their own files: wandb's records and Trackio's database.

Offline: nothing here reaches a network.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mult.errors import UserError
from mult.training.experiment import build_experiment
from mult.training.loop import train
from tests.run_files import Configured, KilledRun, TrainRun, open_signalled

CPU = torch.device("cpu")
Points = list[tuple[int, str, float]]
"""(step, name, value) in the order of their logging."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture(scope="module")
def trackio_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trackio's folder in this process, which Trackio reads when it is imported."""
    folder = tmp_path_factory.mktemp("trackio")
    os.environ["TRACKIO_DIR"] = str(folder)
    trackio = pytest.importorskip("trackio", reason="needs the extra trackio")
    assert folder == trackio.TRACKIO_DIR
    return folder


def read_numbers(run: Path) -> Points:
    """The numbers of metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return sorted(
        (line["step"], f"{line['split']}/{name}", value)
        for line in lines
        for name, value in line.items()
        if name not in ("step", "split") and value is not None
    )


def without_machine(points: Points) -> Points:
    return sorted(point for point in points if not point[1].startswith("machine/"))


def read_wandb_records(file: Path) -> Iterator[Any]:
    """The records in a .wandb file: LevelDB's log format, after 7 bytes of wandb's own."""
    make_record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record  # made at its import, so mypy knows no type
    content, block, data = file.read_bytes(), 32768, b""
    position = 7
    assert content[:4] == b":W&B"
    while position + 7 <= len(content):
        if block - position % block < 7:  # no room for another header
            position += block - position % block
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        data += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            record = make_record()
            record.ParseFromString(data)
            yield record
            data = b""


def read_wandb(run: Path) -> tuple[Points, list[tuple[int, Path]], set[str]]:
    """(numbers, (step, picture) of each gallery, ids of the runs) of all processes."""
    importlib.import_module("wandb").teardown()  # its service may write a while after a run's end
    points, pictures, ids = [], [], set()
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for record in read_wandb_records(file):
            if record.HasField("run"):
                ids.add(record.run.run_id)
            values = {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            if "gallery.path" in values:
                pictures.append((values["step"], file.parent / "files" / values["gallery.path"]))
                continue
            points += [(values["step"], name, values[name]) for name in values if name != "step" and name[0] != "_"]
    return points, pictures, ids


def read_trackio(folder: Path, name: str) -> tuple[Points, list[tuple[int, Path]], set[str]]:
    """The same of the runs in Trackio's database whose names begin so."""
    with sqlite3.connect(folder / "mult.db") as database:
        rows = database.execute("SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    database.close()
    points, pictures, ids = [], [], set()
    for run_id, run_name, step, metrics in rows:
        if not run_name.startswith(name):
            continue
        ids.add(run_id)
        for key, value in json.loads(metrics).items():
            if isinstance(value, dict):
                pictures.append((step, folder / "media" / value["file_path"]))
            else:
                points.append((step, key, value))
    return points, pictures, ids


def read_pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(params=["wandb", "trackio"])
def logger(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(name, reason=f"needs the extra {name}") if name == "wandb" else request.getfixturevalue(
        "trackio_folder"
    )
    return name


def read(logger: str, run: Path, request: pytest.FixtureRequest) -> tuple[Points, list[tuple[int, Path]], set[str]]:
    if logger == "wandb":
        return read_wandb(run)
    return read_trackio(request.getfixturevalue("trackio_folder"), f"{run.name}-{(run / 'logger_id').read_text()}")


def test_a_stopped_and_resumed_run_is_one_with_the_numbers_of_the_log(
    configured: Configured, train_run: TrainRun, logger: str, request: pytest.FixtureRequest
) -> None:
    """It is stopped before the evaluation of step 2, which the resumed run logs after it has been to step 2 already."""
    run = open_signalled(configured(f"run.log={logger}"), 2, signal.SIGTERM)
    train(build_experiment(run.config), run, CPU)
    before, pictures, ids = read(logger, run.folder, request)
    assert without_machine(before) == read_numbers(run.folder)
    assert {step for step, _, _ in before} == {1, 2}
    assert pictures == []
    train_run(run.config, resume=True)
    after, pictures, ids_after = read(logger, run.folder, request)
    assert without_machine(after) == read_numbers(run.folder)
    assert after[: len(before)] == before
    assert len(ids) == 1
    assert ids == ids_after
    assert {step for step, name, _ in after if name == "val/normal/mean"} == {2, 4}
    assert [step for step, _ in pictures] == [2, 4]
    assert np.array_equal(read_pixels(pictures[1][1]), read_pixels(run.folder / "gallery.png"))
    machine = [(step, value) for step, name, value in after if name == "machine/images_per_second"]
    assert [step for step, _ in machine] == [1, 2, 3, 4]
    assert all(value > 0 for _, value in machine)


def test_a_killed_run_logs_the_lost_steps_again_with_the_same_numbers(
    configured: Configured, train_run: TrainRun, logger: str, request: pytest.FixtureRequest
) -> None:
    run = KilledRun.open(configured(f"run.log={logger}"), resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(build_experiment(run.config), run, CPU)
    train_run(run.config, resume=True)
    points, _, ids = read(logger, run.folder, request)
    assert len(ids) == 1
    is_measured = re.compile("machine/|train/(data_)?seconds|train/peak_memory_mib").match
    logged = [point for point in points if not is_measured(point[1])]
    assert set(logged) == {point for point in read_numbers(run.folder) if not is_measured(point[1])}


def test_loggers_may_change_at_a_resume(configured: Configured, train_run: TrainRun, trackio_folder: Path) -> None:
    train_run(configured("optim.steps=2", "optim.warmup=1"))
    folder = train_run(configured("optim.steps=3", "optim.warmup=1", "run.log=trackio"), resume=True)
    points, _, _ = read_trackio(trackio_folder, f"tiny-{(folder / 'logger_id').read_text()}")
    assert {step for step, _, _ in points} == {3}


def test_a_run_that_starts_over_is_another_one(configured: Configured, train_run: TrainRun) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    config = configured("run.log=wandb", "eval.every=0")
    run = KilledRun.open(config, resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(build_experiment(config), run, CPU)
    assert len(read_wandb(run.folder)[2]) == 1
    assert len(read_wandb(train_run(config))[2]) == 2


def test_two_runs_of_one_name_are_two(
    configured: Configured, train_run: TrainRun, trackio_folder: Path, tmp_path: Path
) -> None:
    options = ("run.log=trackio", "optim.steps=1", "optim.warmup=0", "eval.images=0")
    names = []
    for output in ("one", "other"):
        folder = train_run(configured(*options, f"run.output={tmp_path / output}"))
        names.append(f"tiny-{(folder / 'logger_id').read_text()}")
        assert without_machine(read_trackio(trackio_folder, names[-1])[0]) == read_numbers(folder)
    assert names[0] != names[1]


# --- Refusals, before any data is read ---


@pytest.mark.parametrize("setting", ["run.log=tensorboard", "run.log=[wandb]", "run.log=trackio", "run.tensorboard=true"])
def test_a_missing_package_is_named_before_data_is_read(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    name = re.findall("tensorboard|wandb|trackio", setting)[0]
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    expected = rf"^run.log: got {name} without its package .*; expected it installed; pip install \"mult-dense\[{name}\]\", or"
    with pytest.raises(UserError, match=expected):
        build_experiment(configured(setting, "data.root=nowhere"))


def test_an_unknown_logger_is_refused_before_data_is_read(configured: Configured) -> None:
    expected = "^run.log: got 'wandbb'; expected some of tensorboard, wandb, trackio; did you mean 'wandb'[?]$"
    with pytest.raises(UserError, match=expected):
        build_experiment(configured("run.log=[wandbb]", "data.root=nowhere"))


def test_wandb_without_a_key_is_refused_before_data_is_read(config_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    variables |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    settings = ["run.log=wandb", "data.root=nowhere", f"run.output={tmp_path}"]
    command = [sys.executable, "-m", "mult", "train", "--config", str(config_file), *settings]
    ended = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    message = ended.stderr.splitlines()[-1]
    assert ended.returncode == 2, ended.stderr
    assert message.startswith("error: run.log: got wandb, which cannot log (")
    assert "configured" in message.partition(")")[0]  # the library's own reason
    assert message.endswith("expected a key and a network; `wandb login`, or WANDB_MODE=offline, or take it out")
    assert "Traceback" not in ended.stderr


def test_tensorboard_by_both_keys_is_written_once(configured: Configured, train_run: TrainRun) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    config = configured("run.log=tensorboard", "run.tensorboard=true", "optim.steps=1", "optim.warmup=0", "eval.images=0")
    assert len(list((train_run(config) / "tensorboard").iterdir())) == 1
