"""The reader against files written with plain Pillow.

Every stored value is a formula in row and column that no transposition, mirror, shift or scale leaves as it is; what a
reader must make of it is computed beside it, value by value, from the codes in mult/data/README.md.
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

from mult import TASKS
from mult.data import Taskonomy
from mult.data.disk.encodings import CLASSES
from mult.errors import UserError

HEIGHT, WIDTH = 6, 10
Y, X = np.mgrid[:HEIGHT, :WIDTH]
HOLES = (X * 7 + Y * 3) % 11 == 0  # no geometry
DEPTH = np.where(HOLES, 65535, 300 + 601 * X + 6007 * Y).astype(np.uint16)  # beyond 32767, where int16 turns negative
NORMAL = np.stack([10 + 20 * X, 240 - 30 * Y, 3 * X + 7 * Y], axis=2).astype(np.uint8)
NORMAL[HOLES] = 128
NORMAL[[1, 2, 3], [1, 4, 2]] = [[128, 128, 0], [128, 30, 128], [0, 128, 128]]  # but for one, components of no normal
DEPTH[0, 1] = 8192  # 16 m, for the cut-off
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
    assert list(sample) == ["image", "targets", "valid", "id", "derived"]
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


@pytest.mark.parametrize(
    ("task", "leave_out"),
    [
        ("depth_zbuffer", "mask_valid"),
        ("normal", "mask_valid"),
        ("normal", "depth_zbuffer"),
        ("reshading", "mask_valid"),
        ("reshading", "depth_zbuffer"),
    ],
)
def test_geometry_from_either_file(by_task: Any, task: str, leave_out: str) -> None:
    fill(by_task, leave_out)
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
    assert not HOLES[2, 5:8].all()
    by_task.write("mask_valid", "mask_valid.png", mask)
    split_of(by_task)
    sample = Taskonomy(by_task.root)[0]
    for task in ("depth_zbuffer", "normal", "reshading"):
        assert np.array_equal(sample["valid"][task][0].numpy(), mask > 0)
        assert (sample["targets"][task][:, torch.from_numpy(mask == 0)] == 0).all()


def test_depth_without_geometry_is_invalid_whatever_the_mask_says(by_task: Any) -> None:
    fill(by_task, "mask_valid")
    by_task.write("mask_valid", "mask_valid.png", np.full_like(MASK, 255))
    split_of(by_task)
    agree(Taskonomy(by_task.root)[0], "depth_zbuffer")


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
    assert near[0, 1]
    assert np.array_equal(sample["valid"]["depth_zbuffer"][0].numpy(), near)
    np.testing.assert_allclose(sample["targets"]["depth_zbuffer"][0].numpy(), np.where(near, DEPTH / 512, 0), rtol=1e-6)
    agree(sample, "normal")  # the cut-off is on depth alone


def test_missing_labels_are_masked(by_task: Any) -> None:
    fill(by_task, view=1)
    by_task.write("rgb", "rgb.png", RGB, view=2)
    split_of(by_task)
    dataset = Taskonomy(by_task.root)
    full, bare = dataset[0], dataset[1]
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
    assert [dataset[i]["id"] for i in range(3)] == names
    assert [dataset[-1]["id"], dataset[-3]["id"]] == [names[2], names[0]]
    assert len(Taskonomy(by_task.root, "val", tasks=[])) == 3
    with pytest.raises(IndexError, match="sample 3 of 3"):
        dataset[3]
    assert pickle.loads(pickle.dumps(dataset))[1]["id"] == names[1]


@pytest.mark.parametrize(
    ("subset", "counts"),
    {"tiny": (25, 5, 5), "medium": (99, 20, 19), "full": (346, 67, 69), "fullplus": (383, 75, 79)}.items(),
)
def test_published_splits(by_task: Any, subset: str, counts: tuple[int, int, int]) -> None:
    """Buildings on disk and buildings named as missing together are the split, and no building is in two."""
    names = (Path(__file__).parents[3] / "mult/data/lists" / f"taskonomy_{subset}.csv").read_text().split()[1:]
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
    with pytest.raises(UserError, match=r"view_1_.*got a field of view .* expected square"):
        dataset.camera(0)
    with pytest.raises(UserError, match="expected one to know the camera"):
        dataset.camera(3)
    by_task.write("point_info", "fixatedpose.json", {"fov": 1.0}, view=2)
    with pytest.raises(UserError, match="expected JSON with field_of_view_rads"):
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
    with pytest.raises(UserError, match=f"{path.name}: .*{message}"):
        Taskonomy(by_task.root)[0]


@pytest.mark.parametrize("task", ["rgb", "depth_zbuffer", "mask_valid", "segment_semantic"])
@pytest.mark.parametrize("cut", ["all", "half", "end"])
def test_truncated_files_are_named(by_task: Any, task: str, cut: str) -> None:
    fill(by_task)
    path = by_task.write(task, STORED[task][0], np.random.default_rng(0).permutation(STORED[task][1]))
    data = path.read_bytes()
    keep = {"all": 0, "half": len(data) // 2, "end": len(data) - 30}[cut]  # a PNG's last 20 bytes hold no pixels
    path.write_bytes(data[:keep])
    split_of(by_task)
    with pytest.raises(UserError, match=f"{path.name}: got a file that cannot be read .*; expected a whole image"):
        Taskonomy(by_task.root)[0]


def test_wrong_arguments(by_task: Any) -> None:
    fill(by_task, "reshading")
    with pytest.raises(UserError, match=r"tasks: got 'normals'.* did you mean 'normal'"):
        Taskonomy(by_task.root, tasks=["normals"])
    with pytest.raises(UserError, match=r"split: got 'valid'; expected one of train, val, test; did you mean 'val'"):
        Taskonomy(by_task.root, "valid")
    with pytest.raises(UserError, match=r"data.subset: got 'fullpuls'.* did you mean 'fullplus'"):
        Taskonomy(by_task.root, subset="fullpuls")
    with pytest.raises(UserError, match="max_depth_m: got 0; expected metres above 0"):
        Taskonomy(by_task.root, max_depth_m=0)
    with pytest.raises(UserError, match=r"got no view of split 'val'; .* the tree holds hanson; choose another"):
        Taskonomy(by_task.root, "val")
    split_of(by_task)
    with pytest.raises(UserError, match=r"got task reshading, of which split 'train' has no file; expected some of .*edge_t"):
        Taskonomy(by_task.root)
    (by_task.root / "splits.csv").write_text("building,split\nhanson,train\n")
    with pytest.raises(UserError, match=r"splits.csv: got the columns .*; expected id,train,val,test"):
        Taskonomy(by_task.root)
    (by_task.root / "splits.csv").write_text("id,train,val,test\nhanson,true,0,0\n")
    with pytest.raises(UserError, match=r"splits.csv: hanson: train: got 'true'; expected 0 or 1; correct the line"):
        Taskonomy(by_task.root)
    (by_task.root / "splits.csv").write_text("id,train,val,test\nhanson,1\n")
    with pytest.raises(UserError, match=r"splits.csv: hanson,1: got 2 values; expected 4; correct the line"):
        Taskonomy(by_task.root)
    (by_task.root / "splits.csv").write_text("id,train,val,test\nhanson,1,0,0\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"splits.csv: got no CSV in UTF-8 .*; save it as that"):
        Taskonomy(by_task.root)
    (by_task.root / "splits.csv").write_text("id,train,val,test\nhanson,1,0,0\n", encoding="utf-8-sig")
    with pytest.raises(UserError, match="got task reshading"):  # as without the mark
        Taskonomy(by_task.root)
