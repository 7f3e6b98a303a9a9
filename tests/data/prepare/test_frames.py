"""A frame's pixels: colour and depth of two sizes, rays, masks, turned pictures, and cameras that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mult.data import Taskonomy
from mult.data.prepare.annotate import annotate
from mult.data.prepare.frames import Pixels, read_frame
from mult.data.prepare.layouts import Layout, find_frames
from mult.errors import UserError

Array = NDArray[Any]
SIZE = (24, 40)
CAMERA = (36.0, 34.0, 20.5, 11.0)
LAYOUT = Layout("rgb.png", "depth.png", 1000, CAMERA)
NORMAL = np.array([0.25, -0.5, -0.8]) / np.linalg.norm([0.25, -0.5, -0.8])


def plane_m(camera: tuple[float, ...] = CAMERA, size: tuple[int, int] = SIZE) -> Array:
    fx, fy, cx, cy = camera
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.asarray(-1.7 / np.tensordot(NORMAL, np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones(size)]), 1))


def picture(size: tuple[int, int]) -> Array:
    y, x = (np.mgrid[: size[0], : size[1]] + 0.5) / np.array(size)[:, None, None]
    return np.stack([200 * x, 100 + 100 * y, 50 + 100 * x * y], -1).astype(np.uint8)


def write(root: Path, rgb: Array, depth: Array, **options: Any) -> None:
    Image.fromarray(rgb).save(root / "rgb.png", **options)
    Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(root / "depth.png")


def read(root: Path, layout: Layout = LAYOUT) -> Pixels:
    (frame,) = find_frames(root, layout)
    return read_frame(frame, root, layout)


def test_colour_is_brought_to_depth(tmp_path: Path) -> None:
    write(tmp_path, picture((72, 120)), plane_m())
    pixels = read(tmp_path, replace(LAYOUT, intrinsics_of="depth"))
    assert pixels.intrinsics == pytest.approx(CAMERA)
    assert np.abs(pixels.image.astype(int) - picture(SIZE)).max() <= 2
    np.testing.assert_allclose(pixels.depth_m, plane_m(), atol=5.1e-4)
    of_rgb = (3 * 36.0, 3 * 34.0, 3 * 21.0 - 0.5, 3 * 11.5 - 0.5)
    assert read(tmp_path, replace(LAYOUT, intrinsics=of_rgb, intrinsics_of="rgb")).intrinsics == pytest.approx(CAMERA)
    with pytest.raises(UserError, match=r"rgb.png: got \(72, 120\) pixels .* of colour and \(24, 40\) of depth; .*--intr"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"intrinsics: got .* for images of \(24, 40\) pixels"):
        read(tmp_path, replace(LAYOUT, intrinsics=of_rgb, intrinsics_of="depth"))


def test_depth_is_brought_to_colour_as_planes(tmp_path: Path) -> None:
    depth = plane_m()
    depth[:, :15] = 1.0  # a step, beside a plane that faces the camera
    write(tmp_path, picture((72, 120)), depth)
    layout = replace(LAYOUT, intrinsics_of="depth", grid="rgb")
    annotate(tmp_path, layout, tmp_path / "root", "hall", workers=1)
    sample = Taskonomy(tmp_path / "root", tasks=["depth_zbuffer", "normal", "reshading"])[0]
    camera = (3 * 36.0, 3 * 34.0, 3 * 21.0 - 0.5, 3 * 11.5 - 0.5)
    expected = plane_m(camera, (72, 120))
    expected[:, :45] = 1.0
    np.testing.assert_array_equal(np.rint(255 * sample["image"].permute(1, 2, 0).numpy()), picture((72, 120)))
    inside = np.ones((72, 120), np.bool_)
    inside[:, 42:51] = False  # where normals mix
    difference = np.abs(sample["targets"]["depth_zbuffer"][0].numpy() - expected)
    assert difference[inside].max() < 0.006  # nearest pixels alone would be off by up to 0.04
    assert difference[:, 45:].max() < 0.05
    cosine = np.tensordot(NORMAL, sample["targets"]["normal"].numpy(), 1)[:, 51:]
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 3


def test_distances_along_rays_become_depth(tmp_path: Path) -> None:
    fx, fy, cx, cy = CAMERA
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = plane_m() * np.sqrt(1 + ((columns - cx) / fx) ** 2 + ((rows - cy) / fy) ** 2)
    write(tmp_path, picture(SIZE), distance)
    np.testing.assert_allclose(read(tmp_path, replace(LAYOUT, depth_kind="ray")).depth_m, plane_m(), atol=5.1e-4)
    assert np.abs(read(tmp_path).depth_m - plane_m()).max() > 0.1


def test_what_is_not_measured(tmp_path: Path) -> None:
    depth = plane_m()
    depth[2, 3], depth[4, 5] = 0, 65.535
    write(tmp_path, picture(SIZE), depth)
    confidence = np.full(SIZE, 2, np.uint8)
    confidence[6, 7:9] = 1, 0
    Image.fromarray(confidence).save(tmp_path / "confidence.png")
    expected = np.ones(SIZE, np.bool_)
    expected[2, 3] = expected[4, 5] = False
    np.testing.assert_array_equal(read(tmp_path).measured, expected)
    expected[6, 8] = False
    np.testing.assert_array_equal(read(tmp_path, replace(LAYOUT, mask="confidence.png")).measured, expected)
    expected[6, 7] = False
    pixels = read(tmp_path, replace(LAYOUT, mask="confidence.png", mask_min=2))
    np.testing.assert_array_equal(pixels.measured, expected)
    assert (pixels.depth_m[~expected] == 0).all()
    Image.fromarray(confidence[1:]).save(tmp_path / "confidence.png")
    with pytest.raises(UserError, match=r"confidence.png: got a mask of \(23, 40\) pixels; expected \(24, 40\), as depth has"):
        read(tmp_path, replace(LAYOUT, mask="confidence.png"))


def test_rotated_bits(tmp_path: Path) -> None:
    code = np.rint(plane_m() * 1000).astype(np.uint16)
    code[0, :4] = 7, 8191, 8192, 65534
    write(tmp_path, picture(SIZE), ((code << 3) | (code >> 13)) / 1000)
    np.testing.assert_allclose(read(tmp_path, replace(LAYOUT, rotated_bits=3)).depth_m, code / 1000)
    np.save(tmp_path / "depth.npy", plane_m())
    with pytest.raises(UserError, match=r"depth.npy: got float64 depth to rotate by bits; expected 16 bits"):
        read(tmp_path, replace(LAYOUT, depth="depth.npy", rotated_bits=3))


def test_a_turned_picture_is_turned_as_its_depth_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    stored = picture(SIZE)
    write(tmp_path, stored, plane_m(), exif=exif)
    np.testing.assert_array_equal(read(tmp_path).image, stored)
    upright = stored[::-1].transpose(1, 0, 2)
    write(tmp_path, stored, plane_m()[::-1].T, exif=exif)
    turned = (CAMERA[1], CAMERA[0], SIZE[0] - 1 - CAMERA[3], CAMERA[2])
    np.testing.assert_array_equal(read(tmp_path, replace(LAYOUT, intrinsics=turned)).image, upright)
    exif[0x0112] = 3
    write(tmp_path, stored, plane_m(), exif=exif)
    with pytest.raises(UserError, match=r"rgb.png: got EXIF orientation 3 beside a depth map of \(24, 40\)"):
        read(tmp_path)


def test_the_camera_of_a_frame_is_its_own(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"s{i}").mkdir()
        write(tmp_path / f"s{i}", picture(SIZE), plane_m())
        (tmp_path / f"s{i}/k.txt").write_text(f"{30 + i} 34 20.5 11")
    layout = replace(LAYOUT, rgb="*/rgb.png", depth="*/depth.png", intrinsics="*/k.txt")
    cameras = [read_frame(frame, tmp_path, layout).intrinsics for frame in find_frames(tmp_path, layout)]
    assert cameras == [(30.0, 34.0, 20.5, 11.0), (31.0, 34.0, 20.5, 11.0)]
    (tmp_path / "s1/k.txt").unlink()
    with pytest.raises(UserError, match=r"s1/k.txt: got no such file; expected the camera of a frame"):
        read_frame(find_frames(tmp_path, layout)[1], tmp_path, layout)
    with pytest.raises(UserError, match=r"rgb.png: got no camera; expected --intrinsics"):
        read_frame(find_frames(tmp_path, layout)[0], tmp_path, replace(layout, intrinsics=None))
