"""Which files are a frame: by patterns and by time stamps; and what is refused instead of guessed."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from mult.data.prepare.layouts import Layout, find_frames
from mult.data.prepare.pairs import RGB_SUFFIXES, Frame, fill_in, find_files, pair_by_time
from mult.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def found(root: Path, rgb: str, depth: str) -> list[tuple[str, str, str]]:
    frames = find_frames(root, Layout(rgb, depth, 1000))
    return [(frame.id, frame.rgb.relative_to(root).as_posix(), frame.depth.relative_to(root).as_posix()) for frame in frames]


def test_one_folder_by_two_patterns(tmp_path: Path) -> None:
    touch(tmp_path, *(f"s/frame-{i}.{kind}.png" for i in (2, 10) for kind in ("color", "depth")), "s/frame-2.pose.txt")
    assert found(tmp_path, "s/frame-*.color.png", "s/frame-*.depth.png") == [
        ("2", "s/frame-2.color.png", "s/frame-2.depth.png"),
        ("10", "s/frame-10.color.png", "s/frame-10.depth.png"),
    ]


def test_names_that_differ_in_folders_and_endings(tmp_path: Path) -> None:
    touch(tmp_path, "a/rgb/1.jpg", "a/d/1.npy", "b c/rgb/1.png", "b c/d/1.npy", "b c/rgb/.hidden.png", "b c/rgb/1.txt")
    assert found(tmp_path, "*/rgb/*.*", "*/d/*.npy") == [
        ("a/1", "a/rgb/1.jpg", "a/d/1.npy"),
        ("b c/1", "b c/rgb/1.png", "b c/d/1.npy"),
    ]


def test_trees_of_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "rgb/1.png", "depth/1.png", "x/y/rgb/1.png", "x/y/depth/1.png")
    assert [name for name, _, _ in found(tmp_path, "**/rgb/*.png", "**/depth/*.png")] == ["1", "x/y/1"]
    touch(tmp_path, "r/u/v/7.jpg", "d/u/v/7.exr")
    assert found(tmp_path, "r", "d") == [("u/v/7", "r/u/v/7.jpg", "d/u/v/7.exr")]


def test_brackets_are_no_wildcards(tmp_path: Path) -> None:
    touch(tmp_path, "scan[1]/rgb/a.png", "scan[1]/d/a.png")
    assert len(found(tmp_path, "scan[1]/rgb/*.png", "scan[1]/d/*.png")) == 1
    assert len(found(tmp_path, "*[1]/rgb/*.png", "*[1]/d/*.png")) == 1


def test_other_files_of_a_frame_are_named_after_it() -> None:
    frame = Frame(("scans", "7"), ("000", "b"), Path("r"), Path("d"))
    assert fill_in("**/camera_*/k_*_?.txt", frame) == "scans/camera_7/k_000_b.txt"
    assert fill_in("**/camera.json", Frame(("",), ("1",), Path("r"), Path("d"))) == "camera.json"


def test_fewer_than_half_of_the_files_in_pairs_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, *(f"rgb/{i}.png" for i in range(4)), "depth/0.png", "depth/1.png", "depth/8.png", "depth/9.png")
    with pytest.warns(UserWarning, match=r"^4 files without a partner of the same name left out, e.g. .*depth/8.png"):
        assert len(found(tmp_path, "rgb", "depth")) == 2
    (tmp_path / "depth/1.png").rename(tmp_path / "depth/7.png")
    with pytest.raises(UserError, match=r"got 4 files of colour \(e.g. 0.png\) and 4 of depth .*, of which 1 are pairs; "):
        found(tmp_path, "rgb", "depth")


def test_a_file_is_no_pair_with_itself(tmp_path: Path) -> None:
    touch(tmp_path, "f/1.png", "f/1_depth.png")
    with pytest.raises(UserError, match=r"f/1.png: got one file as colour and as depth; .* give for instance\s+--rgb"):
        found(tmp_path, "f", "f")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "rgb/1.png", "rgb/1.jpg")
    with pytest.raises(UserError, match=r"rgb/1.png: got a second file beside 1.jpg; expected one of each name"):
        find_files(tmp_path, "rgb", RGB_SUFFIXES)


def lists(root: Path, rgb: dict[str, float], depth: dict[str, float]) -> tuple[Path, Path]:
    paths = []
    for kind, times in (("rgb", rgb), ("depth", depth)):
        touch(root, *(f"{kind}/{name}.png" for name in times))
        (root / f"{kind}.txt").write_text("# time file\n" + "".join(f"{time} {kind}/{n}.png\n" for n, time in times.items()))
        paths.append(root / f"{kind}.txt")
    return paths[0], paths[1]


def pairs(frames: list[Frame]) -> list[tuple[str, str]]:
    return [(frame.rgb.stem, frame.depth.stem) for frame in frames]


def test_time_stamps_pair_nearest_first_and_each_once(tmp_path: Path) -> None:
    rgb = {"a": 1.000, "b": 1.033, "c": 1.066, "e": 3.0}
    depth = {"x": 1.012, "y": 1.030, "z": 1.060, "w": 2.9}
    paths = lists(tmp_path, rgb, depth)
    assert pairs(pair_by_time(*paths, (), 0.02)) == [("a", "x"), ("b", "y"), ("c", "z")]
    # x is nearer to a than to b, but y is nearest to b: what is left for a is x only within the limit.
    assert pairs(pair_by_time(*paths, (), 0.007)) == [("b", "y"), ("c", "z")]


def test_time_stamps_pair_as_all_pairs_sorted_by_their_gap(tmp_path: Path) -> None:
    rgb = {f"r{i}": i * 0.0333 + 0.001 * (i * 7 % 5) for i in range(12)}
    depth = {f"d{i}": i * 0.0333 + 0.0012 * (i * 5 % 9) for i in range(12)}
    paths = lists(tmp_path, rgb, dict(reversed(depth.items())))
    gaps = sorted((abs(rgb[r] - depth[d]), r, d) for r in rgb for d in depth)
    expected: dict[str, str] = {}
    for gap, r, d in gaps:
        if gap <= 0.02 and r not in expected and d not in expected.values():
            expected[r] = d
    assert pairs(pair_by_time(*paths, (), 0.02)) == [(r, expected[r]) for r in rgb if r in expected]
    assert len(expected) > 9


def test_a_list_of_pairs(tmp_path: Path) -> None:
    touch(tmp_path, "rgb/1.5.png", "depth/1.6.png", "rgb/2.png", "depth/2.png")
    path = tmp_path / "associations.txt"
    path.write_text("1.5 rgb/1.5.png 1.51 depth/1.6.png\n2.0 rgb/2.png 2.0 depth/2.png\n")
    frames = find_frames(tmp_path, Layout("", "", 5000, pairs=("associations.txt",)))
    assert pairs(frames) == [("1.5", "1.6"), ("2", "2")]
    for text, message in {
        "1.5 rgb/1.5.png 1.6 depth/1.6.png": r"got rgb/1.5.png and depth/1.6.png, 0.1 s apart; expected at most 0.02 s",
        "1 rgb/2.png 1 depth/2.png\n1 rgb/2.png 1 depth/1.6.png": r"got .*rgb/2.png in two pairs; expected each file once",
        "1 rgb/3.png 1 depth/2.png": r"rgb/3.png: got no such file, which a list of frames names",
        "rgb/2.png depth/2.png": r"got the line 'rgb/2.png depth/2.png'; expected 'time colour time depth'",
        "a rgb/2.png b depth/2.png": r"got the line .*; expected 'time colour time depth'",
        "# nothing": r"associations.txt: got no line; expected one a frame",
    }.items():
        path.write_text(text + "\n")
        with pytest.raises(UserError, match=message):
            find_frames(tmp_path, Layout("", "", 5000, pairs=("associations.txt",)))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_a_list_changes_no_pair(tmp_path: Path, order: tuple[int, ...]) -> None:
    names, times = "xyz", [1.0, 1.1, 1.2]
    paths = lists(tmp_path, {"a": 1.01, "b": 1.11, "c": 1.19}, {names[i]: times[i] for i in order})
    assert pairs(pair_by_time(*paths, (), 0.02)) == [("a", "x"), ("b", "y"), ("c", "z")]
