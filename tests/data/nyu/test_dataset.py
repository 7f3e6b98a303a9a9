"""NYU in its three folders, and the .mat as MATLAB stores it: written here value by value, no formula with a symmetry."""

from __future__ import annotations

import json
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
from mult.data.nyu.unpack import prepare
from mult.data.prepare.derive import fill
from mult.data.sample import BadFileError
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
KNOWN = {5: ("chair", "chair"), 21: ("wall", "wall"), 11: ("floor", "floor"), 3: ("cabinet", "furniture"), 157: ("bed", "bed")}


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
        for y, x in zip(*np.nonzero(np.isin(labels(i), list(KNOWN)) | (labels(i) == 0)), strict=True):
            code = int(labels(i)[y, x])
            seen.add(code)
            if code == 0:
                assert target[y, x] == 255
            else:
                expected = f"name {code}" if space == 894 else KNOWN[code][{40: 0, 13: 1}[space]]
                assert names[target[y, x]] == expected
        if space == 894:
            assert [names[k] for k in target[labels(i) > 0]] == [f"name {code}" for code in labels(i)[labels(i) > 0]]
            assert ((target == 255) == (labels(i) == 0)).all()
    assert seen == {0, *KNOWN}


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
    with pytest.raises(IndexError, match="view 795 of 795"):
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
    whole, cut = NYU(full_size, "test"), NYU(full_size, "test", crop=True)
    assert whole.camera(0) == ((518.858, 519.470, 325.582, 253.736), (480, 640))
    (fx, fy, cx, cy), size = cut.camera(0)
    assert (fx, fy, size) == (518.858, 519.470, (427, 561))
    assert (cx, cy) == pytest.approx((285.582, 209.736))
    one, other = whole[0], cut[0]
    # MATLAB's 45:471 and 41:601.
    assert other["image"].shape == (3, 427, 561)
    for x, y in ((0, 0), (560, 426), (17, 300)):
        assert (other["image"][:, y, x] == one["image"][:, y + 44, x + 40]).all()
        for task in one["targets"]:
            assert (other["targets"][task][..., y, x] == one["targets"][task][..., y + 44, x + 40]).all()
            assert other["valid"][task].shape == (1, 427, 561)
    done = fill(lambda tasks: NYU(full_size, "test", tasks=tasks, crop=True), workers=1)
    assert done.counts == {}
    assert "normal: not derived, labels are derived of whole images; leave data.options.crop out" in str(done)


# prepare_nyu.py.


def test_what_is_there_is_left_alone(mat: Path, unpacked: Path, tmp_path: Path) -> None:
    for folder in ("images", "depth", "labels"):
        (tmp_path / folder).mkdir()
        for number in range(1, VIEWS + 1):
            os.link(unpacked / folder / f"{number:04d}.png", tmp_path / folder / f"{number:04d}.png")
    with pytest.raises(UserError, match=r"got a preparation that has not ended; .* run prepare_nyu.py again"):
        NYU(tmp_path)
    (tmp_path / "labels/0007.png").unlink()
    (tmp_path / "depth/0900.png").unlink()
    before = (tmp_path / "images/0008.png").stat().st_mtime_ns
    done = prepare(mat, tmp_path)
    assert (done.written, done.there) == (2, VIEWS - 2)
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
    cut = tmp_path / "cut.mat"
    cut.write_bytes(mat.read_bytes()[: int(mat.stat().st_size * part)])
    done = script("prepare_nyu", "--mat", cut, "--out", tmp_path / "out")
    assert done.status == 2
    assert f"error: {cut}: got a file that was cut short or damaged (" in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_part_leaves_whole_views(mat: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.mat"
    spoilt.write_bytes(mat.read_bytes())
    with h5py.File(mat) as file:
        chunk = file["depths"].id.get_chunk_info(3)
    with open(spoilt, "r+b") as file:
        file.seek(512 + chunk.byte_offset if chunk.byte_offset < 512 else chunk.byte_offset)
        file.write(bytes(chunk.size))
    with pytest.raises(UserError, match=r"spoilt.mat: got a file that was cut short or damaged .*; download it again"):
        prepare(spoilt, tmp_path / "out")
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


def test_a_full_disk_is_named_and_a_rerun_goes_on(mat: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: writing fails for real, after some bytes."""
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); "
        "sys.argv[0] = 'prepare_nyu.py'; runpy.run_path('scripts/prepare_nyu.py', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "--mat", str(mat), "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert f"error: {tmp_path}/" in done.stderr
    assert "make room there and run this again, it goes on where it stopped" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.tmp*"))
    for path in tmp_path.rglob("*.png"):
        stored(path)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200


def test_without_h5py(mat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r'prepare_nyu.py needs h5py; install it with: pip install -e "\.\[nyu\]"'):
        prepare(mat, tmp_path)


# The folders people have.


def write_multitask(root: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    y, x = np.mgrid[: size[0], : size[1]]
    for folder in ("images", "segmentation", "depth", "normals", "gt_sets"):
        (root / folder).mkdir(parents=True)
    for name, suffix in (("0003", "png"), ("0008", "png"), ("0001", "jpg")):
        i = int(name)
        picture = np.stack([5 * x % 256, (250 - 3 * y) % 256, (x + y + i) % 256], axis=2).astype(np.uint8)
        Image.fromarray(picture).save(root / "images" / f"{name}.{suffix}", quality=100, subsampling=0)
        Image.fromarray(((x + 3 * y + i) % 41).astype(np.uint8)).save(root / "segmentation" / f"{name}.png")
        depth = (1 + 0.01 * x + 0.02 * y + i / 100).astype(np.float32)
        depth[1, 2], depth[3, 1] = 0, np.nan
        np.save(root / "depth" / f"{name}.npy", depth)
        np.save(root / "normals" / f"{name}.npy", np.ones((*size, 3), np.float32))
    (root / "gt_sets/train.txt").write_text("0003\n0008\n")
    (root / "gt_sets/val.txt").write_text("0001\n")
    return root


@pytest.mark.parametrize("space", [None, 13])
def test_nyud_mt(tmp_path: Path, space: int | None) -> None:
    dataset = NYU(write_multitask(tmp_path), space=space)
    assert [dataset.name(i) for i in range(len(dataset))] == ["0003", "0008"]
    assert [NYU(tmp_path, split).name(0) for split in ("val", "test")] == ["0001", "0001"]
    assert dataset.tasks == ("segment_semantic", "depth_zbuffer")  # not the normals, whose frame is unknown
    assert dataset.group(0) == ""
    sample = dataset[1]
    codes = (X + 3 * Y + 8) % 41
    names = dataset.classes["segment_semantic"]
    target = sample["targets"]["segment_semantic"].numpy()
    assert (target == 255).tolist() == (codes == 0).tolist()
    if space is None:
        np.testing.assert_array_equal(target[codes > 0], codes[codes > 0] - 1)
        assert (names[0], names[39], len(names)) == ("wall", "otherprop", 40)
    else:
        assert {names[k] for k in target[codes == 6]} == {"sofa"}
        assert {names[k] for k in target[codes == 25]} == {"tv"}
    depth, valid = sample["targets"]["depth_zbuffer"][0].numpy(), sample["valid"]["depth_zbuffer"][0].numpy()
    assert np.argwhere(~valid).tolist() == [[1, 2], [3, 1]]
    np.testing.assert_allclose(depth[valid], (1 + 0.01 * X + 0.02 * Y + 0.08)[valid], rtol=1e-6)
    assert np.abs(sample["image"].permute(1, 2, 0).numpy() * 255 - np.stack([5 * X, 250 - 3 * Y, X + Y + 8], 2)).max() < 1e-3
    jpeg = NYU(tmp_path, "val")[0]["image"].permute(1, 2, 0).numpy() * 255
    assert np.abs(jpeg - np.stack([5 * X, 250 - 3 * Y, X + Y + 1], 2)).max() < 4


def test_normals_are_derived(tmp_path: Path) -> None:
    write_multitask(tmp_path)
    inverse = 0.6 - 0.013 * X - 0.021 * Y  # of a plane's depth
    np.save(tmp_path / "depth/0001.npy", 1 / inverse)
    with pytest.raises(UserError, match=r"got task normal, of which split 'test' has no file; .* let scripts/annotate.py"):
        NYU(tmp_path, "test", tasks=["normal"])
    fill(lambda tasks: NYU(tmp_path, "test", tasks=tasks), ["normal"], workers=1)
    dataset = NYU(tmp_path, "test")
    assert dataset.tasks == ("segment_semantic", "depth_zbuffer", "normal")
    sample = dataset[0]
    assert sample["derived"] == ("normal",)
    (fx, fy, cx, cy), _ = dataset.camera(0)
    facing = np.array([0.013 * fx, 0.021 * fy, -(0.6 - 0.013 * cx - 0.021 * cy)])
    facing /= np.linalg.norm(facing)
    cosine = np.tensordot(facing, sample["targets"]["normal"].numpy(), axes=1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 1


def test_nyud_mt_s_camera_is_that_of_its_crop(tmp_path: Path) -> None:
    (fx, fy, cx, cy), size = NYU(write_multitask(tmp_path, (425, 560))).camera(0)
    assert (fx, fy, size) == (518.858, 519.470, (425, 560))
    assert (cx, cy) == pytest.approx((285.582, 208.736))
    with pytest.raises(
        ValueError, match=r"whose camera is unknown; expected the shape of \(480, 640\) or .* give fx, fy, cx, cy"
    ):
        NYU(write_multitask(tmp_path / "other", (20, 50))).camera(0)


def write_npy(root: Path) -> Path:
    for folder in ("train", "val"):
        for i in (0, 2, 10):
            kinds = {
                "image": np.stack([X / 16, 1 - Y / 12, (X + 2 * Y + i) / 60], axis=2).astype(np.float32),
                "label": ((2 * X + 5 * Y + i) % 14 - 1).astype(np.float32),
                "depth": np.where((X == 3) & (Y == 1), 0, 1 + 0.1 * X + 0.2 * Y + i)[..., None].astype(np.float32),
                "normal": np.ones((HEIGHT, WIDTH, 3), np.float32),
            }
            for kind, values in kinds.items():
                (root / folder / kind).mkdir(parents=True, exist_ok=True)
                np.save(root / folder / kind / f"{i}.npy", values)
    return root


def test_libmtl_s_npy(tmp_path: Path) -> None:
    dataset = NYU(write_npy(tmp_path))
    assert [dataset.name(i) for i in range(3)] == ["train/0", "train/2", "train/10"]
    assert NYU(tmp_path, "test").name(1) == "val/2"
    assert dataset.classes["segment_semantic"][3:5] == ["chair", "floor"]
    sample = dataset[2]
    codes = (2 * X + 5 * Y + 10) % 14 - 1
    np.testing.assert_array_equal(sample["targets"]["segment_semantic"].numpy(), np.where(codes < 0, 255, codes))
    hole = (X == 3) & (Y == 1)
    np.testing.assert_array_equal(sample["valid"]["depth_zbuffer"][0].numpy(), ~hole)
    expected = np.where(hole, 0, 1 + 0.1 * X + 0.2 * Y + 10)
    np.testing.assert_allclose(sample["targets"]["depth_zbuffer"][0].numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(sample["image"][1].numpy(), 1 - Y / 12, rtol=1e-6)
    fill(lambda tasks: NYU(tmp_path, tasks=tasks), ["normal"], workers=1)
    assert sorted(path.name for path in (tmp_path / "derived/normal/train").iterdir()) == ["0.png", "10.png", "2.png"]
    assert NYU(tmp_path)[0]["derived"] == ("normal",)
    assert NYU(tmp_path, "test").tasks == ("segment_semantic", "depth_zbuffer")


# Bad input.


def test_a_list_may_not_lead_out_of_the_root(tmp_path: Path) -> None:
    write_multitask(tmp_path)
    (tmp_path / "gt_sets/train.txt").write_text("0003\n../../secret\n")
    with pytest.raises(UserError, match=r"train.txt: got the name '../../secret'; expected letters, .* below"):
        NYU(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": 41}, r"data.options.space: got 41 for .* with labels of 40 classes; expected one of \[13, 40\]"),
        ({"space": 894}, r"data.options.space: got 894 for .*; expected one of \[13, 40\]; choose one"),
        ({"split": "validation"}, r"split: got 'validation'; expected one of train, val, test"),
        ({"crop": True}, r"got data.options.crop for images of \(12, 16\); expected \(480, 640\); leave it out"),
        ({"space": 0}, r"data.options.space: got 0 for .*; expected one of \[13, 40\]; choose one"),
        ({"intrinsics": (1, -1, 0, 0)}, r"intrinsics: got \(1, -1, 0, 0\); expected fx fy cx cy with fx, fy above 0"),
        ({"tasks": ["reshading"]}, r"got task reshading, of which split 'train' has no file; expected some of"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NYU(write_multitask(tmp_path), **options)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "train/image/0.npy",
            np.full((HEIGHT, WIDTH, 3), 255.0),
            r"got \(12, 16, 3\) from 255 to 255; expected \(H, W, 3\) in",
        ),
        ("train/label/0.npy", np.full((HEIGHT, WIDTH), 13.0), r"got label 14; expected none above 13; restore the file"),
        ("train/label/0.npy", np.full((HEIGHT, WIDTH), 0.5), r"got labels that are no whole numbers from -1 on; expected -1"),
        ("train/depth/0.npy", np.ones((WIDTH, HEIGHT)), r"got \(16, 12\); expected \(12, 16\) \(height, width\), as the image"),
        ("train/depth/0.npy", np.full((HEIGHT, WIDTH), "x"), r"got <U1 \(12, 16\); expected numbers in npy; save it again"),
        ("train/depth/0.npy", {"a": np.ones(3)}, r"got several arrays; expected numbers in npy; save it again"),
        ("train/image/0.npy", np.full((HEIGHT, WIDTH, 3), np.nan), r"got \(12, 16, 3\) from nan to nan; expected \(H, W, 3\)"),
        ("train/depth/0.npy", None, r"got no array \(.*\); expected numbers in npy; save it again"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, file: str, values: Any, message: str) -> None:
    write_npy(tmp_path)
    if values is None:
        (tmp_path / file).write_bytes(b"nothing")
    elif isinstance(values, dict):
        with open(tmp_path / file, "wb") as opened:
            np.savez(opened, **values)
    else:
        np.save(tmp_path / file, values)
    dataset = NYU(tmp_path)  # the others can be read
    dataset[1]
    with pytest.raises(BadFileError, match=rf"{file}: {message}"):
        dataset[0]


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "got no name; expected one a line"), (b"\xff\xfe0", "got bytes that are")]
)
def test_a_list_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    write_multitask(tmp_path)
    (tmp_path / "gt_sets/train.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"gt_sets/train\.txt: {message}"):
        NYU(tmp_path)


def test_other_folders_are_refused(unpacked: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"got a folder of no known form; expected what scripts/prepare_nyu.py makes of .*; give"
    ):
        NYU(tmp_path)
    with pytest.raises(UserError, match=r"data.root: got '.*nowhere', which is no folder; expected NYU's"):
        NYU(tmp_path / "nowhere")
    (tmp_path / "nyu.json").write_text(json.dumps({"names": ["wall"], "scenes": []}))
    with pytest.raises(UserError, match=r"nyu.json: got no description of NYU .*; expected 894 names and 1449 scenes"):
        NYU(tmp_path)
    (tmp_path / "nyu.json").write_bytes((unpacked / "nyu.json").read_bytes())
    with pytest.raises(
        ValueError, match=r"images: got 0 of 795 views; expected all, such as 0003.png; run prepare_nyu.py again"
    ):
        NYU(tmp_path)


def test_a_depth_that_is_not_in_metres_is_said(tmp_path: Path) -> None:
    write_npy(tmp_path)
    np.save(tmp_path / "train/depth/0.npy", np.full((HEIGHT, WIDTH), 2300.0))
    with pytest.warns(UserWarning, match=r"^the median depth is 2300 m, outside 0.2 to 100.0 m: is the depth of .* in metres"):
        NYU(tmp_path)
