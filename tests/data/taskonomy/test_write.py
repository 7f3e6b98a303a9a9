"""The writer against the reader, and its codes against those in mult/data/README.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult import TASKS
from mult.data import Taskonomy
from mult.data.disk.encodings import ENCODINGS, encode_prediction
from mult.data.taskonomy.write import is_view_complete, write_view
from mult.errors import UserError


def view(**changes: Any) -> dict[str, Any]:
    """Arguments of write_view: random labels of an uneven size, anything at all where there is no geometry."""
    rng = np.random.default_rng(5)
    shape = (17, 23)
    valid = rng.random(shape) > 0.3
    normal = rng.normal(size=(3, *shape))
    normal /= np.linalg.norm(normal, axis=0)
    targets = {
        "segment_semantic": rng.choice([*range(17), 255], shape),
        "depth_zbuffer": np.where(valid, rng.uniform(0.01, 127.99, (1, *shape)), np.nan),
        "normal": np.where(valid, normal, 7),
        "keypoints2d": rng.random((1, *shape)) ** 8,
        "edge_texture": rng.random((1, *shape)),
        "reshading": np.where(valid, rng.random((1, *shape)), np.inf),
    }
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return {"image": image, "targets": targets, "valid": valid, "intrinsics": (30, 31, 11.5, 7), **changes}


def test_written_views_come_back(by_task: Any) -> None:
    written = view()
    by_task.root.mkdir()
    (by_task.root / "splits.csv").write_text("id,train,val,test\nhanson,1,0,0\n")
    assert not is_view_complete(by_task.root, "hanson", 4, 0)
    write_view(by_task.root, "hanson", 4, 0, **written)
    assert is_view_complete(by_task.root, "hanson", 4, 0)
    dataset = Taskonomy(by_task.root)
    sample, targets, valid = dataset[0], written["targets"], written["valid"]
    assert np.array_equal((sample["image"].permute(1, 2, 0) * 255).round().numpy(), written["image"])
    assert np.array_equal(sample["targets"]["segment_semantic"].numpy(), targets["segment_semantic"])
    steps = {"depth_zbuffer": 1 / 512, "keypoints2d": 1 / 65535, "edge_texture": 1 / 65535, "reshading": 1 / 255}
    for task, step in steps.items():
        mask = np.ones_like(valid) if step == 1 / 65535 else valid
        assert np.array_equal(sample["valid"][task][0].numpy(), mask)
        error = np.abs(sample["targets"][task][0].numpy() - targets[task][0])[mask]
        assert error.max() <= step * 0.501
    assert np.array_equal(sample["valid"]["normal"][0].numpy(), valid)
    degrees = np.degrees(np.arccos(np.clip((sample["targets"]["normal"].numpy() * targets["normal"]).sum(0), -1, 1)))
    assert degrees[valid].max() < 0.5
    np.testing.assert_allclose(sample["targets"]["normal"].norm(dim=0).numpy(), valid, atol=1e-6)
    assert dataset.camera(0) == ((30, 31, 11.5, 7), (17, 23))
    assert not list(by_task.root.rglob("*.tmp"))


def test_written_codes_are_taskonomys(by_task: Any) -> None:
    valid = np.array([[True, True, False]])
    targets = {
        "segment_semantic": np.array([[0, 16, 255]]),
        "depth_zbuffer": np.array([[[1.0, 127.996, 5.0]]]),
        "normal": np.array([[[0, 0.6, 1]], [[-1, 0, 0]], [[0, -0.8, 0]]]),
        "keypoints2d": np.array([[[0, 50 / 65535, 1]]]),
        "edge_texture": np.array([[[1, 718 / 65535, 0]]]),
        "reshading": np.array([[[1, 0.4962, 0.7]]]),
    }
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    write_view(by_task.root, "b", 7, 8, image=image, targets=targets, valid=valid, intrinsics=(9, 9, 1, 0))
    stored = {path.parts[-3]: Image.open(path) for path in by_task.root.rglob("*.png")}
    codes = {
        "rgb": ("RGB", image.tolist()),
        "segment_semantic": ("L", [[1, 17, 0]]),
        "depth_zbuffer": ("I;16", [[512, 65534, 65535]]),
        "normal": ("RGB", [[[128, 0, 128], [204, 128, 25], [128, 128, 128]]]),
        "keypoints2d": ("I;16", [[0, 50, 65535]]),
        "edge_texture": ("I;16", [[65535, 718, 0]]),
        "reshading": ("RGB", [[[255] * 3, [127] * 3, [0] * 3]]),
        "mask_valid": ("L", [[255, 255, 0]]),
    }
    assert {task: (image.mode, np.asarray(image).tolist()) for task, image in stored.items()} == codes


def test_square_cameras_are_stored_as_taskonomys(by_task: Any) -> None:
    square = view(image=np.zeros((5, 5, 3), np.uint8), valid=np.ones((5, 5), bool), targets={}, intrinsics=(4, 4, 2, 2))
    write_view(by_task.root, "hanson", 1, 1, **square)
    write_view(by_task.root, "hanson", 1, 2, **view())
    text = [path.read_text() for path in sorted((by_task.root / "point_info" / "hanson").iterdir())]
    assert f'"field_of_view_rads": {2 * math.atan(2.5 / 4)}' in text[0]
    assert "field_of_view_rads" not in text[1]


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [
        ("depth_zbuffer", 128.0, r"got depths .*; expected metres in \(0, 127.996\] where valid"),
        ("depth_zbuffer", -1.0, "got depths"),
        ("depth_zbuffer", np.nan, "got depths"),
        ("normal", 0.3, "got normals of length .*; expected unit vectors"),
        ("keypoints2d", 1.5, r"got values .*; expected 16-bit values / 65535, in \[0, 1\]"),
        ("edge_texture", -0.1, "got values"),
        ("reshading", 1.01, r"got reshading .*; expected values in \[0, 1\]"),
        ("segment_semantic", 17, r"got class ids \[17\]; expected 0..16 or 255"),
    ],
)
def test_values_that_files_cannot_hold_are_refused(by_task: Any, task: str, value: float, message: str) -> None:
    written = view(valid=np.ones((17, 23), bool), targets={})
    shape = (17, 23) if TASKS[task].categorical else (TASKS[task].channels, 17, 23)
    written["targets"] = {task: np.full(shape, value)}
    with pytest.raises(UserError, match=message):
        write_view(by_task.root, "hanson", 4, 0, **written)
    assert not by_task.root.exists()


def test_shapes_and_tasks_are_checked(by_task: Any) -> None:
    with pytest.raises(UserError, match=r"got an image float64 \(17, 23, 3\); expected uint8"):
        write_view(by_task.root, "hanson", 4, 0, **view(image=np.zeros((17, 23, 3))))
    with pytest.raises(UserError, match=r"got depth_zbuffer of shape \(17, 23\); expected \(1, 17, 23\)"):
        write_view(by_task.root, "hanson", 4, 0, **view(targets={"depth_zbuffer": np.ones((17, 23))}))
    with pytest.raises(UserError, match=r"got task 'depth'; expected one of .*depth_zbuffer.*; leave it out"):
        write_view(by_task.root, "hanson", 4, 0, **view(targets={"depth": np.ones((1, 17, 23))}))


@pytest.mark.parametrize(
    ("task", "values", "codes", "clipped"),
    [
        ("depth_zbuffer", [-3, 0, 1 / 512, 2, 127.998, 500], [1, 1, 1, 1024, 65534, 65534], 4),
        ("edge_texture", [-0.1, 0, 0.25, 1, 1.5], [0, 0, 16384, 65535, 65535], 2),
        ("keypoints2d", [-1e-9, 0.5, 1.0], [0, 32768, 65535], 1),
        ("reshading", [-2, 0.4, 1.01], [0, 102, 255], 2),
    ],
)
def test_predictions_are_clipped_to_what_files_hold_and_counted(
    task: str, values: list[float], codes: list[int], clipped: int
) -> None:
    pixels, count = encode_prediction(task, np.array(values, np.float32)[None, None])
    assert (pixels if pixels.ndim == 2 else pixels[..., 0]).tolist() == [codes]
    assert count == clipped
    assert Image.fromarray(pixels).mode in ENCODINGS[task].modes


def test_predicted_classes_and_normals_have_their_codes() -> None:
    pixels, clipped = encode_prediction("segment_semantic", np.array([[0, 16, 5]]))
    assert (pixels.tolist(), clipped) == ([[1, 17, 6]], 0)
    pixels, clipped = encode_prediction("normal", np.array([[0.28, 0], [0, -1], [-0.96, 0]], np.float32)[:, None])
    assert (pixels.tolist(), clipped) == ([[[163, 128, 5], [128, 0, 128]]], 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_has_no_code(bad: float) -> None:
    with pytest.raises(UserError, match=r"^depth_zbuffer: got a prediction that is not finite; expected numbers; the checkp"):
        encode_prediction("depth_zbuffer", np.array([[[1, bad]]], np.float32))
