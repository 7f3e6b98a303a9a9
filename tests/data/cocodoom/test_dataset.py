"""The reader of CocoDoom's layout, on files written byte by byte: no value is where a mirror or a transposition would leave it.

A palette PNG is put together from its chunks, so that what the indices mean does not depend on Pillow's writer.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mult.data import CocoDoom
from mult.data.prepare.derive import fill
from mult.errors import UserError

Array = NDArray[Any]
HEIGHT, WIDTH = SIZE = (8, 12)
Y, X = np.mgrid[:HEIGHT, :WIDTH]
PALETTE = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) * 7 % 256], 1).astype(np.uint8)
INDICES = (X * 20 + Y * 3).astype(np.uint8)
DEPTH = (1000 + 4000 * X + 900 * Y).astype(np.uint16)  # beyond 32767, where int16 turns negative
DEPTH[Y < 2] = 65535
DEPTH[3, 4] = 0
SKY, FLAT, WALL = 1 << 23, (1 << 23) + 1, (1 << 23) + 2
OBJECTS = np.select([Y < 2, Y > 5], [SKY, FLAT], WALL)
OBJECTS[3:5, 2:4] = 300  # 44 + 1 * 256
OBJECTS[4, 9] = 7  # listed nowhere
FIRST, SECOND, THIRD = 1_010_000_123, 1_020_000_060, 2_010_000_001
CATEGORIES = [{"id": 11, "name": "TROOP"}, {"id": 0, "name": "PLAYER"}, {"id": 3, "name": "VILE"}]

Doom = Callable[..., CocoDoom]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(path: Path, pixels: Array, kind: int) -> None:
    """An image of one of PNG's kinds: 0 gray (16-bit), 2 RGB (8-bit), 3 indices into PALETTE."""
    depth, stored = (16, pixels.astype(">u2")) if kind == 0 else (8, pixels.astype(np.uint8))
    rows = b"".join(b"\0" + row.tobytes() for row in stored)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, kind, 0, 0, 0)
    palette = chunk(b"PLTE", PALETTE.tobytes()) if kind == 3 else b""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = chunk(b"IHDR", head) + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def annotation(image: int, number: int, category: int, segmentation: Any, area: int) -> dict[str, Any]:
    identity = image * 10**6 + number  # beyond 2^53: a float would lose it
    return {"id": identity, "image_id": image, "category_id": category, "segmentation": segmentation, "area": area}


def image(identity: int, file: str) -> dict[str, Any]:
    return {"id": identity, "width": WIDTH, "height": HEIGHT, "file_name": file}


# Two of the masks overlap: TROOP's 2 x 2 lie inside VILE's 4 x 3, and stay on top though they come first.
TREE: dict[str, Any] = {
    "images": [image(SECOND, "run1/map02/rgb/000060.png"), image(FIRST, "run1/map01/rgb/000123.png")],
    "annotations": [
        annotation(FIRST, 300, 11, [[2, 3, 4, 3, 4, 5, 2, 5]], 4),
        annotation(FIRST, 301, 3, [[1, 3, 5, 3, 5, 6, 1, 6], [10, 0, 12, 0, 12, 1, 10, 1]], 14),
        annotation(FIRST, 302, 0, {"size": [HEIGHT, WIDTH], "counts": [7 * 8 + 2, 3, 96 - 61]}, 3),
        # 84 = 20 + 2 * 32, 2, 96 - 86 = 10: the twelfth column but one's fifth and sixth pixel.
        annotation(SECOND, 5, 0, {"size": [HEIGHT, WIDTH], "counts": chr(48 + 20 + 32) + "22:"}, 2),
    ],
    "categories": CATEGORIES,
}
CLASSES = np.zeros(SIZE, np.int64)  # background, PLAYER 1, VILE 2, TROOP 3: in the order of the categories' ids
CLASSES[3:6, 1:5] = 2
CLASSES[0, 10:12] = 2
CLASSES[3:5, 2:4] = 3
CLASSES[2:5, 7] = 1


def write(root: Path, tree: dict[str, Any], name: str = "run-full-train.json", full: bool = True) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(tree))
    for entry in tree["images"]:
        path = root / entry["file_name"]
        png(path, INDICES, 3)
        if full:
            png(root / entry["file_name"].replace("rgb", "depth"), DEPTH, 0)
            bytes_of_codes = np.stack([OBJECTS >> shift & 255 for shift in (0, 8, 16)], 2)
            png(root / entry["file_name"].replace("rgb", "objects"), bytes_of_codes, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A full archive's training run of two images."""
    write(tmp_path / "doom", TREE)
    return tmp_path / "doom"


def test_image_goes_through_its_palette(root: Path) -> None:
    sample = CocoDoom(root)[0]
    assert sample["id"] == "run1/map01/000123"  # sorted by id, which the JSON is not
    assert torch.equal(sample["image"], torch.from_numpy(PALETTE[INDICES].transpose(2, 0, 1)).float() / 255)


def test_rgb_may_be_rgb(root: Path) -> None:
    png(root / "run1/map01/rgb/000123.png", PALETTE[INDICES], 2)
    assert torch.equal(CocoDoom(root)[0]["image"], torch.from_numpy(PALETTE[INDICES].transpose(2, 0, 1)).float() / 255)


def test_masks_become_classes(root: Path) -> None:
    dataset = CocoDoom(root, tasks=["segment_semantic"])
    assert dataset.classes == {"segment_semantic": ["background", "PLAYER", "VILE", "TROOP"]}
    assert np.array_equal(dataset[0]["targets"]["segment_semantic"].numpy(), CLASSES)
    assert dataset[0]["valid"]["segment_semantic"].shape == (1, *SIZE)
    assert dataset[0]["valid"]["segment_semantic"].all()
    second = np.zeros(SIZE, np.int64)
    second[4:6, 10] = 1
    assert np.array_equal(dataset[1]["targets"]["segment_semantic"].numpy(), second)
    assert dataset[0]["derived"] == ()


def test_surfaces_take_the_backgrounds_place(root: Path) -> None:
    dataset = CocoDoom(root, tasks=["segment_semantic"], surfaces=True)
    assert dataset.classes["segment_semantic"] == ["wall", "floor or ceiling", "sky", "PLAYER", "VILE", "TROOP"]
    expected = np.where(CLASSES > 0, CLASSES + 2, np.select([Y < 2, Y > 5], [2, 1], 0))
    expected[4, 9] = 255  # an object without a class
    sample = dataset[0]
    assert np.array_equal(sample["targets"]["segment_semantic"].numpy(), expected)
    assert np.array_equal(sample["valid"]["segment_semantic"][0].numpy(), expected != 255)


def test_annotation_ids_keep_64_bits(root: Path) -> None:
    stored = CocoDoom(root)._annotations._columns["annotations"]
    assert stored.dtype == np.int64
    assert sorted(stored.tolist()) == sorted(entry["id"] for entry in TREE["annotations"])


def test_depth_is_of_the_map_without_a_scale_and_metric_with_one(root: Path) -> None:
    relative, metric = CocoDoom(root), CocoDoom(root, map_units_per_metre=32)
    assert (relative.metric_depth, metric.metric_depth) == (False, True)
    known = (Y >= 2) & (DEPTH > 0)
    for dataset, units in ((relative, 64), (metric, 64 * 32)):
        sample = dataset[0]
        depth, valid = (sample[key]["depth_zbuffer"][0].numpy() for key in ("targets", "valid"))
        assert np.array_equal(valid, known)
        assert not valid[3, 4]
        np.testing.assert_allclose(depth, np.where(known, DEPTH.astype(np.float64) / units, 0), rtol=1e-6)
        assert sample["targets"]["depth_zbuffer"].dtype == torch.float32


def test_depth_beyond_the_cut_off_is_invalid(root: Path) -> None:
    sample = CocoDoom(root, map_units_per_metre=32, max_depth_m=10)[0]
    near = (Y >= 2) & (DEPTH > 0) & (DEPTH <= 20480)
    assert np.array_equal(sample["valid"]["depth_zbuffer"][0].numpy(), near)
    assert not sample["targets"]["depth_zbuffer"][0].numpy()[~near].any()


def test_eight_bit_depth_has_no_unit_and_zero_for_none(root: Path) -> None:
    stored = (X * 256 * 5).astype(np.uint16)
    stored[5, 3] = 65535 - 255  # 255: the farthest, and a depth all the same
    png(root / "run1/map01/depth/000123.png", stored, 0)
    dataset = CocoDoom(root, depth="8bit")
    sample = dataset[0]
    assert not dataset.metric_depth
    assert np.array_equal(sample["valid"]["depth_zbuffer"][0].numpy(), (X > 0))
    np.testing.assert_allclose(sample["targets"]["depth_zbuffer"][0].numpy(), stored / 256.0)
    with pytest.raises(UserError, match=r"got task normal: 8 bits of depth are too coarse: .*; expected some of"):
        CocoDoom(root, tasks=["normal"], depth="8bit")
    with pytest.raises(UserError, match=r"map_units_per_metre: got 32 for 8-bit depth; expected none, .*; leave it out"):
        CocoDoom(root, depth="8bit", map_units_per_metre=32)


def test_camera_is_the_engines_unless_the_json_or_the_user_knows_better(root: Path) -> None:
    assert CocoDoom(root).camera(1) == ((6.0, 6.0, 5.5, 3.5), SIZE)
    write(root, TREE | {"info": {"intrinsics": [5, 6.5, 5.25, 3]}})
    assert CocoDoom(root).camera(0) == ((5.0, 6.5, 5.25, 3.0), SIZE)
    assert CocoDoom(root, intrinsics=(7, 8, 1, 2)).camera(0) == ((7.0, 8.0, 1.0, 2.0), SIZE)


def test_frames_are_grouped_by_map(root: Path) -> None:
    dataset = CocoDoom(root)
    assert [dataset.group(i) for i in range(len(dataset))] == ["map01", "map02"]
    assert [dataset.name(i) for i in (0, 1)] == ["run1/map01/000123", "run1/map02/000060"]
    assert dataset[-1]["id"] == dataset[1]["id"]
    with pytest.raises(IndexError):
        dataset[2]


def test_splits_are_by_run_or_by_map_of_either_archive(tmp_path: Path) -> None:
    names = {"run-full-train.json": FIRST, "run-train.json": SECOND, "map-val.json": THIRD}
    files = {FIRST: "run1/map01/rgb/000123.png", SECOND: "run1/map02/rgb/000060.png", THIRD: "run2/map01/rgb/000001.png"}
    for name, identity in names.items():
        write(tmp_path, TREE | {"images": [image(identity, files[identity])], "annotations": []}, name, full=identity == FIRST)
    assert CocoDoom(tmp_path, "train")[0]["id"] == "run1/map01/000123"
    assert CocoDoom(tmp_path, "train", full=False)[0]["id"] == "run1/map02/000060"
    standard = CocoDoom(tmp_path, "val", by="map")
    assert standard[0]["id"] == "run2/map01/000001"
    assert standard.tasks == ("segment_semantic",)
    with pytest.raises(UserError, match=r"got task depth_zbuffer: the dataset has no labels of it; expected some of"):
        CocoDoom(tmp_path, "val", ["depth_zbuffer"], by="map")
    with pytest.raises(UserError, match=r"got task normal: it is derived from depth, which the dataset does not have"):
        CocoDoom(tmp_path, "val", ["normal"], by="map")
    message = r"got the JSON files map-val\.json, .*; expected map-full-train\.json or map-train\.json; change data\.split"
    with pytest.raises(UserError, match=message):
        CocoDoom(tmp_path, "train", by="map")
    with pytest.raises(UserError, match=r"expected map-full-val\.json; change"):
        CocoDoom(tmp_path, "val", by="map", full=True)
    with pytest.raises(UserError, match=r"got data\.options\.surfaces without objects folders; expected the full archive"):
        CocoDoom(tmp_path, "val", by="map", surfaces=True)


# --- What is derived ---


def test_what_is_lacking_is_derived_where_the_depth_allows(root: Path) -> None:
    plain = CocoDoom(root)
    assert plain.tasks == plain.available == ("segment_semantic", "depth_zbuffer")
    for task, reason in (("normal", "it is not derived yet; scripts/annotate"), ("reshading", "its fall-off needs metres")):
        with pytest.raises(UserError, match=f"got task {task}: {reason}.*; expected some of segment_semantic, depth_zbuffer;"):
            CocoDoom(root, tasks=[task])
    filled = fill(lambda tasks: CocoDoom(root, tasks=tasks), workers=1)
    assert "reshading" in filled.refused
    full = CocoDoom(root)
    assert full.tasks == ("segment_semantic", "depth_zbuffer", "normal", "keypoints2d", "edge_texture")
    sample = full[0]
    assert sample["derived"] == ("normal", "keypoints2d", "edge_texture")
    assert sample["valid"]["normal"].any()
    with pytest.raises(UserError, match=r"got task reshading: its fall-off needs metres .*; expected some of .*; leave"):
        CocoDoom(root, tasks=["normal", "reshading"])


def test_normals_follow_the_engines_camera(root: Path) -> None:
    """A plane, seen by the camera that the JSON tells of, tilted about both axes."""
    fx, fy, cx, cy = 5.0, 6.5, 5.25, 3.0
    normal = np.array([0.3, -0.4, -0.866])
    rays = np.stack([(X - cx) / fx, (Y - cy) / fy, np.ones(SIZE)])
    depth = -120 / np.tensordot(normal, rays, 1)
    write(root, TREE | {"info": {"intrinsics": [fx, fy, cx, cy]}})
    png(root / "run1/map01/depth/000123.png", np.rint(depth * 64), 0)
    fill(lambda tasks: CocoDoom(root, tasks=tasks), ["normal"], workers=1)
    sample = CocoDoom(root, tasks=["normal"])[0]
    found = sample["targets"]["normal"].numpy()[:, sample["valid"]["normal"][0].numpy()]
    assert found.shape[1] == HEIGHT * WIDTH
    np.testing.assert_allclose(found, np.repeat(normal[:, None], found.shape[1], 1), atol=0.012)  # 8 bits of the cache


def test_reshading_goes_with_a_metric_scale_alone(root: Path) -> None:
    fill(lambda tasks: CocoDoom(root, tasks=tasks, map_units_per_metre=32), workers=1)
    assert "reshading" in CocoDoom(root, map_units_per_metre=32).tasks
    assert "reshading" not in CocoDoom(root).tasks
    assert CocoDoom(root, depth="8bit").tasks == ("segment_semantic", "depth_zbuffer", "keypoints2d", "edge_texture")


def test_a_frame_without_depth_has_an_empty_target(root: Path) -> None:
    (root / "run1/map02/depth/000060.png").unlink()
    dataset = CocoDoom(root)
    assert dataset.native(0) == {"segment_semantic", "depth_zbuffer"}
    assert dataset.native(1) == {"segment_semantic"}
    assert not dataset[1]["valid"]["depth_zbuffer"].any()


# --- The index ---


def age(root: Path) -> None:
    """Give all files the time stamps of long ago: those of a moment ago are not trusted."""
    for path in (root, *root.rglob("*")):
        os.utime(path, (10**9, 10**9))


def test_index_is_kept_and_read_again_once_something_changes(root: Path, cache: Path) -> None:
    age(root)
    CocoDoom(root)
    (tables,) = cache.rglob("run-full-train.json")
    stamp = tables.stat().st_mtime_ns
    dataset = CocoDoom(root)
    assert tables.stat().st_mtime_ns == stamp
    assert all(isinstance(column, np.memmap) for column in dataset._annotations._columns.values())
    sent = pickle.dumps(dataset)
    write(root, TREE | {"annotations": TREE["annotations"][:1]})
    expected = np.zeros(SIZE, np.int64)
    expected[3:5, 2:4] = 3
    assert np.array_equal(CocoDoom(root)[0]["targets"]["segment_semantic"].numpy(), expected)
    worker = pickle.loads(sent)  # of a process that began before the change
    assert np.array_equal(worker[0]["targets"]["segment_semantic"].numpy(), CLASSES)
    age(root)
    for path in cache.rglob("*.npy"):
        path.write_bytes(b"")
    assert np.array_equal(CocoDoom(root)[0]["targets"]["segment_semantic"].numpy(), expected)
    shutil.rmtree(cache / "mult")
    with pytest.raises(
        UserError, match=r"run-full-train-.*\.npy: got no such file; .*; start again, and do not"
    ):
        pickle.loads(sent)


@pytest.mark.parametrize("suffix", [".json", ".npy"])
def test_no_flipped_bit_of_the_cache_changes_a_mask(root: Path, cache: Path, suffix: str) -> None:
    age(root)
    CocoDoom(root)
    for file in sorted(cache.rglob(f"*{suffix}")):
        content = file.read_bytes()
        for position in range(0, len(content), 1 + len(content) // 12):
            damaged = bytearray(content)
            damaged[position] ^= 1 << position % 8
            file.write_bytes(damaged)
            assert np.array_equal(CocoDoom(root)[0]["targets"]["segment_semantic"].numpy(), CLASSES), (file, position)


def test_a_worker_maps_the_index_instead_of_copying_it(root: Path) -> None:
    dataset = CocoDoom(root)
    other = pickle.loads(pickle.dumps(dataset))
    assert isinstance(other._annotations._columns["numbers"], np.memmap)
    assert torch.equal(other[0]["targets"]["segment_semantic"], dataset[0]["targets"]["segment_semantic"])


def test_a_cache_that_cannot_be_written_is_said(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="the index of .* cannot be kept in .*; set XDG_CACHE_HOME"):
        dataset = CocoDoom(root)
    assert np.array_equal(dataset[0]["targets"]["segment_semantic"].numpy(), CLASSES)


# --- What is refused ---


def changed(path: str, value: Any) -> dict[str, Any]:
    """TREE with one value changed: "images.0.id"."""
    tree = copy.deepcopy(TREE)
    *parents, last = path.split(".")
    node: Any = tree
    for key in parents:
        node = node[int(key) if key.isdigit() else key]
    if value is None:
        del node[last]
    else:
        node[int(last) if last.isdigit() else last] = value
    return tree


LIKE_ANOTHER = annotation(FIRST, 300, 0, [[0, 0, 2, 0, 2, 2]], 2)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "images.0.file_name",
            "run1/map02/rgb/000061.png",
            r"got image id 1020000060 with .*; expected run1/map02/rgb/000060\.png, as",
        ),
        ("images.0.file_name", "../map02/rgb/000060.png", r"got an image in '\.\./.*', outside the root; expected .*; do not"),
        (
            "images.0.file_name",
            "/run1/map02/rgb/000060.png",
            r"got an image in '/run1.*', outside the root; expected .*; do not",
        ),
        ("images.1.id", SECOND, r"got image id 1020000060 2 times; expected each once; make the file again"),
        ("annotations.1", LIKE_ANOTHER, r"got annotation id 1010000123000300 2 times; expected each once"),
        ("categories.1.id", 11, r"got category id 11 2 times; expected each once"),
        ("annotations.0.category_id", 12, r"annotation 1010000123000300 of category_id 12 \(1 like it\); expected one that"),
        ("annotations.0.image_id", 5, r"got annotation 1010000123000300 of image_id 5 \(1 like it\); expected one that"),
        ("annotations.0.segmentation", None, r"annotation 1010000123000300 with .*segmentation.*; expected polygons"),
        ("annotations.0.segmentation", 7, r"annotation 1010000123000300 with segmentation 7; expected polygons"),
        ("annotations.0.segmentation", [[1, 2, 3, 4]], r"with a polygon of fewer than three points; expected polygons"),
        ("annotations.0.segmentation", [[1, 2, "a", 4, 5, 6]], r"annotation 1010000123000300 with .*; expected polygons"),
        ("annotations.2.segmentation.counts", [90, 5], r"000302 with runs that do not add up to 96 pixels; expected"),
        ("annotations.2.segmentation.size", [WIDTH, HEIGHT], r"a mask of \[12, 8\] pixels .* in an image of \[8, 12\]"),
        ("annotations.3.segmentation.counts", "a!", r"060000005 with a damaged compressed mask; expected polygons"),
        (
            "annotations",
            None,
            r"got a file that is not read as COCO's JSON \(KeyError\('annotations'\)\); expected images, ann",
        ),
        ("images", [], r"got no image; expected at least one; choose another split"),
        ("images.0.id", "x", r"got a file that is not read as COCO's JSON \(ValueError"),
        ("info", "2017", r"got a file that is not read as COCO's JSON \(TypeError\(.info is '2017'"),
    ],
)
def test_json_that_is_wrong_is_refused(root: Path, path: str, value: Any, message: str) -> None:
    (root / "run-full-train.json").write_text(json.dumps(changed(path, value)))
    with pytest.raises(UserError, match=message):
        CocoDoom(root)


@pytest.mark.parametrize("text", ['{"images": [', "[" * 100_000], ids=["cut", "deep"])
def test_a_file_that_is_no_json(root: Path, text: str) -> None:
    (root / "run-full-train.json").write_text(text)
    with pytest.raises(UserError, match=r"run-full-train\.json: got a file that is not read as COCO's JSON .*; fetch"):
        CocoDoom(root)


def test_too_many_categories(root: Path) -> None:
    categories = [{"id": number, "name": f"THING{number}"} for number in range(253)]
    (root / "run-full-train.json").write_text(json.dumps(TREE | {"categories": categories}))
    with pytest.raises(UserError, match="got 253 categories; expected at most 252"):
        CocoDoom(root)


def test_images_that_are_not_there(root: Path) -> None:
    (root / "run1/map01/rgb/000123.png").unlink()
    message = r"got 1 of 2 images of the JSON without a file, the first run1/map01/rgb/000123\.png; expected all; unpack"
    with pytest.raises(UserError, match=message):
        CocoDoom(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "trian"}, r"split: got 'trian'; expected one of train, val, test; did you mean 'train'"),
        ({"by": "level"}, r"data\.options\.by: got 'level'; expected one of run, map; choose"),
        ({"depth": "8-bit"}, r"data\.options\.depth: got '8-bit'; expected one of 16bit, 8bit; choose"),
        ({"map_units_per_metre": 0}, r"map_units_per_metre: got 0; expected a number above 0; leave it out for relative"),
        ({"max_depth_m": 3.0}, r"data\.max_depth_m: got 3\.0; expected metres above 0 and metric depth; leave it out, or"),
        ({"intrinsics": [1, 2, 3]}, r"data\.options\.intrinsics: got \[1, 2, 3\]; expected \[fx, fy, cx, cy\] .*; give them"),
        ({"intrinsics": [0, 2, 3, 4]}, r"data\.options\.intrinsics: got .*; expected .* with fx, fy above 0"),
        ({"tasks": ["normals"]}, r"got task normals: no task has this name; expected some of segment_semantic, depth"),
        ({"tasks": ["keypoints2d"]}, r"got task keypoints2d: it is not derived yet; scripts/annotate\.py .*; expected some"),
    ],
)
def test_options_that_mean_nothing(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CocoDoom(root, **options)


def test_no_such_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"got '.*nowhere', which is no folder; expected .*; .*make_doom\.py"):
        CocoDoom(tmp_path / "nowhere")


def test_damaged_files_are_named(root: Path) -> None:
    path = root / "run1/map01/depth/000123.png"
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(UserError, match=r"depth/000123\.png: got a file that cannot be read"):
        CocoDoom(root)[0]
    png(path, DEPTH[:, :-1], 0)
    with pytest.raises(UserError, match=r"depth/000123\.png: got \(8, 11\) pixels \(height, width\); expected \(8, 12\)"):
        CocoDoom(root)[0]
    png(path, PALETTE[INDICES], 2)
    with pytest.raises(UserError, match=r"depth/000123\.png: got an image of mode RGB; expected I;16"):
        CocoDoom(root)[0]


# --- Real files ---


@pytest.fixture
def shared() -> Path:
    """144 frames of ViZDoom, in this layout; beside the repository, or where MULT_SHARED says."""
    folder = Path(os.environ.get("MULT_SHARED", Path(__file__).resolve().parents[4] / "shared")) / "data" / "doom"
    if not folder.is_dir():
        pytest.skip(f"there are no frames in {folder}")
    return folder


def test_frames_of_vizdoom(shared: Path) -> None:
    dataset = CocoDoom(shared, depth="8bit")
    assert len(dataset) == 144
    tree = json.loads((shared / "run-full-train.json").read_text())
    areas = {entry["id"]: entry["area"] for entry in tree["annotations"]}
    assert len(areas) == 63
    names = dataset.classes["segment_semantic"]
    labelled = 0
    for i in range(len(dataset)):
        sample = dataset[i]
        identity = int(dataset._annotations.ids[i])
        entries = [entry for entry in tree["annotations"] if entry["image_id"] == identity]
        target = sample["targets"]["segment_semantic"].numpy()
        assert (target > 0).sum() == sum(entry["area"] for entry in entries)
        kinds = {entry["id"]: entry["name"] for entry in tree["categories"]}
        assert {names[code] for code in np.unique(target[target > 0])} == {kinds[entry["category_id"]] for entry in entries}
        labelled += len(entries)
        for entry in entries:
            left, top, width, height = entry["bbox"]
            box = target[top : top + height, left : left + width]
            assert (box > 0).sum() >= entry["area"]
    assert labelled == 63
    depth, valid = (dataset[0][key]["depth_zbuffer"] for key in ("targets", "valid"))
    assert depth[valid].min() >= 1
    assert depth[valid].max() <= 255
