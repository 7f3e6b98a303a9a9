"""Which parameter learns at which rate and decays: against timm's layers and rates written out."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from mult.errors import UserError
from mult.models import MulT
from mult.training.experiment import Experiment, build_experiment
from tests.run_files import Configured, TrainRun


def groups(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Name of a parameter -> the group it is in."""
    names = {id(parameter): name for name, parameter in experiment.model.named_parameters()}
    group_of = {}
    for group in experiment.optimizer.param_groups:
        for parameter in group["params"]:
            name = names.get(id(parameter), "balance")
            assert name not in group_of
            group_of[name] = group
    return group_of


@pytest.mark.parametrize(
    ("backbone", "args"),
    [
        ("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": (1, 2, 3, 1), "num_heads": (1, 2, 4, 8)}),
        ("swinv2_tiny_window8_256", {"embed_dim": 24, "depths": (1, 2, 3, 1), "num_heads": (1, 2, 4, 8)}),
        ("convnext_atto", {"depths": (1, 2, 3, 1)}),
    ],
    ids=["swin", "swinv2", "convnext"],
)
def test_layers_of_the_encoder_are_timm_s(backbone: str, args: dict[str, Any]) -> None:
    """Against `group_parameters` of the classifier, whose names have dots for the features' underscores."""
    encoder = MulT({"a": 1}, backbone=backbone, num_heads=1, backbone_args=args).encoder
    classifier: Any = timm.create_model(backbone, num_classes=0, **args)
    expected = timm.models.group_parameters(classifier, classifier.group_matcher(), reverse=True)
    layers = encoder.number_layers()
    assert max(layers.values()) == 7
    compared = {name: expected[_with_dots(name)] for name in layers}
    assert layers == compared


def _with_dots(name: str) -> str:
    """`body.layers_0.blocks` -> `layers.0.blocks`, as the classifier has it."""
    _, first, rest = name.split(".", 2)
    stem, _, number = first.rpartition("_")
    return f"{stem}.{number}.{rest}" if number.isdigit() else f"{first}.{rest}"


def test_the_stages_of_a_resnet_are_told_apart() -> None:
    layers = MulT({"a": 1}, backbone="test_resnet", num_heads=1).encoder.number_layers()
    by_stage = {name.split(".")[1]: layer for name, layer in layers.items()}
    assert [by_stage[stage] for stage in ("conv1", "layer1", "layer2", "layer3", "layer4")] == [0, 1, 2, 3, 4]


def test_deeper_layers_of_the_encoder_learn_slower(configured: Configured) -> None:
    overrides = ["optim.lr=1e-2", "optim.encoder_lr=4e-3", "optim.layer_decay=0.5", "optim.weight_decay=0.1", "optim.warmup=0"]
    group_of = groups(build_experiment(configured(*overrides)))
    rate = {name: group["lr"] for name, group in group_of.items()}
    # One block a stage: the stem is 4 layers before the last.
    assert rate["encoder.body.patch_embed.proj.weight"] == pytest.approx(4e-3 / 16)
    assert rate["encoder.body.layers_0.blocks.0.mlp.fc1.weight"] == pytest.approx(4e-3 / 8)
    assert rate["encoder.body.layers_2.downsample.norm.bias"] == pytest.approx(4e-3 / 2)
    assert rate["encoder.body.layers_3.blocks.0.attn.qkv.bias"] == 4e-3
    assert {value for name, value in rate.items() if name.startswith("decoder.")} == {1e-2}
    decay = {name: group["weight_decay"] for name, group in group_of.items()}
    assert decay["encoder.body.layers_3.blocks.0.attn.qkv.weight"] == 0.1
    assert decay["encoder.body.layers_3.blocks.0.attn.qkv.bias"] == 0.0


def test_the_encoder_learns_at_the_common_rate_by_default(configured: Configured) -> None:
    experiment = build_experiment(configured("optim.lr=3e-4", "optim.warmup=0"))
    assert [group["lr"] for group in experiment.optimizer.param_groups] == [3e-4, 3e-4]
    assert [group["weight_decay"] for group in experiment.optimizer.param_groups] == [0.05, 0.0]


def test_log_variances_learn_at_their_own_rate_without_decay(configured: Configured) -> None:
    overrides = ["balance.method=uncertainty", "optim.lr=1e-3", "optim.warmup=0"]
    default = groups(build_experiment(configured(*overrides)))["balance"]
    assert (default["lr"], default["weight_decay"]) == (1e-3, 0.0)
    own = groups(build_experiment(configured(*overrides, "balance.options={lr: 0.02}")))
    assert (own["balance"]["lr"], own["balance"]["weight_decay"]) == (0.02, 0.0)
    assert own["encoder.body.patch_embed.proj.bias"]["lr"] == 1e-3


def test_a_frozen_encoder_stays_as_it_is(configured: Configured, train_run: TrainRun) -> None:
    overrides = ["optim.freeze_encoder=true", "optim.steps=2", "eval.every=0", "model.backbone_args.drop_path_rate=0.5"]
    config = configured(*overrides)
    experiment = build_experiment(config)
    start = {name: value.clone() for name, value in experiment.model.state_dict().items()}
    assert not any(name.startswith("encoder.") for name in groups(experiment))
    assert len(groups(experiment)) == len([name for name, _ in experiment.model.named_parameters() if "decoder." in name])
    folder = train_run(config)
    end = load_file(folder / "checkpoints" / "last" / "model.safetensors")
    moved = {name for name, value in end.items() if not torch.equal(value, start[name])}
    assert moved
    assert not any(name.startswith("encoder.") for name in moved)
    state = torch.load(folder / "checkpoints" / "last" / "state.pt", weights_only=True)["optimizer"]["state"]
    assert len(state) == len(groups(experiment))


def test_a_frozen_encoder_drops_nothing_and_learns_no_statistics(configured: Configured) -> None:
    backbone = ["model.backbone=test_resnet", "model.backbone_args={drop_path_rate: 0.5}", "model.num_heads=1"]
    frozen = build_experiment(configured(*backbone, "optim.freeze_encoder=true")).model.train()
    images = torch.rand(2, 3, 48, 40)
    assert frozen.decoder.training
    first, second = frozen.encode(images), frozen.encode(images)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert int(frozen.encoder.body.bn1.num_batches_tracked) == 0  # type: ignore[union-attr, arg-type]
    learning = build_experiment(configured(*backbone)).model.train()
    learning.encode(images)
    assert int(learning.encoder.body.bn1.num_batches_tracked) == 1  # type: ignore[union-attr, arg-type]


def test_the_pyramid_of_a_frozen_plain_vit_learns_and_else_is_the_last_layer(configured: Configured) -> None:
    backbone = ["model.backbone=vit_small_patch16_dinov3", "model.backbone_args={embed_dim: 32, depth: 2, num_heads: 2}"]
    backbone += ["model.num_heads=1", "optim.lr=1e-2", "optim.warmup=0"]
    frozen = build_experiment(configured(*backbone, "optim.freeze_encoder=true"))
    encoder = {name: group["lr"] for name, group in groups(frozen).items() if name.startswith("encoder.")}
    assert set(encoder.values()) == {1e-2}
    assert {name.split(".")[2] for name in encoder} == {"pyramid"}
    learning = build_experiment(configured(*backbone, "optim.layer_decay=0.5"))
    rate = {name: group["lr"] for name, group in groups(learning).items()}
    assert rate["encoder.body.vit.reg_token"] == pytest.approx(1e-2 / 8)
    assert rate["encoder.body.vit.blocks.1.mlp.fc1.weight"] == pytest.approx(1e-2 / 2)
    assert rate["encoder.body.pyramid.to_4.0.weight"] == 1e-2


def test_layers_that_are_not_known_are_refused(configured: Configured) -> None:
    overrides = ["model.backbone=hiera_tiny_224", "model.backbone_args={}", "model.num_heads=1"]
    overrides += ["data.image_size=224", "data.fit=pad"]  # hiera takes images of one size
    with pytest.raises(
        UserError, match=r"optim\.layer_decay: got 0\.9 with hiera_tiny_224, whose layers are not known; .* 1\.0"
    ):
        build_experiment(configured("optim.layer_decay=0.9", *overrides))


@pytest.mark.parametrize("rate", ["optim.encoder_lr=1e-4", "optim.layer_decay=0.9"])
def test_a_rate_of_a_frozen_encoder_is_refused(configured: Configured, rate: str) -> None:
    with pytest.raises(UserError, match=r"optim\.freeze_encoder: got true, with .*; expected no rates of an encoder .*; leave"):
        build_experiment(configured("optim.freeze_encoder=true", rate))
