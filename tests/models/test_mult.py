"""The whole network: any size, batches, what is saved and loaded, which arguments fit together."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from mult.errors import UserError
from mult.models import MulT
from mult.models.decoder import Decoder

TINY: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
SIX = {"segment_semantic": 17, "depth_zbuffer": 1, "normal": 3, "keypoints2d": 1, "edge_texture": 1, "reshading": 1}
VARIANTS = [(a, d) for d in ("paper", "released") for a in ("shared", "independent", "self") if (a, d) != ("self", "released")]


def mult(**arguments: Any) -> MulT:
    torch.manual_seed(4)
    model = MulT(**{"tasks": SIX, "reference": "normal", "backbone_args": TINY} | arguments)
    for name, value in model.decoder.named_parameters():
        if value.ndim > 1 and "table" not in name:
            torch.nn.init.normal_(value, std=value.shape[1] ** -0.5)
    return model.eval()


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Relative to the scale of the activations, which is 1: one output of a tiny image may cancel to nearly 0."""
    assert (actual - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("size", [(33, 47), (36, 60), (100, 132), (1, 3)])
@pytest.mark.parametrize(("attention", "decoder"), [*VARIANTS, ("shared", "pyramid"), ("none", "pyramid")])
def test_any_size_and_an_image_alone_equals_the_image_in_a_batch(attention: str, decoder: str, size: tuple[int, int]) -> None:
    model = mult(attention=attention, decoder=decoder)
    images = torch.rand(3, 3, *size)
    with torch.no_grad():
        outputs = model(images)
        assert list(outputs) == model.tasks == list(SIX)
        for index in range(3):
            for task, value in model(images[index : index + 1]).items():
                assert outputs[task].shape == (3, SIX[task], *size)
                close(outputs[task][index], value[0], 1e-5)
        halves = model.decode(model.encode(images), size)
    assert all(torch.equal(halves[task], outputs[task]) for task in SIX)


@pytest.mark.parametrize("backbone", ["swinv2_cr_tiny_224", "convnext_atto", "pvt_v2_b0", "tf_mobilenetv3_small_minimal_100"])
def test_other_backbones_run_and_pass_gradients_to_every_parameter(backbone: str) -> None:
    args = TINY if backbone.startswith("swin") else None
    heads = None if backbone != "tf_mobilenetv3_small_minimal_100" else 4
    model = mult(backbone=backbone, backbone_args=args, tasks={"a": 2, "b": 1}, reference="b", num_heads=heads)
    outputs = model.train()(torch.rand(2, 3, 65, 90))
    torch.stack([value.square().mean() for value in outputs.values()]).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without


def test_every_parameter_of_encoder_and_decoder_gets_a_gradient() -> None:
    for (attention, decoder), skip in product(VARIANTS, ("none", "add")):
        model = mult(attention=attention, decoder=decoder, skip=skip)
        sum(value.square().mean() for value in model(torch.rand(1, 3, 64, 80)).values()).backward()
        assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_bfloat16_autocast_is_close() -> None:
    """Against the size of all outputs: a single channel of random weights may be small by chance."""
    for decoder in ("paper", "released"):
        model = mult(decoder=decoder)
        images = torch.rand(1, 3, 100, 132)
        with torch.no_grad():
            exact = model(images)
            with torch.autocast("cpu", torch.bfloat16):
                rounded = model(images)
        size = torch.cat([value.flatten() for value in exact.values()]).square().mean().sqrt()
        for task, value in exact.items():
            error = (rounded[task].float() - value).square().mean().sqrt()
            assert 0 < error < 0.05 * size, task


def test_single_task_is_its_own_reference() -> None:
    alone, named = mult(tasks={"normal": 3}, reference=None), mult(tasks={"normal": 3}, reference="normal")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(alone(images)["normal"], named(images)["normal"])
    assert list(alone.state_dict()) == list(named.state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference": "colour"}, "model.reference: got 'colour'; expected one of segment_semantic, depth"),
        ({"reference": None}, "model.reference: got none; expected one of segment_semantic, .*shared.*independent"),
        ({"tasks": {}, "reference": None}, "tasks: got none; expected task: output channels; name at least one"),
        ({"reference": "normals"}, "model.reference: got 'normals'; expected one of segment.*; did you mean 'normal'"),
        ({"attention": "both"}, "model.attention: got 'both'; expected shared or independent or self or none; choose one"),
        ({"attention": "Shared"}, "model.attention: got 'Shared'; expected .*; did you mean 'shared'"),
        ({"decoder": "new"}, "model.decoder: got 'new'; expected paper or released or pyramid or fpn; choose one"),
        ({"decoder": "release"}, "model.decoder: got 'release'; expected .*; did you mean 'released'"),
        ({"skip": "ad"}, "model.skip: got 'ad'; expected none or add; did you mean 'add'"),
        ({"decoder": "released", "attention": "self"}, "model.attention: got self with decoder released; expected"),
    ],
)
def test_refuses_arguments_that_do_not_fit_together(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mult(**arguments)
    for attention in ("independent", "self"):
        assert isinstance(mult(reference=None, attention=attention).decoder, Decoder)


def saved(folder: Path, **arguments: Any) -> MulT:
    model = mult(**{"tasks": {"normal": 3, "depth_zbuffer": 1}, "num_heads": (2, 2, 4, 4)} | arguments)
    model.classes = {"normal": ["x", "y", "z"]}
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("attention", "decoder", "skip"), [(*variant, "none") for variant in VARIANTS] + [("shared", "paper", "add")]
)
def test_saved_and_loaded_bit_for_bit(
    attention: str, decoder: str, skip: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path / "model", attention=attention, decoder=decoder, skip=skip, drop_path=0.1, dropout=0.2)
    capfd.readouterr()
    loaded = MulT.from_pretrained(tmp_path / "model")
    assert capfd.readouterr() == ("", "")
    assert not loaded.training
    assert loaded.classes == model.classes
    assert list(loaded.state_dict()) == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    images = torch.rand(1, 3, 50, 70)
    with torch.no_grad():
        first, second = model(images), loaded(images)
    assert list(first) == list(second) == ["normal", "depth_zbuffer"], "the order of the tasks is kept"
    assert all(torch.equal(first[task], second[task]) for task in first)


def test_a_checkpoint_from_before_the_skip_has_none(tmp_path: Path) -> None:
    model = saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["skip"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded, images = MulT.from_pretrained(tmp_path), torch.rand(1, 3, 50, 70)
    assert loaded.arguments["skip"] == "none"
    with torch.no_grad():
        assert torch.equal(loaded(images)["normal"], model(images)["normal"])


def test_config_json_says_how_to_build_it_again(tmp_path: Path) -> None:
    saved(tmp_path, drop_path=0.1)
    config = json.loads((tmp_path / "config.json").read_text())
    expected = {
        "format_version": 2, "reference": "normal", "backbone": "swin_tiny_patch4_window7_224", "pretrained": False,
        "attention": "shared", "decoder": "paper", "window_size": 7, "num_heads": [2, 2, 4, 4], "drop_path": 0.1,
        "dropout": 0.0, "skip": "none", "classes": {"normal": ["x", "y", "z"]},
        "backbone_args": {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]},
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected
    assert list(config["tasks"].items()) == [("normal", 3), ("depth_zbuffer", 1)]
    assert config["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert config["std"] == pytest.approx([0.229, 0.224, 0.225])
    assert set(config) == set(expected) | {"tasks", "mean", "std"}


@pytest.mark.filterwarnings("ignore")
def test_pretrained_is_saved_as_false_so_that_loading_needs_no_other_file(tmp_path: Path) -> None:
    torch.save(timm.create_model("swin_tiny_patch4_window7_224", **TINY).state_dict(), tmp_path / "swin.pth")
    model = saved(tmp_path / "model", pretrained=str(tmp_path / "swin.pth"))
    (tmp_path / "swin.pth").unlink()
    loaded = MulT.from_pretrained(tmp_path / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_refuses_a_damaged_folder_another_version_and_another_architecture(tmp_path: Path) -> None:
    good = tmp_path / "good"
    saved(good)
    weights, config = (good / "model.safetensors").read_bytes(), (good / "config.json").read_text()

    def with_content(weights: bytes, config: str) -> Path:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(good, tmp_path / "bad")
        (tmp_path / "bad" / "model.safetensors").write_bytes(weights)
        (tmp_path / "bad" / "config.json").write_text(config)
        return tmp_path / "bad"

    for broken in (weights[: len(weights) // 2], b"", b"no weights"):
        with pytest.raises(UserError, match=r"(?s)model.safetensors: not the weights .*expected a folder"):
            MulT.from_pretrained(with_content(broken, config))
    other = config.replace('"depth_zbuffer": 1', '"depth_zbuffer": 2')
    assert other != config
    with pytest.raises(UserError, match=r"(?s)model.safetensors: not the weights .*of another architecture"):
        MulT.from_pretrained(with_content(weights, other))
    with pytest.raises(UserError, match=r"config.json: got format_version 99; expected 2; "):
        MulT.from_pretrained(with_content(weights, config.replace('"format_version": 2', '"format_version": 99')))
    with pytest.raises(
        UserError, match=r"config.json: cannot be read as JSON .*; expected a file that mult wrote; take another"
    ):
        MulT.from_pretrained(with_content(weights, config[:40]))
    (with_content(weights, config) / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model.safetensors: not the weights"):
        MulT.from_pretrained(tmp_path / "bad")


def test_no_weight_decay_for_norms_biases_and_position_tables() -> None:
    model = mult()
    no_decay = model.no_weight_decay()
    for name, value in model.named_parameters():
        parts = set(name.split("."))
        expected = "bias" in parts or bool(parts & {"norm", "norm1", "norm2"}) or "position_bias" in name
        assert (name in no_decay) == expected, (name, value.shape)


def test_a_head_with_other_classes_keeps_its_own_weights() -> None:
    arguments = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    other = MulT({"segment_semantic": 17, "normal": 3}, "normal", backbone_args=arguments)
    model = MulT({"segment_semantic": 13, "normal": 3}, "normal", backbone_args=arguments)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.start_from(other) == {"segment_semantic": "its head has 13 channels instead of 17"}
    for name, value in model.state_dict().items():
        is_head = name.startswith("decoder.heads.segment_semantic.")
        assert torch.equal(value, before[name] if is_head else other.state_dict()[name]), name


def test_the_weights_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    arguments = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    MulT({"normal": 3}, backbone_args=arguments).save_pretrained(tmp_path / "model")
    (tmp_path / "new").touch()
    assert (tmp_path / "model" / "model.safetensors").stat().st_mode == (tmp_path / "new").stat().st_mode


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pretrained": True}, None),
        ({"pretrained": "no/such/weights.pth"}, None),
        ({"pretrained": "package"}, None),
        ({"backbone_args": {"checkpoint_path": "weights.pth"}}, r"model\.backbone_args: got 'checkpoint_path'"),
        ({"backbone_args": {"pretrained_cfg": {"url": "http://127.0.0.1:9/w.pth"}}}, r"got .pretrained_cfg."),
        ({"backbone": "hf-hub:nobody/nothing"}, r"model\.backbone: got 'hf-hub:nobody/nothing'; expected a model of timm"),
        ({"backbone": "local-dir:/nowhere"}, r"model\.backbone: got 'local-dir:/nowhere'; expected a model of timm"),
    ],
)
def test_a_stranger_s_config_asks_no_one_for_weights(change: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    """The weights are those beside the config; a file that the config names is not read, an address not asked."""
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    if message is None:
        assert MulT.from_pretrained(tmp_path).arguments["pretrained"] is False
    else:
        with pytest.raises(UserError, match=message):
            MulT.from_pretrained(tmp_path)


def test_the_folder_of_a_run_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"the folder of a run; expected .*; give a checkpoint .* such as .*checkpoints/last"):
        MulT.from_pretrained(tmp_path)
