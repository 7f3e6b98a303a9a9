"""Random scale, crop and colours: what they do to the labels, that no label is left that they make wrong, and their colours."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mult import TASKS
from mult.data.batches.colours import distort, scale_saturation, turn_hue
from mult.data.batches.transforms import AugmentedDataset, TrainTransform
from mult.data.sample import Sample, collate_train, empty_target

OF_COLOURS = {"keypoints2d", "edge_texture"}
UNKNOWN_AT_OTHER_SCALES = OF_COLOURS | {"reshading"}


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(size: int = 40, tasks: Any = TASKS) -> Sample:
    """A square view whose image and segmentation say where they are: red goes with the columns, green with the rows."""
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    values = {
        "segment_semantic": (x // 10).long(),
        "depth_zbuffer": 2 + x[None] / size,
        "normal": torch.tensor([0.48, -0.36, -0.8])[:, None, None].expand(3, size, size).clone(),
        "human_parts": (y // 10).long(),
    }
    targets = {task: values.get(task, torch.full((1, size, size), 0.25)) for task in tasks}
    valid = {task: torch.ones(1, size, size, dtype=torch.bool) for task in tasks}
    return {
        "image": torch.stack([x / size, y / size, 0.5 + 0 * x]),
        "targets": targets,
        "valid": valid,
        "id": "",
        "derived": (),
    }


def test_a_square_image_is_cropped_at_random_places_and_scales() -> None:
    transform = TrainTransform((32, 32), flip=False, colours="none")
    places = []
    for seed in range(60):
        red = transform(ramp(tasks=["depth_zbuffer"]), draw(seed))["image"][0]
        places.append((float(red[0, 0]), float(red[0, -1] - red[0, 0])))
    left, width = np.transpose(places)
    # Shares of the image: between pixel centres a crop of a view enlarged by s spans 31 / 32 / s of it.
    assert np.allclose([width.max(), width.min()], [31 / 32, 31 / 32 / 1.25], atol=0.03)
    assert left.min() < 0.03
    assert left.max() > 0.15
    assert len(set(places)) > 25  # crops begin at whole pixels


def test_depth_is_divided_by_the_scale_and_normals_and_classes_stay() -> None:
    scale, size = 1.6, 32
    transform = TrainTransform((size, size), crop=False, flip=False, scale=(scale, scale), colours="none")
    sample = transform(ramp(tasks=["segment_semantic", "depth_zbuffer", "normal", "boundary"]), draw(0))
    red = sample["image"][0]
    assert float(red[0, -1] - red[0, 0]) == pytest.approx(31 / 32 / scale, abs=0.02)
    np.testing.assert_allclose(sample["targets"]["depth_zbuffer"][0], (2 + red) / scale, atol=0.6 / 40)
    normals = sample["targets"]["normal"].flatten(1).T
    np.testing.assert_allclose(normals, np.tile([0.48, -0.36, -0.8], (size**2, 1)), atol=1e-6)
    classes = sample["targets"]["segment_semantic"]
    assert set(classes.unique().tolist()) <= {0, 1, 2, 3}
    assert (classes - 4 * red).abs().max() < 1.2
    assert all(valid.all() for valid in sample["valid"].values())


def test_a_view_made_smaller_than_the_input_is_padded() -> None:
    sample = TrainTransform((32, 32), crop=False, flip=False, scale=(0.5, 0.5), colours="none")(
        ramp(tasks=["depth_zbuffer"]), draw(0)
    )
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:24, 8:24] = True
    assert torch.equal(sample["valid"]["depth_zbuffer"][0], inside)
    assert (sample["image"][2] > 0).equal(inside)
    assert float(sample["targets"]["depth_zbuffer"][0][inside].min()) > 4  # twice as far


@pytest.mark.parametrize(
    ("options", "falsified"),
    [
        ({}, UNKNOWN_AT_OTHER_SCALES),
        ({"scale": (1, 1)}, OF_COLOURS),
        ({"scale": (1, 1), "colours": "photometric"}, OF_COLOURS),
        ({"scale": (1, 1), "jitter": 0}, set()),
        ({"colours": "none"}, UNKNOWN_AT_OTHER_SCALES),
        ({"scale": (1, 1), "colours": "none"}, set()),
    ],
)
def test_a_label_that_counts_is_true(options: Any, falsified: set[str]) -> None:
    """Either a view is as it was, and all its labels count, or it is changed, and those that are wrong of it do not."""
    plain = TrainTransform((32, 32), crop=False, flip=False, scale=(1, 1), colours="none")(ramp(), draw(0))
    transform = TrainTransform((32, 32), crop=False, flip=False, **options)
    changed = 0
    for seed in range(60):
        sample = transform(ramp(), draw(seed))
        counted = {task for task, valid in sample["valid"].items() if valid.any()}
        if counted == set(TASKS):
            assert torch.equal(sample["image"], plain["image"])
            assert all(torch.equal(sample["targets"][task], plain["targets"][task]) for task in TASKS)
        else:
            changed += 1
            assert counted == set(TASKS) - falsified
            for task in falsified:
                assert (sample["targets"][task] == 0).all()
    assert 15 < changed < 45 if falsified else changed == 0


def test_without_such_labels_every_view_is_changed() -> None:
    sample = ramp(tasks=["normal", "edge_texture"])
    sample["targets"]["edge_texture"], sample["valid"]["edge_texture"] = empty_target(TASKS["edge_texture"], 40, 40)
    plain = TrainTransform((32, 32), crop=False, flip=False, scale=(1, 1), colours="none")(sample, draw(0))["image"]
    transform = TrainTransform((32, 32), crop=False, flip=False, scale=(1, 1))
    assert not any(torch.equal(transform(sample, draw(seed))["image"], plain) for seed in range(20))


class Ramps:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Sample:
        return {**ramp(32 + 2 * i), "id": str(i)}


@pytest.mark.parametrize("colours", ["jitter", "photometric"])
def test_workers_do_not_matter(colours: Any) -> None:
    views = AugmentedDataset(Ramps(), TrainTransform((24, 24), scale=(0.5, 2), colours=colours), seed=1)
    keys = [[(0, i)] for i in range(6)]
    alone, shared = (list(DataLoader(views, batch_sampler=keys, num_workers=n, collate_fn=collate_train)) for n in (0, 2))
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert all(torch.equal(one["valid"][task], other["valid"][task]) for task in TASKS)


# --- Colours, against Python's colorsys ---


@pytest.fixture
def image() -> torch.Tensor:
    colours = torch.rand(3, 8, 9, generator=draw(3))
    colours[:, 0, :5] = torch.tensor([[0, 0, 0], [1, 1, 1], [0.4, 0.4, 0.4], [1, 0, 0], [0.2, 0.2, 0.7]]).T
    return colours


def by_pixel(image: torch.Tensor, change: Any) -> np.ndarray:
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in image.double().flatten(1).T.tolist()]
    return np.array(pixels).T.reshape(image.shape)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.5])
def test_saturation(image: torch.Tensor, factor: float) -> None:
    expected = by_pixel(image, lambda h, s, v: (h, min(1, factor * s), v))
    np.testing.assert_allclose(scale_saturation(image, factor), expected, atol=1e-6)


@pytest.mark.parametrize("turn", [-0.1, 0.07, 1 / 3])
def test_hue(image: torch.Tensor, turn: float) -> None:
    expected = by_pixel(image, lambda h, s, v: ((h + turn) % 1, s, v))
    np.testing.assert_allclose(turn_hue(image, turn), expected, atol=2e-6)


def test_distortion_has_every_step_in_half_of_the_images_and_both_orders() -> None:
    """Of a gray of 0.4 brightness and contrast alone move the value; both orders give values that the other cannot."""
    gray = torch.full((3, 1, 1), 0.4)
    values = np.array([float(distort(gray, draw(seed))[0]) for seed in range(800)])
    assert np.mean(np.abs(values - 0.4) < 1e-6) == pytest.approx(0.25, abs=0.05)
    low, high = (0.4 - 32 / 255) * 0.5, (0.4 + 32 / 255) * 1.5
    assert low - 1e-6 <= values.min() < low + 0.03
    assert high - 0.06 < values.max() <= high + 1e-6
    # Of a saturated red near the upper end, contrast before the other steps is cut at 1 and after them scales what was left.
    red = torch.tensor([0.9, 0.2, 0.1]).view(3, 1, 1)
    results = torch.stack([distort(red, draw(seed)).flatten() for seed in range(800)])
    assert 0 <= float(results.min()) < float(results.max()) <= 1
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in results.tolist()])
    turned = (hues - colorsys.rgb_to_hsv(0.9, 0.2, 0.1)[0] + 0.5) % 1 - 0.5
    unclipped = results.amax(1).numpy() < 1
    unclipped &= results.amin(1).numpy() > 0
    turned = turned[unclipped]
    assert np.abs(turned).max() < 0.16
    assert np.mean(np.abs(turned) < 1e-3) > 0.2
