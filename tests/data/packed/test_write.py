"""Packing that is interrupted, repeated or damaged, and what scripts/pack.py refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mult.build import build_dataset
from mult.config import load_config
from mult.data import NYU, Packed, Taskonomy
from mult.data.packed.codes import CODES, choose_code, encode
from mult.data.packed.write import pack
from mult.data.sample import BadFileError, Sample
from mult.errors import UserError
from mult.tasks import TASKS
from tests.data.nyu.test_dataset import write_multitask
from tests.data.packed.test_packed import SOURCE, make_pack, require_same_bits


class Interrupted(Taskonomy):
    """A reader whose process is told to end while it reads a view."""

    def __init__(self, root: Path, view: int) -> None:
        super().__init__(root)
        self.view = view

    def __getitem__(self, i: int) -> Sample:
        if i == self.view:
            raise KeyboardInterrupt
        return super().__getitem__(i)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_interrupted_at_any_view_it_goes_on_to_the_same_bytes(tmp_path: Path, tree_root: Path) -> None:
    make_pack(tmp_path / "at once", {"train": Taskonomy(tree_root)}, (32, 32), shard_views=2)
    expected = contents(tmp_path / "at once")
    assert len(expected) == 6  # three shards, the table, what is said of the split and of the pack
    for view in range(6):
        with pytest.raises(KeyboardInterrupt):
            make_pack(tmp_path / "parts", {"train": Interrupted(tree_root, view)}, (32, 32), shard_views=2)
        assert sorted((tmp_path / "parts/train").glob("*.views"))[view // 2 :] == []
        with pytest.raises(UserError, match=r"got split 'train'; expected one that is packed \(none\)"):
            Packed(tmp_path / "parts")
    done = pack({"train": Taskonomy(tree_root)}, tmp_path / "parts", (32, 32), SOURCE, workers=2, shard_views=2)
    assert (done["train"].views, done["train"].present) == (6, 4)
    assert contents(tmp_path / "parts") == expected
    for name in ("train/index.npy", "train/split.json", "train/000000002.views"):
        (tmp_path / "parts" / name).unlink()
        make_pack(tmp_path / "parts", {"train": Taskonomy(tree_root)}, (32, 32), shard_views=2)
        assert contents(tmp_path / "parts") == expected


@pytest.fixture
def packed(tmp_path: Path, tree_root: Path) -> Path:
    make_pack(tmp_path / "pack", {"train": Taskonomy(tree_root)}, (32, 32), shard_views=3)
    return tmp_path / "pack"


def test_a_flipped_bit_of_a_view_is_one_message_that_names_the_file(packed: Path) -> None:
    path = packed / "train/000000003.views"
    whole = path.read_bytes()
    rows = np.load(packed / "train/index.npy")[3:]
    expected = [Packed(packed)[i] for i in range(6)]
    rng = np.random.default_rng(0)
    for place in [0, *rng.integers(int(rows["offset"][2] + rows["size"][2]), size=40).tolist()]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        view = 3 + int(np.searchsorted(rows["offset"], place, side="right")) - 1
        reader = Packed(packed)
        with pytest.raises(BadFileError, match=rf"000000003\.views: got other bytes than were packed for {reader.name(view)} "):
            reader[view]
        for other in {0, 1, 2, 3, 4, 5} - {view}:
            require_same_bits(reader[other], expected[other])


@pytest.mark.parametrize("name", ["pack.json", "train/split.json", "train/index.npy"])
def test_damage_outside_the_views_is_seen_when_the_pack_is_opened(packed: Path, name: str) -> None:
    path = packed / name
    content = path.read_bytes()
    expected = Packed(packed)[4]
    rng = np.random.default_rng(1)
    messages = []
    for _ in range(120):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            sample = Packed(packed)[4]
        except UserError as error:
            messages.append(str(error))
        else:
            require_same_bits(sample, expected)  # blanks of the JSON, say
    assert len(messages) > 60
    assert [message for message in messages if name not in message or "\n" in message] == []


@pytest.mark.parametrize("keep", [0, 15, 16, 5000, -1])
def test_a_shard_cut_short_is_named(packed: Path, tree_root: Path, keep: int) -> None:
    path = packed / "train/000000003.views"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"000000003\.views: cannot be read as packed views .* remove it and run `mult pack"):
        make_pack(packed, {"train": Taskonomy(tree_root)}, (32, 32), shard_views=3)
    if keep != -1:  # all views are there, but not the footer
        with pytest.raises(BadFileError, match=r"000000003\.views: got other bytes than were packed for birch/point_1_view_0"):
            Packed(packed)[5]
    path.unlink()
    with pytest.raises(BadFileError, match=r"000000003\.views: got no view \(No such file or directory\)"):
        Packed(packed)[5]


def test_another_pack_than_the_folders_is_refused(packed: Path, own_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pack: got image_size \[32, 40\]; expected \[32, 32\], with which it was packed"):
        make_pack(packed, {"train": Taskonomy(own_tree)}, (32, 40), shard_views=3)
    with pytest.raises(UserError, match=r"pack: got tasks \['normal'\]; expected \['segment_semantic', "):
        make_pack(packed, {"train": Taskonomy(own_tree, tasks=["normal"])}, (32, 32), shard_views=3)
    with pytest.raises(UserError, match=r"pack: got max_depth_m 3\.0; expected None, with which it was packed"):
        pack({"train": Taskonomy(own_tree)}, packed, (32, 32), {**SOURCE, "max_depth_m": 3.0}, workers=1, shard_views=3)
    (own_tree / "rgb/alder/point_1_view_0_domain_rgb.png").unlink()
    with pytest.raises(UserError, match=r"000000000\.views: got views that the dataset no longer has there"):
        make_pack(packed, {"train": Taskonomy(own_tree)}, (32, 32), shard_views=3)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").touch()
    with pytest.raises(UserError, match=r"photos: got files but no pack\.json; expected a new folder or a pack"):
        make_pack(tmp_path / "photos", {"train": Taskonomy(own_tree)})
    with pytest.raises(UserError, match=r"photos: got no pack\.json; expected a folder that `mult pack` wrote"):
        Packed(tmp_path / "photos")


def test_the_split_of_a_benchmark_is_refused(tmp_path: Path) -> None:
    write_multitask(tmp_path / "nyu")
    with pytest.raises(UserError, match=r"split: got val of .*nyu, on which a benchmark compares at the labels' own size"):
        make_pack(tmp_path / "pack", {"val": NYU(tmp_path / "nyu", "val")})
    assert not (tmp_path / "pack").exists()


def test_what_is_held_out_of_the_pack_is_what_is_held_out_of_the_tree(
    script: Callable[..., Any], data_file: Path, tmp_path: Path
) -> None:
    held_out = ("data.hold_out=0.3", "eval.split=held_out")
    assert script("pack", "--config", data_file, "--out", tmp_path / "pack", "--workers", 1, *held_out).status == 0
    assert [path.name for path in (tmp_path / "pack").iterdir() if path.is_dir()] == ["train"]
    from_tree = load_config(data_file, held_out).data
    from_pack = replace(from_tree, dataset="packed", root=str(tmp_path / "pack"))
    for split, count in (("train", 4), ("held_out", 2)):
        tree, packed = (build_dataset(data, ["normal"], split) for data in (from_tree, from_pack))
        assert len(packed) == len(tree) == count
        assert [packed.name(i) for i in range(count)] == [tree.name(i) for i in range(count)]


def test_a_pack_of_another_version_is_refused(packed: Path) -> None:
    path = packed / "pack.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(UserError, match=r"pack\.json: got format_version 2; expected 1; pack the dataset again"):
        Packed(packed)


@pytest.mark.parametrize(
    ("task", "values", "dtype"),
    [
        (None, np.arange(256, dtype=np.uint8) / np.float32(255), "u1"),
        (None, np.array([0.1, 0.7], np.float32), "<f4"),
        ("segment_semantic", np.array([0, 16, 255]), "u1"),
        ("segment_semantic", np.array([0, 893, 255]), "<u2"),
        ("keypoints2d", np.array([0, 3, 65535], np.float32) / np.float32(65535), "<u2"),
        ("depth_zbuffer", np.array([0, 1, 777, 65534], np.float32) / np.float32(512), "<u2"),
        ("depth_zbuffer", np.array([0, 1.2345, 130.7], np.float32), "<f4"),
        ("normal", np.array([0.36, -0.48, -0.8], np.float32), "<f4"),
        ("boundary", np.array([0, 1], np.float32), "u1"),
        ("reshading", np.array([0, np.nan], np.float32), "<f4"),
    ],
)
def test_the_smallest_type_that_gives_the_values_back(task: str | None, values: Any, dtype: str) -> None:
    values = values.reshape(-1, 1, 1)
    number = choose_code(values, None if task is None else TASKS[task], resized=False)
    assert CODES[number].dtype == np.dtype(dtype)
    decoded = CODES[number].decode(encode(values, number))
    assert decoded.dtype == values.dtype
    assert decoded.tobytes() == values.tobytes()


def test_values_that_no_rounded_code_holds_are_kept_whole() -> None:
    edges = np.array([[[-0.25, 1.5]]], np.float32)
    assert CODES[choose_code(edges, TASKS["edge_texture"], resized=True)].dtype == np.dtype("<f4")


@pytest.fixture
def data_file(config_file: Path, tree_root: Path, tmp_path: Path) -> Path:
    tree = yaml.safe_load(config_file.read_text())
    tree["data"].update(root=str(tree_root), image_size=32)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "data.yaml"


def test_the_script_packs_what_the_config_reads(
    script: Callable[..., Any], data_file: Path, tmp_path: Path, tree_root: Path
) -> None:
    ended = script("pack", "--config", data_file, "--out", tmp_path / "pack", "--workers", 1)
    assert ended.status == 0, ended.err
    assert "split train: 6 views; 0 there before, 0 with a damaged file, 0 without a camera" in ended.out
    assert "split val: 3 views" in ended.out
    assert Packed(tmp_path / "pack", "val").tasks == Taskonomy(tree_root, "val").tasks
    again = script(
        "pack", "--config", data_file, "--out", tmp_path / "pack", "--split", "train", "val", "test", "data.workers=0"
    )
    assert "split train: 6 views; 6 there before" in again.out
    assert "split test: 2 views; 0 there before" in again.out
    overrides = ["run.name=packed", "data.dataset=packed", f"data.root={tmp_path}/pack", "data.image_size=48"]
    refused = script("train", "--config", data_file, *overrides)
    assert refused.status == 2
    assert "data.image_size: got [48, 48]; expected at most [32, 32]" in refused.err
    path = tmp_path / "pack/train/000000000.views"
    path.write_bytes(bytes(path.stat().st_size))
    ended = script("train", "--config", data_file, *overrides, "data.image_size=32", "data.workers=1")
    assert ended.status == 2
    assert ended.err.count("error: ") == 1
    assert "000000000.views: got other bytes than were packed for " in ended.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.dataset=packed", r"data.dataset: got a pack \(.*\); expected what it was made from"),
        ("data.mix=[{root: elsewhere}]", r"data: got a list of datasets; expected one, as a pack holds one"),
    ],
)
def test_what_is_no_single_dataset_is_refused(
    script: Callable[..., Any], data_file: Path, tmp_path: Path, override: str, message: str
) -> None:
    ended = script("pack", "--config", data_file, "--out", tmp_path / "pack", override)
    assert ended.status == 2
    assert re.search(message, ended.err)
    assert not (tmp_path / "pack").exists()


def test_a_part_of_a_split_and_no_split_are_refused(script: Callable[..., Any], config_file: Path, tmp_path: Path) -> None:
    arguments = ["--config", config_file, "--out", tmp_path / "pack", "--workers", 1, "data.hold_out=0.3"]
    for chosen in (["--split", "held_out"], ["--split", "train", "held_out"], ["data.split=held_out"]):
        ended = script("pack", *arguments, *chosen)
        assert ended.status == 2
        assert re.match(r"error: split: got held_out, which is a part of the training split; .*; pack train: ", ended.err)
    with pytest.raises(UserError, match=r"split: got none; expected at least one to pack"):
        pack({}, tmp_path / "pack", (32, 32), SOURCE)
    ended = script("pack", *arguments[:4], "--workers", 0)
    assert (ended.status, ended.err) == (
        2,
        "error: --workers: got 0; expected a whole number above 0; leave it out for the default\n",
    )
    assert not (tmp_path / "pack").exists()
