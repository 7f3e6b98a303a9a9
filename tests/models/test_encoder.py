"""The encoder against timm's own backbones: same maps, one layout, any size, and what it refuses."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from mult.errors import UserError
from mult.models.encoder import Encoder
from mult.models.mult import MulT
from tests.models.test_costs import Operators

TINY: dict[str, Any] = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
SWIN = "swin_tiny_patch4_window7_224"
IMAGENET, HALF = (0.485, 0.456, 0.406), (0.5, 0.5, 0.5)

# backbone, its arguments, channels, its own heads, mean; NHWC (Swin, SwinV2) and NCHW ones, channels that do not double
BACKBONES: list[tuple[str, dict[str, Any], list[int], list[int | None], tuple[float, ...]]] = [
    (SWIN, TINY, [24, 48, 96, 192], [1, 2, 4, 8], IMAGENET),
    ("swinv2_tiny_window8_256", TINY, [24, 48, 96, 192], [1, 2, 4, 8], IMAGENET),
    ("swinv2_cr_tiny_224", TINY, [24, 48, 96, 192], [1, 2, 4, 8], IMAGENET),
    ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (16, 32, 64, 128)}, [16, 32, 64, 128], [None] * 4, IMAGENET),
    ("pvt_v2_b0", {"depths": (1, 1, 1, 1)}, [32, 64, 160, 256], [1, 2, 5, 8], IMAGENET),
    ("resnet18", {}, [64, 128, 256, 512], [None] * 4, IMAGENET),
    ("mobilenetv3_small_050", {}, [8, 16, 24, 288], [None] * 4, IMAGENET),
    ("tf_mobilenetv3_small_minimal_100", {}, [16, 24, 48, 576], [None] * 4, HALF),
]
IDS = [name for name, *_ in BACKBONES]


def encoder_of(backbone: str, args: dict[str, Any]) -> Encoder:
    torch.manual_seed(1)
    return Encoder(backbone, False, args).eval()


@pytest.mark.parametrize(("backbone", "args", "channels", "heads", "mean"), BACKBONES, ids=IDS)
def test_maps_are_timms_own_of_the_normalised_image(
    backbone: str, args: dict[str, Any], channels: list[int], heads: list[int | None], mean: tuple[float, ...]
) -> None:
    encoder = encoder_of(backbone, args)
    assert (encoder.channels, encoder.heads) == (channels, heads)
    body = timm.create_model(backbone, features_only=True, **args).eval()
    body.load_state_dict(encoder.body.state_dict())
    side = 256 if "256" in backbone else 224
    image = torch.rand(2, 3, side, side)
    std = HALF if mean == HALF else (0.229, 0.224, 0.225)
    normalised = torch.stack([(image[:, i] - mean[i]) / std[i] for i in range(3)], dim=1)
    with torch.no_grad():
        expected = {}
        for value in body(normalised):
            value = value.movedim(-1, 1) if "swin_" in backbone or "swinv2_tiny" in backbone else value
            expected[side // value.shape[2]] = value
        features = encoder(image)
    for stride, channel, feature in zip((4, 8, 16, 32), channels, features, strict=True):
        assert feature.shape == (2, channel, side // stride, side // stride)
        torch.testing.assert_close(feature, expected[stride], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(33, 47), (36, 60), (100, 132), (1, 5)])
@pytest.mark.parametrize(("backbone", "args"), [case[:2] for case in BACKBONES], ids=IDS)
def test_odd_sizes_are_padded_by_zeros_and_cropped(backbone: str, args: dict[str, Any], size: tuple[int, int]) -> None:
    encoder = encoder_of(backbone, args)
    multiple = 4 if backbone.startswith("swin") else 32
    image = torch.rand(1, 3, *size)
    full = encoder.mean.expand(1, 3, -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple).clone()
    full[:, :, : size[0], : size[1]] = image  # the mean is the zero of the normalised image
    with torch.no_grad():
        for feature, padded, stride in zip(encoder(image), encoder(full), (4, 8, 16, 32), strict=True):
            height, width = -(-size[0] // stride), -(-size[1] // stride)
            assert feature.shape[2:] == (height, width)
            torch.testing.assert_close(feature, padded[:, :, :height, :width])


@pytest.mark.parametrize("backbone", [SWIN, "swinv2_tiny_window8_256"])
def test_masks_of_windows_are_made_once_for_a_size_and_are_those_of_that_size(backbone: str) -> None:
    """Made in inference mode, for training to use next."""
    shifted = TINY | {"depths": (2, 1, 1, 1)}
    encoder, small, wide = encoder_of(backbone, shifted).eval(), torch.rand(1, 3, 96, 96), torch.rand(1, 3, 64, 128)
    for images in (small, wide, small):
        with torch.inference_mode(), Operators() as first:
            encoder(images)
        with Operators() as second:
            maps = encoder(images)
        fresh = encoder_of(backbone, shifted).eval()
        fresh.load_state_dict(encoder.state_dict())
        assert all(map(torch.equal, maps, fresh(images)))
        assert second.counts["masked_fill"] < first.counts["masked_fill"]
        torch.stack([each.sum() for each in maps]).sum().backward()


def test_copies_and_pickles_of_a_swin_make_masks_of_their_own() -> None:
    encoder = encoder_of(SWIN, TINY | {"depths": (2, 1, 1, 1)}).eval()
    small, wide = torch.rand(1, 3, 96, 96), torch.rand(1, 3, 64, 128)
    maps = encoder(small)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        other(wide)
        assert all(map(torch.equal, maps, other(small)))
        blocks: list[Any] = list(other.list_blocks())
        assert all(block.get_attn_mask.block is block for block in blocks)


def test_a_backbone_of_fixed_size_takes_that_size_and_is_refused_by_name_at_another() -> None:
    encoder = encoder_of("twins_svt_small", {"depths": (1, 1, 1, 1)})
    with torch.no_grad():
        assert [f.shape[2] for f in encoder(torch.rand(1, 3, 224, 224))] == [56, 28, 14, 7]
    with pytest.raises(UserError, match=r"got \(64, 96\); expected \(224, 224\), as twins_svt_small takes no other; set"):
        encoder(torch.rand(1, 3, 64, 96))
    maxvit = encoder_of("maxvit_nano_rw_256", {})
    with pytest.raises(UserError, match=r"expected \(256, 256\), as maxvit_nano_rw_256 takes no other"):
        maxvit(torch.rand(1, 3, 224, 224))


@pytest.mark.parametrize(
    ("backbone", "args", "message"),
    [
        ("nope", {}, r"model.backbone: got 'nope'; expected a model of timm"),
        (f"{SWIN}.nope", {}, r"model.backbone: .*nope"),
        ("mixer_s16_224", {}, r"maps at strides \[16, 16, 16\]; expected one each at \[4, 8, 16, 32\]; take"),
        (
            SWIN,
            {"embed_dimm": 24},
            r"model.backbone_args: got 'embed_dimm'; expected sizes, rates .*; did you mean 'embed_dim'\?",
        ),
        (
            "resnet18",
            {"embed_dim": 24},
            r"model.backbone_args: got {.*; expected arguments .* resnet18 takes .*embed_dim.*; leave out",
        ),
    ],
)
def test_refuses_a_backbone_that_does_not_fit(backbone: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Encoder(backbone, False, args)


TIMM_READS = (
    "checkpoint_path pretrained_cfg pretrained_cfg_overlay cache_dir pretrained_filter_fn model_cfg features_only kwargs"
)


@pytest.mark.parametrize("name", [*TIMM_READS.split(), "pretrained", "block_args", "scriptable"])
def test_refuses_by_name_what_would_have_timm_read_files_or_addresses(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save(Attack(marker), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=rf"model\.backbone_args: got '{name}'; expected sizes, rates and layers"):
        Encoder(SWIN, False, {**TINY, name: str(tmp_path / "weights.pth")})
    assert not marker.exists()


@pytest.mark.parametrize("value", ["a/b.pth", {"url": "x"}, [1, {"a": 1}], len])
def test_refuses_values_that_are_no_sizes(value: Any) -> None:
    with pytest.raises(UserError, match=r"model\.backbone_args\.norm_layer: got .*; expected numbers, true, false, a layer"):
        Encoder(SWIN, False, {**TINY, "norm_layer": value})


def test_a_layer_may_be_named() -> None:
    encoder = encoder_of("convnext_atto", {"depths": (1, 1, 1, 1), "act_layer": "relu"})
    assert any(isinstance(module, torch.nn.ReLU) for module in encoder.modules())


class Attack:
    """What a pickle may hold: unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_a_weights_file_runs_no_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"state_dict": timm.create_model("resnet18").state_dict(), "extra": Attack(marker)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth cannot be read .*expected a state dict"):
        Encoder("resnet18", str(tmp_path / "weights.pth"), None)
    assert not marker.exists()


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (0, 3, 32, 32), (1, 3, 0, 32)])
def test_refuses_images_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"images: got shape .*; expected \(B, 3, H, W\)"):
        encoder_of(SWIN, TINY)(torch.zeros(shape))


def test_refuses_maps_that_do_not_cover_the_image() -> None:
    with pytest.raises(UserError, match=r"map of inception_v4 at stride 4 is \(54, 54\).*expected one that covers"):
        encoder_of("inception_v4", {})(torch.rand(1, 3, 224, 224))


def heads_of(backbone: str, args: dict[str, Any], num_heads: Any) -> list[int]:
    model: Any = MulT({"a": 1}, backbone=backbone, backbone_args=args, num_heads=num_heads)
    # second block of every stage, coarse to fine
    return [stage.blocks[1].query_key.heads for stage in model.decoder.stages][::-1]


def test_heads_of_the_decoders() -> None:
    assert heads_of(SWIN, TINY, None) == [1, 2, 4, 8], "the backbone's own"
    assert heads_of("resnet18", {}, None) == [2, 4, 8, 16], "one a 32 channels"
    assert heads_of(SWIN, TINY, 3) == [3, 3, 3, 3]
    assert heads_of(SWIN, TINY, (2, 3, 4, 6)) == [2, 3, 4, 6]
    for wrong in (5, (1, 2, 3), (1, 2, 4, 0), -1):
        with pytest.raises(UserError, match=r"model.num_heads: got .* for channels \[24, 48, 96, 192\] of swin_tiny"):
            heads_of(SWIN, TINY, wrong)
    uneven = {"depths": (1, 1, 1, 1), "dims": (16, 32, 112, 128)}
    assert heads_of("convnext_atto", uneven, None) == [1, 1, 2, 4], "the largest divisor that is at most channels / 32"


def same(encoder: Encoder, weights: dict[str, Tensor]) -> None:
    for name, value in encoder.body.state_dict().items():
        full = name.replace("layers_", "layers.").replace("stages_", "stages.").replace("stem_", "stem.")
        assert torch.equal(value, weights[full]), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(("backbone", "args"), [(SWIN, TINY), ("resnet18", {}), BACKBONES[3][:2]])
def test_pretrained_weights_come_from_a_file(backbone: str, args: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    weights = timm.create_model(backbone, **args).state_dict()
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(weights, path)
    torch.manual_seed(3)
    same(Encoder(backbone, str(path), args), weights)


def test_refuses_a_weights_file_that_is_missing_damaged_or_of_another_architecture(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"model.pretrained: got '.*none.pth'; expected true, false, .package. or a weights file; correct"
    ):
        Encoder(SWIN, str(tmp_path / "none.pth"), TINY)
    for name, content in [("a.pth", b"hello" * 90), ("b.safetensors", b"hello" * 90), ("c.pth", b"")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"model.pretrained: .*{name} cannot be read .*expected a state dict"):
            Encoder(SWIN, str(tmp_path / name), TINY)
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"resnet.pth lacks 20 of the 20 weight matrices of swin_tiny.*of that architecture"):
        Encoder(SWIN, str(tmp_path / "resnet.pth"), TINY)


def test_numpy_scalars_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    weights = timm.create_model("resnet18").state_dict()
    beside = {"best": np.float64(0.5), "epoch": np.int64(3), "curve": np.arange(4, dtype=np.float32)}
    torch.save({"state_dict": weights, **beside}, tmp_path / "weights.pth")
    same(Encoder("resnet18", str(tmp_path / "weights.pth"), None), weights)


def test_weights_under_a_prefix_are_said_to_be_so(tmp_path: Path) -> None:
    weights = {f"backbone.{name}": value for name, value in timm.create_model("resnet18").state_dict().items()}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"all weights in .*weights\.pth are named backbone\.\*; .*; save them without"):
        Encoder("resnet18", str(tmp_path / "weights.pth"), None)


def test_the_file_s_weights_are_not_held_twice(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    body: Any = Encoder("resnet18", str(tmp_path / "weights.pth"), None).body
    assert "state_dict" not in body.default_cfg
    assert "state_dict" not in body.pretrained_cfg


def test_without_network_the_message_says_how_to_give_a_file(tmp_path: Path) -> None:
    command = "from mult.models.encoder import Encoder\ntry: Encoder('resnet18', True, None)\nexcept ValueError as e: print(e)"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert "weights of resnet18 could not be downloaded" in done.stdout
    assert "give the file: model.pretrained=PATH" in done.stdout


@pytest.mark.parametrize(("dtype", "trains", "fused"), [("bf16", True, 0), ("bf16", False, 8), ("fp32", True, 8)])
def test_attention_is_fused_but_in_training_in_bfloat16_on_a_cpu(dtype: str, trains: bool, fused: int) -> None:
    torch.manual_seed(0)
    small = {"embed_dims": [8, 16, 24, 32], "num_heads": [1, 2, 3, 4]}
    encoder, images = Encoder("pvt_v2_b0", False, small).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = encoder(images)
    tolerance = 0.1 if dtype == "bf16" else 1e-5
    for copied in (encoder, copy.deepcopy(encoder)):
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16")
        with Operators() as operators, torch.set_grad_enabled(trains), autocast:
            maps = copied(images)
        assert sum(count for name, count in operators.counts.items() if "scaled_dot_product" in name) == fused
        for one, other in zip(maps, expected, strict=True):
            torch.testing.assert_close(one.float(), other, rtol=tolerance, atol=tolerance)
