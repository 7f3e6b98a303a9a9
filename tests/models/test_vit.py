"""Plain ViTs against timm's own: the map at stride 16, any size, what is trained how, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from mult import Predictor
from mult.errors import UserError
from mult.models import MulT
from mult.models.encoder import Encoder
from tests.models.test_encoder import heads_of

TINY: dict[str, Any] = {"embed_dim": 48, "depth": 3, "num_heads": 3, "init_values": 0.5}
IMAGENET, CLIP, HALF = (0.485, 0.456, 0.406), (0.48145466, 0.4578275, 0.40821073), (0.5, 0.5, 0.5)
# patch, tokens that are dropped, mean; among them rotary positions, and pooling by attention without a class token
VITS: dict[str, tuple[int, int, tuple[float, ...]]] = {
    "vit_small_patch14_dinov2": (14, 1, IMAGENET),
    "vit_small_patch14_reg4_dinov2": (14, 5, IMAGENET),
    "vit_small_patch16_dinov3": (16, 5, IMAGENET),
    "vit_base_patch16_224.mae": (16, 1, IMAGENET),
    "vit_base_patch16_clip_224": (16, 1, CLIP),
    "vit_base_patch16_siglip_224": (16, 0, HALF),
}
STRIDES = (4, 8, 16, 32)
TASKS = {"depth_zbuffer": 1, "normal": 3}


def encoder_of(backbone: str, **changes: Any) -> Encoder:
    """With every weight drawn, so that no token, table or bias is zero or one as at the start."""
    torch.manual_seed(1)
    encoder = Encoder(backbone, False, TINY | changes).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return encoder


def build_alone(encoder: Encoder) -> Any:
    """timm's own model with the encoder's weights."""
    vit: Any = timm.create_model(encoder.name, num_classes=0, dynamic_img_size=True, **TINY)
    vit.prune_intermediate_layers(1, prune_norm=False)
    vit.load_state_dict(encoder.body.vit.state_dict())  # type: ignore[union-attr]
    return vit.eval()


def covered(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


@pytest.mark.parametrize("size", [(224, 224), (160, 200), (97, 131), (3, 40)])
@pytest.mark.parametrize("backbone", VITS)
def test_the_map_at_stride_16_is_the_last_one_of_timms_own_model(backbone: str, size: tuple[int, int]) -> None:
    patch, prefix, mean = VITS[backbone]
    encoder = encoder_of(backbone)
    assert encoder.channels == [12, 24, 48, 48]
    image = torch.rand(2, 3, *size)
    rows, columns = covered(size, 16)
    full = torch.tensor(mean).view(1, 3, 1, 1).expand(2, 3, 16 * rows, 16 * columns).clone()  # the mean is the zero
    full[:, :, : size[0], : size[1]] = image
    normalised = (full - encoder.mean) / encoder.std
    if patch == 14:
        normalised = F.interpolate(normalised, size=(14 * rows, 14 * columns), mode="bilinear", antialias=True)
    with torch.no_grad():
        features = encoder(image)
        tokens = build_alone(encoder).forward_features(normalised)
    assert tokens.shape == (2, prefix + rows * columns, 48)
    last = tokens[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))
    torch.testing.assert_close(features[2], last, rtol=1e-4, atol=1e-5)
    for stride, channels, feature in zip(STRIDES, encoder.channels, features, strict=True):
        assert feature.shape == (2, channels, *covered(size, stride))


def test_the_other_maps_are_made_of_the_one_at_stride_16() -> None:
    """By a second implementation: a transposed convolution of 2 x 2 is a product a token, written to four places."""
    encoder = encoder_of("vit_small_patch16_dinov3")
    pyramid: Any = encoder.body.pyramid

    def double(feature: Tensor, convolution: Any, norm: Any) -> Tensor:
        parts = torch.einsum("bchw,cdij->bhiwjd", feature, convolution.weight) + convolution.bias
        wide = parts.flatten(1, 2).flatten(2, 3)
        scaled = (wide - wide.mean(-1, keepdim=True)) / (wide.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
        return (scaled * norm.weight + norm.bias).permute(0, 3, 1, 2)

    with torch.no_grad():
        finest, fine, middle, coarse = encoder(torch.rand(2, 3, 80, 112))
        four = double(F.gelu(double(middle, *pyramid.to_4[:2])), *pyramid.to_4[3:])
        torch.testing.assert_close(finest, four, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fine, double(middle, *pyramid.to_8), rtol=1e-4, atol=1e-5)
    padded = F.pad(middle, (0, 1, 0, 1), value=-torch.inf)  # 5 x 7 tokens
    assert torch.equal(coarse, torch.stack([padded[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0))


@pytest.mark.parametrize("backbone", ["vit_small_patch14_dinov2", "vit_base_patch16_clip_224"])
def test_a_translated_image_translates_the_maps(backbone: str) -> None:
    """Of a model without positions, by 32 and 64 pixels: also the image of patch 14 is scaled about no other point."""
    encoder = encoder_of(backbone)
    encoder.body.vit.pos_embed.data.zero_()  # type: ignore[union-attr, operator]
    image = torch.rand(1, 3, 128, 192)
    for margin in (0, 1, 14, 15):  # so that no filter reaches over an edge where the image wraps
        image[:, :, margin::16] = image[:, :, :, margin::16] = 0.5
    with torch.no_grad():
        maps, moved = encoder(image), encoder(image.roll((32, 64), (2, 3)))
    for stride, feature, other in zip(STRIDES, maps, moved, strict=True):
        expected = feature.roll((32 // stride, 64 // stride), (2, 3))
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", VITS)
def test_an_image_has_the_same_maps_alone_as_in_a_batch(backbone: str) -> None:
    encoder, images = encoder_of(backbone), torch.rand(3, 3, 97, 131)
    with torch.no_grad():
        for together, alone in zip(encoder(images), encoder(images[1:2]), strict=True):
            torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_positions_matter_and_are_those_of_the_size_at_hand() -> None:
    """After inference at another size, and in training, whatever timm keeps of the last one."""
    for backbone in ("vit_small_patch16_dinov3", "vit_small_patch14_dinov2"):
        encoder, image = encoder_of(backbone), torch.rand(1, 3, 96, 160)
        with torch.inference_mode():
            maps = encoder(image)
            encoder(torch.rand(1, 3, 64, 64))
        again = encoder.train()(image)
        assert all(map(torch.equal, maps, again))
        torch.stack([each.square().sum() for each in again]).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
        mirrored = encoder(image.flip(3))[2].flip(3)
        assert not torch.allclose(mirrored, again[2], rtol=0.05)


@pytest.mark.parametrize("backbone", VITS)
def test_layers_are_timms_and_the_pyramid_is_the_last(backbone: str) -> None:
    encoder = encoder_of(backbone)
    vit = build_alone(encoder)
    expected = timm.models.group_parameters(vit, vit.group_matcher(), reverse=True)
    expected |= {name: 0 for name in expected if name.startswith(("reg_token", "norm_pre."))}  # in no pattern of some versions
    layers = encoder.number_layers()
    pyramid = {name for name, _ in encoder.named_parameters() if name.startswith("body.pyramid.")}
    assert layers == {f"body.vit.{name}": layer for name, layer in expected.items()} | dict.fromkeys(pyramid, 4)


def test_tables_and_tokens_are_not_decayed_and_kernels_are() -> None:
    model = MulT(TASKS, "normal", "vit_small_patch14_reg4_dinov2", backbone_args=TINY)
    encoder = {name.removeprefix("encoder.body.") for name in model.no_weight_decay() if name.startswith("encoder.")}
    assert {"vit.pos_embed", "vit.cls_token", "vit.reg_token", "vit.norm.weight", "pyramid.to_8.0.bias"} <= encoder
    assert not {"vit.patch_embed.proj.weight", "vit.blocks.0.attn.qkv.weight", "pyramid.to_4.0.weight"} & encoder


def test_a_frozen_transformer_rests_under_a_pyramid_that_learns() -> None:
    encoder = encoder_of("vit_small_patch16_dinov3", drop_path_rate=0.5)
    encoder.freeze()
    learning = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert learning == {name for name, _ in encoder.named_parameters() if name.startswith("body.pyramid.")}
    image = torch.rand(4, 3, 64, 64)
    calm = encoder.eval()(image)
    assert all(map(torch.equal, calm, encoder.train()(image))), "no path is dropped"
    encoder.requires_grad_(True)
    assert not torch.equal(calm[2], encoder.train()(image)[2])


def test_heads_of_the_decoders_are_the_transformers_own_at_its_width() -> None:
    assert heads_of("vit_small_patch14_dinov2", TINY, None) == [1, 1, 3, 3]
    assert heads_of("vit_small_patch14_dinov2", {"depth": 1}, None) == [3, 6, 6, 6]
    separate = {"embed_dim": 192, "depth": 1, "num_heads": 3}
    assert heads_of("eva02_small_patch14_224", separate, None) == [1, 3, 3, 3]


@pytest.mark.parametrize("backbone", VITS)
def test_a_checkpoint_of_a_model_gives_the_same_maps(backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MulT(TASKS, "normal", backbone, backbone_args=TINY, window_size=4, skip="add").eval()
    model.save_pretrained(tmp_path)
    image = torch.rand(1, 3, 97, 131)
    again = MulT.from_pretrained(tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    for task, output in model(image).items():
        assert output.shape == (1, TASKS[task], 97, 131)
        assert torch.equal(again(image)[task], output)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8))
    maps = Predictor(again, (48, 64))(photo)
    assert {task: values.shape for task, values in maps.items()} == {"depth_zbuffer": (1, 97, 131), "normal": (3, 97, 131)}


@pytest.mark.parametrize("backbone", VITS)
def test_weights_come_from_a_file_and_the_pyramid_starts_anew(backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    weights = timm.create_model(backbone, **TINY).state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(weights, path)
    encoder = Encoder(backbone, str(path), TINY)
    for name, value in encoder.body.vit.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, weights[name]), name
    small: Any = Encoder(backbone, str(path), {**TINY, "img_size": 112}).body
    assert torch.equal(small.vit.blocks[0].attn.qkv.weight, weights["blocks.0.attn.qkv.weight"])
    with pytest.raises(UserError, match=r"weights\.safetensors lacks .* weight matrices|which timm cannot build"):
        Encoder(backbone, str(path), {**TINY, "depth": 4})


def test_patches_of_14_may_be_resampled_to_16(tmp_path: Path) -> None:
    torch.save(timm.create_model("vit_small_patch14_dinov2", **TINY).state_dict(), tmp_path / "weights.pth")
    encoder: Any = Encoder("vit_small_patch14_dinov2", str(tmp_path / "weights.pth"), {**TINY, "patch_size": 16})
    assert encoder.body.vit.patch_embed.proj.weight.shape == (48, 3, 16, 16)
    assert [each.shape[-1] for each in encoder(torch.rand(1, 3, 32, 64))] == [16, 8, 4, 2]


def test_a_copy_is_a_model_of_its_own() -> None:
    encoder = encoder_of("vit_small_patch16_dinov3")
    other, image = copy.deepcopy(encoder), torch.rand(1, 3, 64, 64)
    maps = encoder(image)
    other(torch.rand(1, 3, 32, 96))
    assert all(map(torch.equal, maps, other(image)))


@pytest.mark.parametrize(
    ("backbone", "args", "message"),
    [
        ("vit_base_patch32_clip_224", TINY, r"vit_base_patch32_clip_224 has patches of 32 pixels; expected .* 14 or 16; take"),
        ("vit_small_patch14_dinov2", {**TINY, "patch_size": 8}, r"patches of 8 pixels"),
        ("vit_small_patch14_dinov2", {**TINY, "embed_dim": 42}, r"embed_dim: got 42 .*; expected a multiple of 4, .*; change"),
        ("vit_small_patch14_dinov2", {**TINY, "embed_dim": 44}, r"vit_small_patch14_dinov2 with .*, which timm cannot build"),
        ("vit_small_patch14_dinov2", {"dynamic_img_size": False}, r"dynamic_img_size: got false .*; expected true.*; leave it"),
        ("vit_small_patch14_dinov2", {"patch_drop_rate": 0.5}, r"model.backbone_args: got 'patch_drop_rate'"),
        ("vit_small_patch14_dinov2", {"depths": [2]}, r"expected arguments that timm's vit_small_patch14_dinov2 takes"),
        ("vit_small_patch14_dinov2.nope", {}, r"model.backbone: .*nope"),
    ],
)
def test_refuses_a_vit_that_does_not_fit(backbone: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Encoder(backbone, False, args)
