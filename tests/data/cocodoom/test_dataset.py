"""The reader of CocoDoom's layout, on the archive of archive.py and on real frames."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mult.data import CocoDoom
from mult.data.prepare.derive import fill
from mult.errors import UserError
from tests.data.cocodoom.archive import (
    CLASSES,
    DEPTH,
    FIRST,
    HEIGHT,
    INDICES,
    PALETTE,
    SECOND,
    SIZE,
    THIRD,
    TREE,
    WIDTH,
    X,
    Y,
    image,
    png,
    write,
)


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
    has_depth = (Y >= 2) & (DEPTH > 0)
    for dataset, units in ((relative, 64), (metric, 64 * 32)):
        sample = dataset[0]
        depth, valid = (sample[key]["depth_zbuffer"][0].numpy() for key in ("targets", "valid"))
        assert np.array_equal(valid, has_depth)
        assert not valid[3, 4]
        np.testing.assert_allclose(depth, np.where(has_depth, DEPTH.astype(np.float64) / units, 0), rtol=1e-6)
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
    for task, reason in (("normal", "it is not derived yet; `mult annotate"), ("reshading", "its fall-off needs metres")):
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
    normals = sample["targets"]["normal"].numpy()[:, sample["valid"]["normal"][0].numpy()]
    assert normals.shape[1] == HEIGHT * WIDTH
    np.testing.assert_allclose(normals, np.repeat(normal[:, None], normals.shape[1], 1), atol=0.012)  # 8 bits of the cache


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
    with pytest.raises(UserError, match=r"run-full-train-.*\.npy: got no such file; .*; start again, and do not"):
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
