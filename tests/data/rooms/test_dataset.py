"""Rooms: what is on disk is Taskonomy's, comes from the seed alone and is finished after an interruption."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mult.data import Taskonomy
from mult.data.rooms.dataset import Rooms, _assign_splits, _build_scene, _generator, render_missing
from mult.data.rooms.render import render_view
from mult.errors import UserError
from mult.labels import normals_from_depth

SMALL = {"buildings": 3, "views": 4, "size": 48, "seed": 5}
LABELS = ("segment_semantic", "depth_zbuffer", "normal", "keypoints2d", "edge_texture", "reshading")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered root; not to be changed."""
    path = tmp_path_factory.mktemp("rooms") / "small"
    assert render_missing(path, workers=1, **SMALL) == 12
    return path


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def pixels(root: Path, task: str) -> NDArray[np.int64]:
    """The raw codes of all views, (N, H, W) or (N, H, W, 3)."""
    return np.stack([np.asarray(Image.open(path)).astype(np.int64) for path in sorted((root / task).rglob("*.png"))])


def test_every_view_has_every_file(root: Path) -> None:
    names = list(contents(root))
    for folder in ("rgb", "mask_valid", "point_info", *LABELS):
        assert sum(name.startswith(f"{folder}/room_") for name in names) == 12, folder
    assert len(names) == 12 * 9 + 2, "splits.csv and rooms.json are the only other files"


def test_number_of_workers_and_repetition_do_not_change_a_byte(root: Path, tmp_path: Path) -> None:
    assert render_missing(tmp_path / "other", workers=2, **SMALL) == 12
    assert contents(tmp_path / "other") == contents(root)


def test_a_view_depends_on_neither_the_others_nor_their_number(root: Path, tmp_path: Path) -> None:
    render_missing(tmp_path / "fewer", workers=1, **{**SMALL, "views": 1})
    alone, among = contents(tmp_path / "fewer"), contents(root)
    shared = [name for name in alone if name.startswith(("rgb", *LABELS))]
    assert len(shared) == 21
    assert all(alone[name] == among[name] for name in shared)


def test_another_seed_gives_other_rooms(root: Path) -> None:
    mine, other = (render_view(_build_scene(seed, 0), _generator(seed, 2, 0, 0), 32) for seed in (5, 6))
    assert (mine.image != other.image).mean() > 0.5


def test_interrupted_rendering_is_finished_with_the_same_bytes(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    for view_name, folders in {
        "room_000/point_2_": ("rgb", "normal", "point_info"),
        "room_001/point_0_": ("point_info",),
        "room_002/point_3_": ("rgb", "mask_valid", "point_info", *LABELS),
    }.items():
        for folder in folders:
            (path,) = (broken / folder).glob(f"{view_name}*")
            path.unlink()
    assert render_missing(broken, workers=1) == 3
    assert contents(broken) == contents(root)
    assert render_missing(broken, workers=1) == 0


def test_read_by_the_taskonomy_reader(root: Path) -> None:
    splits = {split: Rooms(root, split, LABELS, **SMALL) for split in ("train", "val", "test")}
    assert {split: dataset.buildings for split, dataset in splits.items()} == {
        "train": ["room_000"],
        "val": ["room_001"],
        "test": ["room_002"],
    }
    sample = Rooms(root, "val")[1]
    plain = Taskonomy(root, "val")[1]
    assert sample["id"] == plain["id"]
    assert all(sample["targets"][task].equal(plain["targets"][task]) for task in LABELS)
    assert sample["targets"]["depth_zbuffer"][sample["valid"]["depth_zbuffer"]].min() > 0.25


def test_through_the_window_nothing_is_valid(root: Path) -> None:
    outside = pixels(root, "mask_valid") == 0
    assert 50 < outside.sum() < 0.3 * outside.size
    np.testing.assert_array_equal(outside, pixels(root, "depth_zbuffer") == 65535)
    np.testing.assert_array_equal(outside, (pixels(root, "normal") == 128).all(-1))
    assert (pixels(root, "segment_semantic")[outside] == 0).all()
    assert (pixels(root, "reshading")[outside] == 0).all()
    # What is behind the glass is a picture all the same.
    assert pixels(root, "rgb")[outside].std() > 10


def test_depth_normals_and_camera_fit_together(root: Path) -> None:
    dataset = Rooms(root, "train", ("depth_zbuffer", "normal"))
    for i in range(len(dataset)):
        sample, (intrinsics, _) = dataset[i], dataset.camera(i)
        depth, valid = sample["targets"]["depth_zbuffer"][0].numpy(), sample["valid"]["depth_zbuffer"][0].numpy()
        derived, has_normal = normals_from_depth(depth, intrinsics, valid)
        cosine = (derived * sample["targets"]["normal"].numpy()).sum(0)[has_normal]
        assert np.median(np.degrees(np.arccos(np.clip(cosine, -1, 1)))) < 2


def test_views_look_at_things_and_every_class_is_seen() -> None:
    counts = np.zeros(18, np.int64)
    things = []
    for building in range(12):
        for number in range(5):
            seen = render_view(_build_scene(0, building), _generator(0, 2, building, number), 40)
            counts += np.bincount(seen.class_code.ravel(), minlength=18)
            things.append(len(np.unique(seen.class_code[seen.class_code > 1])))
            depth = seen.depth_m[seen.valid]
            assert depth.min() > 0.25
            assert depth.max() < 12
            assert seen.image.std() > 15, "a picture with contrast"
    assert (counts[2:] > 0).all(), np.flatnonzero(counts == 0)
    assert 0.5 < counts[1] / counts.sum() < 0.9
    assert counts[0] / counts.sum() < 0.1
    assert np.mean(things) > 2


@pytest.mark.parametrize(("buildings", "held_out"), [(3, 1), (9, 1), (10, 1), (25, 2), (40, 4)])
def test_splits_are_disjoint_and_about_80_10_10(buildings: int, held_out: int) -> None:
    splits = _assign_splits(buildings)
    assert list(splits) == [f"room_{b:03d}" for b in range(buildings)]
    assert Counter(splits.values()) == {"train": buildings - 2 * held_out, "val": held_out, "test": held_out}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_other_parameters_than_the_root_has_are_refused(root: Path, name: str) -> None:
    before = contents(root)
    other = SMALL[name] + 1
    with pytest.raises(UserError, match=rf"got {name} {other}; expected {name} {SMALL[name]}, with which it was rendered"):
        render_missing(root, **{name: other})
    assert contents(root) == before


@pytest.mark.parametrize(
    ("name", "value"), [("buildings", 2), ("views", 0), ("size", 31), ("seed", -1), ("size", 64.0), ("views", True)]
)
def test_parameters_out_of_range_are_refused(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"rooms: got {name} {value}; expected a whole number from"):
        Rooms(tmp_path / "new", **{name: value})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="rooms: got workers 0; expected at least 1"):
        Rooms(tmp_path / "new", workers=0)
    assert not (tmp_path / "new").exists()


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"got files but no rooms\.json; expected a new folder"):
        Rooms(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_root_with_nothing_but_the_file_of_a_killed_process_is_new(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from mult.files import write_file; "
        f"write_file(Path({str(tmp_path / 'rooms.json')!r}), lambda file: os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.name != "rooms.json"
    assert render_missing(tmp_path, workers=1, **{**SMALL, "views": 1}) == 3
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be read as JSON"), ('{"seed": 1}', "expected whole numbers for buildings")]
)
def test_damaged_parameters_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rooms.json").write_text(text)
    with pytest.raises(UserError, match=message):
        Rooms(tmp_path)


def test_the_script_renders_and_refuses(root: Path, tmp_path: Path, script: Callable[..., tuple[int, str, str]]) -> None:
    done = tmp_path / "done"
    shutil.copytree(root, done)
    (path,) = (done / "point_info").glob("room_001/point_1_*")
    path.unlink()
    status, out, _ = script("make_rooms", "--out", done, "--buildings", 3, "--views", 4, "--size", 48, "--seed", 5)
    assert status == 0
    assert f"{done}: rendered 1 view at " in out
    assert contents(done) == contents(root)
    status, _, err = script("make_rooms", "--out", done, "--seed", 6)
    assert status == 2
    assert err.startswith("error: ")
    assert "got seed 6; expected seed 5" in err
    assert script("make_rooms", "--out", path.parent.parent.parent / "rooms.json")[0] == 2
