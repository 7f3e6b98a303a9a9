"""A pack against the dataset that it was made from: the same samples, in the same order, at the packed size."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mult.config import Config
from mult.data import NYU, CocoDoom, Packed, Pascal, Taskonomy
from mult.data.batches.transforms import AugmentedDataset, TrainTransform
from mult.data.packed.write import covering_size, pack
from mult.data.sample import BadFileError, Reader, Sample
from mult.errors import UserError
from tests.data.cocodoom import archive
from tests.data.nyu.test_dataset import write_multitask
from tests.data.pascal.tree import write_pascal
from tests.run_files import find_differences, read_lines, read_weights

SOURCE: dict[str, Any] = {
    "dataset": "taskonomy",
    "root": "tree",
    "subset": "tiny",
    "max_depth_m": None,
    "options": {},
    "class_map": {},
}


def make_pack(root: Path, readers: dict[str, Reader], size: tuple[int, int] = (64, 64), shard_views: int = 4) -> None:
    pack(readers, root, size, SOURCE, workers=1, shard_views=shard_views)


def require_same_bits(packed: Sample, expected: Sample) -> None:
    assert packed["id"] == expected["id"]
    assert packed["derived"] == expected["derived"]
    assert packed["image"].numpy().tobytes() == expected["image"].numpy().tobytes()
    assert list(packed["targets"]) == list(expected["targets"])
    for task, target in expected["targets"].items():
        for ours, theirs in ((packed["targets"][task], target), (packed["valid"][task], expected["valid"][task])):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            assert torch.equal(ours, theirs), task


def open_all(name: str, root: Path, tree_root: Path) -> dict[str, Reader]:
    """The splits of a dataset with views of its own, each dataset with other types of values."""
    if name == "taskonomy":
        return {split: Taskonomy(tree_root, split) for split in ("train", "val", "test")}
    if name == "pascal":
        write_pascal(root / "pascal", (12, 17), {"train": ["2008_000002", "2009_000015"], "val": ["2010_000007"]})
        return {"train": Pascal(root / "pascal")}
    if name == "nyu":
        write_multitask(root / "nyu")
        return {"train": NYU(root / "nyu", space=13)}
    archive.write(root / "doom", archive.TREE)
    return {"train": CocoDoom(root / "doom")}


@pytest.mark.parametrize("name", ["taskonomy", "pascal", "nyu", "cocodoom"])
def test_views_of_their_own_size_come_back_to_the_bit(name: str, tmp_path: Path, tree_root: Path) -> None:
    readers = open_all(name, tmp_path, tree_root)
    make_pack(tmp_path / "pack", readers)
    for split, reader in readers.items():
        packed = Packed(tmp_path / "pack", split)
        assert len(packed) == len(reader)
        assert packed.tasks == packed.available == reader.tasks
        assert packed.classes == reader.classes
        assert packed.labelled == reader.labelled.intersection(reader.tasks)
        assert packed.metric_depth == reader.metric_depth
        assert packed.metric_arguments == reader.metric_arguments
        assert packed.underivable == reader.underivable
        for i in range(-1, len(reader)):
            require_same_bits(packed[i], reader[i])
            assert (packed.name(i), packed.group(i)) == (reader.name(i), reader.group(i))
            assert packed.native(i) == reader.native(i).intersection(reader.tasks)
        with pytest.raises(IndexError):
            packed[len(reader)]


def test_cameras_scale_with_the_images(tmp_path: Path, tree_root: Path) -> None:
    readers: dict[str, Reader] = {"test": Taskonomy(tree_root, "test")}  # 48 x 40, f 40, centre (20, 24)
    make_pack(tmp_path / "pack", readers, (24, 20))
    (fx, fy, cx, cy), size = Packed(tmp_path / "pack", "test").camera(1)
    assert size == (24, 20)
    np.testing.assert_allclose([fx, fy], 20)
    np.testing.assert_allclose([cx, cy], [9.75, 11.75])  # (c + 1/2) / 2 - 1/2
    write_pascal(tmp_path / "pascal", (12, 17), {"train": ["2008_000002"], "val": []})
    make_pack(tmp_path / "people", {"train": Pascal(tmp_path / "pascal")})
    with pytest.raises(UserError, match=r"got no camera of 2008_000002; expected one"):
        Packed(tmp_path / "people").camera(0)


def test_larger_views_are_resized_and_rounded_by_half_a_code(tmp_path: Path, tree_root: Path) -> None:
    reader = Taskonomy(tree_root)
    make_pack(tmp_path / "pack", {"train": reader}, (24, 30))
    packed = Packed(tmp_path / "pack")
    assert [tuple(packed[i]["image"].shape[1:]) for i in range(6)] == [(30, 30)] * 4 + [(25, 30)] * 2
    for i in range(len(reader)):
        ours = packed[i]
        # Torch's own interpolation, of views that have every pixel: our transforms are compared with it in their own tests.
        shape = ours["image"].shape[1:]
        image = torch.nn.functional.interpolate(reader[i]["image"][None], shape, mode="bilinear", antialias=True)
        assert 0.1 / 255 < (ours["image"] - image[0]).abs().max() < 0.501 / 255
        rows, columns = (
            torch.tensor([math.floor((k + 0.5) * long / short) for k in range(short)])
            for long, short in zip(reader[i]["image"].shape[1:], shape, strict=True)
        )
        for task in ("segment_semantic", "depth_zbuffer"):
            for key in ("targets", "valid"):
                expected = reader[i][key][task][..., rows, :][..., columns]
                assert torch.equal(ours[key][task], expected)
        # Means over areas, of a source in which every pixel is cut into shape[0] x shape[1] parts.
        edges = reader[i]["targets"]["edge_texture"].double().repeat_interleave(shape[0], 1).repeat_interleave(shape[1], 2)
        edges = torch.nn.functional.avg_pool2d(edges[None], tuple(reader[i]["image"].shape[1:]))[0]
        assert (ours["targets"]["edge_texture"] - edges).abs().max() < 0.51 / 65535
        normal, valid = ours["targets"]["normal"], ours["valid"]["normal"][0]
        assert torch.equal(normal[:, ~valid], torch.zeros_like(normal[:, ~valid]))
        torch.testing.assert_close(normal.norm(dim=0)[valid], torch.ones(int(valid.sum())), rtol=0, atol=3e-7)


def test_what_a_training_gets_differs_by_the_rounding_alone(tmp_path: Path, tree_root: Path) -> None:
    # Square views and a square size: resized to the network's size before as after, so nothing but codes is rounded.
    reader = Taskonomy(tree_root)
    make_pack(tmp_path / "pack", {"train": reader}, (32, 32))
    transform = TrainTransform((32, 32), scale=(1, 1), jitter=0.0)
    tree, packed = (AugmentedDataset(data, transform, seed=4) for data in (reader, Packed(tmp_path / "pack")))
    for key in [(epoch, i) for epoch in range(3) for i in range(4)]:
        expected, ours = tree[key], packed[key]
        assert (ours["image"] - expected["image"]).abs().max() < 0.501 / 255
        for task, target in expected["targets"].items():
            assert torch.equal(ours["valid"][task], expected["valid"][task])
            assert (ours["targets"][task] - target).abs().max() < (0 if target.dtype == torch.int64 else 2e-5) + 1e-12, task


def test_a_run_on_a_pack_has_the_bits_of_a_run_on_its_tree(
    tmp_path: Path, tree_root: Path, configured: Callable[..., Config], train_run: Callable[..., Path]
) -> None:
    make_pack(tmp_path / "pack", {split: Taskonomy(tree_root, split) for split in ("train", "val")}, shard_views=2)
    from_tree = train_run(configured("run.name=tree"))
    config = configured("run.name=pack", "data.dataset=packed", f"data.root={tmp_path}/pack", "data.workers=1")
    from_pack = train_run(config)
    assert find_differences(read_weights(from_tree), read_weights(from_pack)) == []
    assert read_lines(from_tree, "train") == read_lines(from_pack, "train")
    assert read_lines(from_tree, "val") == read_lines(from_pack, "val")


def test_some_tasks_and_the_nearer_depth(tmp_path: Path, tree_root: Path) -> None:
    make_pack(tmp_path / "pack", {"train": Taskonomy(tree_root)})
    tasks = ("edge_texture", "depth_zbuffer")
    packed, reader = (
        dataset(root, tasks=tasks, max_depth_m=2.0) for dataset, root in ((Packed, tmp_path / "pack"), (Taskonomy, tree_root))
    )
    assert packed.tasks == ("depth_zbuffer", "edge_texture")
    assert 0 < packed[0]["valid"]["depth_zbuffer"].float().mean() < 0.9
    for i in range(len(reader)):
        require_same_bits(packed[i], reader[i])


def test_a_copy_in_a_worker_carries_no_table(tmp_path: Path, tree_root: Path) -> None:
    make_pack(tmp_path / "pack", {"train": Taskonomy(tree_root)})
    packed = Packed(tmp_path / "pack")
    sent = pickle.dumps(packed)
    assert b"alder" not in sent
    require_same_bits(pickle.loads(sent)[5], packed[5])


@pytest.mark.parametrize(
    ("size", "image_size", "expected"),
    [
        ((512, 512), (224, 224), (224, 224)),
        ((480, 640), (224, 224), (224, 299)),  # the short side; the long one has room for crops
        ((640, 480), (224, 224), (299, 224)),
        ((480, 640), (300, 320), (300, 400)),
        ((100, 100), (224, 224), (100, 100)),
        ((100, 400), (224, 224), (100, 400)),  # it would have to be enlarged
    ],
)
def test_the_size_that_covers(size: tuple[int, int], image_size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert covering_size(size, image_size) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, r"got split 'test'; expected one that is packed \(train, val\); pack it"),
        ({"tasks": ["saliency"]}, r"got task saliency; expected some of segment_semantic, .*, which were packed; leave it out"),
        (
            {"image_size": (64, 65)},
            r"data\.image_size: got \[64, 65\]; expected at most \[64, 64\] \(height, width\)",
        ),
    ],
)
def test_what_was_not_packed_is_refused(arguments: dict[str, object], message: str, tmp_path: Path, tree_root: Path) -> None:
    make_pack(tmp_path / "pack", {split: Taskonomy(tree_root, split) for split in ("train", "val")})
    with pytest.raises(UserError, match=message):
        Packed(tmp_path / "pack", **arguments)  # type: ignore[arg-type]


def test_a_larger_depth_than_was_packed_is_refused(tmp_path: Path, tree_root: Path) -> None:
    reader = Taskonomy(tree_root, max_depth_m=2.5)
    pack({"train": reader}, tmp_path / "pack", (64, 64), {**SOURCE, "max_depth_m": 2.5}, workers=1)
    require_same_bits(Packed(tmp_path / "pack")[1], reader[1])
    with pytest.raises(UserError, match=r"data\.max_depth_m: got 3\.0; expected at most 2\.5, with which"):
        Packed(tmp_path / "pack", max_depth_m=3.0)


def test_a_view_that_was_damaged_stays_so(tmp_path: Path, own_tree: Path) -> None:
    (own_tree / "normal/birch/point_0_view_0_domain_normal.png").write_bytes(b"not a picture")
    reader = Taskonomy(own_tree)
    with pytest.raises(BadFileError, match=r"point_0_view_0_domain_normal\.png"):
        make_pack(tmp_path / "pack", {"train": reader})
    done = pack({"train": reader}, tmp_path / "pack", (64, 64), SOURCE, skip_bad_files=True, workers=1, shard_views=4)
    assert (done["train"].views, done["train"].present, done["train"].bad) == (6, 4, 1)
    packed = Packed(tmp_path / "pack")
    with pytest.raises(BadFileError, match=r"point_0_view_0_domain_normal\.png: got a file that cannot be read"):
        packed[4]
    require_same_bits(packed[5], reader[5])
