"""data.class_map: one label space as another, pixel by pixel; a map with a gap is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult.build import build_dataset, build_mixture
from mult.config import Config, DataConfig, load_config, load_data_config
from mult.data import NYU
from mult.data.batches.class_map import ClassMapDataset, read_label_space
from mult.data.disk.encodings import CLASSES
from mult.errors import UserError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
HEIGHT, WIDTH = 6, 8
Y, X = np.mgrid[:HEIGHT, :WIDTH]
CODES = ((X + 8 * Y) % 41).astype(np.uint8)  # each of 0..40
NAMES = read_label_space("nyu40", "here")
MAPPING: dict[str, str | None] = {**dict.fromkeys(NAMES), "chair": "seat", "sofa": "seat", "wall": "rest", "otherprop": "thing"}
TO = ["rest", "thing", "seat"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """NYUD_MT of one view."""
    for folder in ("images", "segmentation", "depth", "gt_sets"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "images/0001.png")
    Image.fromarray(CODES).save(tmp_path / "segmentation/0001.png")
    np.save(tmp_path / "depth/0001.npy", np.ones((HEIGHT, WIDTH), np.float32))
    for split in ("train", "val"):
        (tmp_path / "gt_sets" / f"{split}.txt").write_text("0001\n")
    return tmp_path


def test_classes_are_mapped_by_name(root: Path) -> None:
    mapped = ClassMapDataset(NYU(root), "segment_semantic", TO, MAPPING)
    assert mapped.classes == {"segment_semantic": TO}
    sample = mapped[0]
    expected = np.full(CODES.shape, 255)
    for code, number in ((5, 2), (6, 2), (1, 0), (40, 1)):
        expected[code == CODES] = number
    assert (np.unique(expected) == [0, 1, 2, 255]).all()
    np.testing.assert_array_equal(sample["targets"]["segment_semantic"].numpy(), expected)
    np.testing.assert_array_equal(sample["valid"]["segment_semantic"][0].numpy(), expected != 255)
    assert sample["valid"]["depth_zbuffer"].all()
    assert (sample["targets"]["depth_zbuffer"] == 1).all()


def test_all_else_is_the_reader_s(root: Path) -> None:
    mapped = ClassMapDataset(NYU(root), "segment_semantic", TO, MAPPING)
    assert (len(mapped), mapped.name(0), mapped.group(0), mapped.metric_depth) == (1, "0001", "", True)
    assert mapped.tasks == ("segment_semantic", "depth_zbuffer")
    assert pickle.loads(pickle.dumps(mapped))[0]["id"] == "0001"
    with pytest.raises(AttributeError, match="nothing_like_it"):
        mapped.nothing_like_it  # noqa: B018


def test_classes_from_255_on_are_mapped_too(root: Path) -> None:
    class Many(NYU):
        """Labels of more classes than a byte holds."""

        def __getitem__(self, i: int) -> Any:
            sample = super().__getitem__(i)
            sample["targets"]["segment_semantic"][0, :3] = sample["targets"]["segment_semantic"].new_tensor([255, 256, 894])
            return sample

    many = Many(root)
    many.classes = {"segment_semantic": [f"c{i}" for i in range(255)] + [""] + [f"c{i}" for i in range(256, 895)]}
    mapping = {name: "a" if name == "c256" else "b" for name in many.classes["segment_semantic"] if name}
    target = ClassMapDataset(many, "segment_semantic", ["a", "b"], mapping)[0]["targets"]["segment_semantic"]
    assert target[0, :4].tolist() == [255, 0, 1, 1]


def test_named_spaces() -> None:
    assert read_label_space("taskonomy", "here") == list(CLASSES)
    assert (len(read_label_space("nyu13", "here")), read_label_space("nyu13", "here")[0], len(NAMES), NAMES[0]) == (
        13,
        "bed",
        40,
        "wall",
    )


@pytest.mark.parametrize(
    ("to", "change", "message"),
    [
        (
            TO,
            {"lamp": ...},
            r"segment_semantic.classes: got nothing for lamp; expected every class of the dataset",
        ),
        (
            TO,
            {"chairs": "seat"},
            r"map.segment_semantic.classes: got the class 'chairs'; expected those of the dataset: wall, floor",
        ),
        (
            TO,
            {"lamp": "things"},
            r"map.segment_semantic.classes.lamp: got 'things'; expected null \(ignore\) or one of rest",
        ),
        (
            "coco",
            {},
            r"map.segment_semantic.to: got 'coco'; expected one of taskonomy, nyu13, nyu40 or a list of names",
        ),
    ],
)
def test_a_map_with_a_gap_or_an_unknown_name_is_refused(root: Path, to: Any, change: dict[str, Any], message: str) -> None:
    mapping = {name: other for name, other in {**MAPPING, **change}.items() if other is not ...}
    with pytest.raises(UserError, match=message):
        ClassMapDataset(NYU(root), "segment_semantic", to, mapping)


def data_of(root: Path, **more: Any) -> DataConfig:
    section = {"dataset": "nyu", "root": str(root), "image_size": 32, "batch_size": 1, **more}
    tree = {"run": {"name": "x"}, "data": section, "tasks": {"segment_semantic": 1}, "optim": {"lr": 1e-3, "steps": 1}}
    return Config.from_dict(tree).data


@pytest.mark.parametrize("task", ["segment_semantic", None], ids=["of a task", "of every task"])
def test_a_config_maps_its_dataset(root: Path, task: str | None) -> None:
    class_map: dict[str, Any] = {"to": TO, "classes": MAPPING}
    data = data_of(root, class_map=class_map if task is None else {task: class_map})
    views = build_dataset(data, ["segment_semantic", "depth_zbuffer"], "test")
    assert views.classes == {"segment_semantic": TO}
    assert sorted(np.unique(views[0]["targets"]["segment_semantic"])) == [0, 1, 2, 255]
    assert build_dataset(data, ["depth_zbuffer"], "test").classes == {}
    with pytest.raises(UserError, match=r"map.segment_semantic.to: got nothing; expected a string or a list"):
        data_of(root, class_map={"segment_semantic": {"classes": MAPPING}})


def test_a_mixture_maps_each_dataset_by_its_own(root: Path) -> None:
    section = {"dataset": "nyu", "root": str(root), "image_size": 32, "batch_size": 1}
    both = [
        {**section, "class_map": {"segment_semantic": {"to": TO, "classes": MAPPING}}},
        {**section, "options": {"space": 13}},
    ]
    tree: dict[str, Any] = {"run": {"name": "x"}, "tasks": {"segment_semantic": 1}, "optim": {"lr": 1e-3, "steps": 1}}
    data = Config.from_dict({**tree, "data": both}).data
    with pytest.raises(UserError, match=r"got two label spaces of segment_semantic: .* 3 classes .* map the classes of one"):
        build_mixture([data, *data.mix], ["segment_semantic"])


def test_the_map_of_the_nyu_config_has_no_gap(root: Path) -> None:
    usual = load_config(CONFIGS / "taskonomy6.yaml").data
    data = load_data_config(CONFIGS / "eval_nyu.yaml", defaults=usual)
    assert data.class_map is not None
    ((task, class_map),) = data.class_map.items()
    mapped = ClassMapDataset(NYU(root), task, class_map.to, class_map.classes)
    assert mapped.classes["segment_semantic"] == list(CLASSES)
    target = mapped[0]["targets"]["segment_semantic"].numpy()
    assert {CLASSES[i] for i in target[NAMES.index("sofa") + 1 == CODES]} == {"couch"}
    assert (target[CODES == 40] == 255).all()
