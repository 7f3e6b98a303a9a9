"""The index finds what is there, in every layout, and notices when that changes."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mult.data.disk.array_cache import STAMP_STEP_NS
from mult.data.taskonomy.index import Index
from mult.errors import UserError


def everything(index: Index, domain: str = "rgb") -> list[Any]:
    return [(index.view(row), index.path(row, domain)) for row in range(len(index))]


def stamp(root: Path, stamp_ns: int = 10**18) -> None:
    """Give every folder a time stamp; by default one long past, as of a tree that was not written this instant."""
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        os.utime(folder, ns=(stamp_ns, stamp_ns))


def is_read_from_cache(root: Path, expected: list[Any]) -> bool:
    """Whether the index of a tree, which must be the expected one, is made without listing any folder."""
    listings = 0

    def count(folder: Any) -> list[str]:
        nonlocal listings
        listings += 1
        return listdir(folder)

    listdir = os.listdir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", count)
        assert everything(Index(root)) == expected
    return not listings


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


def test_the_second_start_maps_the_cache(by_task: Any) -> None:
    by_task.touch("rgb", 5, 6)
    stamp(by_task.root)
    before = everything(Index(by_task.root))
    assert is_read_from_cache(by_task.root, before)
    assert isinstance(Index(by_task.root)._views, np.memmap)


@pytest.mark.parametrize("change", ["add view", "remove view", "add building", "add domain", "remove domain"])
def test_a_changed_tree_is_scanned_again(tree: Any, change: str) -> None:
    tree.touch("rgb", 1, 1)
    second = tree.touch("rgb", 1, 2)
    normal = tree.touch("normal", 1, 1)
    stamp(tree.root)
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


def test_a_change_right_after_the_scan_is_noticed(by_task: Any) -> None:
    for view in range(20):  # each within a few ms of the scan before it
        by_task.touch("rgb", 1, view)
        assert len(Index(by_task.root)) == view + 1


@pytest.mark.parametrize("ahead_s", [-2, 0, 2])
def test_a_change_that_leaves_a_coarse_time_stamp_is_noticed(
    by_task: Any, monkeypatch: pytest.MonkeyPatch, ahead_s: int
) -> None:
    now = 1_800_000_000 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now)
    by_task.touch("rgb", 1, 1)
    stamp(by_task.root, now + ahead_s * 10**9)
    assert len(Index(by_task.root)) == 1
    by_task.touch("rgb", 1, 2)
    stamp(by_task.root, now + ahead_s * 10**9)  # as a file system does whose stamps are 2 s apart
    assert len(Index(by_task.root)) == 2


@pytest.mark.parametrize("ahead_s", [-3, 3, 10**6])
def test_a_stamp_that_every_change_moves_is_trusted(by_task: Any, monkeypatch: pytest.MonkeyPatch, ahead_s: int) -> None:
    now = 1_800_000_000 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now)
    assert STAMP_STEP_NS == 3 * 10**9
    by_task.touch("rgb", 1, 1)
    stamp(by_task.root, now + ahead_s * 10**9)
    before = everything(Index(by_task.root))
    assert is_read_from_cache(by_task.root, before)


OTHER_DOMAINS = """
import sys
from mult.data.disk import encodings

toy = encodings.Encoding(("toy",), ("L",), False, None, None)
encodings.ENCODINGS = {"toy": toy, **{name: encodings.ENCODINGS[name] for name in reversed(encodings.ENCODINGS)}}
from mult.data.taskonomy.index import Index

index = Index(sys.argv[1])
print(*sorted(index.domains("hanson")))
"""


def test_the_cache_of_a_version_with_other_tasks_is_not_misread(by_task: Any, cache: Path) -> None:
    for domain in ("rgb", "toy", "normal"):
        by_task.touch(domain)
    stamp(by_task.root)
    before = everything(Index(by_task.root), "normal")
    command = [sys.executable, "-c", OTHER_DOMAINS, str(by_task.root)]
    for _ in range(2):
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(Path(__file__).parents[3])}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ended.stdout.split() == ["normal", "rgb", "toy"], ended.stderr
        assert Index(by_task.root).domains("hanson") == {"rgb", "normal"}
        assert everything(Index(by_task.root), "normal") == before


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": 1}', b'{"tables": ' + b"[" * 99_999, b"\x93NUMPY damaged"])
@pytest.mark.parametrize("suffix", [".json", ".npy"])
def test_a_damaged_cache_is_made_again(by_task: Any, cache: Path, suffix: str, damage: bytes) -> None:
    by_task.touch("rgb", 5, 6)
    stamp(by_task.root)
    before = everything(Index(by_task.root))
    assert sorted(path.suffix for path in cache.rglob("*") if path.is_file()) == [".json", ".npy"]
    (file,) = cache.rglob(f"*{suffix}")
    file.write_bytes(damage)
    assert not is_read_from_cache(by_task.root, before)
    assert is_read_from_cache(by_task.root, before)


@pytest.mark.parametrize("suffix", [".json", ".npy"])
def test_no_flipped_bit_of_the_cache_changes_the_index(by_task: Any, cache: Path, suffix: str) -> None:
    by_task.touch("rgb", 5, 6)
    stamp(by_task.root)
    before = everything(Index(by_task.root))
    (file,) = cache.rglob(f"*{suffix}")
    whole = file.read_bytes()
    for position in range(0, len(whole), 1 + len(whole) // 200):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        assert everything(Index(by_task.root)) == before, position


def test_processes_that_index_one_tree_at_once_do_not_disturb_each_other(by_task: Any) -> None:
    for view in range(50):
        by_task.touch("rgb", 1, view)
    before = everything(Index(by_task.root))  # recent: every start lists and writes again
    with ThreadPoolExecutor(8) as pool:  # threads have the same process id, as two containers' processes may
        indices = list(pool.map(lambda _: everything(Index(by_task.root)), range(64)))
    assert all(each == before for each in indices)


def test_a_worker_maps_the_array_that_a_rebuild_has_replaced(by_task: Any, cache: Path) -> None:
    by_task.touch("rgb", 5, 6)
    index = Index(by_task.root)
    sent, before = pickle.dumps(index), everything(index)
    by_task.touch("rgb", 5, 7)
    assert len(Index(by_task.root)) == 2
    assert len(list(cache.rglob("*.npy"))) == 2
    copy = pickle.loads(sent)
    assert everything(copy) == before
    assert isinstance(copy._views, np.memmap)


def test_arrays_that_no_process_has_opened_for_long_are_removed(by_task: Any, cache: Path) -> None:
    by_task.touch("rgb", 5, 6)
    Index(by_task.root)
    (old,) = cache.rglob("*.npy")
    os.utime(old, (1e9, 1e9))
    by_task.touch("rgb", 5, 7)
    Index(by_task.root)
    (new,) = cache.rglob("*.npy")
    assert new != old


def test_a_worker_whose_cache_was_cleared_scans_again(by_task: Any, cache: Path) -> None:
    by_task.touch("rgb", 5, 6)
    index = Index(by_task.root)
    sent, before = pickle.dumps(index), everything(index)
    shutil.rmtree(cache / "mult")
    assert everything(pickle.loads(sent)) == before
    by_task.touch("rgb", 5, 7)
    with pytest.raises(
        UserError, match=r"got a tree that changed while it was in use, and .*views-.*npy is gone; .*; start again"
    ):
        pickle.loads(sent)


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
