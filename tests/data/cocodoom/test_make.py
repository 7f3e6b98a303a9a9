"""Frames of the real engine: what is written can be read, agrees with itself, and comes from the seed alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mult.data import CocoDoom
from mult.data.cocodoom.make import render_missing
from mult.data.prepare.derive import fill
from mult.errors import UserError
from mult.labels import edge_texture

pytest.importorskip("vizdoom", reason="needs the extra doom")

SMALL = {"maps": 4, "views": 2, "seed": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of each of four maps; not to be changed."""
    path = tmp_path_factory.mktemp("doom") / "small"
    before = {path.name for path in Path.cwd().iterdir()}
    assert render_missing(path, workers=1, **SMALL) == 4
    assert {path.name for path in Path.cwd().iterdir()} == before  # the engine leaves nothing where we are
    return path


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def every(root: Path, **options: object) -> list[CocoDoom]:
    return [CocoDoom(root, split, by="map", **options) for split in ("train", "val", "test")]  # type: ignore[arg-type]


def test_maps_are_split_as_cocodooms(root: Path) -> None:
    groups = [[dataset.group(i) for i in range(len(dataset))] for dataset in every(root)]
    assert groups == [["map01", "map01", "map02", "map02"], ["map03", "map03"], ["map04", "map04"]]
    names = [dataset.classes["segment_semantic"] for dataset in every(root)]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) > 3
    assert every(root)[0].camera(0) == ((400 / 3, 160, 160, 99), (200, 320))


def test_objects_masks_and_depth_agree(root: Path) -> None:
    """A pixel has a class of the JSON where `objects` has a number, and nowhere else; sky has no depth, nearly all else has."""
    seen = 0
    for dataset in every(root, surfaces=True):
        for i in range(len(dataset)):
            sample = dataset[i]
            target = sample["targets"]["segment_semantic"].numpy()
            path = root / f"{sample['id'].rpartition('/')[0]}/objects/{sample['id'].rpartition('/')[2]}.png"
            codes = np.asarray(Image.open(path)).astype(np.int64) @ [1, 256, 65536]
            assert np.array_equal(codes < 1 << 23, (target > 2) & (target < 255))
            assert np.array_equal(codes == 1 << 23, target == 2)
            valid = sample["valid"]["depth_zbuffer"][0].numpy()
            assert not valid[target == 2].any()
            assert valid[target < 2].mean() > 0.8
            assert sample["image"].std() > 0.02
            seen += int((target > 2).sum())
    assert seen > 500


def test_floors_and_ceilings_are_level_and_walls_upright(root: Path) -> None:
    """Depth, the camera and `objects` fit together: normals from the one say what the other calls a surface."""
    for split in ("train", "val", "test"):
        fill(partial(CocoDoom, root, split, by="map"), ["normal"], workers=1)
    agree = []
    for dataset in every(root, surfaces=True):
        for i in range(len(dataset)):
            sample = dataset[i]
            assert "normal" in sample["derived"]
            down = np.abs(sample["targets"]["normal"][1].numpy())
            target, valid = sample["targets"]["segment_semantic"].numpy(), sample["valid"]["normal"][0].numpy()
            agree.append(np.where(target == 1, down > 0.9, down < 0.2)[valid & (target < 2)].mean())
    assert np.mean(agree) > 0.9
    shutil.rmtree(root / "derived")


def test_edges_of_depth_lie_where_the_picture_has_some(root: Path) -> None:
    """A camera that looks elsewhere, or wider, than the picture's would put them on even walls."""
    ratios = []
    for dataset in every(root):
        for i in range(len(dataset)):
            sample = dataset[i]
            depth, valid = sample["targets"]["depth_zbuffer"][0].numpy(), sample["valid"]["depth_zbuffer"][0].numpy()
            step = np.zeros(depth.shape, np.bool_)
            step[:, 1:] = (np.abs(np.log(np.maximum(depth[:, 1:], 1) / np.maximum(depth[:, :-1], 1))) > 0.3) & (
                valid[:, 1:] & valid[:, :-1]
            )
            if step.sum() > 30:
                edges = edge_texture((sample["image"].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))[0]
                ratios.append(edges[step].mean() / edges.mean())
    assert len(ratios) > 3
    assert np.mean(ratios) > 1.2


def test_number_of_workers_and_repetition_do_not_change_a_byte(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    (broken / "run1/map02/frames.json").unlink()  # as if it had been interrupted in this map
    (broken / "run1/map02/depth/000002.png").unlink()
    shutil.rmtree(broken / "run1/map04")
    (broken / "map-full-val.json").unlink()
    assert render_missing(broken, workers=2) == 2
    assert contents(broken) == contents(root)
    assert render_missing(broken) == 0
    assert not list(broken.rglob("*.tmp"))


def test_another_seed_sees_the_maps_from_elsewhere(root: Path, tmp_path: Path) -> None:
    assert render_missing(tmp_path / "other", workers=1, maps=4, views=1, seed=4) == 4
    pictures = [
        np.asarray(Image.open(path / "run1/map01/rgb/000001.png").convert("RGB")) for path in (root, tmp_path / "other")
    ]
    assert (pictures[0] != pictures[1]).mean() > 0.5


def test_json_is_cocos(root: Path) -> None:
    tree = json.loads((root / "map-full-train.json").read_text())
    assert [entry["id"] for entry in tree["images"]] == [1_010_000_001, 1_010_000_002, 1_020_000_001, 1_020_000_002]
    assert tree["annotations"]
    for entry in tree["annotations"]:
        counts = entry["segmentation"]["counts"]
        assert sum(counts) == 64_000
        assert sum(counts[1::2]) == entry["area"] > 0
        assert entry["id"] // 10**6 == entry["image_id"]
        left, top, width, height = entry["bbox"]
        assert 0 <= left < left + width <= 320
        assert 0 <= top < top + height <= 200
        assert width * height >= entry["area"]


@pytest.mark.parametrize(("name", "value"), [("maps", 3), ("maps", 33), ("views", 0), ("seed", -1)])
def test_parameters_out_of_range_are_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"doom: got {name} {value}; expected a whole number from .*; change {name}"):
        render_missing(tmp_path / "new", **{name: value})
    with pytest.raises(UserError, match=r"doom: got workers 0; expected at least 1"):
        render_missing(tmp_path / "new", workers=0)
    assert not (tmp_path / "new").exists()


def test_the_script_continues_and_refuses(root: Path, script: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = script("make_doom", "--out", root, "--maps", 4)
    assert status == 0
    assert f"{root}: rendered 0 maps" in out
    status, _, err = script("make_doom", "--out", root, "--seed", 5)
    assert status == 2
    assert "got seed 5; expected seed 3, with which it was rendered (doom.json); use those" in err
