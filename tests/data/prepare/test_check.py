"""check_data.py on trees that are right, and on trees with one thing wrong: it says which, by name, and exits accordingly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult.data.prepare.check import Report, check, space_evenly
from mult.data.prepare.compare import SCALES, Directions, Frame, judge_frame, judge_scale
from mult.data.sample import Sample
from mult.data.taskonomy.dataset import Taskonomy
from mult.data.taskonomy.write import write_view
from mult.labels import reshading

SIZE, FOCAL = 96, 90.0
CAMERA = (FOCAL, FOCAL, 47.5, 47.5)


def room(flip: tuple[int, int, int] = (1, 1, 1), scale: float = 1.0) -> dict[str, Any]:
    """Floor, back wall and a side wall, from which every pixel's depth and normal are known; both may be stored wrongly."""
    y, x = (np.mgrid[:SIZE, :SIZE] - 47.5) / FOCAL
    planes = [((0, -1, 0), 1.3), ((0.2, 0, -1), 3.1), ((1, 0, -0.3), 1.9)]  # normal n towards the camera, distance d: n.p = -d
    ray = np.stack([x, y, np.ones_like(x)])
    toward = [np.tensordot(np.array(normal) / np.linalg.norm(normal), ray, 1) for normal, _ in planes]
    depths = np.stack(
        [np.where(cos < -1e-6, -distance / cos, np.inf) for cos, (_, distance) in zip(toward, planes, strict=True)]
    )
    nearest = depths.argmin(0)
    depth_m = depths.min(0)
    units = np.array([np.array(normal) / np.linalg.norm(normal) for normal, _ in planes])
    normal = units[nearest].transpose(2, 0, 1)
    valid = depth_m < 20
    shade = reshading(np.where(valid, depth_m, 1), normal, CAMERA, valid)
    stored = np.where(valid, depth_m * scale, 1)
    return {
        "targets": {"depth_zbuffer": stored[None], "normal": normal * np.array(flip)[:, None, None], "reshading": shade},
        "valid": valid,
    }


def write(root: Path, **wrong: Any) -> Path:
    """Four views of the room in building "hall", two of "attic", all to train on."""
    for building, views in (("hall", 4), ("attic", 2)):
        for point in range(views):
            content = room(**wrong)
            rng = np.random.default_rng([point, views])
            image = rng.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)
            write_view(root, building, point, 0, image=image, intrinsics=CAMERA, **content)
    (root / "splits.csv").write_text("id,train,val,test\nhall,1,0,0\nattic,1,0,0\n")
    return root


def judged(report: Any) -> dict[str, str]:
    """{subject: state} of a report's verdicts."""
    return {verdict["subject"]: verdict["state"] for verdict in report["verdicts"]}


def findings(tmp_path: Path) -> Any:
    (report,) = json.loads((tmp_path / "check" / "check.json").read_text())
    return report


@pytest.fixture
def run(script: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def call(root: Path, *arguments: object) -> Any:
        where = ["--dataset", "taskonomy", "--root", root, "--out", tmp_path / "check", "--workers", 1]
        return script("check_data", *where, *arguments)

    return call


def test_a_sound_tree_can_be_trained_on(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    root = write(tmp_path / "tree")
    (root / "normal" / "attic" / "point_1_view_0_domain_normal.png").unlink()  # a view may lack a label
    ended = run(root)
    assert ended.status == 0, ended.err
    assert "split train: 6 views of 2 buildings" in ended.out
    assert "split val is not checked" in ended.out
    assert "hall 4, attic 2" in ended.out
    assert "training can start" in ended.out
    report = findings(tmp_path)
    assert (report["split"], report["views"], report["read"], report["buildings"]) == ("train", 6, 6, {"hall": 4, "attic": 2})
    own = {task: entry["native"] for task, entry in report["tasks"].items()}
    assert own == {"depth_zbuffer": 6, "normal": 5, "reshading": 6}
    expected = room()["valid"].mean()
    assert report["tasks"]["depth_zbuffer"]["valid"] == pytest.approx(expected, abs=1e-6)
    median = np.median(room()["targets"]["depth_zbuffer"][0][room()["valid"]])
    assert report["median_depth_m"] == pytest.approx(median, abs=0.01)
    states = judged(report)
    assert {states.pop(subject) for subject in ("camera", "depth scale by median")} == {"right"}
    # A room of three planes, whose normals are those of its depth to the pixel.
    assert {states.pop(subject) for subject in ("normal", "depth scale by reshading")} == {"not compared"}
    assert set(states.values()) <= {"right", "cannot tell"}
    assert not report["problems"]
    assert not report["warnings"]
    with Image.open(tmp_path / "check" / "0-taskonomy-train.png") as sheet:
        assert sheet.width > 4 * 192
        assert sheet.height > 4 * 192


@pytest.mark.parametrize(("flip", "names"), [((-1, 1, 1), "x"), ((1, -1, 1), "y"), ((1, 1, -1), "z"), ((1, -1, -1), "y and z")])
def test_a_flipped_frame_is_named(run: Callable[..., Any], tmp_path: Path, flip: tuple[int, int, int], names: str) -> None:
    ended = run(write(tmp_path / "tree", flip=flip))
    assert ended.status == 1
    assert f"WRONG: normal: {names} flipped: mean angle" in ended.out
    assert "training cannot start" in ended.out
    states = judged(findings(tmp_path))
    assert [subject for subject, state in states.items() if state == "wrong"] == ["normal"]
    assert states["depth scale by reshading"] == "right"  # the scale is told in spite of the frame


@pytest.mark.parametrize(("scale", "factor"), [(1000 / 512, 0.512), (0.1, 10.0), (4.0, 0.25)])
def test_a_wrong_depth_scale_is_named(run: Callable[..., Any], tmp_path: Path, scale: float, factor: float) -> None:
    ended = run(write(tmp_path / "tree", scale=scale))
    assert ended.status == 1
    subject = "depth scale by reshading"
    (verdict,) = [verdict for verdict in findings(tmp_path)["verdicts"] if verdict["subject"] == subject]
    assert verdict["state"] == "wrong"
    times = float(verdict["text"].split("made from ")[1].split(" times")[0])
    assert times == pytest.approx(factor, rel=0.05)
    assert f"WRONG: {subject}: reshading was made from" in ended.out


@pytest.mark.parametrize("blank", [1, 6])
def test_a_depth_of_zero_spoils_no_comparison(run: Callable[..., Any], tmp_path: Path, blank: int) -> None:
    root = write(tmp_path / "tree")
    for path in sorted((root / "depth_zbuffer").rglob("*.png"))[:blank]:
        Image.fromarray(np.zeros((SIZE, SIZE), np.uint16)).save(path)
    run(root)
    report = findings(tmp_path)
    assert report["counts"] == {"constant": blank}
    states = judged(report)
    assert states["normal"] == "not compared"
    assert "wrong" not in states.values() or blank == 6  # then the median depth is 0
    assert "nan" not in json.dumps(report)


def test_an_implausible_depth_is_wrong_indoors(run: Callable[..., Any], tmp_path: Path) -> None:
    root = write(tmp_path / "tree", scale=0.05)
    for path in (root / "reshading").rglob("*.png"):
        path.unlink()
    ended = run(root)
    assert ended.status == 1
    assert "WRONG: depth scale by median: the median depth is 0.1" in ended.out
    assert "outside 0.3 to 12 m; correct the depth scale, or say --outdoors" in ended.out
    assert "not compared: depth scale by reshading: no view has reshading" in ended.out


def test_far_depth_is_right_outdoors(run: Callable[..., Any], tmp_path: Path) -> None:
    root = write(tmp_path / "tree", scale=9)
    for path in (root / "reshading").rglob("*.png"):
        path.unlink()
    assert "WRONG: depth scale by median" in run(root).out
    ended = run(root, "--outdoors")
    assert (ended.status, "right: depth scale by median" in ended.out) == (0, True)


def test_every_kind_of_bad_file_is_found(run: Callable[..., Any], tmp_path: Path) -> None:
    root = write(tmp_path / "tree")
    name = "{task}/{building}/point_{point}_view_0_domain_{task}.png"

    def file(task: str, building: str, point: int) -> Path:
        return root / name.format(task=task, building=building, point=point)

    cut = file("normal", "hall", 0)
    cut.write_bytes(cut.read_bytes()[:-300])
    Image.new("L", (SIZE, SIZE)).save(file("depth_zbuffer", "hall", 0))  # a second file of the same view
    Image.new("RGB", (SIZE, SIZE - 1)).save(file("reshading", "hall", 1))
    Image.new("RGB", (SIZE, SIZE), (9, 9, 9)).save(file("rgb", "hall", 2))
    labels = root / "segment_semantic" / "attic"
    labels.mkdir(parents=True)
    Image.new("L", (SIZE, SIZE), 44).save(labels / "point_0_view_0_domain_segmentsemantic.png")
    ended = run(root)
    assert ended.status == 1
    report = findings(tmp_path)
    assert report["counts"] == {"damaged": 1, "mode": 1, "size": 1, "range": 1, "constant": 1}
    texts = {problem["kind"]: problem["text"] for problem in report["problems"] + report["warnings"]}
    assert texts["damaged"].startswith(f"{cut}: got a file that cannot be read")
    assert "got an image of mode L; expected I;16" in texts["mode"]
    assert "got (95, 96) pixels (height, width); expected (96, 96)" in texts["size"]
    assert "got label code 44" in texts["range"]
    assert texts["constant"].startswith("hall/point_2_view_0: the image is of one colour")
    assert f"error: damaged: {cut}" in ended.out


def test_a_config_checks_what_it_trains_and_evaluates_on(
    script: Callable[..., Any], config_file: Path, own_tree: Path, tmp_path: Path
) -> None:
    damaged = own_tree / "normal" / "alder" / "point_0_view_0_domain_normal.png"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    arguments = ["--config", config_file, f"data.root={own_tree}", "--out", tmp_path / "check", "--workers", 1]
    ended = script("check_data", *arguments)
    reports = json.loads((tmp_path / "check" / "check.json").read_text())
    assert [(report["split"], report["views"]) for report in reports] == [("train", 6), ("val", 3)]
    assert ended.status == 1
    assert [problem["text"].split(": ")[0] for report in reports for problem in report["problems"]] == [str(damaged)]


def test_what_cannot_be_opened_is_a_mistake(run: Callable[..., Any], tmp_path: Path) -> None:
    ended = run(tmp_path / "nowhere")
    assert ended.status == 2
    assert "data.root: got" in ended.err
    ended = run(write(tmp_path / "tree"), "--split", "val")
    assert ended.status == 2
    assert "got no view of split 'val'" in ended.err


def test_a_split_that_is_not_there_is_said_before_others_are_read(
    script: Callable[..., Any], config_file: Path, own_tree: Path, tmp_path: Path
) -> None:
    (own_tree / "splits.csv").write_text("id,train,val,test\nalder,1,0,0\n")
    ended = script("check_data", "--config", config_file, f"data.root={own_tree}", "--out", tmp_path / "check", "--workers", 1)
    assert ended.status == 2
    assert "got no view of split 'val'" in ended.err
    assert "correct that file, or annotate another building with --split val" in ended.err
    assert not (tmp_path / "check").exists()


def test_indices_are_spaced_evenly() -> None:
    assert space_evenly(5, None) == [0, 1, 2, 3, 4]
    assert space_evenly(101, 3) == [0, 50, 100]
    assert space_evenly(2, 9) == [0, 1]


def test_labels_that_fit_nothing_are_not_called_flipped() -> None:
    rng = np.random.default_rng(0)
    one, other = (side / np.linalg.norm(side, axis=0) for side in rng.normal(size=(2, 3, 5000)))
    frame, (verdict,) = judge_frame(Directions(one, other))
    assert (frame, verdict.state) == (Frame(), "wrong")
    assert "disagree with the depth under all frames and focal lengths" in verdict.text
    assert "flipped" not in verdict.text
    lost = judge_scale(np.full(len(SCALES), 0.3), one_origin=False)
    assert lost.state == "cannot tell"
    assert "was not made from this depth" in lost.text


def test_a_view_without_a_camera_leaves_the_others_compared(run: Callable[..., Any], tmp_path: Path) -> None:
    root = write(tmp_path / "tree", flip=(1, -1, 1))
    (root / "point_info" / "hall" / "point_2_view_0_domain_point_info.json").unlink()
    ended = run(root)
    assert "cannot tell: camera: 1 of 6 views with none: " in ended.out
    assert "WRONG: normal: y flipped" in ended.out


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ({"intrinsics": [6000, 6000, 6000, 4000], "size": [96, 96]}, r"the centre \(6000, 4000\) is outside the image"),
        ({"intrinsics": list(CAMERA), "size": [48, 96]}, r"a camera of \(48, 96\) pixels \(height, width\) beside an image of"),
        ({"intrinsics": [900, 900, 47.5, 47.5], "size": [96, 96]}, "a field of view of 6 by 6 deg"),
    ],
)
def test_a_camera_of_another_image_is_named(run: Callable[..., Any], tmp_path: Path, info: Any, problem: str) -> None:
    root = write(tmp_path / "tree")
    (root / "point_info" / "attic" / "point_1_view_0_domain_point_info.json").write_text(json.dumps(info))
    ended = run(root)
    assert ended.status == 1
    assert re.search(rf"WRONG: camera: of 1 of 6 views: attic/point_1_view_0: {problem}", ended.out)


def test_some_views_are_drawn_at_random(run: Callable[..., Any], tmp_path: Path) -> None:
    root = write(tmp_path / "tree")
    ended = run(root, "--views", 3, "--seed", 5)
    assert "6 views of 2 buildings, 3 of them read, drawn at random with seed 5" in ended.out
    assert "labels of 6 views, in runs of neighbours, tested for what they mean:\n" in ended.out
    assert (findings(tmp_path)["read"], findings(tmp_path)["tested"]) == (3, 6)


def test_an_older_check_leaves_no_sheet_beside_the_new_ones(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "check").mkdir()
    for name in ("0-rooms-train.png", "3-nyu-held_out.png", "mine.png", "0-rooms-train.jpg"):
        (tmp_path / "check" / name).write_bytes(b"older")
    root = write(tmp_path / "tree")
    assert run(root, "--split", "val").status == 2
    assert (tmp_path / "check" / "0-rooms-train.png").exists()  # a call that is refused removes nothing
    assert run(root).status == 0
    names = {path.name for path in (tmp_path / "check").iterdir() if path.is_file()}
    assert names == {"0-taskonomy-train.png", "check.json", "mine.png", "0-rooms-train.jpg"}


def test_an_interrupted_check_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is read once, but for those with a problem, whose files may be repaired."""
    monkeypatch.setattr("mult.data.prepare.progress.BLOCK", 2)
    root, folder = write(tmp_path / "tree"), tmp_path / "progress"
    first = root / "normal" / "attic" / "point_0_view_0_domain_normal.png"
    content = first.read_bytes()
    first.write_bytes(content[:-50])
    read: list[int] = []

    class Interrupted(Taskonomy):
        def __getitem__(self, i: int) -> Sample:
            if len(self.tasks) > 1:
                read.append(i)
                if len(read) == 6:
                    raise KeyboardInterrupt
            return super().__getitem__(i)

    def call(kind: type[Taskonomy]) -> Report:
        return check(lambda tasks: kind(root, "train", tasks=tasks), "train", progress=folder)

    with pytest.raises(KeyboardInterrupt):
        call(Interrupted)
    assert read == [0, 1, 2, 3, 4, 5]  # attic's two views, then hall's
    assert len(list(folder.rglob("views-*.json"))) == 1
    first.write_bytes(content)
    read[:] = [-1] * 100
    report = call(Interrupted)
    assert read[100:104] == [0, 1, 4, 5]
    assert (report.read, report.counts) == (6, {})
    expected = call(Taskonomy)
    assert asdict(report) == asdict(expected)
    assert not list(folder.rglob("views-*.json"))
