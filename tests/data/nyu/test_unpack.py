"""prepare_nyu.py and what NYU reads of its output: the .mat is written here as MATLAB stores it, value by value."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mult.data import NYU
from mult.data.disk.derived import FROM_COLOUR, DerivedLabels
from mult.data.nyu.unpack import prepare
from mult.data.prepare.derive import derive, fill, to_8_bit
from mult.errors import UserError

h5py = pytest.importorskip("h5py", reason="needs the extra nyu")

Array = NDArray[Any]
ROOT = Path(__file__).resolve().parents[3]
VIEWS = 1449
HEIGHT, WIDTH = 12, 16
Y, X = np.mgrid[:HEIGHT, :WIDTH]


def image(i: int) -> Array:
    return np.stack([15 * X, 240 - 20 * Y, (3 * X + 11 * Y + i) % 256], axis=2).astype(np.uint8)


def depth_m(i: int) -> Array:
    return np.asarray(1 + 0.13 * X + 0.31 * Y + i / 1000)


def labels(i: int) -> Array:
    return np.asarray((57 * Y + 13 * X + i) % 895, np.uint16)


def write_mat(path: Path, **replace: Any) -> Path:
    """MATLAB's (H, W, 3, N) and (H, W, N), whose axes HDF5 has the other way round; texts behind references."""
    arrays = {
        "images": np.stack([image(i) for i in range(VIEWS)]).transpose(0, 3, 2, 1),
        "depths": np.stack([depth_m(i) for i in range(VIEWS)]).transpose(0, 2, 1).astype(np.float32),
        "labels": np.stack([labels(i) for i in range(VIEWS)]).transpose(0, 2, 1),
    }
    arrays["depths"][2, 5, 7] = 0  # x 5, y 7
    texts = {"names": [f"name {i + 1}" for i in range(894)], "scenes": [f"room_{i // 4:04d}" for i in range(VIEWS)]}
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, values in (arrays | replace).items():
            if values is not None:
                file.create_dataset(key, data=values, compression="gzip", chunks=(1, *values.shape[1:]))
        for key, words in texts.items():
            references = [
                file.create_dataset(f"#refs#/{key}{i}", data=np.array([[ord(c)] for c in word], np.uint16)).ref
                for i, word in enumerate(words)
            ]
            file.create_dataset(key, data=np.array([references], h5py.ref_dtype), dtype=h5py.ref_dtype)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    return path


@pytest.fixture(scope="module")
def mat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mat(tmp_path_factory.mktemp("mat") / "nyu_depth_v2_labeled.mat")


@pytest.fixture(scope="module")
def unpacked(mat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the .mat; not to be changed."""
    root = tmp_path_factory.mktemp("nyu")
    prepare(mat, root)
    return root


def stored(path: Path) -> Array:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_files_hold_what_matlab_shows(unpacked: Path) -> None:
    for i in (0, 2, 700, 1448):
        name = f"{i + 1:04d}.png"
        np.testing.assert_array_equal(stored(unpacked / "images" / name), image(i))
        np.testing.assert_array_equal(stored(unpacked / "labels" / name), labels(i))
        units = np.rint(depth_m(i) * 5000)
        if i == 2:
            units[7, 5] = 0
        assert np.abs(stored(unpacked / "depth" / name).astype(float) - units).max() <= 1
    counts = {folder.name: len(list(folder.iterdir())) for folder in unpacked.iterdir() if folder.is_dir()}
    assert counts == dict.fromkeys(("images", "depth", "labels"), VIEWS)
    assert not list(unpacked.rglob("*.tmp*"))


def test_the_published_split(unpacked: Path) -> None:
    train, test, val = (NYU(unpacked, split) for split in ("train", "test", "val"))
    assert (len(train), len(test)) == (795, 654)
    names = {split: {of.name(i) for i in range(len(of))} for split, of in (("train", train), ("test", test), ("val", val))}
    assert names["val"] == names["test"]  # there is no other
    assert names["train"] | names["test"] == {f"{number:04d}" for number in range(1, VIEWS + 1)}
    assert [train.name(0), train.name(5), test.name(0), test.name(2)] == ["0003", "0008", "0001", "0009"]
    assert [train.group(0), test.group(0), test.group(2)] == ["room_0000", "room_0000", "room_0002"]


# label -> (40 classes, 13 classes), from the published maps.
CLASSES_OF_LABEL = {
    5: ("chair", "chair"),
    21: ("wall", "wall"),
    11: ("floor", "floor"),
    3: ("cabinet", "furniture"),
    157: ("bed", "bed"),
}


@pytest.mark.parametrize("space", [13, 40, 894])
def test_label_spaces_by_name(unpacked: Path, space: int) -> None:
    dataset = NYU(unpacked, "train", space=space)
    names = dataset.classes["segment_semantic"]
    assert len(names) == (895 if space == 894 else space)
    seen = set()
    for position in range(0, 795, 20):
        i = int(dataset.name(position)) - 1
        target = dataset[position]["targets"]["segment_semantic"].numpy()
        assert target.shape == (HEIGHT, WIDTH)
        assert target.dtype == np.int64
        for y, x in zip(*np.nonzero(np.isin(labels(i), list(CLASSES_OF_LABEL)) | (labels(i) == 0)), strict=True):
            code = int(labels(i)[y, x])
            seen.add(code)
            if code == 0:
                assert target[y, x] == 255
            else:
                expected = f"name {code}" if space == 894 else CLASSES_OF_LABEL[code][{40: 0, 13: 1}[space]]
                assert names[target[y, x]] == expected
        if space == 894:
            assert [names[k] for k in target[labels(i) > 0]] == [f"name {code}" for code in labels(i)[labels(i) > 0]]
            assert ((target == 255) == (labels(i) == 0)).all()
    assert seen == {0, *CLASSES_OF_LABEL}


def test_a_sample_is_what_was_stored(unpacked: Path) -> None:
    dataset = NYU(unpacked)
    assert dataset.tasks == dataset.available == ("segment_semantic", "depth_zbuffer")
    assert dataset.labelled == dataset.native(0) == frozenset(dataset.tasks)
    assert dataset.metric_depth
    sample = dataset[0]  # view 3
    assert (sample["id"], sample["derived"]) == ("0003", ())
    np.testing.assert_allclose(sample["image"].permute(1, 2, 0).numpy(), image(2) / 255, atol=1e-6)
    hole = (Y == 7) & (X == 5)
    np.testing.assert_array_equal(sample["valid"]["depth_zbuffer"][0].numpy(), ~hole)
    np.testing.assert_allclose(sample["targets"]["depth_zbuffer"][0].numpy(), np.where(hole, 0, depth_m(2)), atol=1.01e-4)
    near = NYU(unpacked, max_depth_m=3.0)[0]["valid"]["depth_zbuffer"][0].numpy()
    np.testing.assert_array_equal(near, ~hole & (depth_m(2) <= 3.0))
    assert 0 < near.sum() < near.size
    scale = WIDTH / 640
    (fx, fy, cx, cy), size = dataset.camera(0)
    assert size == (HEIGHT, WIDTH)
    assert (fx, fy) == pytest.approx((518.858 * scale, 519.470 * scale))
    assert (cx, cy) == pytest.approx((326.082 * scale - 0.5, 254.236 * scale - 0.5))
    assert NYU(unpacked, intrinsics=(9, 8, 7, 6)).camera(0)[0] == (9.0, 8.0, 7.0, 6.0)
    assert pickle.loads(pickle.dumps(dataset))[-1]["id"] == dataset.name(794)
    with pytest.raises(IndexError, match="sample 795 of 795"):
        dataset[795]


@pytest.fixture
def full_size(unpacked: Path, tmp_path: Path) -> Path:
    """The test split at 480 x 640, all views one file."""
    y, x = np.mgrid[:480, :640]
    pixels = {
        "images": np.stack([x % 256, y % 256, (x + 2 * y) % 256], axis=2).astype(np.uint8),
        "depth": (5000 + 9 * x + 31 * y).astype(np.uint16),
        "labels": ((x + 7 * y) % 895).astype(np.uint16),
    }
    for folder, values in pixels.items():
        (tmp_path / folder).mkdir()
        first = tmp_path / folder / "0001.png"
        Image.fromarray(values).save(first, compress_level=1)
        for number in range(2, VIEWS + 1):
            os.link(first, tmp_path / folder / f"{number:04d}.png")
    (tmp_path / "nyu.json").write_bytes((unpacked / "nyu.json").read_bytes())
    return tmp_path


def test_the_border_can_be_cut(full_size: Path) -> None:
    uncropped, cropped = NYU(full_size, "test"), NYU(full_size, "test", crop=True)
    assert uncropped.camera(0) == ((518.858, 519.470, 325.582, 253.736), (480, 640))
    elsewhere = NYU(full_size, "test", intrinsics=(259.4, 259.7, 162.5, 126.6))
    with pytest.raises(UserError, match=r"data.options.intrinsics: got \(259.4, .* for images of \(480, 640\) pixels"):
        elsewhere.camera(0)
    (fx, fy, cx, cy), size = cropped.camera(0)
    assert (fx, fy, size) == (518.858, 519.470, (427, 561))
    assert (cx, cy) == pytest.approx((285.582, 209.736))
    one, other = uncropped[0], cropped[0]
    # MATLAB's 45:471 and 41:601.
    assert other["image"].shape == (3, 427, 561)
    for x, y in ((0, 0), (560, 426), (17, 300)):
        assert (other["image"][:, y, x] == one["image"][:, y + 44, x + 40]).all()
        for task in one["targets"]:
            assert (other["targets"][task][..., y, x] == one["targets"][task][..., y + 44, x + 40]).all()
            assert other["valid"][task].shape == (1, 427, 561)
    done = fill(lambda tasks: NYU(full_size, "test", tasks=tasks, crop=True), workers=1)
    assert done.counts == {}
    assert "normal: not derived, labels are derived from uncropped images; leave data.options.crop out" in str(done)


def test_the_white_border_is_in_no_derived_label(full_size: Path) -> None:
    """Edges of the image with its border, and of the same image without one, are those of the scene inside."""
    y, x = np.mgrid[:480, :640]
    scene = np.repeat((120 + 60 * np.sin(x / 37) * np.cos(y / 23))[..., None], 3, 2).astype(np.uint8)
    bordered = np.full_like(scene, 255)
    inside = slice(8, 472), slice(8, 632)
    bordered[inside] = scene[inside]
    first = full_size / "images/0001.png"
    Image.fromarray(bordered).save(first)
    derived = DerivedLabels(full_size)
    dataset = NYU(full_size, "test")
    assert dataset.border == 8
    labels = derive(["edge_texture", "keypoints2d"], to_8_bit(dataset[0]["image"]), None, dataset.border)
    for task, (target, valid) in labels.items():
        derived.write(task, dataset.name(0), target, valid)
        sample = NYU(full_size, "test", tasks=[task])[0]
        stored, mask = sample["targets"][task][0].numpy(), sample["valid"][task][0].numpy()
        expected = np.zeros((480, 640), np.bool_)
        expected[inside] = True
        np.testing.assert_array_equal(mask, expected)
        assert (stored[~expected] == 0).all()
        whole = FROM_COLOUR[task](scene)[0]
        assert stored[expected].max() < 1.2 * whole.max()
        assert FROM_COLOUR[task](bordered)[0].max() > 3 * whole.max()


# prepare_nyu.py.


def link_views(source: Path, target: Path, numbers: range) -> None:
    for folder in ("images", "depth", "labels"):
        (target / folder).mkdir()
        for number in numbers:
            os.link(source / folder / f"{number:04d}.png", target / folder / f"{number:04d}.png")


def test_what_is_there_is_left_alone(mat: Path, unpacked: Path, tmp_path: Path) -> None:
    link_views(unpacked, tmp_path, range(1, VIEWS + 1))
    with pytest.raises(UserError, match=r"got a preparation that did not finish; .* run prepare_nyu.py again"):
        NYU(tmp_path)
    (tmp_path / "labels/0007.png").unlink()
    (tmp_path / "depth/0900.png").unlink()
    before = (tmp_path / "images/0008.png").stat().st_mtime_ns
    done = prepare(mat, tmp_path)
    assert (done.written, done.present) == (2, VIEWS - 2)
    assert (tmp_path / "images/0008.png").stat().st_mtime_ns == before
    np.testing.assert_array_equal(stored(tmp_path / "labels/0007.png"), labels(6))
    assert (tmp_path / "nyu.json").read_bytes() == (unpacked / "nyu.json").read_bytes()


def test_a_file_that_is_no_hdf5_or_not_there(tmp_path: Path, script: Callable[..., Any]) -> None:
    old = tmp_path / "old.mat"
    old.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(600))
    done = script("prepare_nyu", "--mat", old, "--out", tmp_path / "out")
    assert done.status == 2
    assert done.err.startswith(f"error: {old}: got a file that is no HDF5; expected nyu_depth_v2_labeled.mat, a .mat of vers")
    with pytest.raises(UserError, match=r"--mat: got '.*none.mat', no such file; expected nyu_depth_v2_labeled.mat"):
        prepare(tmp_path / "none.mat", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_file_that_was_cut_short(mat: Path, tmp_path: Path, part: float, script: Callable[..., Any]) -> None:
    truncated = tmp_path / "truncated.mat"
    truncated.write_bytes(mat.read_bytes()[: int(mat.stat().st_size * part)])
    done = script("prepare_nyu", "--mat", truncated, "--out", tmp_path / "out")
    assert done.status == 2
    assert f"error: {truncated}: got a file that was cut short or damaged (" in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_part_leaves_whole_views(mat: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mat"
    damaged.write_bytes(mat.read_bytes())
    with h5py.File(mat) as file:
        chunk = file["depths"].id.get_chunk_info(3)
    with open(damaged, "r+b") as file:
        file.seek(512 + chunk.byte_offset if chunk.byte_offset < 512 else chunk.byte_offset)
        file.write(bytes(chunk.size))
    with pytest.raises(UserError, match=r"damaged.mat: got a file that was cut short or damaged .*; download it again"):
        prepare(damaged, tmp_path / "out")
    written = {
        folder: sorted(p.name for p in (tmp_path / "out" / folder).iterdir()) for folder in ("images", "depth", "labels")
    }
    assert written["labels"] == ["0001.png", "0002.png", "0003.png"]
    np.testing.assert_array_equal(stored(tmp_path / "out/labels/0003.png"), labels(2))
    assert not list((tmp_path / "out").rglob("*.tmp*"))


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("depths", None, r"depths: got nothing; expected float \(1449, width, height\), as h5py shows it"),
        (
            "labels",
            np.zeros((1449, HEIGHT, WIDTH), np.uint16),
            r"labels: got uint16 \(1449, 12, 16\); expected unsigned \(1449",
        ),
        (
            "images",
            np.zeros((10, 3, WIDTH, HEIGHT), np.uint8),
            r"images: got uint8 \(10, 3, 16, 12\); expected unsigned \(1449",
        ),
        (
            "depths",
            np.full((1449, WIDTH, HEIGHT), 900.0, np.float32),
            r"view 1: got depth up to 900; expected metres, up to 13",
        ),
        ("labels", np.full((1449, WIDTH, HEIGHT), 895, np.uint16), r"view 1: got label 895; expected 0 to 894; give the label"),
    ],
)
def test_another_content_is_refused(tmp_path: Path, key: str, values: Any, message: str) -> None:
    path = write_mat(tmp_path / "other.mat", **{key: values})
    with pytest.raises(UserError, match=rf"other.mat: {message}"):
        prepare(path, tmp_path / "out")


def test_a_full_disk_is_named_and_what_is_written_is_whole(mat: Path, unpacked: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: writing fails for real, after some bytes."""
    link_views(unpacked, tmp_path, range(1, VIEWS - 3))
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); "
        "sys.argv[0] = 'prepare_nyu.py'; runpy.run_path('scripts/prepare_nyu.py', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "--mat", str(mat), "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert f"error: {tmp_path}/nyu.json: got 'File too large'; expected a disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.tmp*"))
    assert len(list(tmp_path.rglob("*.png"))) == 3 * VIEWS
    for path in tmp_path.rglob("144?.png"):
        stored(path)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200


def test_without_h5py(mat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r'prepare_nyu.py needs h5py; install it with: pip install "mult-dense\[nyu\]"'):
        prepare(mat, tmp_path)
