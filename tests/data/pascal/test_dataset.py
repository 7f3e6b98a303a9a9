"""PASCAL_MT, on files written here; and files that are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mult.data import Pascal
from mult.data.batches.class_map import ClassMapDataset
from mult.data.batches.transforms import flip
from mult.data.pascal.dataset import CLASSES
from mult.data.sample import BadFileError
from mult.errors import UserError
from tests.data.pascal.tree import make_object, write_parts, write_pascal

SIZE = (12, 17)
TASKS = ("segment_semantic", "normal", "boundary", "saliency", "human_parts")
IDS = {"train": ["2008_000002", "2009_000015"], "val": ["2010_000007"]}
Y, X = np.mgrid[: SIZE[0], : SIZE[1]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pascal(tmp_path, SIZE, IDS)
    return tmp_path


def test_five_tasks(tmp_path: Path) -> None:
    maps = write_pascal(tmp_path, SIZE, IDS)["2009_000015"]
    dataset = Pascal(tmp_path)
    assert dataset.tasks == TASKS
    assert dataset.labelled == set(TASKS)
    assert [dataset.name(i) for i in range(len(dataset))] == IDS["train"]
    assert [Pascal(tmp_path, split).name(0) for split in ("val", "test")] == ["2010_000007", "2010_000007"]
    assert dataset.metric_arguments == {"boundary": {"max_distance": 0.0075}}
    assert (len(dataset.classes["segment_semantic"]), dataset.classes["segment_semantic"][15]) == (21, "person")
    parts = dataset.classes["human_parts"]
    assert (len(parts), parts[0]) == (7, "background")
    sample = dataset[1]
    targets = {task: target.numpy() for task, target in sample["targets"].items()}
    valid = {task: mask[0].numpy() for task, mask in sample["valid"].items()}
    assert np.abs(sample["image"].permute(1, 2, 0).numpy() * 255 - maps["image"]).max() < 4
    np.testing.assert_array_equal(targets["segment_semantic"], maps["segments"])
    np.testing.assert_array_equal(valid["segment_semantic"], maps["segments"] != 255)
    np.testing.assert_array_equal(targets["saliency"][0], (X > 2) & (Y < 9))
    named = np.array(parts)[targets["human_parts"]]
    np.testing.assert_array_equal(named, np.select([maps["hand"], maps["head"]], ["lower arm", "head"], "background"))
    assert valid["saliency"].all()
    assert valid["boundary"].all()
    assert valid["human_parts"].all()
    expected = np.zeros(SIZE, bool)
    for y, x in np.ndindex(SIZE):
        label = maps["labels"][y, x]
        right = maps["labels"][y, min(x + 1, SIZE[1] - 1)]
        below = maps["labels"][min(y + 1, SIZE[0] - 1), x]
        expected[y, x] = right != label or below != label
    assert 0 < expected.sum() < expected.size / 3
    np.testing.assert_array_equal(targets["boundary"][0], expected)
    shared = np.isin(maps["labels"], (150, 300))  # wall, and tvmonitor; not sheep, nor unknown
    assert shared.any()
    assert not shared.all()
    np.testing.assert_array_equal(valid["normal"], shared)
    np.testing.assert_allclose(targets["normal"][:, shared], maps["normals"][shared].T, atol=0.01)
    assert (targets["normal"][:, ~shared] == 0).all()
    x, y, z = targets["normal"][:, :, ::-1]
    np.testing.assert_array_equal(flip(sample)["targets"]["normal"].numpy(), np.stack([-x, y, z]))


def test_images_without_human_parts_are_masked(root: Path) -> None:
    dataset = Pascal(root)
    assert dataset.native(0) == set(TASKS) - {"human_parts"}
    assert dataset.native(1) == set(TASKS)
    sample = dataset[0]
    assert not sample["valid"]["human_parts"].any()
    assert (sample["targets"]["human_parts"] == 255).all()
    whole = np.ones(SIZE)
    write_parts(root / "human_parts/2009_000015.mat", [make_object(12, whole, {"head": whole}), make_object(15, whole, {})])
    sample = dataset[1]  # a dog with a head, and a person without parts
    assert not sample["valid"]["human_parts"].any()


def test_one_of_two_tasks_of_classes_is_mapped(root: Path) -> None:
    mapping = dict.fromkeys(Pascal(root).classes["human_parts"], "body") | {"background": None}
    mapped: Any = ClassMapDataset(Pascal(root), "human_parts", ["body"], mapping)
    assert mapped.classes == {"segment_semantic": list(CLASSES), "human_parts": ["body"]}
    plain, sample = Pascal(root)[1], mapped[1]
    assert sample["targets"]["segment_semantic"].equal(plain["targets"]["segment_semantic"])
    assert sample["valid"]["human_parts"][0].equal(plain["targets"]["human_parts"] > 0)
    with pytest.raises(UserError, match=r"data.class_map: got 'normal'; expected a task of classes \(segment_semantic, human"):
        ClassMapDataset(Pascal(root), "normal", ["body"], mapping)


def test_tasks_are_those_whose_folders_are_there(root: Path) -> None:
    (root / "db_info").rename(root / "other")
    assert Pascal(root).tasks == ("segment_semantic", "boundary", "saliency", "human_parts")
    with pytest.raises(UserError, match="got task normal, of which split 'train' has no file"):
        Pascal(root, tasks=["normal"])
    assert Pascal(root, tasks=["saliency"])[0]["targets"].keys() == {"saliency"}


# Bad input.


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.root: got '.*nowhere', which is no folder; expected PASCAL_MT"):
        Pascal(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"Context/train.txt: got no such file; expected a name a line"):
        Pascal(tmp_path)


def test_lists_of_classes_that_are_none(root: Path) -> None:
    (root / "db_info/context_classes.json").write_text("[]]")
    with pytest.raises(UserError, match=r"db_info: got no lists of classes .*; expected nyu_classes.json, a list of names"):
        Pascal(root)


def test_scipy_is_asked_for_where_a_mat_file_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UserError, match=r"got no SciPy to read .mat files; .*pip install \"mult-dense\[labels\]\""):
        Pascal(root, tasks=["human_parts"])
    assert len(Pascal(root, tasks=["segment_semantic", "saliency"])) == 2


def test_cameras_are_unknown(root: Path) -> None:
    with pytest.raises(UserError, match="got photographs of unknown cameras"):
        Pascal(root).camera(0)


LABELS, PARTS = "pascal-context/trainval/2009_000015.mat", "human_parts/2009_000015.mat"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (LABELS, b"nothing", r"got a file that cannot be read \(.*\); expected a .mat; fetch it again"),
        (LABELS, None, r"got a file that cannot be read"),
        (LABELS, {"Labels": np.zeros(SIZE)}, r"got no variable LabelMap; expected it; fetch the file again"),
        (LABELS, {"LabelMap": np.zeros(SIZE[::-1], int)}, r"got LabelMap int64 \(17, 12\); expected integers \(12, 17\)"),
        (LABELS, {"LabelMap": np.full(SIZE, 0.5)}, r"got LabelMap float64 \(12, 17\); expected integers"),
        (PARTS, {"anno": np.zeros((1, 1))}, r"got no annotation of parts \(.*\); expected PASCAL-Part's anno"),
        (PARTS, {"LabelMap": np.zeros(SIZE)}, r"got no variable anno"),
        (
            PARTS,
            [make_object(15, np.ones(SIZE), {"tail": np.ones(SIZE)})],
            r"got no annotation of parts \(KeyError\('tail'\)\)",
        ),
        (
            PARTS,
            [make_object(15, np.ones(SIZE), {"head": np.ones((5, 5))})],
            r"got a part's mask \(5, 5\); expected \(12, 17\)",
        ),
        ("semseg/VOC12/2009_000015.png", np.full(SIZE, 21, np.uint8), r"got class 21; expected 0 to 20, or 255"),
        ("sal_distill/2009_000015.png", np.zeros((5, 5), np.uint8), r"got \(5, 5\) pixels .*; expected \(12, 17\)"),
        ("normals_distill/2009_000015.png", np.zeros(SIZE, np.uint8), r"got an image of mode L; expected RGB"),
        ("JPEGImages/2009_000015.jpg", None, r"got a file that cannot be read"),
    ],
)
def test_wrong_files_are_named(root: Path, file: str, content: Any, message: str) -> None:
    dataset, path = Pascal(root), root / file
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        savemat(path, content)
    elif isinstance(content, list):
        write_parts(path, content)
    else:
        Image.fromarray(content).save(path)
    dataset[0]  # the others can be read
    with pytest.raises(BadFileError, match=rf"{file}: {message}"):
        dataset[1]
