"""Toy trees of the two benchmarks: what their readers get is what the renderer made, row by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mult.data import NYU, Pascal
from mult.data.prepare.toys import write_toys
from mult.data.rooms import parts
from mult.data.rooms.dataset import render
from mult.errors import UserError

HEIGHT, WIDTH = 48, 64
ROWS = slice(8, 56)
"""The middle ones of a square view."""


@pytest.fixture(scope="module")
def nyud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toys") / "nyud"
    write_toys(root, "nyu", train=2, val=1, size=(HEIGHT, WIDTH), seed=3)
    return root


@pytest.fixture(scope="module")
def pascal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toys") / "pascal"
    write_toys(root, "pascal", train=3, val=1, size=(HEIGHT, WIDTH), seed=3)
    return root


def find_changes(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    changes = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(labels.shape):
        right, below = labels[y, min(x + 1, WIDTH - 1)], labels[min(y + 1, HEIGHT - 1), x]
        changes[y, x] = right != labels[y, x] or below != labels[y, x]
    return changes


def test_nyud(nyud: Path) -> None:
    dataset = NYU(nyud, "train", normals="file")
    assert dataset.tasks == ("segment_semantic", "depth_zbuffer", "normal", "boundary")
    assert [dataset.name(i) for i in range(len(dataset))] == ["0001", "0002"]
    assert [NYU(nyud, "test").name(0), len(NYU(nyud, "test"))] == ["0003", 1]
    for number, split, i in ((1, "train", 1), (2, "test", 0)):
        sample, view = NYU(nyud, split, normals="file")[i], render(3, WIDTH, number, 0)
        targets = {task: target.numpy() for task, target in sample["targets"].items()}
        valid = view.valid[ROWS]
        assert sample["image"].shape == (3, HEIGHT, WIDTH)
        difference = np.abs(sample["image"].permute(1, 2, 0).numpy() * 255 - view.image[ROWS])
        assert np.median(difference) < 4
        np.testing.assert_array_equal(sample["valid"]["depth_zbuffer"][0].numpy(), valid)
        np.testing.assert_array_equal(targets["depth_zbuffer"][0][valid], view.depth_m[ROWS][valid])
        np.testing.assert_array_equal(sample["valid"]["normal"][0].numpy(), valid)
        cosine = (targets["normal"] * view.normal[:, ROWS]).sum(0)[valid]
        assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.6  # 8 bits
        np.testing.assert_array_equal(targets["boundary"][0], find_changes(view.instance[ROWS]))
        names = np.array([*dataset.classes["segment_semantic"]])
        code, ids = view.class_code[ROWS], targets["segment_semantic"]
        np.testing.assert_array_equal(ids == 255, code == parts.UNCERTAIN)
        for class_code, name in ((parts.BACKGROUND, "wall"), (parts.CHAIR, "chair"), (parts.TV, "television")):
            np.testing.assert_array_equal((names[np.minimum(ids, 39)] == name) & (ids != 255), code == class_code)


def test_pascal(pascal: Path) -> None:
    names = {"segment_semantic": {parts.COUCH: "sofa", parts.PLANT: "pottedplant", parts.TABLE: "diningtable"}}
    people = 0
    for number in range(3):
        dataset = Pascal(pascal, "train")
        sample, view = dataset[number], render(3, WIDTH, number, 0)
        targets = {task: target.numpy() for task, target in sample["targets"].items()}
        code, valid, depth = view.class_code[ROWS], view.valid[ROWS], view.depth_m[ROWS]
        ids = targets["segment_semantic"]
        for class_code, name in names["segment_semantic"].items():
            place = dataset.classes["segment_semantic"].index(name)
            np.testing.assert_array_equal(ids == place, code == class_code)
        np.testing.assert_array_equal(targets["boundary"][0], find_changes(code))
        salient = targets["saliency"][0] > 0
        assert not (salient & ~valid).any()
        assert depth[salient].max() <= np.median(depth[valid]) <= depth[valid & ~salient].min() * 1.01
        shared = np.isin(code, (parts.BACKGROUND, parts.CHAIR, parts.COUCH, parts.BED, parts.TABLE, parts.TV))
        np.testing.assert_array_equal(sample["valid"]["normal"][0].numpy(), shared & valid)
        has_parts = sample["valid"]["human_parts"].any()
        people += int(has_parts)
        if has_parts:
            is_person = np.isin(targets["human_parts"], range(1, 7))
            assert not (is_person & ~np.isin(code, (parts.CHAIR, parts.COUCH))).any()
            of_one = targets["human_parts"][view.instance[ROWS] == view.instance[ROWS][is_person][0]]
            assert (np.diff(of_one[of_one > 0].astype(int)) >= 0).all()  # from head to lower leg, row by row
            assert set(of_one) >= {1, 6}
    assert 0 < people < 3  # an image without a chair or a couch has no file


def test_a_tree_is_a_function_of_its_seed(nyud: Path, tmp_path: Path, script: Callable[..., Any]) -> None:
    arguments = ("--benchmark", "nyu", "--train", 2, "--val", 1, "--size", HEIGHT, WIDTH)
    ended = script("make_toys", *arguments, "--out", tmp_path / "same", "--seed", 3)
    assert ended.status == 0, ended.err
    assert "toys, not the benchmark" in ended.out
    assert script("make_toys", *arguments, "--out", tmp_path / "other", "--seed", 4).status == 0
    for file in ("images/0001.jpg", "edge/0003.png", "gt_sets/val.txt"):
        assert (tmp_path / "same" / file).read_bytes() == (nyud / file).read_bytes()
    assert (tmp_path / "other/images/0001.jpg").read_bytes() != (nyud / "images/0001.jpg").read_bytes()
    ended = script("make_toys", *arguments, "--out", tmp_path / "same")
    assert ended.status == 2
    assert "which is there already; expected a new folder" in ended.err


@pytest.mark.parametrize(
    ("benchmark", "train", "size", "message"),
    [
        ("nyud", 1, (48, 64), "got 'nyud'; expected one of nyu, pascal"),
        ("nyu", 0, (48, 64), "got 0 images to train and 1 to evaluate"),
        ("nyu", 1, (64, 48), "got the size 64 x 48; expected a height of at least 32 and at most the width"),
    ],
)
def test_mistakes(tmp_path: Path, benchmark: str, train: int, size: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_toys(tmp_path / "toys", benchmark, train=train, val=1, size=size)
    assert not (tmp_path / "toys").exists()
