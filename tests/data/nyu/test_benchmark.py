"""NYUD_MT's boundaries and normals, on files written here by formulas without a symmetry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mult.data import NYU
from mult.data.batches.transforms import flip
from mult.data.sample import BadFileError
from mult.errors import UserError

HEIGHT, WIDTH = 9, 14
Y, X = np.mgrid[:HEIGHT, :WIDTH]
EDGES = (X + 2 * Y) % 5 == 0
NORMALS = np.stack([0.1 + X / 40, 0.3 - Y / 30, -0.5 - X * Y / 400], axis=2)
NORMALS /= np.linalg.norm(NORMALS, axis=2, keepdims=True)
NONE = (X == 3) & (Y < 4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """NYUD_MT of one view in each split; its normals are PNG."""
    for folder in ("images", "segmentation", "depth", "normals", "edge", "gt_sets"):
        (tmp_path / folder).mkdir()
    for split, name in (("train", "0002"), ("val", "0001")):
        (tmp_path / "gt_sets" / f"{split}.txt").write_text(f"{name}\n")
        picture = np.stack([9 * X, 250 - 8 * Y, X + Y], axis=2).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(((X + 3 * Y) % 41).astype(np.uint8)).save(tmp_path / "segmentation" / f"{name}.png")
        np.save(tmp_path / "depth" / f"{name}.npy", 1 + X / 10 + Y / 20)
        Image.fromarray(np.where(EDGES, 255, 0).astype(np.uint8)).save(tmp_path / "edge" / f"{name}.png")
        codes = np.rint((np.where(NONE[..., None], 0, NORMALS) + 1) / 2 * 255).astype(np.uint8)
        Image.fromarray(codes).save(tmp_path / "normals" / f"{name}.png")
    return tmp_path


def test_four_tasks(root: Path) -> None:
    dataset = NYU(root, normals="file")
    assert dataset.tasks == ("segment_semantic", "depth_zbuffer", "normal", "boundary")
    assert dataset.labelled == set(dataset.tasks)
    assert dataset.metric_arguments == {"boundary": {"max_distance": 0.011}}
    assert list(dataset.classes) == ["segment_semantic"]
    sample = dataset[0]
    assert sample["derived"] == ()
    np.testing.assert_array_equal(sample["targets"]["boundary"].numpy(), EDGES[None])
    assert sample["valid"]["boundary"].all()
    np.testing.assert_array_equal(sample["valid"]["normal"][0].numpy(), ~NONE)
    normal = sample["targets"]["normal"].numpy()
    angle = np.degrees(np.arccos(np.clip((normal * NORMALS.transpose(2, 0, 1)).sum(0), -1, 1)))
    assert angle[~NONE].max() < 0.5  # 8 bits
    assert (normal[:, NONE] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(normal, axis=0)[~NONE], 1, rtol=1e-6)


def test_normals_of_components(root: Path) -> None:
    (root / "normals/0002.png").unlink()
    stored = np.where(NONE[..., None], 0, 2.5 * NORMALS)  # of any length
    stored[7, 11, 1] = np.nan
    np.save(root / "normals/0002.npy", stored)
    sample = NYU(root, tasks=["normal"], normals="file")[0]
    valid = sample["valid"]["normal"][0].numpy()
    expected = ~NONE
    expected[7, 11] = False
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_allclose(sample["targets"]["normal"].numpy()[:, valid], NORMALS[valid].T, atol=1e-6)
    assert (sample["targets"]["normal"].numpy()[:, ~valid] == 0).all()


def test_a_mirrored_view(root: Path) -> None:
    sample = NYU(root, normals="file")[0]
    mirrored = flip(sample)
    x, y, z = sample["targets"]["normal"].numpy()[:, :, ::-1]
    np.testing.assert_array_equal(mirrored["targets"]["normal"].numpy(), np.stack([-x, y, z]))
    np.testing.assert_array_equal(mirrored["targets"]["boundary"][0].numpy(), EDGES[:, ::-1])


def test_by_default_normals_are_derived(root: Path) -> None:
    dataset = NYU(root)
    assert dataset.tasks == ("segment_semantic", "depth_zbuffer", "boundary")
    with pytest.raises(UserError, match="got task normal, of which split 'train' has no file"):
        NYU(root, tasks=["normal"])


def test_normals_that_are_not_there_are_refused(root: Path) -> None:
    (root / "normals").rename(root / "others")
    with pytest.raises(UserError, match=r"got data.options.normals: file without NYUD_MT's normals/; expected depth"):
        NYU(root, normals="file")


def test_bad_files_are_named(root: Path) -> None:
    dataset = NYU(root, normals="file")
    Image.fromarray(np.full((HEIGHT, WIDTH), 7, np.uint8)).save(root / "edge/0002.png")
    with pytest.raises(BadFileError, match=r"edge/0002.png: got values such as \[7\]; expected 0 and 255; restore the file"):
        dataset[0]
    (root / "edge/0002.png").unlink()
    with pytest.raises(BadFileError, match=r"edge/0002.png: got a file that cannot be read"):
        dataset[0]
    Image.fromarray(np.where(EDGES, 255, 0).astype(np.uint8)).convert("1").save(root / "edge/0002.png")
    np.testing.assert_array_equal(dataset[0]["targets"]["boundary"].numpy(), EDGES[None])
    (root / "normals/0002.png").unlink()
    np.save(root / "normals/0002.npy", np.zeros((WIDTH, HEIGHT, 3)))
    with pytest.raises(BadFileError, match=r"normals/0002.npy: got \(14, 9, 3\); expected \(9, 14, 3\): the height and width"):
        dataset[0]
