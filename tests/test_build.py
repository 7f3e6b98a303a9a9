"""From a config to what trains: names are checked, the schedule and what decays are as they say, batches follow the seed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mult import TASKS
from mult.build import build_eval_batches
from mult.config import Config
from mult.data.disk.encodings import ENCODINGS
from mult.errors import UserError
from mult.training.experiment import Experiment, build_experiment

Configured = Callable[..., Config]
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)


def rates(experiment: Experiment, steps: int) -> list[float]:
    values = []
    for _ in range(steps):
        values.append(float(experiment.schedule.get_last_lr()[0]))
        experiment.optimizer.step()
        experiment.schedule.step()
    return values


def test_the_rate_warms_up_and_falls_as_a_cosine(configured: Configured) -> None:
    experiment = build_experiment(configured("optim.lr=2e-3", "optim.steps=12", "optim.warmup=4"))
    warm = [2e-3 * step / 4 for step in (1, 2, 3, 4)]
    falling = [2e-3 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert rates(experiment, 12) == pytest.approx(warm + falling, rel=1e-6)


def test_a_constant_rate_stays(configured: Configured) -> None:
    experiment = build_experiment(configured("optim.lr=2e-3", "optim.steps=5", "optim.schedule=constant", "optim.warmup=2"))
    assert rates(experiment, 5) == pytest.approx([1e-3, 2e-3, 2e-3, 2e-3, 2e-3])


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.attention=shared",),
        ("model.decoder=released",),
        ("model.backbone=swinv2_tiny_window8_256",),
        ("model.backbone=convnext_atto", "model.backbone_args={}", "model.num_heads=1"),
    ],
    ids=["swin", "released", "swinv2", "convnext"],
)
def test_norms_biases_and_position_tables_do_not_decay(configured: Configured, overrides: tuple[str, ...]) -> None:
    experiment = build_experiment(configured("optim.weight_decay=0.3", *overrides))
    decays = {id(p): group["weight_decay"] for group in experiment.optimizer.param_groups for p in group["params"]}
    assert len(decays) == sum(len(group["params"]) for group in experiment.optimizer.param_groups)
    assert set(decays) == {id(p) for p in experiment.model.parameters()}
    seen = {"norm": 0, "bias": 0, "table": 0, "weight": 0}
    for module in experiment.model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_norm = isinstance(module, NORMS)
            kind = "norm" if is_norm else "bias" if "bias" in name and parameter.ndim == 1 else "weight"
            kind = "table" if name in {"table", "relative_position_bias_table", "pos_embed"} else kind
            if kind == "weight" and isinstance(module, nn.Linear | nn.Conv2d):
                assert decays[id(parameter)] == 0.3, name
            elif kind != "weight":
                assert decays[id(parameter)] == 0.0, name
            seen[kind] += 1
    assert min(seen["norm"], seen["bias"], seen["table"], seen["weight"]) > 0  # the decoders always have tables


def test_the_optimiser_is_what_the_config_says(configured: Configured) -> None:
    experiment = build_experiment(configured("optim.lr=5e-4", "optim.betas=[0.8, 0.95]", "optim.warmup=0"))
    for group in experiment.optimizer.param_groups:
        assert (group["lr"], tuple(group["betas"])) == (5e-4, (0.8, 0.95))


def test_muon_moves_matrices_by_orthogonal_steps_and_the_rest_by_signs(configured: Configured) -> None:
    experiment = build_experiment(
        configured("optim.name=muon", "optim.lr=1e-3", "optim.weight_decay=0", "optim.warmup=0", "optim.schedule=constant")
    )
    block = experiment.model.decoder.stages[0].blocks[0]
    matrices, bias, table = block.mlp.fc1.weight, block.mlp.fc1.bias, block.query_key.position_bias.table
    generator = torch.Generator().manual_seed(0)
    before = [p.detach().clone() for p in (matrices, bias, table)]
    for p in experiment.model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
    experiment.optimizer.step()
    step, *others = ((old - new.detach()) / 1e-3 for old, new in zip(before, (matrices, bias, table), strict=True))
    assert len(matrices) == len(experiment.model.tasks)
    singular = torch.linalg.svdvals(step) / (0.2 * max(matrices[0].shape) ** 0.5)  # 0.2: the usual RMS of AdamW's steps
    assert 0.6 < float(singular.min()) <= float(singular.max()) < 1.3
    assert ((step * matrices.grad).sum((1, 2)) > 0).all()
    for other, p in zip(others, (bias, table), strict=True):
        assert p.grad is not None
        assert torch.equal(other.sign(), p.grad.sign())
        assert float(other.abs().std() / other.abs().mean()) < 0.01


def test_tasks_come_in_their_order_with_the_datasets_classes(configured: Configured) -> None:
    experiment = build_experiment(configured("tasks={reshading: 1, depth_zbuffer: 2, segment_semantic: 1, normal: 1}"))
    order = [task for task in TASKS if task in {"reshading", "depth_zbuffer", "segment_semantic", "normal"}]
    assert experiment.model.tasks == list(experiment.objectives) == order
    classes = experiment.model.classes["segment_semantic"]
    assert (len(classes), classes[0], classes[-1]) == (17, "background", "vase")
    outputs = experiment.model(torch.rand(1, 3, 32, 32))
    assert {task: output.shape[1] for task, output in outputs.items()} == {
        "segment_semantic": 17,
        "depth_zbuffer": 1,
        "normal": 3,
        "reshading": 1,
    }


def test_weights_scale_each_task_s_loss(configured: Configured) -> None:
    experiment = build_experiment(configured("tasks={normal: 0.25, depth_zbuffer: 3}"))
    losses = {"depth_zbuffer": torch.tensor(5.0, requires_grad=True), "normal": torch.tensor(7.0, requires_grad=True)}
    experiment.balance.start_step(0)
    experiment.balance.backward(losses, torch.amp.GradScaler("cpu", enabled=False))
    assert [float(losses[task].grad or 0) for task in losses] == [3.0, 0.25]


def test_a_loss_can_be_chosen(configured: Configured) -> None:
    experiment = build_experiment(configured("tasks.depth_zbuffer.loss=l1"))
    output, target = torch.zeros(1, 1, 4, 5), torch.arange(20.0).view(1, 1, 4, 5)
    valid = target > 3
    objective = experiment.objectives["depth_zbuffer"]
    assert objective.loss(output, target, valid).item() == pytest.approx(np.arange(4, 20).mean())
    assert int(objective.count(valid)) == 16
    default = build_experiment(configured()).objectives["depth_zbuffer"]
    assert int(default.count(valid)) == 1  # rotate_l1 counts images
    # Rotate loss: the best of nine shifts of a constant is the mean over the interior.
    assert default.loss(output, target, valid).item() == pytest.approx(target[0, 0, 1:-1, 1:-1].mean().item())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tasks={norml: 1}"], r"tasks: got 'norml'; expected some of .*normal.*; did you mean 'normal'\?"),
        (["model.reference=keypoints3d"], r"model\.reference: got 'keypoints3d'; expected .*; did you mean 'keypoints2d'"),
        (["tasks={depth_zbuffer: 1, reshading: 1}"], r"model\.reference: got 'normal'; expected one of depth.*; name one"),
        (["model.reference=null"], r"model\.reference: got none; expected one of .*; name one"),
        (["tasks.normal.loss=l2"], r"tasks\.normal\.loss: got 'l2'; expected one of cross_entropy, .*, l1, rotate_l1; "),
        (["tasks.normal.loss=binary_cross_entropy"], r"got 'binary_cross_entropy'; expected a loss for values; leave it out"),
        (
            ["tasks.normal={positive_weight: 0.9}"],
            r"tasks\.normal\.positive_weight: got 0\.9 for l1; expected it for balanced_cross_entropy alone; leave it out",
        ),
        (
            ["tasks.normal.loss=cross_entropy"],
            r"tasks\.normal\.loss: got 'cross_entropy'; expected a loss for values; leave it out for ",
        ),
        (["tasks.segment_semantic.loss=l1"], r"tasks\.segment_semantic\.loss: got 'l1'; expected a loss for classes"),
        (["data.dataset=room"], r"data\.dataset: got 'room'; expected one of taskonomy, rooms, .*; did you mean 'rooms'\?"),
        (["data.dataset=imagenet"], r"data\.dataset: got 'imagenet'; expected one of .*; choose one of them"),
        (["data.options={view: 3}"], r"data\.options: got 'view' for taskonomy; expected none; leave it out"),
        (["data.options={root: x}"], r"data\.options: got 'root' for taskonomy; expected none"),
        (
            ["data.dataset=replica", "data.options={depth_scale: many}"],
            r"replica: data\.options\.depth_scale: got 'many' \(str\); expected a number or null; change the value",
        ),
        (
            ["data.dataset=nyu", "data.options={intrinsics: [500, 500, 320]}", "eval.every=0", "eval.select=last"],
            r"nyu: data\.options\.intrinsics: got \[500, 500, 320\] \(list\); expected \[a number, a number, a",
        ),
        (["data.dataset=cocodoom", "data.options={by: level}"], r"data\.options\.by: got 'level' .*; expected one of run, map"),
        (["data.dataset=rooms", "data.options={views: true}"], r"data\.options\.views: got True \(bool\); expected an integer"),
        (["data.dataset=rooms", "data.max_depth_m=3"], r"data\.max_depth_m: got 3\.0 for rooms; expected none; leave it out"),
        (["data.subset=tinny"], r"data\.subset: got 'tinny'; expected one of .*; did you mean 'tiny'"),
        (["data.root=nowhere/at/all"], r"data\.root: got 'nowhere/at/all', which is no folder; expected .*; correct the path"),
        (["data.split=trian"], r"split: got 'trian'; expected one of .*; did you mean 'train'\?"),
        (
            ["data.dataset=nyu"],
            r"eval: got split val of nyu, every 2, select val; expected every 0 and select last, since .*; give eval\.every=0 ",
        ),
        (
            ["data.dataset=nyu", "eval.every=0", "eval.split=test"],
            r"eval: got split test of nyu, every 0, select val",
        ),
        (["data.dataset=pascal", "eval.select=last"], r"eval: got split val of pascal, every 2, select last; expected every 0"),
        (["eval.split=held_out"], r"split: got 'held_out' without data\.hold_out; expected a share; give e\.g\."),
        (["data.hold_out=0.9"], r"data\.hold_out: got 0\.9 of 2 scenes \(6 views\) of .*; choose a smaller share"),
        (["eval.split=vall"], r"split: got 'vall'; expected one of .*; did you mean 'val'\?"),
        (["model.backbone=swin_teeny"], r"model\.backbone: got 'swin_teeny'; expected a model of timm"),
        (
            ["model.backbone=xcit_nano_12_p16_224", "model.backbone_args={}"],
            r"model\.backbone: .* strides .*; expected one each",
        ),
        (
            ["model.backbone_args={width: 3}"],
            r"model\.backbone_args: got .*; expected arguments that .* takes .*width.*; leave out",
        ),
        (["model.num_heads=7"], r"model\.num_heads: got \[7, 7, 7, 7\] for channels .*; expected 4 divisors"),
        (["model.pretrained=weights.pth"], r"model\.pretrained: got 'weights\.pth'; expected .*; correct the path"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_names_that_mean_nothing_are_refused(configured: Configured, overrides: list[str], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build_experiment(configured(*overrides))


def test_a_task_that_the_data_do_not_label_is_refused(configured: Configured, own_tree: Path) -> None:
    for path in (own_tree / "reshading" / "cedar").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"got task reshading, of which split 'val' has no file; expected some of .*; leave"):
        build_experiment(configured(f"data.root={own_tree}"))


def collect(experiment: Experiment, start: int = 0, rank: int = 0, world: int = 1) -> list[Any]:
    return list(experiment.batches(start, rank, world))


def same(one: Any, other: Any) -> bool:
    return bool(
        one["id"] == other["id"]
        and torch.equal(one["image"], other["image"])
        and all(torch.equal(one[key][task], other[key][task]) for key in ("targets", "valid") for task in one[key])
    )


def test_batches_depend_on_the_seed_and_the_position_alone(configured: Configured) -> None:
    overrides = ["optim.steps=4", "optim.accumulate=2", "data.image_size=[32, 40]"]
    batches = collect(build_experiment(configured(*overrides)))
    assert len(batches) == 8
    assert batches[0]["image"].shape == (2, 3, 32, 40)
    late = collect(build_experiment(configured(*overrides)), start=5)
    assert [same(one, other) for one, other in zip(batches[5:], late, strict=True)] == [True] * 3
    in_workers = collect(build_experiment(configured(*overrides, "data.workers=2")))
    assert [same(one, other) for one, other in zip(batches, in_workers, strict=True)] == [True] * 8
    halves = [collect(build_experiment(configured(*overrides)), rank=rank, world=2) for rank in (0, 1)]
    for batch, first, second in zip(batches, *halves, strict=True):
        assert batch["id"] == first["id"] + second["id"]
        assert torch.equal(batch["image"], torch.cat([first["image"], second["image"]]))
    other_seed = collect(build_experiment(configured(*overrides, "run.seed=1")))
    assert [batch["id"] for batch in other_seed] != [batch["id"] for batch in batches]
    # Six views, so the fourth batch begins the second epoch: a view comes back in another crop.
    again = next(batch for batch in batches[3:] if batches[0]["id"][0] in batch["id"])
    assert not torch.equal(again["image"][again["id"].index(batches[0]["id"][0])], batches[0]["image"][0])


def without_classes(tree: Path) -> Path:
    """The tree as RGB-D that was annotated: no segmentation."""
    shutil.rmtree(tree / "segment_semantic")
    return tree


def test_a_mixture_gives_each_dataset_its_share_of_every_batch(configured: Configured, own_tree: Path) -> None:
    mix = f"data.mix=[{{root: {without_classes(own_tree)}, weight: 3}}]"
    overrides = [mix, "data.batch_size=4", "data.image_size=[32, 40]", "data.augment={scale: [1, 1], colours: none}"]
    experiment = build_experiment(configured(*overrides))
    assert experiment.train_data.lengths == [6, 6]
    assert experiment.model.tasks == list(ENCODINGS)
    batches = collect(experiment)
    labelled = np.array([batch["valid"]["segment_semantic"].flatten(1).any(1).tolist() for batch in batches])
    from_first = np.array([[position % 4 == 1 for position in range(4)]] * 4)  # weights 1 : 3
    unlabelled = np.array([[name == "birch/point_0_view_0" for name in batch["id"]] for batch in batches])  # in either tree
    assert (labelled == (from_first & ~unlabelled)).all()
    assert from_first.any()
    for batch in batches:
        assert (batch["targets"]["segment_semantic"][~batch["valid"]["segment_semantic"][:, 0]] == 255).all()
        assert batch["valid"]["keypoints2d"].flatten(1).any(1).all()  # both have it
    in_workers = collect(build_experiment(configured(*overrides, "data.workers=2")))
    assert [same(one, other) for one, other in zip(batches, in_workers, strict=True)] == [True] * 4
    late = collect(build_experiment(configured(*overrides)), start=3)
    assert same(late[0], batches[3])


def test_a_mixture_is_evaluated_on_its_first_dataset(configured: Configured, own_tree: Path, tree_root: Path) -> None:
    bare = {"dataset": "taskonomy", "image_size": 64, "batch_size": 2, "workers": 0}
    parts = [{**bare, "root": str(without_classes(own_tree))}, {"root": str(tree_root)}]
    config = configured(f"data={parts}".replace("'", '"'))
    experiment = build_experiment(config)
    assert len(experiment.eval_data) == 3
    assert experiment.eval_data.classes == experiment.train_data.classes != {}
    masks = [experiment.eval_data[i]["valid"] for i in range(3)]
    assert not any(valid["segment_semantic"].any() for valid in masks)
    assert any(valid["normal"].any() for valid in masks)


def test_a_task_that_no_dataset_of_a_mixture_labels_is_refused(configured: Configured, own_tree: Path) -> None:
    root = without_classes(own_tree)
    message = (
        rf"data: got task segment_semantic, of which none of taskonomy \({root}\), taskonomy \({root}\) has labels; "
        "expected at least one that does; leave the task out or add such a dataset"
    )
    with pytest.raises(UserError, match=message):
        build_experiment(configured(f"data.root={root}", f"data.mix=[{{root: {root}}}]"))


def damage(tree: Path) -> Path:
    """Damage three files of two of the six training views, one of each kind; returns one that is cut short."""
    truncated = tree / "normal" / "alder" / "point_0_view_0_domain_normal.png"
    truncated.write_bytes(truncated.read_bytes()[:-200])
    (tree / "reshading" / "alder" / "point_0_view_0_domain_reshading.png").write_bytes(b"no image")
    depth = tree / "depth_zbuffer" / "birch" / "point_1_view_0_domain_depth_zbuffer.png"
    Image.new("L", (48, 40)).save(depth)
    return truncated


BAD = {"alder/point_0_view_0", "birch/point_1_view_0"}


def test_a_bad_file_is_an_error(configured: Configured, own_tree: Path) -> None:
    truncated = damage(own_tree)
    with pytest.raises(UserError, match=rf"{truncated}: got a file that cannot be read|got an image of mode L; expected I;16"):
        collect(build_experiment(configured(f"data.root={own_tree}")))


def test_skipped_samples_count_nowhere_and_move_no_other(configured: Configured, own_tree: Path) -> None:
    sound = collect(build_experiment(configured(f"data.root={own_tree}", "optim.steps=6")))
    truncated = damage(own_tree)
    overrides = [f"data.root={own_tree}", "optim.steps=6", "data.on_bad_file=skip"]
    skipping = collect(build_experiment(configured(*overrides)))
    in_workers = collect(build_experiment(configured(*overrides, "data.workers=2")))
    assert [same(one, other) for one, other in zip(skipping, in_workers, strict=True)] == [True] * 6
    halves = [collect(build_experiment(configured(*overrides)), rank=rank, world=2) for rank in (0, 1)]
    messages = []
    for batch, before, first, second in zip(skipping, sound, *halves, strict=True):
        assert batch["id"] == before["id"] == first["id"] + second["id"]
        assert batch["bad"] == first["bad"] + second["bad"]
        assert len(batch["bad"]) == sum(name in BAD for name in batch["id"])
        messages += batch["bad"]
        for place, name in enumerate(batch["id"]):
            assert torch.equal(batch["image"][place], torch.zeros_like(before["image"][place])) == (name in BAD)
            for task, valid in batch["valid"].items():
                if name in BAD:
                    assert not valid[place].any()
                else:
                    assert torch.equal(valid[place], before["valid"][task][place])
                    assert torch.equal(batch["targets"][task][place], before["targets"][task][place])
    assert len(messages) == 4  # two views, two epochs
    assert any(message.startswith(f"{truncated}: got a file that cannot be read") for message in messages)
    assert [batch["bad"] for batch in sound] == [[]] * 6


def test_evaluation_batches_keep_the_targets_as_they_are(configured: Configured) -> None:
    experiment = build_experiment(configured())
    views: Any = experiment.eval_data
    (batch,) = build_eval_batches(views, (32, 40), batch_size=8, workers=0)
    # (64, 64), (40, 48) and (64, 64) until they cover (32, 40): their shape is kept.
    assert [tuple(image.shape) for image in batch["image"]["image"]] == [(3, 40, 40), (3, 33, 40), (3, 40, 40)]
    for position in range(3):
        sample = views[position]
        assert batch["id"][position] == sample["id"]
        for task, target in sample["targets"].items():
            assert torch.equal(batch["targets"][task][position], target)
            assert torch.equal(batch["valid"][task][position], sample["valid"][task])


def test_the_same_seed_builds_the_same_model(configured: Configured) -> None:
    states = [build_experiment(configured(f"run.seed={seed}")).model.state_dict() for seed in (4, 4, 5)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["decoder.heads.normal.linear.weight"], states[2]["decoder.heads.normal.linear.weight"])
