"""Transforms move image, targets and masks alike, against explicit loops; nothing is invented and nothing invalid leaks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as oracle

from mult import TASKS
from mult.data.batches.colours import jitter
from mult.data.batches.resize import interpolate, resize
from mult.data.batches.transforms import (
    AugmentedDataset,
    EvalTransform,
    TrainTransform,
    flip,
    mirror,
)
from mult.data.sample import Sample, collate_train
from mult.labels import normals_from_depth

SIZES = [(12, 20), (7, 9), (24, 40), (31, 11), (6, 10)]


def view(height: int = 12, width: int = 20, seed: int = 0, junk: float = 0.0) -> Sample:
    """Random targets with a mask of a blob and specks; `junk` in the invalid pixels of float targets."""
    generator = torch.Generator().manual_seed(seed)

    def draw(channels: int) -> torch.Tensor:
        return torch.rand(channels, height, width, generator=generator)

    targets, valid = {}, {}
    for name, task in TASKS.items():
        mask = draw(1) > 0.15
        mask[:, height // 3 : height // 2, width // 2 :] = False
        if task.channels is None:
            target = (draw(1)[0] * 17).long().masked_fill(~mask[0], 255)
        elif task.channels == 3:
            target = F.normalize(draw(3) - torch.tensor([0.3, 0.6, 1.2])[:, None, None], dim=0)
        else:
            target = draw(1) * 9
        if not task.categorical:
            target = torch.where(mask, target, junk)
        targets[name], valid[name] = target, mask
    return {"image": draw(3), "targets": targets, "valid": valid, "id": "made up", "derived": ("normal",)}


def bilinear(values: np.ndarray, length: int) -> np.ndarray:
    """The last axis at another length, by the definition: a triangle as wide as the coarser of the two grids."""
    source = values.shape[-1]
    scale = source / length
    result = np.zeros((*values.shape[:-1], length))
    for i in range(length):
        distance = np.abs(np.arange(source) + 0.5 - (i + 0.5) * scale) / max(scale, 1)
        weight = np.maximum(0, 1 - distance)
        result[..., i] = (values * weight).sum(-1) / weight.sum()
    return result


def interpolated(values: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    return bilinear(bilinear(values.double().numpy(), size[1]).swapaxes(-1, -2), size[0]).swapaxes(-1, -2)


def averaged(values: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Means over areas, of the source cut into size[0] x size[1] equal parts a pixel."""
    fine = values.double().numpy().repeat(size[0], -2).repeat(size[1], -1)
    height, width = values.shape[-2:]
    return np.asarray(fine.reshape(*values.shape[:-2], size[0], height, size[1], width).mean((-3, -1)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("task", TASKS)
def test_resize_against_its_definition(task: str, size: tuple[int, int]) -> None:
    sample = view()
    target, valid = sample["targets"][task], sample["valid"][task]
    resized = resize(sample, size)
    got, mask = resized["targets"][task], resized["valid"][task]
    assert (got.dtype, mask.dtype) == (target.dtype, torch.bool)
    if TASKS[task].resize == "nearest":
        for i in range(size[0]):
            for j in range(size[1]):
                y, x = int((i + 0.5) * 12 / size[0]), int((j + 0.5) * 20 / size[1])
                assert torch.equal(got[..., i, j], target[..., y, x])
                assert mask[0, i, j] == valid[0, y, x]
        return
    weigh = averaged if TASKS[task].resize == "area" else interpolated
    weight, total = weigh(valid.float(), size), weigh(target * valid, size)
    clear = np.abs(weight - 0.5) > 1e-5  # a weight of exactly one half may fall to either side
    assert np.array_equal(mask.numpy()[clear], (weight > 0.5)[clear])
    assert mask.any()
    if TASKS[task].resize == "normals":
        expected = total / np.maximum(np.linalg.norm(total, axis=0), 1e-9)
        np.testing.assert_allclose(got.norm(dim=0).numpy(), mask[0], atol=1e-6)
    else:
        expected = total / np.maximum(weight, 1e-9)
    np.testing.assert_allclose(got.numpy(), np.where(mask, expected, 0), atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
def test_the_image_is_resized_without_aliases(size: tuple[int, int]) -> None:
    image = view()["image"]
    np.testing.assert_allclose(resize(view(), size)["image"].numpy(), interpolated(image, size), atol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 3, 10])
def test_half_the_columns_are_what_interpolation_makes_of_them(width: int) -> None:
    values = torch.rand(2, 3, 2 * width, generator=torch.Generator().manual_seed(width))
    expected = F.interpolate(values[None], size=(3, width), mode="bilinear", antialias=True, align_corners=False)[0]
    torch.testing.assert_close(interpolate(values, (3, width)), expected, rtol=0, atol=3e-7)


@pytest.mark.parametrize("source", [1, 2, 7, 31, 512])
@pytest.mark.parametrize("length", [1, 5, 31, 224])
def test_heights_are_changed_as_torch_does(source: int, length: int) -> None:
    values = torch.rand(2, source, 3, generator=torch.Generator().manual_seed(source))
    expected = F.interpolate(values[None], size=(length, 3), mode="bilinear", antialias=True, align_corners=False)[0]
    torch.testing.assert_close(interpolate(values, (length, 3)), expected, rtol=0, atol=3e-7)


def test_labels_under_one_mask_are_resized_as_each_alone() -> None:
    sample = view()
    sample["valid"] = {task: sample["valid"]["normal"].clone() for task in TASKS}
    both = resize(sample, (6, 10))
    for task in TASKS:
        alone = resize({**sample, "targets": {task: sample["targets"][task]}, "valid": {task: sample["valid"][task]}}, (6, 10))
        assert torch.equal(both["targets"][task], alone["targets"][task])
        assert torch.equal(both["valid"][task], alone["valid"][task])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -1e30])
def test_invalid_pixels_leak_nowhere(size: tuple[int, int], junk: float) -> None:
    clean, dirty = resize(view(), size), resize(view(junk=junk), size)
    for task in TASKS:
        valid = clean["valid"][task]
        assert torch.equal(dirty["valid"][task], valid)
        got, expected = (s["targets"][task].masked_fill(~valid.view(-1, *size)[0], 0) for s in (dirty, clean))
        assert torch.equal(got, expected)
        if TASKS[task].resize != "nearest" and size != (12, 20):
            assert (dirty["targets"][task][:, ~valid[0]] == 0).all()


def test_opposite_normals_have_no_mean() -> None:
    sample = view(2, 4)
    away, left, right = torch.tensor([[0.0, 0, -1], [-1, 0, 0], [1, 0, 0]])
    sample["targets"]["normal"] = torch.stack([left, right, away, away], dim=1)[:, None].repeat(1, 2, 1)
    sample["valid"]["normal"] = torch.ones(1, 2, 4, dtype=torch.bool)
    resized = resize(sample, (2, 6))  # whose second pixel lies halfway between left and right
    assert resized["valid"]["normal"][0].tolist() == [[True, False, True, True, True, True]] * 2
    assert (resized["targets"]["normal"][:, :, 1] == 0).all()
    np.testing.assert_allclose(
        resized["targets"]["normal"][:, 0, [0, 2, 5]].T.numpy(),
        [[-1, 0, 0], [26**-0.5 * 5, 0, -(26**-0.5)], [0, 0, -1]],
        atol=1e-6,
    )


@pytest.mark.parametrize("task", TASKS)
def test_flip_exchanges_left_and_right(task: str) -> None:
    sample = view()
    flipped = flip(sample)
    sign = torch.tensor([-1.0, 1.0, 1.0])[:, None] if task == "normal" else 1
    for x in range(20):
        assert torch.equal(flipped["image"][..., x], sample["image"][..., 19 - x])
        assert torch.equal(flipped["targets"][task][..., x], sample["targets"][task][..., 19 - x] * sign)
        assert torch.equal(flipped["valid"][task][..., x], sample["valid"][task][..., 19 - x])


def test_flip_is_an_involution() -> None:
    sample = view()
    twice = flip(flip(sample))
    assert torch.equal(twice["image"], sample["image"])
    for task in TASKS:
        assert torch.equal(twice["targets"][task], sample["targets"][task])
        assert torch.equal(twice["valid"][task], sample["valid"][task])
    assert torch.equal(sample["targets"]["normal"], view()["targets"]["normal"])  # nothing was changed in place


@pytest.mark.parametrize("task", TASKS)
def test_raw_outputs_are_mirrored_as_targets_are(task: str) -> None:
    """What averaging over mirror images stands on: encode commutes with the mirror, for batches too."""
    record, values = TASKS[task], torch.rand(2, 5 if TASKS[task].categorical else TASKS[task].channels or 0, 6, 7) - 0.5
    torch.testing.assert_close(mirror(task, record.encode(values)), record.encode(mirror(task, values)))
    assert torch.equal(mirror(task, values)[1], mirror(task, values[1]))
    sign = torch.tensor([-1.0, 1, 1])[:, None, None] if task == "normal" else 1
    assert torch.equal(mirror(task, values)[..., 2], (values * sign)[..., 4])


def test_flipped_normals_are_those_of_the_flipped_scene() -> None:
    height, width, (fx, fy, cx, cy) = 24, 32, (30.0, 30.0, 12.0, 10.0)
    normal = np.array([0.48, -0.36, -0.8])
    x, y = np.meshgrid((np.arange(width) - cx) / fx, (np.arange(height) - cy) / fy)
    depth = (-2.0 / (normal[0] * x + normal[1] * y + normal[2])).astype(np.float32)  # the plane n . p = -2
    valid = np.ones((height, width), bool)
    sample = view(height, width)
    sample["targets"] = {
        "depth_zbuffer": torch.from_numpy(depth)[None],
        "normal": torch.from_numpy(normals_from_depth(depth, (fx, fy, cx, cy), valid)[0]),
    }
    sample["valid"] = dict.fromkeys(sample["targets"], torch.ones(1, height, width, dtype=torch.bool))
    np.testing.assert_allclose(sample["targets"]["normal"][:, 5, 7].numpy(), normal, atol=1e-3)
    flipped = flip(sample)
    camera = (fx, fy, width - 1 - cx, cy)
    again, defined = normals_from_depth(flipped["targets"]["depth_zbuffer"][0].numpy(), camera, valid)
    assert defined.any()
    np.testing.assert_allclose(flipped["targets"]["normal"].numpy()[:, defined], again[:, defined], atol=1e-3)


@pytest.mark.parametrize("field", ["resize", "flip"])
def test_a_task_without_a_rule_is_not_passed_on(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    monkeypatch.setitem(TASKS, "normal", dataclasses.replace(TASKS["normal"], **{field: "twist"}))  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="task normal: got the rule 'twist'; expected one of"):
        resize(view(), (6, 10)) if field == "resize" else flip(view())


def ramp(height: int, width: int) -> Sample:
    """Every target says where it is: columns in keypoints and depth, rows in edges and reshading, both in the image."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    targets = {"depth_zbuffer": x[None], "keypoints2d": x[None], "edge_texture": y[None], "reshading": y[None]}
    valid = {task: torch.ones(1, height, width, dtype=torch.bool) for task in targets}
    image = torch.stack([x / width, y / height, 0.3 + 0.2 * (x / width + y / height)])
    return {"image": image, "targets": targets, "valid": valid, "id": "ramp", "derived": ()}


@pytest.mark.parametrize(("height", "width"), [(48, 80), (80, 48), (40, 40), (10, 30)])
@pytest.mark.parametrize("size", [(20, 20), (24, 36), (30, 12)])
def test_crops_cover_the_size_and_move_together(height: int, width: int, size: tuple[int, int]) -> None:
    sample = ramp(height, width)
    scale = max(size[0] / height, size[1] / width)
    starts, flips = [], 0
    for seed in range(40):
        crop = TrainTransform(size, scale=(1, 1), colours="none")(sample, torch.Generator().manual_seed(seed))
        columns, rows = crop["image"][0] * width, crop["image"][1] * height
        assert crop["image"].shape == (3, *size)
        assert columns.shape == size
        if columns[0, 0] > columns[0, -1]:
            flips += 1
            columns = columns.flip(-1)
        # Neighbouring pixels are 1 / scale source pixels apart along both axes, away from the border's clipped triangles.
        inner = slice(2, -2)
        step_x, step_y = columns[:, inner].diff(dim=1), rows[inner].diff(dim=0)
        np.testing.assert_allclose(step_x.mean(), 1 / scale, rtol=1.0 / min(size), atol=0)
        np.testing.assert_allclose(step_y.mean(), 1 / scale, rtol=1.0 / min(size), atol=0)
        starts.append((float(rows[0].min()), float(columns[:, 0].min())))
        nearest = crop["targets"]["depth_zbuffer"][0]
        area = crop["targets"]["keypoints2d"][0]
        assert (nearest - area).abs().max() <= 0.5 / scale + 0.5
        assert (crop["image"][0] * width - area).abs().max() <= 0.51
        assert torch.equal(crop["targets"]["edge_texture"], crop["targets"]["reshading"])
        assert (crop["image"][1] * height - crop["targets"]["edge_texture"][0]).abs().max() <= 0.51
        place = crop["image"][0] + crop["image"][1]
        assert np.corrcoef(crop["image"][2].flatten(), place.flatten())[0, 1] > 0.9999
    assert 8 <= flips <= 32
    low, high = np.min(starts, axis=0), np.max(starts, axis=0)
    room = np.array([height - size[0] / scale, width - size[1] / scale])
    assert (high - low >= 0.8 * room - 1).all()
    assert (high - low <= room + 1).all()


def test_without_augmentation_the_crop_is_central() -> None:
    sample = view(12, 20)
    crop = TrainTransform((12, 14), crop=False, flip=False, scale=(1, 1), colours="none")(sample, torch.Generator())
    assert torch.equal(crop["image"], sample["image"][..., 3:17])
    for task in TASKS:
        assert torch.equal(crop["targets"][task], sample["targets"][task][..., 3:17])
        assert torch.equal(crop["valid"][task], sample["valid"][task][..., 3:17])


def test_evaluation_leaves_targets_alone() -> None:
    sample = view()
    transformed = EvalTransform((24, 8), "stretch")(sample)
    np.testing.assert_allclose(transformed["image"].numpy(), interpolated(sample["image"], (24, 8)), atol=1e-5)
    assert transformed["targets"] is sample["targets"]
    assert transformed["valid"] is sample["valid"]
    assert sample["image"].shape == (3, 12, 20)


@pytest.mark.parametrize("factors", [(1.2, 1.0, 1.0), (1.0, 0.8, 1.0), (1.0, 1.0, 0.8), (0.9, 1.15, 0.85)])
def test_jitter_against_torchvision(factors: tuple[float, float, float]) -> None:
    image = 0.3 + 0.3 * view()["image"]
    brightness, contrast, saturation = factors
    expected = oracle.adjust_saturation(oracle.adjust_brightness(image, brightness), saturation)
    np.testing.assert_allclose(jitter(image, *factors).numpy(), oracle.adjust_contrast(expected, contrast).numpy(), atol=2e-4)


def test_jitter_stays_in_range_and_leaves_targets_alone() -> None:
    sample = view()
    of_shape = {task: sample["targets"][task] for task in TASKS if not TASKS[task].of_colours}
    sample = {**sample, "targets": of_shape, "valid": {task: sample["valid"][task] for task in of_shape}}
    changed = TrainTransform((12, 20), scale=(1, 1), jitter=0.1)(sample, torch.Generator().manual_seed(1))
    assert 0 <= changed["image"].min() < changed["image"].max() <= 1
    mirrored = flip(sample)
    same = sample if torch.equal(changed["valid"]["normal"], sample["valid"]["normal"]) else mirrored
    for task in of_shape:
        assert torch.equal(changed["targets"][task], same["targets"][task])
    difference = (changed["image"] - same["image"]).abs().max()
    assert 0.01 < difference < 3 * 0.1


class Views:
    """Four views that say which they are."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Sample:
        return {**view(30, 20, seed=i), "id": f"view {i}"}


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(one[key][task], other[key][task]) for key in ("targets", "valid") for task in TASKS) and (
        torch.equal(one["image"], other["image"])
    )


def test_randomness_is_a_function_of_seed_epoch_and_index() -> None:
    views = AugmentedDataset(Views(), TrainTransform((8, 10)), seed=3)
    assert len(views) == 4
    first = views[0, 2]
    torch.rand(100)  # the global generator plays no part
    assert same(views[0, 2], first)
    assert first["id"] == "view 2"
    assert not same(views[1, 2], first)
    assert not same(AugmentedDataset(Views(), TrainTransform((8, 10)), seed=4)[0, 2], first)


def test_neighbouring_seeds_epochs_and_indices_share_no_draws() -> None:
    def draw(sample: Sample, generator: torch.Generator) -> Sample:
        return {**sample, "id": str(torch.rand(1, generator=generator).item())}

    keys = [(seed, epoch, index) for seed in range(3) for epoch in range(3) for index in range(4)]
    assert len({AugmentedDataset(Views(), draw, seed)[epoch, index]["id"] for seed, epoch, index in keys}) == len(keys)


def test_workers_do_not_matter() -> None:
    views = AugmentedDataset(Views(), TrainTransform((8, 10)), seed=3)
    order = [[(0, 3), (0, 1)], [(0, 0), (0, 2)], [(1, 1), (1, 0)]]
    alone, shared = (
        list(DataLoader(views, batch_sampler=order, num_workers=workers, collate_fn=collate_train)) for workers in (0, 2)
    )
    assert [batch["id"] for batch in alone] == [["view 3", "view 1"], ["view 0", "view 2"], ["view 1", "view 0"]]
    for one, other in zip(alone, shared, strict=True):
        assert one["id"] == other["id"]
        assert same(one, other)
