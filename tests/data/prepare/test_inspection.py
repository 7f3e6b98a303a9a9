"""Labels that mean something else than they should, planted in rendered rooms and in real frames: each is named, and what is
right is left in peace.

Faults are planted by plain NumPy and Pillow in files of right trees: by the definitions of the encodings, not by the library.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.filters import gaussian, sobel

from mult.data.prepare.annotate import annotate
from mult.data.prepare.check import check
from mult.data.prepare.inspection import choose_runs, inspect_labels, judge_median_depth
from mult.data.prepare.layouts import Layout
from mult.data.rooms.dataset import render_missing
from mult.data.taskonomy.dataset import Taskonomy

Array = NDArray[Any]
Change = Callable[[Array], Array]
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
VIEWS = 24


def read(root: Path) -> Taskonomy:
    return Taskonomy(root, "train", tasks=Taskonomy(root, "train", tasks=()).available)


def find_wrong(root: Path) -> dict[str, str]:
    """{subject: text} of the verdicts "wrong", the one on the median depth among them."""
    views = read(root)
    verdicts = inspect_labels(views, choose_runs(views, VIEWS))
    depths = [views[i] for i in range(0, len(views), 3)]
    medians = [
        float(each["targets"]["depth_zbuffer"][each["valid"]["depth_zbuffer"]].median())
        for each in depths
        if each["valid"]["depth_zbuffer"].any()
    ]
    verdicts.append(judge_median_depth(float(np.median(medians)), outdoors=False))
    return {verdict.subject: verdict.text for verdict in verdicts if verdict.state == "wrong"}


def change_files(root: Path, task: str, change: Change) -> None:
    for path in (root / task).rglob("*.png"):
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
        Image.fromarray(np.ascontiguousarray(change(pixels))).save(path)


def change_cameras(root: Path, change: Callable[[list[float]], list[float]]) -> None:
    for path in (root / "point_info").rglob("*.json"):
        info = json.loads(path.read_text())
        path.write_text(json.dumps({"intrinsics": change(info["intrinsics"]), "size": info["size"]}))


def scale(factor: float) -> Change:
    return lambda codes: np.where(codes == 65535, 65535, np.minimum(codes * factor, 65534)).astype(np.uint16)


def along_ray(root: Path) -> None:
    """Each view by its own camera: those of rendered rooms differ."""
    for path in (root / "depth_zbuffer").rglob("*.png"):
        info = root / "point_info" / path.parent.name / path.name.replace("depth_zbuffer.png", "point_info.json")
        camera = json.loads(info.read_text())
        (fx, fy, cx, cy), (height, width) = camera["intrinsics"], camera["size"]
        y, x = np.mgrid[:height, :width]
        with Image.open(path) as picture:
            z = np.asarray(picture)
        distance = np.rint(z * np.hypot(1, np.hypot((x - cx) / fx, (y - cy) / fy)))
        Image.fromarray(np.where(z == 65535, 65535, np.minimum(distance, 65534)).astype(np.uint16)).save(path)


def negate(axis: int) -> Change:
    def change(normal: Array) -> Array:
        normal = normal.copy()
        normal[..., axis] = 255 - normal[..., axis]
        return normal

    return change


def shift(root: Path, tasks: tuple[str, ...]) -> None:
    """Each view's files of some tasks become those of the next view of its building; the last one's become the first's."""
    for task in tasks:
        for folder in (root / task).iterdir():
            paths = sorted(folder.glob("*.png"), key=lambda path: int(path.name.split("_")[1]))
            contents = [path.read_bytes() for path in paths]
            for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
                path.write_bytes(content)


def edges_of_sigma(root: Path, sigma: float) -> None:
    """Edges by Taskonomy's formula with another Gaussian, of images that are brought to 512 pixels."""
    for path in (root / "rgb").rglob("*.png"):
        with Image.open(path) as picture:
            size, large = picture.size, picture.convert("L").resize((512, 512), Image.Resampling.BICUBIC)
        edges = sobel(gaussian(np.asarray(large) / 255, sigma, mode="nearest"))
        small = Image.fromarray(edges.astype(np.float32)).resize(size, Image.Resampling.BOX)
        other = root / "edge_texture" / path.parent.name / path.name.replace("rgb", "edge_texture")
        Image.fromarray(np.rint(np.asarray(small) * 65535).astype(np.uint16)).save(other)


def flip_bits(root: Path) -> None:
    for path in sorted((root / "normal").rglob("*.png"))[::5]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)


FROM_DEPTH = ("depth_zbuffer", "normal", "reshading", "mask_valid", "point_info")
FAULTS: dict[str, tuple[Callable[[Path], object], dict[str, str]]] = {
    "depth twice as far": (
        lambda root: change_files(root, "depth_zbuffer", scale(2)),
        {"depth scale by reshading": "reshading was made from 0.5 times the depth"},
    ),
    "depth half as far": (
        lambda root: change_files(root, "depth_zbuffer", scale(0.5)),
        {"depth scale by reshading": "reshading was made from 2 times the depth"},
    ),
    "depth 16 times as far": (
        lambda root: change_files(root, "depth_zbuffer", scale(16)),
        {"depth scale by median": "outside 0.3 to 12 m; correct the depth scale"},
    ),
    "focal length halved": (
        lambda root: change_cameras(root, lambda k: [k[0] / 2, k[1] / 2, *k[2:]]),
        {"focal length": "with 2 times the focal length", "focal length by normals": "with 2 times the focal length"},
    ),
    "focal length doubled": (
        lambda root: change_cameras(root, lambda k: [k[0] * 2, k[1] * 2, *k[2:]]),
        {"focal length": "with 0.5 times the focal length", "focal length by normals": "with 0.5 times the focal length"},
    ),
    "distance along the ray": (
        along_ray,
        {"kind of depth": "the distance along the ray, not along z"},
    ),
    "x flipped": (lambda root: change_files(root, "normal", negate(0)), {"normal": "x flipped: mean angle"}),
    "y flipped": (lambda root: change_files(root, "normal", negate(1)), {"normal": "y flipped: mean angle"}),
    "z flipped": (lambda root: change_files(root, "normal", negate(2)), {"normal": "z flipped: mean angle"}),
    "x and y exchanged": (
        lambda root: change_files(root, "normal", lambda normal: normal[..., [1, 0, 2]]),
        {"normal": "axes exchanged: x, y, z of the camera frame are y, x, z as stored"},
    ),
    "edges of another image": (
        lambda root: shift(root, ("edge_texture",)),
        {"edge_texture": "was it made from another image?"},
    ),
    "edges of another sigma": (
        lambda root: edges_of_sigma(root, 1),
        {"edge_texture": "made with a Gaussian of 1 pixels at 512"},
    ),
    "colour turned": (
        lambda root: change_files(root, "rgb", lambda image: image[::-1, ::-1]),
        {"colour against depth": "the image is turned by 180 degrees"},
    ),
    "shifted pairs": (
        lambda root: shift(root, FROM_DEPTH),
        {"pairs of colour and depth": "the image of a view fits the depth of the view 1 before it"},
    ),
}
"""{fault: (plant it, {subject of the verdict: what it says})}; the fifteenth, flipped bits, is found by reading."""
ALSO = {"colour turned": {"keypoints2d", "edge_texture"}}
"""What else is wrong then: the labels that were made from the image as it was."""


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered rooms, whose normals and reshading are the renderer's; not to be changed."""
    root = tmp_path_factory.mktemp("rooms") / "rooms"
    render_missing(root, buildings=6, views=6, size=128, seed=4, workers=1)
    return root


@pytest.fixture
def own_rooms(rooms: Path, tmp_path: Path) -> Path:
    shutil.copytree(rooms, tmp_path / "rooms")
    return tmp_path / "rooms"


def test_right_rooms_are_left_in_peace(rooms: Path) -> None:
    views = read(rooms)
    verdicts = {verdict.subject: verdict.state for verdict in inspect_labels(views, choose_runs(views, VIEWS))}
    assert set(verdicts.values()) <= {"right", "cannot tell"}
    surely = {"camera", "colour against depth", "pairs of colour and depth", "kind of depth", "focal length", "normal"}
    assert {verdicts[subject] for subject in (*surely, "depth scale by reshading", "keypoints2d", "edge_texture")} == {"right"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(own_rooms: Path, fault: str) -> None:
    plant, expected = FAULTS[fault]
    plant(own_rooms)
    wrong = find_wrong(own_rooms)
    for subject, text in expected.items():
        assert text in wrong[subject]
    if fault not in ("depth 16 times as far", "shifted pairs"):  # far depth does not fit into the files, and nothing fits then
        assert set(wrong) - set(expected) <= ALSO.get(fault, set()) | {"depth scale by rooms"}


def test_flipped_bits_are_named(own_rooms: Path) -> None:
    flip_bits(own_rooms)
    report = check(lambda tasks: Taskonomy(own_rooms, "train", tasks=tasks), "train", tested_views=4)
    views = read(own_rooms)
    paths = sorted((own_rooms / "normal").rglob("*.png"))[::5]
    damaged = [path for path in paths if path.parent.name in views.buildings]
    assert report.counts["damaged"] == len(damaged) >= 3
    assert {problem.text.split(":")[0] for problem in report.problems} == set(map(str, damaged))
    assert not report.can_train()


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "livingroom").is_dir(), reason="needs ../shared/data/livingroom")
def test_real_frames_are_judged_without_a_second_origin(tmp_path: Path) -> None:
    """Labels that annotate made of a film: what agrees by construction is not compared, and what can be told is told."""
    layout = Layout("image/*.jpg", "depth/*.png", 1000, (525, 525, 319.5, 239.5))
    annotate(SHARED / "livingroom", layout, tmp_path / "right", "room", frames=(0, 12), workers=1)
    views = read(tmp_path / "right")
    states = {verdict.subject: verdict.state for verdict in inspect_labels(views, range(len(views)))}
    assert {states["normal"], states["depth scale by reshading"]} == {"not compared"}
    surely = ("camera", "colour against depth", "kind of depth", "focal length", "keypoints2d", "edge_texture")
    assert {states[subject] for subject in surely} == {"right"}
    assert states["pairs of colour and depth"] in ("right", "cannot tell")
    for fault, subject in (
        ("focal length halved", "focal length"),
        ("focal length doubled", "focal length"),
        ("distance along the ray", "kind of depth"),
        ("depth 16 times as far", "depth scale by median"),
        ("colour turned", "colour against depth"),
        ("y flipped", "normal"),
    ):
        plant, expected = FAULTS[fault]
        shutil.copytree(tmp_path / "right", tmp_path / fault)
        plant(tmp_path / fault)
        assert expected[subject] in find_wrong(tmp_path / fault)[subject]
