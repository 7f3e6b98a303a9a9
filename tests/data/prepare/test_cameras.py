"""Cameras in the files that people have, and cameras that cannot be those of the images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mult.data.disk.camera import check_intrinsics, scale_intrinsics
from mult.data.prepare.cameras import find_camera_file, read_camera
from mult.errors import UserError

FOUR = (525.0, 520.0, 319.5, 241.5)
ROWS = [[525.0, 0.0, 319.5], [0.0, 520.0, 241.5], [0.0, 0.0, 1.0]]
COLUMNS = [525.0, 0, 0, 0, 520.0, 0, 319.5, 241.5, 1]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("525 520 319.5 241.5\n", None),
        ("525 0 319.5\n0 520 241.5\n0 0 1\n", None),
        ("525 0 319.5 0 520 241.5 0 0 1", None),
        ("525.0, 0, 319.5\n0, 520, 241.5\n0, 0, 1\n", None),
        ("525 0 319.5 0\n0 520 241.5 0\n0 0 1 0\n0 0 0 1\n", None),
        ("5.25e2 0 319.5 0\n0 520 241.5 0\n0 0 1 0\n", None),
        ("640 480 525 520 319.5 241.5", (480, 640)),
    ],
)
def test_text(tmp_path: Path, text: str, size: tuple[int, int] | None) -> None:
    (tmp_path / "k.txt").write_text(text)
    assert read_camera(tmp_path / "k.txt") == (FOUR, size)


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (4,)])
def test_npy(tmp_path: Path, shape: tuple[int, ...]) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = ROWS
    np.save(tmp_path / "k.npy", np.array(FOUR) if shape == (4,) else matrix[: shape[0], : shape[1]])
    assert read_camera(tmp_path / "k.npy") == (FOUR, None)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        ({"fx": 525, "fy": 520, "cx": 319.5, "cy": 241.5}, None),
        ({"fl_x": 525, "fl_y": 520, "cx": 319.5, "cy": 241.5, "w": 640, "h": 480}, (480, 640)),
        ({"K": ROWS}, None),
        ({"K": COLUMNS, "w": 640, "h": 480}, (480, 640)),
        ({"K": np.ravel(ROWS).tolist()}, None),
        ({"intrinsic_matrix": COLUMNS, "width": 640, "height": 480}, (480, 640)),
        ({"intrinsics": list(FOUR)}, None),
    ],
)
def test_json(tmp_path: Path, content: dict[str, Any], size: tuple[int, int] | None) -> None:
    (tmp_path / "k.json").write_text(json.dumps(content))
    assert read_camera(tmp_path / "k.json") == (FOUR, size)


def test_a_json_with_a_camera_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({"K": COLUMNS, "perFrameIntrinsicCoeffs": [[1, 2, 3, 4], list(FOUR)]}))
    assert read_camera(path, "1") == (FOUR, None)
    for frame in ("2", "x"):
        with pytest.raises(UserError, match=rf"metadata.json: got 2 cameras for frame '{frame}'; expected one a frame"):
            read_camera(path, frame)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("k.txt", "a b c", r"k.txt: got no camera \(.*\); expected intrinsics as text, npy or JSON"),
        ("k.txt", "1 2 3", r"k.txt: got \[1.0, 2.0, 3.0\]; expected fx fy cx cy, or a matrix"),
        ("k.txt", "525 0 319.5 0 520 241.5 0 0 2", r"expected fx fy cx cy, or a matrix"),
        ("k.txt", "525 30 319.5 0 520 241.5 0 0 1", r"expected fx fy cx cy, or a matrix"),
        ("k.txt", "481.2 0 319.5 0 -480 239.5 0 0 1", r"k.txt: got fy -480; expected fy above 0; .* ICL-NUIM, .*, give 480"),
        ("k.json", "[1]", r"k.json: got a list; expected an object with fx"),
        ("k.json", '{"focal": 3}', r"k.json: got the keys focal; expected fx, fy, cx, cy or a matrix under"),
        ("k.json", "{", r"k.json: got no camera"),
    ],
)
def test_what_is_no_camera_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_camera(tmp_path / name)


def test_a_camera_may_be_a_thousandth_of_a_second_off(tmp_path: Path) -> None:
    for time in ("10.101", "10.202", "11.0"):
        (tmp_path / f"40_{time}.pincam").write_text("")
    assert find_camera_file(tmp_path / "40_10.102.pincam").name == "40_10.101.pincam"
    assert find_camera_file(tmp_path / "40_10.202.pincam").name == "40_10.202.pincam"
    for name in ("40_10.300.pincam", "camera.pincam"):
        with pytest.raises(UserError, match=rf"{name}: got no such file; expected the camera of a frame"):
            find_camera_file(tmp_path / name)


@pytest.mark.parametrize(
    ("intrinsics", "size"),
    [
        ((6000.0, 6000.0, 6000.0, 4000.0), (48, 64)),  # of another image
        ((525.0, 525.0, 319.5, 239.5), (240, 320)),  # of one twice as large
        ((525.0, 525.0, 319.5, 239.5), (960, 1280)),  # of one half as large
        ((0.82, 1.09, 0.5, 0.5), (480, 640)),  # in sides of the image
        ((525.0, 525.0, 239.5, 319.5), (480, 960)),  # turned
        ((525.0, 9000.0, 319.5, 239.5), (480, 640)),
    ],
)
def test_intrinsics_of_other_images_are_refused(intrinsics: tuple[float, ...], size: tuple[int, int]) -> None:
    check_intrinsics("k", intrinsics)
    with pytest.raises(UserError, match=rf"^k: got .* for images of \({size[0]}, {size[1]}\) pixels .*; expected a focal"):
        check_intrinsics("k", intrinsics, size)


@pytest.mark.parametrize("size", [(480, 640), (427, 561), (500, 700)])
def test_intrinsics_of_these_images_or_crops_are_taken(size: tuple[int, int]) -> None:
    assert check_intrinsics("k", (518.9, 519.5, 325.6, 253.7), size) == (518.9, 519.5, 325.6, 253.7)


def test_scaling_keeps_the_edges_of_the_image() -> None:
    fx, fy, cx, cy = scale_intrinsics((600.0, 500.0, 319.5, 100.0), (480, 640), (120, 320))
    # The left edge of the image, half a pixel before the first centre, stays the same ray; so does the right one.
    assert (-0.5 - cx) / fx == pytest.approx((-0.5 - 319.5) / 600)
    assert (319.5 - cx) / fx == pytest.approx((639.5 - 319.5) / 600)
    assert (119.5 - cy) / fy == pytest.approx((479.5 - 100.0) / 500)
