"""How views come to the network's size: proportions, padding, and that padding is in no metric and no prediction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mult import TASKS, Predictor
from mult.build import build_eval_batches
from mult.data.batches.corruptions import CorruptedDataset, Corruption
from mult.data.batches.fit import input_size, pad, place
from mult.data.batches.transforms import EvalTransform, TrainTransform
from mult.data.sample import Sample
from mult.errors import UserError
from mult.evaluation.evaluate import evaluate, predict_samples
from mult.runs.checkpoint import load_checkpoint

CPU = torch.device("cpu")
PLAIN: dict[str, Any] = {"crop": False, "flip": False, "scale": (1, 1), "colours": "none"}


@pytest.mark.parametrize(
    ("fit", "source", "size", "expected"),
    [
        ("short_side", (480, 640), (256, 256), (256, 341)),
        ("short_side", (640, 480), (256, 256), (341, 256)),
        ("short_side", (512, 512), (160, 160), (160, 160)),
        ("short_side", (425, 560), (448, 576), (448, 590)),
        ("short_side", (100, 300), (64, 96), (64, 192)),
        ("short_side", (256, 341), (256, 256), (256, 341)),
        ("stretch", (480, 640), (256, 200), (256, 200)),
        ("pad", (425, 560), (448, 576), (425, 560)),
        ("pad", (375, 500), (512, 512), (375, 500)),
        ("pad", (3000, 4000), (448, 576), (432, 576)),
        ("pad", (4000, 3000), (448, 576), (448, 336)),
        ("pad", (1, 9000), (64, 64), (1, 64)),
    ],
)
def test_sizes_worked_out_by_hand(fit: Any, source: Any, size: Any, expected: Any) -> None:
    assert input_size(source, size, fit) == expected
    assert input_size(expected, size, fit) == expected  # what fits is left alone


def test_an_image_too_long_is_refused() -> None:
    assert input_size((10, 160), (64, 64), "short_side") == (64, 1024)
    with pytest.raises(UserError, match=r"image: got 10 x 162 pixels, 64 x 1037 at the network; expected at most 16 times the"):
        input_size((10, 162), (64, 64), "short_side")


def test_padding_is_around() -> None:
    values = torch.arange(1.0, 7).view(1, 2, 3)
    padded = pad(values, (5, 8), 9)
    assert padded.shape == (1, 5, 8)
    assert padded[0, 1:3, 2:5].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert int((padded == 9).sum()) == 5 * 8 - 6
    assert place((2, 3), (5, 8)) == (1, 2, 2, 3)


def make_view(height: int, width: int, seed: int = 0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    image = 0.2 + 0.6 * torch.rand(3, height, width, generator=generator)
    depth = 1 + torch.rand(1, height, width, generator=generator)
    classes = (torch.rand(height, width, generator=generator) * 3).long()
    valid = torch.rand(1, height, width, generator=generator) > 0.2
    return {
        "image": image,
        "targets": {"segment_semantic": classes.masked_fill(~valid[0], 255), "depth_zbuffer": depth * valid},
        "valid": {"segment_semantic": valid, "depth_zbuffer": valid},
        "id": f"view {seed}",
        "derived": (),
    }


class Views:
    """Views of three sizes in turn."""

    metric_depth = True
    classes: Mapping[str, list[str]] = MappingProxyType({"segment_semantic": ["a", "b", "c"]})
    metric_arguments: Mapping[str, dict[str, float]] = MappingProxyType({})
    sizes = ((20, 30), (30, 20), (20, 30), (20, 30), (17, 23))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, i: int) -> Sample:
        return make_view(*self.sizes[i], seed=i)

    def group(self, i: int) -> str:
        return ""


class Pointwise(nn.Module):
    """Outputs of each pixel alone; not a number where the image is black, which no pixel of `Views` is."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        values = torch.where(images.amax(1, keepdim=True) == 0, torch.nan, images)
        return {"segment_semantic": values * torch.tensor([1.0, 0.9, 1.1]).view(3, 1, 1), "depth_zbuffer": values[:, :1] - 0.5}


def score(fit: Any, size: tuple[int, int], batch_size: int) -> Any:
    batches = build_eval_batches(Views(), size, batch_size, 0, fit)
    return evaluate(Pointwise(), batches, ["segment_semantic", "depth_zbuffer"], Views(), {}, CPU)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_padding_changes_no_metric(batch_size: int) -> None:
    """A network that sees each pixel alone scores the same with 12 and 22 rows of padding, and as computed here by hand."""
    near, far = score("pad", (32, 32), batch_size), score("pad", (41, 53), batch_size)
    assert near.results == far.results
    for name, column in near.columns.items():
        assert np.array_equal(column, far.columns[name])
    errors, correct, count = 0.0, 0, 0
    for view in map(Views().__getitem__, range(5)):
        valid = view["valid"]["depth_zbuffer"][0].numpy()
        image = view["image"].double().numpy()[:, valid]
        depth = (image[0] - 0.5) * 1000 / 512 + 1500 / 512
        errors += float(((depth - view["targets"]["depth_zbuffer"][0].numpy()[valid]) ** 2).sum())
        logits = image * np.array([[1.0], [0.9], [1.1]])
        correct += int((logits.argmax(0) == view["targets"]["segment_semantic"].numpy()[valid]).sum())
        count += int(valid.sum())
    assert near.results["depth_zbuffer"]["rmse"]["value"] == pytest.approx((errors / count) ** 0.5, rel=1e-5)
    assert near.results["segment_semantic"]["pixel_accuracy"]["value"] == pytest.approx(correct / count)
    assert near.results["depth_zbuffer"]["rmse"]["pixels"] == count


def test_images_of_several_sizes_in_a_batch_score_as_alone() -> None:
    alone, together = score("short_side", (24, 20), 1), score("short_side", (24, 20), 5)
    for name, column in alone.columns.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(together.columns[name], column, rtol=1e-6)
        else:
            assert np.array_equal(together.columns[name], column)
    assert alone.columns["id"].tolist() == [f"view {i}" for i in range(5)]


def test_a_gallery_is_without_padding() -> None:
    view = make_view(20, 31)
    (sample,) = predict_samples(Pointwise(), [view], EvalTransform((33, 40), "pad"), CPU)
    expected = (view["image"][:1] - 0.5) * 1000 / 512 + 1500 / 512
    np.testing.assert_allclose(sample["predictions"]["depth_zbuffer"], expected, rtol=1e-6)


def test_predictions_are_without_padding(trained: Path) -> None:
    model, _ = load_checkpoint(trained)
    pixels = np.random.default_rng(0).integers(0, 255, (30, 22, 3), np.uint8)
    maps = Predictor(model, (48, 40), fit="pad")(Image.fromarray(pixels))
    padded = np.zeros((48, 40, 3), np.float32)
    padded[9:39, 9:31] = pixels / np.float32(255)
    with torch.inference_mode():
        outputs = model(torch.from_numpy(padded).permute(2, 0, 1)[None])
    for task, values in maps.items():
        expected = TASKS[task].decode(outputs[task][..., 9:39, 9:31])[0].numpy()
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_corruptions_leave_the_padding_black() -> None:
    views: Any = Views()
    bright = CorruptedDataset(views, (32, 32), Corruption("brightness", 5), "pad")
    (batch,) = build_eval_batches(bright, (32, 32), 5, 0, "pad")
    for i, image in enumerate(batch["image"]["image"]):
        top, left, height, width = batch["content"][i]
        assert (height, width) == Views.sizes[i]
        inside = image[:, top : top + height, left : left + width]
        torch.testing.assert_close(inside.amax(0), (views[i]["image"].amax(0) + 0.5).clamp(max=1))
        assert float(image.sum()) == pytest.approx(float(inside.sum()), rel=1e-6)


def test_training_pads_what_is_smaller_and_counts_nothing_there() -> None:
    view = make_view(20, 30)
    padded = TrainTransform((33, 36), "pad", **PLAIN)(view, torch.Generator())
    outside = torch.ones(33, 36, dtype=torch.bool)
    outside[6:26, 3:33] = False
    assert torch.equal(padded["image"][:, 6:26, 3:33], view["image"])
    assert (padded["image"][:, outside] == 0).all()
    for task, target in view["targets"].items():
        assert torch.equal(padded["targets"][task][..., 6:26, 3:33], target)
        assert torch.equal(padded["valid"][task][..., 6:26, 3:33], view["valid"][task])
        assert not padded["valid"][task][0, outside].any()
        assert (padded["targets"][task][..., outside] == (255 if task == "segment_semantic" else 0)).all()


def test_training_scales_what_is_larger_down_until_it_fits() -> None:
    view = make_view(40, 80)
    padded = TrainTransform((32, 32), "pad", **PLAIN)(view, torch.Generator())
    assert padded["image"].shape == (3, 32, 32)
    rows = (padded["image"].amax((0, 2)) > 0).nonzero()
    assert (int(rows.min()), int(rows.max())) == (8, 23)
    columns = (2 * torch.arange(32) + 1) * 80 // 64  # the source pixel in which each output pixel's centre lies
    expected = view["targets"]["depth_zbuffer"][0][(2 * torch.arange(16) + 1) * 40 // 32][:, columns]
    assert torch.equal(padded["targets"]["depth_zbuffer"][0, 8:24], expected)
