"""Archives and options that CocoDoom refuses, each with its message."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mult.data import CocoDoom
from mult.errors import UserError
from tests.data.cocodoom.archive import FIRST, HEIGHT, SECOND, TREE, WIDTH, annotation


def change(path: str, value: Any) -> dict[str, Any]:
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
    (root / "run-full-train.json").write_text(json.dumps(change(path, value)))
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
        (
            {"tasks": ["keypoints2d"]},
            r"got task keypoints2d: it is not derived yet; `mult annotate .*; expected some",
        ),
    ],
)
def test_options_that_mean_nothing(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CocoDoom(root, **options)


def test_no_such_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"got '.*nowhere', which is no folder; expected .*; .*mult make-doom"):
        CocoDoom(tmp_path / "nowhere")
