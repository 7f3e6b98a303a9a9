"""Corruptions against SciPy and NumPy, on the image alone, the same for any batch and number of workers."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mult.build import build_eval_batches
from mult.data import Taskonomy
from mult.data.batches.corruptions import AMOUNTS, CorruptedDataset, Corruption, parse_corruptions
from mult.errors import UserError


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def image() -> torch.Tensor:
    picture = torch.rand(3, 24, 37, generator=torch.Generator().manual_seed(1))
    picture[:, 3, 5] = 0.0
    picture[1] *= 0.3
    return picture


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0, 4.0, 9.0])
def test_blur_is_scipy_s(image: torch.Tensor, sigma: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    expected = [ndimage.gaussian_filter(channel.double().numpy(), sigma, mode="nearest") for channel in image]
    np.testing.assert_allclose(Corruption("blur", sigma)(image, draw()).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("severity", range(1, 6))
def test_brightness_raises_the_value_of_hsv(image: torch.Tensor, severity: int) -> None:
    got = Corruption("brightness", severity)(image, draw())
    for y, x in ((0, 0), (3, 5), (7, 30), (23, 36)):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[:, y, x].double().tolist())
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + severity / 10))
        assert got[:, y, x].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("severity", "factor"), [(1, 0.4), (2, 0.3), (3, 0.2), (4, 0.1), (5, 0.05)])
def test_contrast_shrinks_around_each_channel_s_mean(image: torch.Tensor, severity: int, factor: float) -> None:
    pixels = image.double().numpy()
    mean = pixels.mean((1, 2), keepdims=True)
    got = Corruption("contrast", severity)(image, draw()).numpy()
    np.testing.assert_allclose(got, mean + factor * (pixels - mean), atol=1e-6)


def test_noise_has_its_deviation_and_severities_share_their_draws() -> None:
    gray = torch.full((3, 200, 200), 0.5)
    clean = [Corruption("noise", severity)(gray, draw()) - 0.5 for severity in (1, 2)]
    assert float(clean[0].std()) == pytest.approx(AMOUNTS["noise"][0], rel=0.02)
    assert abs(float(clean[0].mean())) < 1e-3
    inside = clean[1].abs() < 0.5  # the rest is cut off at 0 and 1
    torch.testing.assert_close(clean[1][inside], clean[0][inside] * 1.5, atol=1e-6, rtol=0)
    worst = Corruption("noise", 5)(gray, draw())
    assert (float(worst.min()), float(worst.max())) == (0, 1)


def test_severity_0_is_the_image(image: torch.Tensor) -> None:
    assert torch.equal(Corruption("blur", 0)(image, draw()), image)
    assert Corruption("blur", 0).suffix == ""


def test_neither_batches_nor_workers_nor_shares_matter(tree_root: Path) -> None:
    views = Taskonomy(tree_root, split="train", tasks=("reshading", "depth_zbuffer"))
    noisy = CorruptedDataset(views, (48, 40), Corruption("noise", 3))

    def images(dataset: Any, batch_size: int, workers: int) -> list[torch.Tensor]:
        batches = build_eval_batches(dataset, (48, 40), batch_size, workers)
        return [image for batch in batches for image in batch["image"]["image"]]

    one, other, clean = images(noisy, 1, 0), images(noisy, 4, 2), images(views, 4, 0)
    assert len(one) == len(views)
    assert all(map(torch.equal, one, other))
    assert not torch.equal(one[0], one[1])
    residual = [noise - image for noise, image in zip(one, clean, strict=True)]
    assert float((residual[0] - residual[1]).abs().mean()) > 0.05  # every view has its own
    for i in range(len(views)):
        assert torch.equal(noisy[i]["targets"]["depth_zbuffer"], views[i]["targets"]["depth_zbuffer"])


def test_what_the_command_line_says() -> None:
    assert parse_corruptions(None, None) == [Corruption()]
    corruptions = parse_corruptions("0,1,2.5,1", "noise")
    assert [corruption.suffix for corruption in corruptions] == ["", "-blur1", "-blur2.5", *(f"-noise{k}" for k in range(1, 6))]


@pytest.mark.parametrize("text", ["x", "-1", "nan", "1,,1e9"])
def test_what_is_no_sigma(text: str) -> None:
    with pytest.raises(UserError, match=r"--blur: got '.*'; expected sigmas in pixels, 0 to 64; write e\.g\. --blur 0,1,2,4"):
        parse_corruptions(text, None)


def test_what_is_no_kind() -> None:
    with pytest.raises(UserError, match="--corrupt: got 'fog'; expected some of noise, brightness, contrast; blur has --blur"):
        parse_corruptions(None, "noise,fog")
