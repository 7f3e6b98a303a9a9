"""Replica's two forms, on files written with plain Pillow: every stored value is a asymmetric formula in row and column."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult.data import Replica
from mult.data.prepare.derive import fill
from mult.data.sample import BadFileError
from mult.errors import UserError

HEIGHT, WIDTH = 24, 36
Y, X = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([6 * X, 250 - 9 * Y, X + 4 * Y], axis=2).astype(np.uint8)
UNITS = (9000 + 71 * X + 613 * Y).astype(np.uint16)
HOLES = (X * 7 + Y * 3) % 11 == 0
INSTANCES = np.where(X > 20, 300, np.where(Y > 9, 2, 7)).astype(np.uint16)
INSTANCES[3, 5] = 0
INFO: dict[str, Any] = {
    "classes": [{"id": 93, "name": "wall"}, {"id": 4, "name": "chair"}],
    "objects": [{"id": 2, "class_id": 93}, {"id": 7, "class_id": -1}, {"id": 300, "class_id": 4}],
}
CLASSES = np.where(X > 20, 0, np.where(Y > 9, 1, 255))
CLASSES[3, 5] = 255


def write_scene(root: Path, scene: str, frames: tuple[int, ...] = (0, 5, 2000), *, first: int = 0) -> Path:
    folder = root / scene / "results"
    folder.mkdir(parents=True)
    for frame in frames:
        Image.fromarray(RGB).save(folder / f"frame{frame:06d}.jpg", quality=100, subsampling=0)
        units = UNITS + np.uint16(frame + first)
        units[HOLES] = 65535 if frame == 5 else 0
        Image.fromarray(units).save(folder / f"depth{frame:06d}.png")
    lines = [" ".join(str(value + 100 * frame) for value in range(16)) for frame in range(6)]
    (root / scene / "traj.txt").write_text("\n".join(lines) + "\n")
    return folder


CAMERA: dict[str, Any] = {"intrinsics": (50.0, 40.0, 12.5, 8.25)}


def test_a_sequence_is_read_as_it_is_stored(tmp_path: Path) -> None:
    write_scene(tmp_path, "room0")
    write_scene(tmp_path, "office3", (1,), first=3000)
    write_scene(tmp_path, "room1", (1,))
    dataset = Replica(tmp_path, "train", **CAMERA)
    assert len(dataset) == 4
    assert dataset.tasks == ("depth_zbuffer",)
    assert dataset.classes == {}
    assert dataset.metric_depth
    assert [dataset.name(i) for i in range(4)] == [
        "office3/frame000001",
        *(f"room0/frame{frame:06d}" for frame in (0, 5, 2000)),
    ]
    assert [dataset.group(i) for i in (0, 1, -1)] == ["office3", "room0", "room0"]
    for i, offset in enumerate((3001, 0, 5, 2000)):
        sample = dataset[i]
        assert sample["id"] == dataset.name(i)
        assert sample["derived"] == ()
        # JPEG, at its best quality.
        assert np.abs(sample["image"].permute(1, 2, 0).numpy() * 255 - RGB).max() < 4
        np.testing.assert_array_equal(sample["valid"]["depth_zbuffer"][0].numpy(), ~HOLES)
        expected = np.where(HOLES, 0, (UNITS.astype(float) + offset) / 6553.5)
        np.testing.assert_allclose(sample["targets"]["depth_zbuffer"][0].numpy(), expected, rtol=1e-6)
    assert dataset.camera(2) == ((50.0, 40.0, 12.5, 8.25), (HEIGHT, WIDTH))
    np.testing.assert_array_equal(dataset.pose(2), np.arange(16).reshape(4, 4) + 500)
    with pytest.raises(UserError, match=r"room0/traj.txt: got no pose of frame 2000 .*; expected a line of 16 numbers"):
        dataset.pose(3)
    with pytest.raises(IndexError, match="sample 4 of 4"):
        dataset[4]
    assert pickle.loads(pickle.dumps(dataset))[1]["id"] == "room0/frame000000"
    assert [Replica(tmp_path, "test", **CAMERA).name(0)] == ["room1/frame000001"]


def test_scale_and_cut_off(tmp_path: Path) -> None:
    write_scene(tmp_path, "room0", (0,))
    sample = Replica(tmp_path, depth_scale=8192, max_depth_m=2.0, **CAMERA)[0]
    near = ~HOLES & (UNITS <= 2 * 8192)
    assert near.any()
    np.testing.assert_array_equal(sample["valid"]["depth_zbuffer"][0].numpy(), near)
    np.testing.assert_allclose(sample["targets"]["depth_zbuffer"][0].numpy(), np.where(near, UNITS / 8192, 0), rtol=1e-6)


def test_the_camera_of_the_published_frames_is_known(tmp_path: Path) -> None:
    folder = write_scene(tmp_path, "room0", (0,))
    dataset = Replica(tmp_path)
    with pytest.raises(UserError, match=r"frame000000.jpg: got \(24, 36\) pixels .*; expected \(680, 1200\), or data"):
        dataset.camera(0)
    Image.new("RGB", (1200, 680)).save(folder / "frame000000.jpg")
    assert dataset.camera(0) == ((600.0, 600.0, 599.5, 339.5), (680, 1200))


def test_one_scene_s_folder_is_a_root_too(tmp_path: Path) -> None:
    write_scene(tmp_path, "office0", (3,))
    (tmp_path / "office0/results/notes.txt").write_text("frame000009.jpg")
    dataset = Replica(tmp_path / "office0", "val", **CAMERA)
    assert [dataset[i]["id"] for i in range(len(dataset))] == ["office0/frame000003"]


def test_own_splits_replace_the_published(tmp_path: Path) -> None:
    write_scene(tmp_path, "kitchen", (0,))
    with pytest.raises(UserError, match=r"got the scenes kitchen; expected one of split 'val': .*office_0; choose another"):
        Replica(tmp_path, "val")
    (tmp_path / "splits.csv").write_text("id,train,val,test\nkitchen,0,1,0\n")
    assert Replica(tmp_path, "val").group(0) == "kitchen"


def test_a_frame_without_depth_is_masked(tmp_path: Path) -> None:
    folder = write_scene(tmp_path, "room0", (0, 1))
    (folder / "depth000000.png").unlink()
    dataset = Replica(tmp_path, **CAMERA)
    assert [dataset.native(i) for i in range(2)] == [frozenset(), frozenset({"depth_zbuffer"})]
    assert not dataset[0]["valid"]["depth_zbuffer"].any()
    assert dataset[1]["valid"]["depth_zbuffer"].any()


def test_derived_labels_are_found(tmp_path: Path) -> None:
    write_scene(tmp_path, "room0", (0,))
    done = fill(lambda tasks: Replica(tmp_path, tasks=tasks, **CAMERA), workers=1)
    assert {task: dict(count) for task, count in done.counts.items()} == {
        task: {"written": 1} for task in ("normal", "keypoints2d", "edge_texture", "reshading")
    }
    sample = Replica(tmp_path, **CAMERA)[0]
    assert sample["derived"] == ("normal", "keypoints2d", "edge_texture", "reshading")
    # Farther downwards and, more slowly, to the right, as a ceiling is: it faces down, right and the camera.
    x, y, z = sample["targets"]["normal"][:, 12, 18].tolist()
    assert y > x > 0 > z
    slope = np.array([71 / 6553.5 * 50.0, 613 / 6553.5 * 40.0])  # dz per unit of x / z and y / z
    depth = UNITS[12, 18] / 6553.5
    along = [np.array([depth, 0, 0]) + slope[0] * RAY, np.array([0, depth, 0]) + slope[1] * RAY]
    facing = np.cross(*along)
    facing *= -np.sign(facing @ RAY) / np.linalg.norm(facing)
    assert np.degrees(np.arccos(np.clip(facing @ [x, y, z], -1, 1))) < 2


RAY = np.array([(18 - 12.5) / 50.0, (12 - 8.25) / 40.0, 1.0])


def test_instances_become_classes_by_the_scene_s_map(tmp_path: Path) -> None:
    folder = write_scene(tmp_path, "room0", (0, 1))
    Image.fromarray(INSTANCES).save(folder / "semantic000000.png")
    (tmp_path / "room0/info_semantic.json").write_text(json.dumps(INFO))
    dataset = Replica(tmp_path, class_map="{scene}/info_semantic.json", **CAMERA)
    assert dataset.tasks == ("segment_semantic", "depth_zbuffer")
    assert dataset.classes == {"segment_semantic": ["chair", "wall"]}
    sample = dataset[0]
    assert list(sample["targets"]) == list(sample["valid"]) == list(dataset.tasks)
    np.testing.assert_array_equal(sample["targets"]["segment_semantic"].numpy(), CLASSES)
    np.testing.assert_array_equal(sample["valid"]["segment_semantic"][0].numpy(), CLASSES != 255)
    assert not dataset[1]["valid"]["segment_semantic"].any()
    assert dataset.native(1) == frozenset({"depth_zbuffer"})
    bare = Replica(tmp_path, **CAMERA)
    assert bare.tasks == ("depth_zbuffer",)
    assert bare.native(0) == frozenset({"depth_zbuffer"})


def test_without_a_class_map_instances_are_no_classes(tmp_path: Path) -> None:
    write_scene(tmp_path, "room0", (0,))
    with pytest.raises(
        ValueError, match=r"got task segment_semantic without a class map; .* hold instance ids, which are not classes; give"
    ):
        Replica(tmp_path, tasks=["segment_semantic", "depth_zbuffer"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"objects": INFO["objects"][:2]},
            r"semantic000000.png: got the instance ids \[300\]; expected those of info",
        ),
        (
            {"classes": INFO["classes"][:1]},
            r"info_semantic.json: got objects of the classes \[4\], which have no name",
        ),
        ({"classes": 3}, r"info_semantic.json: got no class map \(TypeError.*\); expected JSON with classes"),
        ({"objects": [{"id": -2, "class_id": 4}]}, r"got 2 classes and instance ids from -2 on; expected fewer than 255 and"),
    ],
)
def test_a_class_map_with_a_gap_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = write_scene(tmp_path, "room0", (0,))
    Image.fromarray(INSTANCES).save(folder / "semantic000000.png")
    (tmp_path / "map.json").write_text(json.dumps({**INFO, **change}))
    with pytest.raises(UserError, match=message.replace("info_semantic", "map").replace("of info", "of map")):
        Replica(tmp_path, class_map="map.json", **CAMERA)[0]


def test_scenes_must_agree_on_their_classes(tmp_path: Path) -> None:
    for scene, info in (("room0", INFO), ("room2", {**INFO, "classes": [*INFO["classes"], {"id": 5, "name": "sofa"}]})):
        folder = write_scene(tmp_path, scene, (0,))
        Image.fromarray(INSTANCES).save(folder / "semantic000000.png")
        (tmp_path / scene / "map.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"room2/map.json: got the classes .*; expected .*, as in .*room0/map.json; give all"):
        Replica(tmp_path, class_map="{scene}/map.json")
    with pytest.raises(UserError, match=r"{nothing}.json: got no class map \(FileNotFoundError"):
        Replica(tmp_path, class_map="{nothing}.json")


# Omnidata's rendering.


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """`<task>/replica/<space>/point_...` of one space of the test split and one of train."""
    codes = (UNITS // 40).astype(np.uint16)
    codes[HOLES] = 65535
    files = {
        "rgb": ("rgb", RGB),
        "depth_zbuffer": ("depth_zbuffer", codes),
        "segment_semantic": ("segmentsemantic", INSTANCES),
    }
    for space in ("room_1", "office_1"):
        for task, (ending, pixels) in files.items():
            path = tmp_path / task / "replica" / space / f"point_7_view_2_domain_{ending}.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(pixels).save(path)
    return tmp_path


def test_omnidata_s_rendering_is_taskonomy_s_layout(rendered: Path) -> None:
    with pytest.warns(UserWarning, match=r"3 of 4 buildings of split 'test' \(Replica's published split\) are not there: frl"):
        dataset = Replica(rendered, "test")
    assert [dataset[i]["id"] for i in range(len(dataset))] == ["room_1/point_7_view_2"]
    assert dataset.tasks == ("depth_zbuffer",)  # instance ids do not pass for Taskonomy's classes
    assert dataset.labelled == frozenset({"depth_zbuffer"})
    sample = dataset[0]
    np.testing.assert_allclose(sample["image"].permute(1, 2, 0).numpy(), RGB / 255, atol=1e-6)
    np.testing.assert_array_equal(sample["valid"]["depth_zbuffer"][0].numpy(), ~HOLES)
    np.testing.assert_allclose(sample["targets"]["depth_zbuffer"][0].numpy(), np.where(HOLES, 0, UNITS // 40 / 512), rtol=1e-6)
    assert (dataset.name(0), dataset.group(0)) == ("room_1/point_7_view_2", "room_1")
    with pytest.raises(UserError, match=r"got Omnidata's rendering; expected a sequence with traj.txt"):
        dataset.pose(0)


@pytest.mark.filterwarnings("ignore:.*are not there")
def test_omnidata_s_instances_need_a_class_map_too(rendered: Path) -> None:
    with pytest.raises(UserError, match="got task segment_semantic without a class map"):
        Replica(rendered, "test", tasks=["segment_semantic"])
    (rendered / "map.json").write_text(json.dumps(INFO))
    dataset = Replica(rendered, "test", tasks=["segment_semantic"], class_map=str(rendered / "map.json"))
    assert dataset.tasks == ("segment_semantic",)
    np.testing.assert_array_equal(dataset[0]["targets"]["segment_semantic"].numpy(), CLASSES)
    with pytest.raises(UserError, match=r"data.options.depth_scale: got 6553.5 for Omnidata's rendering, .*; leave it out"):
        Replica(rendered, "test", depth_scale=6553.5)


def test_the_published_split_is_copied_right() -> None:
    from mult.data.disk.splits import published_list, read_splits

    splits = read_splits(published_list("replica"))
    assert [list(splits.values()).count(name) for name in ("train", "val", "test")] == [10, 4, 4]
    assert splits["office_2"] == "test"


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, r"split: got 'valid'; expected one of train, val, test"),
        ({"depth_scale": 0.0}, r"data.options.depth_scale: got 0.0; expected depth units a metre, above 0"),
        ({"intrinsics": (0, 1, 2, 3)}, r"intrinsics: got .*; expected \[fx, fy, cx, cy\] with fx, fy above 0"),
        ({"tasks": ["normal"]}, r"got task normal, of which split 'train' has no file; expected some of depth_zbuffer;"),
        ({"class_map": "map.json"}, r"got data.options.class_map but no image of instance ids; expected"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write_scene(tmp_path, "room0", (0,))
    with pytest.raises(UserError, match=message):
        Replica(tmp_path, **options)


def test_the_camera_is_held_against_the_images(tmp_path: Path) -> None:
    write_scene(tmp_path, "room0", (0,))
    with pytest.raises(UserError, match=r"data.options.intrinsics: got \(600.0, .* for images of .* pixels \(height, width\)"):
        Replica(tmp_path, intrinsics=(600.0, 600.0, 599.5, 339.5)).camera(0)


def test_a_root_of_neither_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"got neither rgb/replica/<space>/.* nor <scene>/results/frame000000.jpg; ex"):
        Replica(tmp_path)
    with pytest.raises(UserError, match=r"data.root: got '.*nowhere', which is no folder; expected Replica's; correct"):
        Replica(tmp_path / "nowhere")


@pytest.mark.parametrize("scale", [100.0, 200000.0])
def test_an_implausible_scale_is_said(tmp_path: Path, scale: float) -> None:
    write_scene(tmp_path, "room0", (0,))
    median = np.median(UNITS[~HOLES]) / scale
    message = rf"^the median depth is {median:.4g} m, outside 0.2 to 100.0 m: is data.options.depth_scale, {scale} units a m"
    with pytest.warns(UserWarning, match=message):
        Replica(tmp_path, depth_scale=scale)


def test_frames_of_other_names_are_refused(tmp_path: Path) -> None:
    results = write_scene(tmp_path, "room0", (0,))
    (results / "frame000000.jpg").rename(results / "frame0000.jpg")
    with pytest.raises(UserError, match=r"room0/results: got no frame of six digits; expected frame000000.jpg and so on"):
        Replica(tmp_path)


def test_a_damaged_first_frame_leaves_the_others(tmp_path: Path) -> None:
    results = write_scene(tmp_path, "room0", (0, 1))
    (results / "depth000000.png").write_bytes(b"x")
    dataset = Replica(tmp_path, **CAMERA)
    assert dataset[1]["valid"]["depth_zbuffer"].any()
    with pytest.raises(BadFileError, match=r"depth000000.png: got a file that cannot be read"):
        dataset[0]


def test_a_damaged_size_does_not_take_all_memory(tmp_path: Path) -> None:
    """A JPEG's header that says 65535 x 65535: Pillow refuses it by an error of its own kind."""
    results = write_scene(tmp_path, "room0", (0,))
    content = bytearray((results / "frame000000.jpg").read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = b"\xff" * 4
    (results / "frame000000.jpg").write_bytes(content)
    with pytest.raises(
        BadFileError, match=r"frame000000.jpg: got a picture that is too large \(.*\); expected at most \d+ pixels"
    ):
        Replica(tmp_path, **CAMERA)[0]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write_scene(tmp_path, "room0", (0, 1, 2))
    dataset = Replica(tmp_path, **CAMERA)
    depth = folder / "depth000000.png"
    depth.write_bytes(depth.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"depth000000.png: got a file that cannot be read"):
        dataset[0]
    Image.fromarray((UNITS >> 8).astype(np.uint8)).save(folder / "depth000001.png")
    with pytest.raises(UserError, match=r"depth000001.png: got an image of mode L; expected I;16"):
        dataset[1]
    Image.fromarray(UNITS.T.copy()).save(folder / "depth000002.png")
    with pytest.raises(UserError, match=r"depth000002.png: got \(36, 24\) pixels .*; expected \(24, 36\)"):
        dataset[2]
