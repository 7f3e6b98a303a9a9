"""An experiment that starts from the weights of another run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mult.errors import UserError
from mult.runs.checkpoint import find_checkpoint
from mult.training.experiment import build_experiment
from tests.run_files import (
    REPEATABLE,
    Configured,
    TrainRun,
    find_differences,
    read_lines,
    read_weights,
)


def test_a_run_can_start_from_another_s_weights(configured: Configured, train_run: TrainRun, trained: Path) -> None:
    config = configured(f"run.init={trained}", "optim.lr=1e-12", "optim.steps=1", *REPEATABLE)
    started, given = read_weights(train_run(config)), load_file(find_checkpoint(trained) / "model.safetensors")
    assert max(float((started[name] - given[name]).abs().max()) for name in given) < 1e-9
    fresh = build_experiment(configured(*REPEATABLE)).model.state_dict()
    assert find_differences(fresh, given)


def test_a_resumed_run_needs_the_one_it_started_from_no_more(
    configured: Configured, train_run: TrainRun, trained: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(trained, tmp_path / "first", symlinks=True)
    overrides = [f"run.init={copied}", *REPEATABLE]
    train_run(configured(*overrides, "optim.steps=1"))
    shutil.rmtree(copied)
    folder = train_run(configured(*overrides, "optim.steps=2"), resume=True)
    assert [line["step"] for line in read_lines(folder, "train")] == [1, 2]
    with pytest.raises(UserError, match=r"checkpoint: got .*first; expected a run's folder"):
        build_experiment(configured(*overrides))


def test_a_run_can_start_from_one_of_other_tasks(
    configured: Configured, train_run: TrainRun, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ("optim.lr=1e-12", "optim.steps=1", *REPEATABLE)
    given = load_file(find_checkpoint(trained) / "model.safetensors")
    fewer = read_weights(
        train_run(configured("run.name=fewer", f"run.init={trained}", "tasks={normal: 1, reshading: 1}", *still))
    )
    assert max(float((fewer[name] - given[name]).abs().max()) for name in fewer) < 1e-9
    assert {name for name in given if "reshading" in name} < set(fewer)
    assert "starts anew" not in capsys.readouterr().err
    small = configured("run.name=small", "tasks={normal: 1, reshading: 1}", "optim.steps=1")
    config = configured("run.name=more", f"run.init={train_run(small)}", *still)
    more, given = (
        read_weights(train_run(config)),
        load_file(find_checkpoint(Path(small.run.output, small.run.name)) / "model.safetensors"),
    )
    assert max(float((more[name] - given[name]).abs().max()) for name in given) < 1e-9
    fresh = build_experiment(config).model.state_dict()
    assert max(float((more[name] - fresh[name]).abs().max()) for name in more if "depth_zbuffer" in name) < 1e-9


@pytest.mark.parametrize("change", ["model.reference=reshading", "model.decoder=released", "model.backbone_args.embed_dim=24"])
def test_weights_that_do_not_fit_are_refused(configured: Configured, train_run: TrainRun, trained: Path, change: str) -> None:
    config = configured(f"run.init={trained}", change)
    with pytest.raises(UserError, match=r"run\.init: the weights in .* do not fit this model .*; expected a run of the same"):
        train_run(config)
