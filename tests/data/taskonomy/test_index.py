"""The index finds what is there, in every layout, and notices when that changes."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mult.data.taskonomy.index import _TICK_NS, Index, _list
from mult.errors import UserError


def everything(index: Index, domain: str = "rgb") -> list[Any]:
    return [(index.view(row), index.path(row, domain)) for row in range(len(index))]


def age(root: Path) -> None:
    """Put every folder's mtime into the past, as a tree has that was not written this instant."""
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        os.utime(folder, (1e9, 1e9))


def test_finds_the_views_of_every_layout(tree: Any) -> None:
    written = {}
    for point, view in [(10, 2), (9, 11), (9, 2)]:
        written[tree.building, point, view] = tree.touch("rgb", point, view)
    tree.touch("normal", 9, 11)
    tree.touch("depth_zbuffer", 77, 1)  # no rgb: no view
    index = Index(tree.root)
    assert everything(index) == [(key, written[key]) for key in sorted(written)]
    assert [index.path(row, "normal") is not None for row in range(3)] == [False, True, False]
    assert index.domains("hanson") == {"rgb", "normal"}
    assert (index.flat is not None) == (tree.layout == "flat")


@pytest.mark.parametrize(
    ("domain", "folder", "ending"),
    [
        ("segment_semantic", "segment_semantic", "segmentsemantic.png"),
        ("segment_semantic", "segment_semantic", "segment_semantic.png"),
        ("mask_valid", "mask_valid", "mask_valid.png"),
        ("mask_valid", "mask_valid", "depth_zbuffer.png"),
        ("point_info", "point_info", "fixatedpose.json"),
        ("point_info", "points", "point_info.json"),
    ],
)
def test_file_name_exceptions(tree: Any, domain: str, folder: str, ending: str) -> None:
    tree.touch("rgb")
    path = tree.path(folder, f"point_3_view_14_domain_{ending}")
    path.touch()
    assert Index(tree.root).path(0, domain) == path


def test_mixed_endings_in_one_folder(by_task: Any) -> None:
    paths = []
    for view, ending in enumerate(["segmentsemantic.png", "segment_semantic.png"]):
        by_task.touch("rgb", 1, view)
        paths.append(by_task.path("segment_semantic", f"point_1_view_{view}_domain_{ending}"))
        paths[-1].touch()
    assert [path for _, path in everything(Index(by_task.root), "segment_semantic")] == paths


def test_strange_names_are_passed_over(by_task: Any) -> None:
    by_task.touch("rgb", 1, 1)
    for name in (
        "._point_1_view_2_domain_rgb.png",
        "point_1_view_3_domain_rgb.png.77.tmp",
        "point_1_view_x_domain_rgb.png",
        "point_1_view_4_copy_domain_rgb.png",
        "point_1_view_99999999999999_domain_rgb.png",
        "point_1_view_5_domain_normal.png",
        "Thumbs.db",
    ):
        by_task.path("rgb", name).touch()
    assert [view for view, _ in everything(Index(by_task.root))] == [("hanson", 1, 1)]


def test_buildings_are_contiguous_and_sorted(by_task: Any) -> None:
    for building in ("pinesdale", "allensville", "hanson"):
        for view in range(3):
            by_task.touch("rgb", 0, view, building)
    index = Index(by_task.root)
    assert index.buildings == ["allensville", "hanson", "pinesdale"]
    assert [index.view(row)[0] for row in index.rows("hanson")] == ["hanson"] * 3
    assert [len(index.rows(building)) for building in (*index.buildings, "nowhere")] == [3, 3, 3, 0]


def test_second_start_maps_the_cache_without_listing(by_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    by_task.touch("rgb", 5, 6)
    before = everything(Index(by_task.root))

    def refuse(folder: Any) -> None:
        raise AssertionError(f"listed {folder}")

    monkeypatch.setattr(os, "listdir", refuse)
    again = Index(by_task.root)
    assert everything(again) == before
    assert isinstance(again._views, np.memmap)


@pytest.mark.parametrize("change", ["add view", "remove view", "add building", "add domain", "remove domain"])
def test_a_changed_tree_is_scanned_again(tree: Any, change: str) -> None:
    tree.touch("rgb", 1, 1)
    second = tree.touch("rgb", 1, 2)
    normal = tree.touch("normal", 1, 1)
    age(tree.root)
    assert len(Index(tree.root)) == 2
    if change == "add view":
        tree.touch("rgb", 1, 3)
        assert len(Index(tree.root)) == 3
    elif change == "remove view":
        second.unlink()
        assert len(Index(tree.root)) == 1
    elif change == "add building" and tree.layout != "flat":
        tree.touch("rgb", 1, 1, "allensville")
        assert Index(tree.root).buildings == ["allensville", "hanson"]
    elif change.startswith("add"):
        tree.touch("reshading", 1, 1)
        assert Index(tree.root).domains("hanson") == {"rgb", "normal", "reshading"}
    else:
        normal.unlink()
        normal.parent.rmdir()
        assert Index(tree.root).domains("hanson") == {"rgb"}


def test_a_folder_is_listed_no_sooner_than_its_next_change_can_be_told(by_task: Any) -> None:
    by_task.touch("rgb")
    stamp, names = _list(by_task.root)
    assert names == ["rgb"]
    assert time.time_ns() - stamp >= _TICK_NS


def test_a_change_right_after_the_scan_is_noticed(by_task: Any) -> None:
    for view in range(20):  # each within a few ms of the scan before it
        by_task.touch("rgb", 1, view)
        assert len(Index(by_task.root)) == view + 1


@pytest.mark.parametrize("damage", [b"", b"{", b'{"version": 1}', b"\x93NUMPY damaged"])
def test_a_damaged_cache_is_made_again(by_task: Any, cache: Path, damage: bytes) -> None:
    by_task.touch("rgb", 5, 6)
    before = everything(Index(by_task.root))
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in files) == [".json", ".npy"]
    for file in files:
        file.write_bytes(damage)
        assert everything(Index(by_task.root)) == before


def test_without_a_cache_it_stays_in_memory_and_says_so(by_task: Any, cache: Path) -> None:
    by_task.touch("rgb", 5, 6)
    (cache / "mult").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="set XDG_CACHE_HOME to a folder that can be written"):
        index = Index(by_task.root)
    assert [view for view, _ in everything(index)] == [("hanson", 5, 6)]
    assert everything(pickle.loads(pickle.dumps(index))) == everything(index)


def test_a_pickled_index_holds_no_views(by_task: Any) -> None:
    for view in range(500):
        by_task.touch("rgb", 5, view)
    index = Index(by_task.root)
    sent = pickle.dumps(index)
    assert len(sent) < index._views.nbytes
    copy = pickle.loads(sent)
    assert isinstance(copy._views, np.memmap)
    assert everything(copy) == everything(index)


def test_symlinked_buildings_are_followed(by_task: Any, tmp_path: Path) -> None:
    by_task.touch("rgb", 5, 6)
    elsewhere = tmp_path / "elsewhere"
    folder = by_task.path("rgb", "x").parent
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert everything(Index(by_task.root)) == [
        (("hanson", 5, 6), folder / "point_5_view_6_domain_rgb.png"),
    ]


def test_refusals(by_task: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which is no folder; expected the root of a tree"):
        Index(tmp_path / "nothing")
    by_task.touch("normal")
    with pytest.raises(UserError, match=r"got no file rgb/.*; expected a tree in one of Taskonomy's four layouts"):
        Index(by_task.root)
    by_task.touch("rgb")
    twice = by_task.root / "rgb" / "taskonomy" / "hanson"
    twice.mkdir(parents=True)
    (twice / "point_3_view_14_domain_rgb.png").touch()
    with pytest.raises(UserError, match="both rgb of hanson; expected one folder a building"):
        Index(by_task.root)
