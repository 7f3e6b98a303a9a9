"""An experiment that starts from the weights of another run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from mult.errors import UserError
from mult.models import MulT
from mult.models.stacked import stacked_tasks
from mult.runs.checkpoint import find_checkpoint, load_checkpoint
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
    given = weights_by_task(load_checkpoint(trained)[0])
    fewer_folder = train_run(configured("run.name=fewer", f"run.init={trained}", "tasks={normal: 1, reshading: 1}", *still))
    fewer = weights_by_task(load_checkpoint(fewer_folder / "checkpoints" / "last")[0])
    assert set(fewer) == {(name, task) for name, task in given if task in (None, "normal", "reshading")}
    assert max(float((fewer[key] - given[key]).abs().max()) for key in fewer) < 1e-9
    out = capsys.readouterr().out
    assert "starts anew" not in out
    left_out = "segment_semantic, depth_zbuffer, keypoints2d, edge_texture"
    assert f"; left out, not among this run's tasks: {left_out}\n" in out
    small = configured("run.name=small", "tasks={normal: 1, reshading: 1}", "optim.steps=1", "optim.warmup=1")
    config = configured("run.name=more", f"run.init={train_run(small)}", *still)
    capsys.readouterr()
    more = weights_by_task(load_checkpoint(train_run(config) / "checkpoints" / "last")[0])
    out = capsys.readouterr().out
    assert "; depth_zbuffer starts anew: not in the model to start from" in out
    assert "left out" not in out
    given = weights_by_task(load_checkpoint(Path(small.run.output, small.run.name))[0])
    assert max(float((more[key] - given[key]).abs().max()) for key in given) < 1e-9
    fresh = weights_by_task(build_experiment(config).model)
    assert max(float((more[key] - fresh[key]).abs().max()) for key in more if key[1] == "depth_zbuffer") < 1e-9


def weights_by_task(model: MulT) -> dict[tuple[str, str | None], Tensor]:
    """Each task's slices of the stacked weights and its head; None: the weights that are nobody's own."""
    stacked, weights = stacked_tasks(model), dict[tuple[str, str | None], Tensor]()
    for name, weight in model.state_dict().items():
        if name in stacked:
            weights |= {(name, task): part for task, part in zip(stacked[name], weight, strict=True)}
        else:
            weights[name, name.split(".")[2] if name.startswith("decoder.heads.") else None] = weight
    return weights


@pytest.mark.parametrize("change", ["model.reference=reshading", "model.decoder=released", "model.backbone_args.embed_dim=24"])
def test_weights_that_do_not_fit_are_refused(configured: Configured, train_run: TrainRun, trained: Path, change: str) -> None:
    config = configured(f"run.init={trained}", change)
    with pytest.raises(UserError, match=r"run\.init: the weights in .* do not fit this model .*; expected a run of the same"):
        train_run(config)


def test_a_resumed_run_asks_for_no_pretrained_weights(configured: Configured, train_run: TrainRun) -> None:
    folder = train_run(configured("optim.steps=2"))
    train_run(configured("optim.steps=3", "model.pretrained=moved.safetensors"), resume=True)
    assert [line["step"] for line in read_lines(folder, "train")] == [1, 2, 3]
