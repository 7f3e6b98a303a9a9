"""The reader against files written with plain Pillow, and the writer against the reader.

Every stored value is a formula in row and column that no transposition, mirror, shift or scale leaves as it is; what a
reader must make of it is computed beside it, value by value, from data.md.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mult import TASKS
from mult.data import Taskonomy
from mult.data.taskonomy import CLASSES, view_complete, write_view

HEIGHT, WIDTH = 6, 10
Y, X = np.mgrid[:HEIGHT, :WIDTH]
HOLES = (X * 7 + Y * 3) % 11 == 0  # no geometry
DEPTH = np.where(HOLES, 65535, 300 + 601 * X + 6007 * Y).astype(np.uint16)  # beyond 32767, where int16 turns negative
NORMAL = np.stack([10 + 20 * X, 240 - 30 * Y, 3 * X + 7 * Y], axis=2).astype(np.uint8)
NORMAL[HOLES] = 128
KEYPOINTS = (17 + 3 * X + 6000 * Y).astype(np.uint16)
EDGES = (65535 - 2000 * X - 31 * Y).astype(np.uint16)
RESHADING = (5 + 9 * X + 25 * Y).astype(np.uint8)
CODES = ((X + 5 * Y) % 18).astype(np.uint8)
RGB = np.stack([X * 25, 250 - Y * 40, X * 3 + Y * 11], axis=2).astype(np.uint8)
MASK = np.where(HOLES, 0, 255).astype(np.uint8)

STORED: dict[str, tuple[str, Any]] = {
    "rgb": ("rgb.png", RGB),
    "segment_semantic": ("segmentsemantic.png", CODES),
    "depth_zbuffer": ("depth_zbuffer.png", DEPTH),
    "normal": ("normal.png", NORMAL),
    "keypoints2d": ("keypoints2d.png", KEYPOINTS),
    "edge_texture": ("edge_texture.png", EDGES),
    "reshading": ("reshading.png", np.repeat(RESHADING[..., None], 3, axis=2)),
    "mask_valid": ("depth_zbuffer.png", MASK),
    "point_info": ("fixatedpose.json", {"field_of_view_rads": 1.1, "camera_location": [1, 2, 3]}),
}


def unit(y: int, x: int) -> list[float]:
    vector = [int(code) / 255 * 2 - 1 for code in NORMAL[y, x]]
    return [component / math.hypot(*vector) for component in vector]


# task -> (y, x) -> (target, valid)
EXPECTED: dict[str, Callable[[int, int], tuple[Any, bool]]] = {
    "segment_semantic": lambda y, x: (255, False) if CODES[y, x] == 0 else (int(CODES[y, x]) - 1, True),
    "depth_zbuffer": lambda y, x: ([0.0], False) if HOLES[y, x] else ([int(DEPTH[y, x]) / 512], True),
    "normal": lambda y, x: ([0.0, 0.0, 0.0], False) if HOLES[y, x] else (unit(y, x), True),
    "keypoints2d": lambda y, x: ([int(KEYPOINTS[y, x]) / 65535], True),
    "edge_texture": lambda y, x: ([int(EDGES[y, x]) / 65535], True),
    "reshading": lambda y, x: ([0.0], False) if HOLES[y, x] else ([int(RESHADING[y, x]) / 255], True),
}


def fill(tree: Any, *leave_out: str, **view: Any) -> None:
    for domain, (ending, pixels) in STORED.items():
        if domain not in leave_out:
            tree.write(domain, ending, pixels, **view)


def split_of(tree: Any, building: str = "hanson", split: str = "train") -> None:
    """Make the building the only one of the split, so that no other is missing."""
    flags = ",".join(str(int(name == split)) for name in ("train", "val", "test"))
    tree.root.mkdir(parents=True, exist_ok=True)
    with open(tree.root / "splits.csv", "a") as file:
        file.write(("" if file.tell() else "id,train,val,test\n") + f"{building},{flags}\n")


def agree(sample: Any, task: str) -> None:
    target, valid = sample["targets"][task], sample["valid"][task]
    values = target.numpy() if TASKS[task].categorical else target.permute(1, 2, 0).numpy()
    for y in range(HEIGHT):
        for x in range(WIDTH):
            expected, counts = EXPECTED[task](y, x)
            assert valid[0, y, x].item() is counts, (task, y, x)
            np.testing.assert_allclose(values[y, x], expected, rtol=1e-6, atol=2e-7, err_msg=f"{task} {y} {x}")


@pytest.mark.parametrize("task", TASKS)
def test_contract_in_every_layout(tree: Any, task: str) -> None:
    fill(tree)
    split_of(tree)
    dataset = Taskonomy(tree.root, tasks=[task])
    assert len(dataset) == 1
    sample = dataset[0]
    assert list(sample) == ["image", "targets", "valid", "id"]
    assert sample["id"] == "hanson/point_3_view_14"
    assert sample["image"].dtype == torch.float32
    np.testing.assert_allclose(sample["image"].permute(1, 2, 0).numpy(), RGB.astype(np.float64) / 255, atol=1e-7)
    assert list(sample["targets"]) == list(sample["valid"]) == [task]
    target, valid = sample["targets"][task], sample["valid"][task]
    assert valid.dtype == torch.bool
    assert valid.shape == (1, HEIGHT, WIDTH)
    if TASKS[task].categorical:
        assert target.dtype == torch.int64
        assert target.shape == (HEIGHT, WIDTH)
        assert dataset.classes == {task: list(CLASSES)}
        assert len(CLASSES) == 17
    else:
        assert target.dtype == torch.float32
        assert target.shape == (TASKS[task].channels, HEIGHT, WIDTH)
        assert dataset.classes == {}
    agree(sample, task)


def test_all_tasks_come_in_the_order_of_the_table(by_task: Any) -> None:
    fill(by_task)
    split_of(by_task)
    sample = Taskonomy(by_task.root, tasks=reversed(list(TASKS)))[0]
    assert list(sample["targets"]) == list(TASKS)
    for task in TASKS:
        agree(sample, task)


@pytest.mark.parametrize("task", ["depth_zbuffer", "normal", "reshading"])
@pytest.mark.parametrize("leave_out", [["mask_valid"], ["depth_zbuffer"]])
def test_geometry_from_either_file(by_task: Any, task: str, leave_out: list[str]) -> None:
    if task in leave_out:
        pytest.skip("the task itself is left out")
    fill(by_task, *leave_out)
    split_of(by_task)
    agree(Taskonomy(by_task.root, tasks=[task])[0], task)


def test_geometry_without_either_file(by_task: Any) -> None:
    fill(by_task, "mask_valid", "depth_zbuffer")
    split_of(by_task)
    sample = Taskonomy(by_task.root, tasks=["normal", "reshading"])[0]
    agree(sample, "normal")  # (128, 128, 128) still is no normal
    assert sample["valid"]["reshading"].all()
    np.testing.assert_allclose(sample["targets"]["reshading"][0].numpy(), RESHADING / 255, atol=1e-6)


def test_a_mask_overrules_depth(by_task: Any) -> None:
    fill(by_task, "mask_valid")
    mask = MASK.copy()
    mask[2, 5:8] = 0
    assert not HOLES[2, 5:8].any()
    by_task.write("mask_valid", "mask_valid.png", mask)
    split_of(by_task)
    sample = Taskonomy(by_task.root)[0]
    for task in ("depth_zbuffer", "normal", "reshading"):
        assert np.array_equal(sample["valid"][task][0].numpy(), mask > 0)
        assert (sample["targets"][task][:, torch.from_numpy(mask == 0)] == 0).all()


@pytest.mark.parametrize("mode", ["1", "I;16"])
def test_masks_of_one_and_sixteen_bits(by_task: Any, mode: str) -> None:
    fill(by_task, "mask_valid", "depth_zbuffer")
    by_task.write("mask_valid", "mask_valid.png", MASK > 0 if mode == "1" else MASK.astype(np.uint16) * 257)
    split_of(by_task)
    agree(Taskonomy(by_task.root, tasks=["reshading"])[0], "reshading")


def test_gray_reshading(by_task: Any) -> None:
    fill(by_task, "reshading")
    by_task.write("reshading", "reshading.png", RESHADING)
    split_of(by_task)
    agree(Taskonomy(by_task.root, tasks=["reshading"])[0], "reshading")


def test_far_cut_off(by_task: Any) -> None:
    fill(by_task)
    split_of(by_task)
    sample = Taskonomy(by_task.root, max_depth_m=16)[0]
    near = ~HOLES & (DEPTH <= 8192)
    assert near.any()
    assert np.array_equal(sample["valid"]["depth_zbuffer"][0].numpy(), near)
    np.testing.assert_allclose(sample["targets"]["depth_zbuffer"][0].numpy(), np.where(near, DEPTH / 512, 0), rtol=1e-6)
    agree(sample, "normal")  # the cut-off is on depth alone


def test_missing_labels_are_masked(by_task: Any) -> None:
    fill(by_task, view=1)
    by_task.write("rgb", "rgb.png", RGB, view=2)
    split_of(by_task)
    full, bare = Taskonomy(by_task.root)
    assert (full["id"], bare["id"]) == ("hanson/point_3_view_1", "hanson/point_3_view_2")
    for task in TASKS:
        agree(full, task)
        assert not bare["valid"][task].any()
        assert (bare["targets"][task] == (255 if TASKS[task].categorical else 0)).all()
        assert bare["targets"][task].shape == full["targets"][task].shape
        assert bare["targets"][task].dtype == full["targets"][task].dtype


def test_rows_and_indices(by_task: Any) -> None:
    for building, views in (("allensville", 2), ("hanson", 3), ("merom", 1)):
        for view in range(views):
            by_task.write("rgb", "rgb.png", RGB, view=view, building=building)
    split_of(by_task, "merom")
    split_of(by_task, "allensville")
    split_of(by_task, "hanson", "val")
    dataset = Taskonomy(by_task.root, tasks=[])
    names = ["allensville/point_3_view_0", "allensville/point_3_view_1", "merom/point_3_view_0"]
    assert [sample["id"] for sample in dataset] == names
    assert [dataset[-1]["id"], dataset[-3]["id"]] == [names[2], names[0]]
    assert len(Taskonomy(by_task.root, "val", tasks=[])) == 3
    with pytest.raises(IndexError, match="view 3 of 3"):
        dataset[3]
    assert [sample["id"] for sample in pickle.loads(pickle.dumps(dataset))] == names


@pytest.mark.parametrize(
    ("subset", "counts"),
    {"tiny": (25, 5, 5), "medium": (99, 20, 19), "full": (346, 67, 69), "fullplus": (383, 75, 79)}.items(),
)
def test_published_splits(by_task: Any, subset: str, counts: tuple[int, int, int]) -> None:
    """Buildings on disk and buildings named as missing together are the split, and no building is in two."""
    names = (Path(__file__).parents[2] / "mult/data/lists" / f"taskonomy_{subset}.csv").read_text().split()[1:]
    for line in names[::2]:
        by_task.touch("rgb", building=line.split(",")[0])
    seen: list[str] = []
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        with pytest.warns(UserWarning, match=rf"of {count} buildings of split '{split}' .* are not there: ") as caught:
            dataset = Taskonomy(by_task.root, split, subset, tasks=[])
        assert len(caught) == 1
        missing = str(caught[0].message).rpartition("are not there: ")[2].split(", ")
        assert len(missing) + len(dataset) == count
        seen += missing + dataset.buildings
    assert len(set(seen)) == len(seen) == sum(counts)


def test_a_flat_tree_in_no_list_serves_any_split(by_task: Any, tmp_path: Path) -> None:
    flat = type(by_task)("flat", tmp_path, "sample-model")
    fill(flat)
    with pytest.warns(UserWarning, match="'sample-model' is in no list: its views are used for split 'test'"):
        dataset = Taskonomy(flat.root, "test")
    agree(dataset[0], "normal")


def test_camera(by_task: Any) -> None:
    fill(by_task, "point_info", view=1)
    by_task.write("point_info", "fixatedpose.json", {"field_of_view_rads": math.pi / 2}, view=1)
    square = np.zeros((512, 512, 3), np.uint8)
    by_task.write("rgb", "rgb.png", square, view=2)
    by_task.write("point_info", "fixatedpose.json", {"field_of_view_rads": 1.0}, view=2)
    by_task.write("rgb", "rgb.png", RGB, view=3)
    own = {"intrinsics": [525, 520, 4.5, 2.25], "size": [HEIGHT, WIDTH], "field_of_view_rads": 9}
    by_task.write("point_info", "point_info.json", own, view=3)
    by_task.write("rgb", "rgb.png", RGB, view=4)
    split_of(by_task)
    dataset = Taskonomy(by_task.root)
    (fx, fy, cx, cy), size = dataset.camera(1)
    assert (cx, cy, size) == (255.5, 255.5, (512, 512))
    assert fx == fy == pytest.approx(256 / math.tan(0.5))
    assert dataset.camera(2) == ((525, 520, 4.5, 2.25), (HEIGHT, WIDTH))
    with pytest.raises(ValueError, match="view_1_.*got a field of view .* expected square"):
        dataset.camera(0)
    with pytest.raises(ValueError, match="expected one to know the camera"):
        dataset.camera(3)
    by_task.write("point_info", "fixatedpose.json", {"fov": 1.0}, view=2)
    with pytest.raises(ValueError, match="expected JSON with field_of_view_rads"):
        dataset.camera(1)


@pytest.mark.parametrize(
    ("task", "pixels", "message"),
    [
        ("depth_zbuffer", (DEPTH >> 8).astype(np.uint8), "image of mode L; expected I;16"),
        ("normal", NORMAL[..., 0], "image of mode L; expected RGB"),
        ("rgb", RGB[..., 0], "image of mode L; expected RGB"),
        ("segment_semantic", RGB, "image of mode RGB; expected L"),
        ("segment_semantic", CODES + np.uint8(1), "got label code 18; expected 0 .uncertain. to 17"),
        ("keypoints2d", KEYPOINTS.T, r"got \(10, 6\) pixels .*; expected \(6, 10\)"),
        ("mask_valid", MASK[1:], r"got \(5, 10\) pixels"),
    ],
)
def test_wrong_files_are_named(by_task: Any, task: str, pixels: Any, message: str) -> None:
    fill(by_task)
    path = by_task.write(task, STORED[task][0], pixels)
    split_of(by_task)
    with pytest.raises(ValueError, match=f"{path.name}: .*{message}"):
        Taskonomy(by_task.root)[0]


@pytest.mark.parametrize("task", ["rgb", "depth_zbuffer", "mask_valid", "segment_semantic"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_truncated_files_are_named(by_task: Any, task: str, keep: float) -> None:
    fill(by_task)
    path = by_task.write(task, STORED[task][0], np.random.default_rng(0).permutation(STORED[task][1]))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    split_of(by_task)
    with pytest.raises(ValueError, match=f"{path.name}: got a file that cannot be read .*; expected a whole image"):
        Taskonomy(by_task.root)[0]


def test_wrong_arguments(by_task: Any) -> None:
    fill(by_task, "reshading")
    with pytest.raises(ValueError, match="tasks: got 'normals'.* did you mean 'normal'"):
        Taskonomy(by_task.root, tasks=["normals"])
    with pytest.raises(ValueError, match=r"data.split: got 'valid'; expected one of .*'val'.* did you mean 'val'"):
        Taskonomy(by_task.root, "valid")
    with pytest.raises(ValueError, match=r"data.subset: got 'fullpuls'.* did you mean 'fullplus'"):
        Taskonomy(by_task.root, subset="fullpuls")
    with pytest.raises(ValueError, match="max_depth_m: got 0; expected metres above 0"):
        Taskonomy(by_task.root, max_depth_m=0)
    with pytest.raises(ValueError, match="got no view of split 'val'; .* the tree holds hanson; choose another"):
        Taskonomy(by_task.root, "val")
    split_of(by_task)
    with pytest.raises(ValueError, match="got task reshading, of which split 'train' has no file; expected some of .*edge_t"):
        Taskonomy(by_task.root)
    (by_task.root / "splits.csv").write_text("building,split\nhanson,train\n")
    with pytest.raises(ValueError, match=r"splits.csv: got the columns .*; expected id,train,val,test"):
        Taskonomy(by_task.root)


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
    split_of(by_task)
    assert not view_complete(by_task.root, "hanson", 4, 0)
    write_view(by_task.root, "hanson", 4, 0, **written)
    assert view_complete(by_task.root, "hanson", 4, 0)
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
    with pytest.raises(ValueError, match=message):
        write_view(by_task.root, "hanson", 4, 0, **written)
    assert not by_task.root.exists()


def test_shapes_and_tasks_are_checked(by_task: Any) -> None:
    with pytest.raises(ValueError, match=r"got an image float64 \(17, 23, 3\); expected uint8"):
        write_view(by_task.root, "hanson", 4, 0, **view(image=np.zeros((17, 23, 3))))
    with pytest.raises(ValueError, match=r"got depth_zbuffer of shape \(17, 23\); expected \(1, 17, 23\)"):
        write_view(by_task.root, "hanson", 4, 0, **view(targets={"depth_zbuffer": np.ones((17, 23))}))
    with pytest.raises(ValueError, match="got 'depth'; expected one of"):
        write_view(by_task.root, "hanson", 4, 0, **view(targets={"depth": np.ones((1, 17, 23))}))
