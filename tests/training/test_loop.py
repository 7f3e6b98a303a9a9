"""The loop: it learns, repeats itself to the bit, goes on as if never stopped, and parts of a step equal the whole step."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from mult import TASKS
from mult.config import Config
from mult.data.disk.encodings import ENCODINGS
from mult.errors import UserError
from mult.files import read_json
from mult.models import MulT
from mult.runs.checkpoint import find_checkpoint
from mult.runs.folder import Run
from mult.training.experiment import build_experiment
from mult.training.loop import train

Configured = Callable[..., Config]
Train = Callable[..., Path]
CPU = torch.device("cpu")
ALL_RANDOM = ("model.drop_path=0.3", "model.dropout=0.2", "model.backbone_args.drop_path_rate=0.2", "optim.ema=0.9")
REPEATABLE = ("optim.clip=null", "optim.weight_decay=0", "optim.warmup=0", "optim.schedule=constant", "eval.every=0")


def lines(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    """The log, without what the clock and the machine say."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if not key.endswith(("seconds", "_mib"))}
        for line in read
        if line["split"] == split
    ]


def numbers(folder: Path, split: str = "train") -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key != "split"} for line in lines(folder, split)]


def losses(folder: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key.endswith("/loss")} for line in lines(folder)]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "checkpoints" / "last" / "model.safetensors")


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def equal(one: Any, other: Any) -> bool:
    """Nested states, to the bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def state(folder: Path) -> Any:
    return torch.load(folder / "checkpoints" / "last" / "state.pt", weights_only=True)


# --- It learns ---


def test_one_batch_is_learnt_by_heart(configured: Configured, train_run: Train) -> None:
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
    best = max(lines(trained, "val"), key=lambda line: sum(_gains(line, evaluation)))
    assert checkpoint.name == str(best["step"])


def _gains(line: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Iterator[float]:
    """By how much a line of the log beats the trivial baseline, per task."""
    for task, entries in evaluation["tasks"].items():
        entry = entries[TASKS[task].primary]
        gain = line[f"{task}/{TASKS[task].primary}"] / entry["trivial"] - 1
        yield gain if entry["better"] == "higher" else -gain


# --- It repeats itself ---


def test_the_same_seed_gives_the_same_bits(configured: Configured, train_run: Train) -> None:
    overrides = [*ALL_RANDOM, "optim.steps=3", "eval.every=0"]
    first = train_run(configured("run.name=first", *overrides))
    torch.rand(17)  # whatever else drew random numbers
    second = train_run(configured("run.name=second", *overrides))
    assert differing(weights(first), weights(second)) == []
    assert lines(first) == lines(second)
    assert lines(first, "val") == lines(second, "val")
    other = train_run(configured("run.name=other", "run.seed=1", *overrides))
    assert "decoder.heads.normal.linear.weight" in differing(weights(first), weights(other))


def test_the_number_of_workers_does_not_matter(configured: Configured, train_run: Train) -> None:
    alone, helped = (
        train_run(configured(f"run.name=w{n}", f"data.workers={n}", *ALL_RANDOM, "optim.steps=2", "eval.every=1"))
        for n in (0, 2)
    )
    assert differing(weights(alone), weights(helped)) == []
    assert lines(alone) == lines(helped)
    assert lines(alone, "val") == lines(helped, "val")


def test_activation_checkpointing_changes_no_bit(configured: Configured, train_run: Train) -> None:
    kept, again = (
        train_run(configured(f"run.name=run_{on}", f"run.activation_checkpointing={on}", *ALL_RANDOM, "optim.steps=2"))
        for on in ("false", "true")
    )
    assert differing(weights(kept), weights(again)) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf", "ignore::DeprecationWarning")
def test_a_compiled_run_is_close_to_an_eager_one(configured: Configured, train_run: Train) -> None:
    changes = ("optim.steps=2", "tasks={normal: 1, depth_zbuffer: 1}", "model.backbone_args.depths=[1, 1, 1, 1]")
    eager, compiled = (
        train_run(configured(f"run.name=run_{on}", f"run.compile={on}", *changes, *REPEATABLE)) for on in ("false", "true")
    )
    for one, other in zip(numbers(eager), numbers(compiled), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


class Interrupted(Run):
    """A run that is killed in the middle of its third step's work, its line already in the log."""

    def log(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        super().log(step, split, values)
        if step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "extra",
    [ALL_RANDOM, ("optim.accumulate=2",), ("optim.name=muon",)],
    ids=["random and averaged", "accumulated", "muon"],
)
def test_two_steps_and_two_resumed_are_four(configured: Configured, train_run: Train, extra: tuple[str, ...]) -> None:
    whole = train_run(configured("run.name=whole", *extra))
    config = configured("run.name=parts", *extra)
    run = Interrupted.open(config, resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(build_experiment(config), run, CPU)
    assert find_checkpoint(run.folder / "checkpoints" / "last").name == "2"
    assert lines(run.folder)[-1]["step"] == 3
    parts = train_run(config, resume=True)
    assert differing(weights(whole), weights(parts)) == []
    assert equal(state(whole), state(parts))
    assert lines(whole) == lines(parts)
    assert lines(whole, "val") == lines(parts, "val")
    trivial, evaluation = Path("trivial.json"), Path("eval", "taskonomy-val.json")
    for file in (trivial, evaluation):
        assert (whole / file).read_bytes() == (parts / file).read_bytes()


def test_a_run_killed_before_its_first_checkpoint_starts_again(configured: Configured, train_run: Train) -> None:
    config = configured("run.name=early", "eval.every=0")
    run = Interrupted.open(config, resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(build_experiment(config), run, CPU)
    resumed = train_run(config, resume=True)
    whole = train_run(configured("run.name=whole", "eval.every=0"))
    assert lines(resumed) == lines(whole)
    assert differing(weights(resumed), weights(whole)) == []


def test_a_finished_run_has_nothing_to_resume(configured: Configured, train_run: Train) -> None:
    config = configured("optim.steps=2", "eval.every=0")
    folder = train_run(config)
    before = (folder / "metrics.jsonl").read_bytes(), weights(folder)
    train_run(config, resume=True)
    assert (folder / "metrics.jsonl").read_bytes() == before[0]
    assert differing(weights(folder), before[1]) == []


# --- Parts equal the whole ---


def test_two_micro_batches_are_one_batch(configured: Configured, train_run: Train) -> None:
    whole = train_run(configured("run.name=whole", "data.batch_size=4"))
    parts = train_run(configured("run.name=parts", "data.batch_size=2", "optim.accumulate=2"))
    for one, other in zip(numbers(whole), numbers(parts), strict=True):
        assert one == pytest.approx(other, rel=2e-4), one["step"]
    assert numbers(whole, "val")[-1] == pytest.approx(numbers(parts, "val")[-1], rel=2e-3, abs=2e-3)


def unlabelled_first(configured: Configured, view: str, *overrides: str) -> Config:
    """The config with the first seed whose first batch, of one view, is this one."""
    for seed in range(50):
        config = configured(f"run.seed={seed}", *overrides)
        if next(iter(build_experiment(config).batches(0, 0, 1)))["id"] == [view]:
            return config
    raise AssertionError("no such seed")


def test_a_missing_label_trains_as_if_the_task_were_absent(configured: Configured, train_run: Train) -> None:
    """Against the same views and weight 0: all but the task's own parameters move alike, and those do not move at all."""
    overrides = ["data.batch_size=1", "optim.steps=1", *REPEATABLE]
    missing = unlabelled_first(configured, "alder/point_1_view_0", "run.name=missing", *overrides)  # it has no depth
    start = build_experiment(missing).model.state_dict()
    moved = weights(train_run(missing))
    seed = f"run.seed={missing.run.seed}"
    ignored = weights(train_run(configured("run.name=ignored", seed, "tasks.depth_zbuffer.weight=0", *overrides)))
    own = [name for name in start if "depth_zbuffer" in name]
    assert own
    assert all(torch.equal(moved[name], start[name]) for name in own)
    assert "decoder.heads.normal.linear.weight" in differing(moved, start)
    assert differing(moved, ignored) == []
    assert lines(Path(missing.run.output) / "missing")[0]["depth_zbuffer/loss"] == 0


def test_task_weights_scale_the_gradient(configured: Configured, train_run: Train) -> None:
    overrides = ["optim.steps=1", *REPEATABLE]
    tasks = ["segment_semantic", "normal", "reshading"]
    once, thrice = (
        train_run(configured(f"run.name=by{w}", f"tasks={{{', '.join(f'{task}: {w}' for task in tasks)}}}", *overrides))
        for w in (1, 3)
    )
    assert lines(thrice)[0]["grad_norm"] == pytest.approx(3 * lines(once)[0]["grad_norm"], rel=1e-5)
    assert losses(thrice) == losses(once)  # the log has the losses themselves


def test_the_gradient_is_clipped_at_its_norm(configured: Configured, train_run: Train) -> None:
    """Adam's first moment after one step is (1 - beta1) times the gradient it was given."""
    folder = train_run(configured("optim.steps=1", "optim.clip=0.01", "eval.every=0"))
    moments = [moment["exp_avg"] for moment in state(folder)["optimizer"]["state"].values()]
    given = math.sqrt(sum(float(moment.square().sum()) for moment in moments)) / 0.1
    assert lines(folder)[0]["grad_norm"] > 0.1
    assert given == pytest.approx(0.01, rel=1e-3)


# --- The average ---


@pytest.mark.parametrize("backbone", ["swin", "with running statistics"])
def test_the_average_follows_the_weights(configured: Configured, backbone: str) -> None:
    overrides = ["optim.ema=0.25", "eval.every=1", "optim.steps=3", "run.keep=3"]
    if backbone != "swin":
        overrides += ["model.backbone=test_resnet", "model.backbone_args={}", "model.num_heads=1", "tasks={normal: 1}"]
    config = configured(*overrides)
    run = Run.open(config, resume=False)
    experiment = build_experiment(config)
    expected = {name: tensor.clone() for name, tensor in experiment.model.state_dict().items()}
    train(experiment, run, CPU)
    parameters = dict(experiment.model.named_parameters())
    for step in (1, 2, 3):
        checkpoint = run.folder / "checkpoints" / str(step)
        average = MulT.from_pretrained(checkpoint).state_dict()
        model = torch.load(checkpoint / "state.pt", weights_only=True)["model"]
        decay = min(0.25, (1 + step) / (10 + step))
        for name, value in model.items():
            # Statistics of the data are no weights: the newest ones are the best.
            expected[name] = decay * expected[name] + (1 - decay) * value if name in parameters else value
        assert max(float((average[name] - expected[name]).abs().max()) for name in expected) < 1e-6
        assert differing(average, model)


# --- Precision, and where it ends ---


def test_half_precision_trains_close_to_single(configured: Configured, train_run: Train) -> None:
    single, half = (
        train_run(configured(f"run.name={p}", f"run.precision={p}", "optim.lr=1e-4", "eval.every=4")) for p in ("fp32", "bf16")
    )
    assert {tensor.dtype for tensor in weights(half).values() if tensor.is_floating_point()} == {torch.float32}
    assert differing(weights(half), weights(single))
    # The first step has the same weights; from the second on, Adam scales rounding in small gradients up to full steps.
    assert losses(single)[0] == pytest.approx(losses(half)[0], rel=0.05)
    assert all(math.isfinite(value) for step in losses(half) for value in step.values())


@pytest.mark.parametrize(("has_bf16", "precision"), [(False, "fp32"), (True, "bf16")])
def test_an_automatic_precision_is_said_and_kept(
    configured: Configured,
    train_run: Train,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has_bf16: bool,
    precision: str,
) -> None:
    monkeypatch.setattr("mult.runtime.precision.multiplies_bf16", lambda device: has_bf16)
    told = ("optim.steps=2", "eval.every=0", "eval.images=0")
    named = train_run(configured("run.name=named", f"run.precision={precision}", *told))
    assert "run.precision" not in capsys.readouterr().out
    decided = train_run(configured("run.name=decided", "run.precision=auto", *told))
    assert f"run.precision: auto is {precision} on this cpu" in capsys.readouterr().out
    assert not differing(weights(named), weights(decided))
    assert read_json(decided / "provenance.json")["precision"] == precision
    assert state(decided)["conditions"]["precision"] == precision


def test_a_loss_that_is_not_finite_stops_before_harm(configured: Configured) -> None:
    config = configured("optim.lr=1e30", "optim.warmup=0", "optim.schedule=constant", "eval.every=1", "run.name=diverged")
    run = Run.open(config, resume=False)
    names = "|".join(TASKS)
    message = rf"the loss of ({names}) is (nan|inf) at step \d; .*the last checkpoint stands; try a lower optim\.lr"
    with pytest.raises(FloatingPointError, match=message) as caught:
        train(build_experiment(config), run, CPU)
    done = len(lines(run.folder))
    assert 1 <= done < 4
    assert f"at step {done + 1};" in str(caught.value)  # the step that the log would have had next
    assert find_checkpoint(run.folder / "checkpoints" / "last").name == str(done)
    assert state(run.folder)["step"] == done
    assert sorted(path.name for path in run.folder.rglob("*.tmp")) == []


# --- Bad files ---


def test_a_skipped_file_is_listed_once_and_counted_each_time(configured: Configured, train_run: Train, own_tree: Path) -> None:
    """Two epochs over six views, one of which is damaged, and one of three views to evaluate on."""
    damaged = own_tree / "rgb" / "birch" / "point_0_view_0_domain_rgb.png"
    unseen = own_tree / "normal" / "cedar" / "point_2_view_0_domain_normal.png"
    for path in (damaged, unseen):
        path.write_bytes(path.read_bytes()[:-100])
    overrides = [f"data.root={own_tree}", "data.on_bad_file=skip", "data.batch_size=3", "eval.every=4"]
    folder = train_run(configured(*overrides))
    listed = (folder / "bad_files.txt").read_text().splitlines()
    assert sorted(line.split(": got ")[0] for line in listed) == sorted(map(str, (damaged, unseen)))
    counts = [line["bad_samples"] for line in lines(folder)]
    assert (len(counts), sum(counts)) == (4, 2)
    (evaluated,) = lines(folder, "val")
    assert evaluated["bad_samples"] == 1
    evaluation = json.loads((folder / "eval" / "taskonomy-val.json").read_text())
    assert (evaluation["images"], evaluation["bad_samples"]) == (3, 1)
    assert evaluation["tasks"]["depth_zbuffer"]["rmse"]["images"] == 2
    stops = configured(f"data.root={own_tree}", "run.name=stops")
    with pytest.raises(UserError, match=rf"{damaged}: got a file that cannot be read"):
        train_run(stops)


# --- Starting from another run ---


def test_a_run_can_start_from_another_s_weights(configured: Configured, train_run: Train, trained: Path) -> None:
    config = configured(f"run.init={trained}", "optim.lr=1e-12", "optim.steps=1", *REPEATABLE)
    started, given = weights(train_run(config)), load_file(find_checkpoint(trained) / "model.safetensors")
    assert max(float((started[name] - given[name]).abs().max()) for name in given) < 1e-9
    fresh = build_experiment(configured(*REPEATABLE)).model.state_dict()
    assert differing(fresh, given)


def test_a_resumed_run_needs_the_one_it_started_from_no_more(
    configured: Configured, train_run: Train, trained: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(trained, tmp_path / "first", symlinks=True)
    told = [f"run.init={copied}", *REPEATABLE]
    train_run(configured(*told, "optim.steps=1"))
    shutil.rmtree(copied)
    folder = train_run(configured(*told, "optim.steps=2"), resume=True)
    assert [line["step"] for line in numbers(folder)] == [1, 2]
    with pytest.raises(UserError, match=r"checkpoint: got .*first; expected a run's folder"):
        build_experiment(configured(*told))


def test_a_run_can_start_from_one_of_other_tasks(
    configured: Configured, train_run: Train, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ("optim.lr=1e-12", "optim.steps=1", *REPEATABLE)
    given = load_file(find_checkpoint(trained) / "model.safetensors")
    fewer = weights(train_run(configured("run.name=fewer", f"run.init={trained}", "tasks={normal: 1, reshading: 1}", *still)))
    assert max(float((fewer[name] - given[name]).abs().max()) for name in fewer) < 1e-9
    assert {name for name in given if "reshading" in name} < set(fewer)
    assert "starts anew" not in capsys.readouterr().err
    small = configured("run.name=small", "tasks={normal: 1, reshading: 1}", "optim.steps=1")
    config = configured("run.name=more", f"run.init={train_run(small)}", *still)
    more, given = (
        weights(train_run(config)),
        load_file(find_checkpoint(Path(small.run.output, small.run.name)) / "model.safetensors"),
    )
    assert max(float((more[name] - given[name]).abs().max()) for name in given) < 1e-9
    fresh = build_experiment(config).model.state_dict()
    assert max(float((more[name] - fresh[name]).abs().max()) for name in more if "depth_zbuffer" in name) < 1e-9


@pytest.mark.parametrize("change", ["model.reference=reshading", "model.decoder=released", "model.backbone_args.embed_dim=24"])
def test_weights_that_do_not_fit_are_refused(configured: Configured, train_run: Train, trained: Path, change: str) -> None:
    config = configured(f"run.init={trained}", change)
    with pytest.raises(UserError, match=r"run\.init: the weights in .* do not fit this model .*; expected a run of the same"):
        train_run(config)
