"""The convolutional decoder against a second implementation by sums over neighbours, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mult.errors import UserError
from mult.models import MulT
from mult.models.fpn import FPNDecoder
from mult.predict import Predictor
from tests.models.test_decoder import resize

DIMS = (8, 16, 24, 48)


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """3x3 with zeros around, (H, W, C) and (O, C, 3, 3) -> (H, W, O): a product for each neighbour."""
    height, width = x.shape[:2]
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    parts = [padded[i : i + height, j : j + width] @ kernel[:, :, i, j].T for i in range(3) for j in range(3)]
    return torch.stack(parts).sum(0)


def norm_of_groups(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Over the pixels and channels of each of 8 groups."""
    groups = x.unflatten(-1, (8, -1))
    centred = groups - groups.mean((0, 1, 3), keepdim=True)
    return (centred / (centred.square().mean((0, 1, 3), keepdim=True) + 1e-5).sqrt()).flatten(-2) * weight + bias


def make_features(size: tuple[int, int]) -> list[Tensor]:
    """Random maps of two images of a size, fine to coarse, in float64."""
    strides = (4, 8, 16, 32)
    return [
        torch.randn(2, c, -(-size[0] // s), -(-size[1] // s), dtype=torch.float64) for c, s in zip(DIMS, strides, strict=True)
    ]


def reference_pyramid(w: dict[str, Tensor], task: str, features: list[Tensor], size: tuple[int, int]) -> Tensor:
    x: Any = 0.0
    for level in (3, 2, 1, 0):
        name = f"heads.{task}"
        lateral = features[level].permute(1, 2, 0) @ w[f"{name}.laterals.{level}.weight"][:, :, 0, 0].T
        lateral = lateral + w[f"{name}.laterals.{level}.bias"]
        x = lateral if level == 3 else lateral + resize(x, (lateral.shape[0], lateral.shape[1]))
        x = convolve(x, w[f"{name}.smooth.{level}.0.weight"])
        x = norm_of_groups(x, w[f"{name}.smooth.{level}.1.weight"], w[f"{name}.smooth.{level}.1.bias"]).clamp(min=0)
    x = x @ w[f"heads.{task}.output.weight"][:, :, 0, 0].T + w[f"heads.{task}.output.bias"]
    return resize(x, (4 * x.shape[0], 4 * x.shape[1]))[: size[0], : size[1]].permute(2, 0, 1)


@pytest.mark.parametrize("size", [(64, 96), (33, 47), (1, 3)])
def test_equals_a_second_implementation(size: tuple[int, int]) -> None:
    torch.manual_seed(2)
    tasks = {"a": 2, "b": 3}
    decoder = FPNDecoder(tasks, DIMS, dropout=0.5).double().eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    features = make_features(size)
    with torch.no_grad():
        outputs = decoder(features, size)
    assert list(outputs) == ["a", "b"]
    for task, image in [("a", 0), ("b", 1)]:
        expected = reference_pyramid(dict(decoder.state_dict()), task, [feature[image] for feature in features], size)
        torch.testing.assert_close(outputs[task][image], expected, rtol=1e-9, atol=1e-9)


SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "resnet10t", "tf_efficientnet_lite0"])
def test_goes_with_any_encoder_and_is_saved(backbone: str, tmp_path: Any) -> None:
    torch.manual_seed(3)
    arguments = SWIN if backbone.startswith("swin") else None
    model = MulT({"normal": 3, "reshading": 1}, decoder="fpn", backbone=backbone, backbone_args=arguments)
    images = torch.rand(2, 3, 70, 50)
    sum(output.square().mean() for output in model(images).values()).backward()
    # Some of a ResNet's norms start with a scale of 0, and pass no gradient to what is before them.
    assert not [name for name, p in model.decoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(p.grad is not None for p in model.encoder.parameters())
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        outputs, again = model(images), MulT.from_pretrained(tmp_path)(images)
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        "normal": (2, 3, 70, 50),
        "reshading": (2, 1, 70, 50),
    }
    assert all(torch.equal(outputs[task], again[task]) for task in outputs)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("reference", "normal"),
        ("attention", "independent"),
        ("skip", "add"),
        ("window_size", 8),
        ("num_heads", 2),
        ("drop_path", 0.1),
    ],
)
def test_refuses_the_arguments_of_an_attention(argument: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"model.{argument}: got {value!r} with decoder fpn, .*; leave it out"):
        MulT({"normal": 3}, decoder="fpn", backbone_args=SWIN, **{argument: value})


def test_has_no_attention_to_draw() -> None:
    predictor = Predictor(MulT({"normal": 3}, decoder="fpn", backbone_args=SWIN), (64, 64))
    with pytest.raises(UserError, match=r"--attention: got a model with decoder fpn, .*; leave --attention out"):
        predictor.check_attention()
