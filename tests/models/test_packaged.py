"""The weights of a package: they see a cat, and a wrong package is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from mult import UserError
from mult.models import MulT
from mult.models.packaged import PACKAGES, read_packaged_weights

CATS = {281, 282, 283, 285}  # of ImageNet's classes: tabby, tiger cat, Persian, Egyptian cat


@pytest.mark.parametrize("backbone", sorted(PACKAGES))
def test_a_classifier_with_these_weights_sees_a_cat(backbone: str) -> None:
    pytest.importorskip(PACKAGES[backbone], reason="the extra `pretrained` is not installed")
    cat = pytest.importorskip("skimage.data").chelsea()  # uint8 (300, 451, 3)
    model = timm.create_model(backbone)
    model.load_state_dict(read_packaged_weights(backbone))  # strict
    config: Any = model.default_cfg
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    image = torch.from_numpy(np.asarray(cat, np.float32) / 255).permute(2, 0, 1)
    image = torch.nn.functional.interpolate(image[None], size=(224, 336), mode="bilinear", antialias=True)
    with torch.inference_mode():
        scores = model.eval()((image - mean) / std).softmax(1)[0]
    assert int(scores.argmax()) in CATS
    assert float(scores[list(CATS)].sum()) > 0.5


def test_a_backbone_without_a_package_is_refused() -> None:
    with pytest.raises(UserError, match=r"got 'package' for resnet18; expected one of tf_efficientnet_lite0, .*"):
        read_packaged_weights("resnet18")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite0", "no_such_package")
    with pytest.raises(UserError, match=r"no_such_package is not installed; .*pip install .*\[pretrained\]"):
        read_packaged_weights("tf_efficientnet_lite0")


def test_a_package_of_another_model_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "other_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    torch.save({"weight": torch.zeros(3)}, package / "models" / "other.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite0", "other_model")
    with pytest.raises(UserError, match=r"holds 1 tensors that are not those of tf_efficientnet_lite0; expected 296"):
        read_packaged_weights("tf_efficientnet_lite0")


def test_an_encoder_takes_the_weights_of_the_package() -> None:
    pytest.importorskip(PACKAGES["tf_efficientnet_lite0"], reason="the extra `pretrained` is not installed")
    model = MulT({"normal": 3}, backbone="tf_efficientnet_lite0", pretrained="package")
    weights = read_packaged_weights("tf_efficientnet_lite0")
    body = model.encoder.body.state_dict()
    assert len(body) > 250
    assert all(torch.equal(tensor, weights[name]) for name, tensor in body.items())
    assert model.arguments["pretrained"] is False  # a checkpoint has weights of its own


@pytest.mark.parametrize(
    ("backbone", "heads"),
    [("tf_efficientnet_lite0", [1, 1, 2, 10]), ("mobilenetv3_large_100", [1, 1, 2, 30]), ("regnety_002", [1, 1, 4, 8])],
)
def test_backbones_whose_channels_32_does_not_divide_have_default_heads(backbone: str, heads: list[int]) -> None:
    """The largest divisor of the channels that is at most channels / 32."""
    model = MulT({"normal": 3}, backbone=backbone)
    assert [stage.blocks[0].heads for stage in model.decoder.stages][::-1] == heads
