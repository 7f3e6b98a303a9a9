"""Derived labels: what the cache holds, against the plane, the lamp and the generators; and what a reader makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mult.data import Taskonomy
from mult.data.disk.derived import DerivedLabels
from mult.data.prepare.derive import fill
from mult.errors import UserError
from mult.labels import edge_texture, keypoints2d

Array = NDArray[Any]
HEIGHT, WIDTH = SHAPE = (26, 34)
FX, FY, CX, CY = INTRINSICS = (40.0, 31.0, 15.5, 11.0)
FACING = np.array([0.3, -0.5, -0.8]) / np.linalg.norm([0.3, -0.5, -0.8])
OTHER = np.array([-0.6, 0.2, -0.7]) / np.linalg.norm([-0.6, 0.2, -0.7])
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
RAYS = np.stack([(COLUMNS - CX) / FX, (ROWS - CY) / FY, np.ones(SHAPE)])
DEPTH_M = -1.6 / np.tensordot(FACING, RAYS, axes=1)
HOLES = (ROWS < 4) & (COLUMNS > 27)
CODES = np.where(HOLES, 65535, np.rint(DEPTH_M * 512)).astype(np.uint16)
DERIVED = ("normal", "keypoints2d", "edge_texture", "reshading")


def picture(seed: int) -> Array:
    image = np.random.default_rng(seed).integers(0, 60, (*SHAPE, 3), dtype=np.uint8)
    image[4:15, 20:30] = (200, 90, 10)
    return image


def shade(normal: Array) -> Array:
    r = DEPTH_M * np.linalg.norm(RAYS, axis=0)
    return np.asarray(np.clip(1.6 * 8 / (8 + r**2) * -np.tensordot(normal, RAYS, 1) * DEPTH_M / r, 0, 1))


def write(tree: Any, view: int, *leave_out: str) -> None:
    files = {
        "rgb": ("rgb.png", picture(view)),
        "depth_zbuffer": ("depth_zbuffer.png", CODES),
        "point_info": ("point_info.json", {"intrinsics": INTRINSICS, "size": SHAPE}),
    }
    for domain, (ending, content) in files.items():
        if domain not in leave_out:
            tree.write(domain, ending, content, view=view)


def write_normals(tree: Any, view: int) -> None:
    pixels = np.broadcast_to(np.rint((OTHER + 1) / 2 * 255).astype(np.uint8), (*SHAPE, 3)).copy()
    pixels[20:] = 128
    tree.write("normal", "normal.png", pixels, view=view)


@pytest.fixture
def one_view(by_task: Any) -> Any:
    write(by_task, 0)
    (by_task.root / "splits.csv").write_text("id,train,val,test\nhanson,1,0,0\n")
    return by_task


def opening(root: Path, kind: type[Taskonomy] = Taskonomy) -> Callable[[Sequence[str]], Taskonomy]:
    return lambda tasks: kind(root, "train", tasks=tasks)


def stored(root: Path, task: str, view: int = 0) -> Array:
    with Image.open(root / "derived" / task / "hanson" / f"point_3_view_{view}.png") as image:
        return np.asarray(image)


def test_files_hold_what_depth_and_colour_give(one_view: Any) -> None:
    root = one_view.root
    done = fill(opening(root), workers=1)
    assert done.counts == {task: {"written": 1} for task in DERIVED}
    assert done.refused == {}
    assert done.depth is not None
    assert done.depth.median_m == pytest.approx(float(np.median(CODES[~HOLES])) / 512)

    normal = stored(root, "normal").astype(float) / 255 * 2 - 1
    cosine = normal @ FACING / np.linalg.norm(normal, axis=-1)
    assert np.degrees(np.arccos(np.clip(cosine[~HOLES], -1, 1))).max() < 4  # depth in steps of 2 mm, 8 bits
    assert (stored(root, "normal")[HOLES] == 128).all()
    difference = np.abs(stored(root, "reshading")[..., 0] - 255 * shade(FACING))[~HOLES]
    assert difference.max() < 8
    assert difference.mean() < 1.5
    assert (stored(root, "reshading")[HOLES] == 0).all()
    for task, generate in (("edge_texture", edge_texture), ("keypoints2d", keypoints2d)):
        pixels = stored(root, task).astype(int)
        assert pixels.max() > 100
        assert np.abs(pixels - generate(picture(0))[0] * 65535).max() <= 0.51
    assert not list(root.rglob("*.tmp*"))


def test_a_reader_finds_them_and_says_so(one_view: Any) -> None:
    write(one_view, 1)
    write_normals(one_view, 1)
    write(one_view, 2, "depth_zbuffer")
    done = fill(opening(one_view.root), workers=1)
    assert done.counts["normal"] == {"written": 1, "native": 1, "depth": 1}
    assert done.counts["reshading"] == {"written": 2, "depth": 1}
    assert done.counts["keypoints2d"] == {"written": 3}
    assert str(done).splitlines()[0] == "normal: 1 written, 1 the dataset's own, 1 without depth"

    tasks = ("depth_zbuffer", *DERIVED)
    samples = list(map(Taskonomy(one_view.root, "train", tasks=tasks).__getitem__, range(3)))
    assert [sample["derived"] for sample in samples] == [
        DERIVED,
        ("keypoints2d", "edge_texture", "reshading"),
        ("keypoints2d", "edge_texture"),
    ]
    made, own, bare = samples
    for task in ("normal", "reshading"):
        np.testing.assert_array_equal(made["valid"][task][0].numpy(), ~HOLES)
        assert (made["targets"][task][:, HOLES] == 0).all()
    np.testing.assert_allclose(made["targets"]["normal"].norm(dim=0).numpy()[~HOLES], 1, atol=1e-5)
    assert np.degrees(np.arccos(FACING @ made["targets"]["normal"].numpy()[:, 15, 9].astype(float))) < 2
    # Where the dataset has normals, they are what is shaded.
    both = ~HOLES & (ROWS < 20)
    np.testing.assert_array_equal(own["valid"]["reshading"][0].numpy(), both)
    np.testing.assert_allclose(own["targets"]["reshading"][0].numpy()[both], shade(OTHER)[both], atol=0.008)
    assert own["valid"]["normal"].any()
    for task in ("depth_zbuffer", "normal", "reshading"):
        assert not bare["valid"][task].any()
    np.testing.assert_allclose(bare["targets"]["edge_texture"].numpy(), edge_texture(picture(2)), atol=0.51 / 65535)


def test_what_is_there_is_never_made_again(one_view: Any) -> None:
    write(one_view, 1)
    fill(opening(one_view.root), workers=1)
    files = {path: path.stat().st_mtime_ns for path in (one_view.root / "derived").rglob("*.png")}
    assert len(files) == 8
    gone = one_view.root / "derived/reshading/hanson/point_3_view_1.png"
    whole = gone.read_bytes()
    gone.unlink()
    done = fill(opening(one_view.root), workers=1)
    assert done.counts == {task: {"there": 2} for task in DERIVED[:3]} | {"reshading": {"there": 1, "written": 1}}
    assert gone.read_bytes() == whole
    assert [path for path, time in files.items() if path.stat().st_mtime_ns != time] == [gone]


def test_labels_of_other_options_are_refused_until_they_are_removed(one_view: Any, script: Callable[..., Any]) -> None:
    arguments = ["annotate", "--dataset", "taskonomy", "--root", one_view.root, "--split", "train", "--workers", 1]
    assert script(*arguments).status == 0
    record = json.loads((one_view.root / "derived/labels.json").read_text())
    made_from = {"dataset": "taskonomy", "max_depth_m": None, "formulas": 2}
    assert record["normal"]["made_from"] == record["reshading"]["made_from"] == made_from
    assert record["edge_texture"] == {"made_from": {"formulas": 2}}
    assert record["normal"]["median_m"] == pytest.approx(float(np.median(CODES[~HOLES])) / 512)
    before = stored(one_view.root, "normal")
    cut = float(np.median(CODES[~HOLES])) / 512
    refused = script(*arguments, f"max_depth_m={cut}")
    assert refused.status == 2
    assert re.search(r"derived/normal: got max_depth_m [\d.]+; expected max_depth_m None, of which .*--again", refused.err)
    np.testing.assert_array_equal(stored(one_view.root, "normal"), before)
    # Edges are of the colours alone.
    assert script(*arguments, f"max_depth_m={cut}", "--tasks", "edge_texture").status == 0
    assert script(*arguments, f"max_depth_m={cut}", "--again").status == 0
    far = ~HOLES & (512 * cut < CODES)
    assert (stored(one_view.root, "normal")[far] == 128).all()
    assert script(*arguments, f"max_depth_m={cut}").out.startswith(f"{one_view.root}, train:\nnormal: 1 there before")
    again = json.loads((one_view.root / "derived/labels.json").read_text())
    assert again["normal"]["median_m"] < record["normal"]["median_m"]


def test_derived_labels_of_an_earlier_version_are_not_taken_for_these(one_view: Any) -> None:
    fill(opening(one_view.root), workers=1)
    (one_view.root / "derived/labels.json").unlink()
    with pytest.raises(UserError, match=r"derived/normal: got labels without a record of what they were made from"):
        fill(opening(one_view.root), workers=1)


def test_only_the_named_tasks_are_made(one_view: Any) -> None:
    done = fill(opening(one_view.root), ["edge_texture", "normal"], workers=1)
    assert list(done.counts) == ["normal", "edge_texture"]
    assert sorted(path.name for path in (one_view.root / "derived").iterdir() if path.is_dir()) == ["edge_texture", "normal"]
    with pytest.raises(
        ValueError, match=r"tasks: got 'segment_semantic'; expected some of normal, .*; no other can be derived"
    ):
        fill(opening(one_view.root), ["segment_semantic"], workers=1)


class Relative(Taskonomy):
    """Depth up to an unknown scale."""

    metric_depth = False


def test_reshading_needs_metres(one_view: Any) -> None:
    opened = opening(one_view.root, Relative)
    with pytest.raises(UserError, match=r"tasks: got reshading; expected what can be derived, its fall-off needs metres and"):
        fill(opened, ["reshading"], workers=1)
    assert not (one_view.root / "derived").exists()
    done = fill(opened, workers=1)
    assert list(done.counts) == list(DERIVED[:3])
    assert "reshading: not derived, its fall-off needs metres" in str(done)
    assert done.depth is None


class TooCoarse(Taskonomy):
    """A dataset that knows its depth is no good for normals."""

    underivable = {"normal": "its depth has 8 bits", "reshading": "its depth has 8 bits"}  # noqa: RUF012


def test_a_dataset_may_refuse(one_view: Any) -> None:
    done = fill(opening(one_view.root, TooCoarse), workers=1)
    assert list(done.counts) == ["keypoints2d", "edge_texture"]
    assert str(done).endswith("normal: not derived, its depth has 8 bits\nreshading: not derived, its depth has 8 bits")


def test_without_depth_only_colour_gives_labels(by_task: Any) -> None:
    write(by_task, 0, "depth_zbuffer")
    (by_task.root / "splits.csv").write_text("id,train,val,test\nhanson,1,0,0\n")
    done = fill(opening(by_task.root), workers=1)
    assert done.counts == {"keypoints2d": {"written": 1}, "edge_texture": {"written": 1}}
    assert done.refused == dict.fromkeys(("normal", "reshading"), "no view has depth")
    with pytest.raises(UserError, match=r"tasks: got normal; expected what can be derived, no view has depth; leave it out"):
        fill(opening(by_task.root), ["normal"], workers=1)


def test_the_darkest_shade_is_no_hole(tmp_path: Path) -> None:
    cache = DerivedLabels(tmp_path)
    valid = np.array([[True, True, False]])
    cache.write("reshading", "a/b", np.array([[[0.0001, 0.5, 0.7]]]), valid)
    target, mask = DerivedLabels(tmp_path).read("reshading", "a/b", (1, 3)) or pytest.fail("nothing there")
    assert mask[0].tolist() == valid.tolist()
    np.testing.assert_allclose(target[0, 0].numpy(), [1 / 255, 128 / 255, 0], atol=1e-6)


def test_an_unknown_or_wrong_camera_is_refused(one_view: Any) -> None:
    wrong = {"intrinsics": INTRINSICS, "size": SHAPE[::-1]}
    one_view.write("point_info", "point_info.json", wrong, view=0)
    with pytest.raises(
        ValueError, match=r"hanson/point_3_view_0: got a camera of \(34, 26\) pixels .*; expected \(26, 34\), as"
    ):
        fill(opening(one_view.root), workers=1)
    (one_view.root / "point_info/hanson/point_3_view_0_domain_point_info.json").unlink()
    with pytest.raises(UserError, match=r"got no point_info of .*; expected one to know the camera"):
        fill(opening(one_view.root), workers=1)
    assert fill(opening(one_view.root), ["edge_texture"], workers=1).counts == {"edge_texture": {"written": 1}}


def test_an_implausible_depth_is_said(one_view: Any) -> None:
    one_view.write("depth_zbuffer", "depth_zbuffer.png", np.full(SHAPE, 60, np.uint16), view=0)
    with pytest.warns(UserWarning, match=r"^the median depth is 0.1172 m, outside 0.2 to 100.0 m: are the options of .* right"):
        fill(opening(one_view.root), workers=1)


def test_a_task_that_nobody_made_is_refused(one_view: Any) -> None:
    (one_view.root / "derived/normal/other").mkdir(parents=True)
    with pytest.raises(
        ValueError,
        match=r"got task normal, of which split 'train' has no file; expected some of depth_zbuffer; "
        r"leave the task out or add its files, or let `mult annotate --dataset` derive it",
    ):
        Taskonomy(one_view.root, "train", tasks=["normal"])


@pytest.mark.parametrize("spoil", ["cut", "other size", "other mode"])
def test_a_damaged_file_is_named(one_view: Any, spoil: str) -> None:
    fill(opening(one_view.root), workers=1)
    path = one_view.root / "derived/normal/hanson/point_3_view_0.png"
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:200])
    else:
        Image.fromarray(stored(one_view.root, "normal")[1:] if spoil == "other size" else CODES).save(path)
    expected = {"cut": "a whole image", "other size": r"\(26, 34\)", "other mode": "RGB"}[spoil]
    with pytest.raises(UserError, match=rf"derived/normal/hanson/point_3_view_0.png: got .*; expected {expected}"):
        Taskonomy(one_view.root, "train", tasks=["normal"])[0]


# The script.


def test_the_script_fills_all_splits_in_processes(one_view: Any, script: Callable[..., Any]) -> None:
    for building in ("inglenook", "jasper"):
        one_view.write("rgb", "rgb.png", picture(5), building=building)
    (one_view.root / "splits.csv").write_text("id,train,val,test\nhanson,1,0,0\ninglenook,0,1,0\njasper,0,0,1\n")
    arguments = ["annotate", "--dataset", "taskonomy", "--root", one_view.root, "--workers", 2]
    done = script(*arguments)
    assert done.status == 0, done.err
    assert f"{one_view.root}, train:\nnormal: 1 written\n" in done.out
    assert f"{one_view.root}, test:\nkeypoints2d: 1 written\nedge_texture: 1 written\nnormal: not derived, no view" in done.out
    again = script(*arguments, "subset=medium", "--split", "val", "--tasks", "edge_texture")
    assert again.out == f"{one_view.root}, val:\nedge_texture: 1 there before\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dataset", "taskonmy", "--root", "x"],
            r"data\.dataset: got 'taskonmy'; expected one of taskonomy, .*; did you mean 'taskonomy'\?",
        ),
        (["--dataset", "taskonomy", "--root", "nowhere"], r"data\.root: got 'nowhere', which is no folder"),
        (["--dataset", "taskonomy", "--root", "x", "subst=tiny"], r"override 'data.subst=tiny': data: got unknown key 'subst'"),
        (["--dataset", "taskonomy"], "^error: annotate: got --dataset without --root; expected all of these; give them too$"),
        (
            ["--rgb", "x", "--depth", "y"],
            r"^error: annotate: got --rgb without --depth-scale, --intrinsics, --out, --b",
        ),
    ],
)
def test_the_script_refuses(script: Callable[..., Any], arguments: list[str], message: str) -> None:
    done = script("annotate", *arguments)
    assert done.status == 2
    assert re.search(message, done.err), done.err
