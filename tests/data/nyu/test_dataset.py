"""NYU in the folders NYUD_MT and LibMTL's npy, written here by formulas without a symmetry, and folders that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult.data import NYU
from mult.data.prepare.derive import fill
from mult.data.sample import BadFileError
from mult.errors import UserError

HEIGHT, WIDTH = 12, 16
Y, X = np.mgrid[:HEIGHT, :WIDTH]


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
    with pytest.raises(UserError, match=r"got task normal, of which split 'test' has no file; .* let `mult annotate"):
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
        ({"intrinsics": (-1, 1, 0, 0)}, r"intrinsics: got \(-1, 1, 0, 0\); expected \[fx, fy, cx, cy\] with fx, fy above 0"),
        ({"intrinsics": (1, -1, 0, 0)}, r"intrinsics: got fy -1; expected fy above 0; .* ICL-NUIM, .*, give 1"),
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
        ("train/depth/0.npy", None, r"got a file that cannot be read \(it does not begin as npy does\)"),
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


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got a folder of no known form; expected what `mult prepare-nyu` makes of .*; give"):
        NYU(tmp_path)
    with pytest.raises(UserError, match=r"data.root: got '.*nowhere', which is no folder; expected NYU's"):
        NYU(tmp_path / "nowhere")
    (tmp_path / "nyu.json").write_text(json.dumps({"names": ["wall"], "scenes": []}))
    with pytest.raises(UserError, match=r"nyu.json: got no description of NYU .*; expected 894 names and 1449 scenes"):
        NYU(tmp_path)
    (tmp_path / "nyu.json").write_text(json.dumps({"names": ["name"] * 894, "scenes": ["scene"] * 1449}))
    with pytest.raises(
        ValueError, match=r"images: got 0 of 795 views; expected all, such as 0003.png; run prepare_nyu.py again"
    ):
        NYU(tmp_path)


def test_a_depth_that_is_not_in_metres_is_said(tmp_path: Path) -> None:
    write_npy(tmp_path)
    np.save(tmp_path / "train/depth/0.npy", np.full((HEIGHT, WIDTH), 2300.0))
    with pytest.warns(UserWarning, match=r"^the median depth is 2300 m, outside 0.2 to 100.0 m: is the depth of .* in metres"):
        NYU(tmp_path)
