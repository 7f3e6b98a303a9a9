"""Which files predict.py takes for photographs, and that it replaces none of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Script = Callable[..., Any]


def write_photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def predict(script: Script, trained: Path) -> Script:
    return lambda *arguments: script("predict", "--ckpt", trained, *arguments)


def test_its_own_pictures_are_no_photographs(predict: Script, tmp_path: Path) -> None:
    photos = [write_photo(tmp_path / "photos" / name) for name in ("a.png", "b_normal.png")]
    for time in range(3):
        ended = predict(tmp_path / "photos", "--out", tmp_path / "photos")
        assert ended.status == 0, ended.err
        assert "2 of 2 images predicted" in ended.out
        assert ("14 pictures left out" in ended.out) == (time > 0)
    assert len(list((tmp_path / "photos").glob("*.npz"))) == len(photos)


def test_no_truth_and_no_image_is_replaced(predict: Script, own_tree: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in own_tree.rglob("*.png")}
    ended = predict(own_tree / "rgb", "--format", "taskonomy", "--out", own_tree)
    assert ended.status == 2
    assert "expected a folder without images: labels may lie there" in ended.err
    assert {path: path.read_bytes() for path in own_tree.rglob("*.png")} == before
    for name in ("a.png", "a_normal.png"):
        write_photo(tmp_path / "photos" / name)
    ended = predict(tmp_path / "photos", "--out", tmp_path / "photos")
    assert ended.status == 2
    assert "a_normal.png is an image that the results of a would replace" in ended.err
    (tmp_path / "photos" / "a_normal.png").rename(tmp_path / "photos" / "a_sheet.png")
    ended = predict(tmp_path / "photos", "--out", tmp_path / "photos")
    assert ended.status == 2
    assert "a_sheet.png is an image that the results of a would replace" in ended.err


def test_a_tree_s_labels_are_no_photographs(predict: Script, own_tree: Path, tmp_path: Path) -> None:
    ended = predict(own_tree, "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert "11 of 11 images predicted" in ended.out


def test_only_files_that_are_photographs_are_taken(predict: Script, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_photo(folder / "inner" / "a.png")
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.png")
    write_photo(tmp_path / "elsewhere" / "b.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked" / "round").symlink_to(folder)
    long = write_photo(folder / f"{'n' * 250}.png")
    ended = predict(folder, "--out", tmp_path / "out")
    assert ended.status == 2
    assert "2 of 3 images predicted" in ended.out
    assert f"{long}: got a name that is too long for its results" in ended.err
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.npz")) == [
        "inner/a.npz",
        "linked/b.npz",
    ]


def test_nothing_is_written_outside_of_the_folder(predict: Script, tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "photo.png")
    photo.rename(tmp_path / "..png")
    ended = predict(tmp_path / "..png", "--out", tmp_path / "out" / "deep")
    assert ended.status == 2
    assert "expected a name that does not begin with a dot" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["..png"]
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert "it is no regular file" in predict(pipe, "--out", tmp_path / "out").err
