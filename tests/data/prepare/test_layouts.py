"""The known layouts, each written in its own bytes and read back: metres, colours, normals, cameras and buildings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mult.data import Taskonomy
from mult.data.prepare.layouts import LAYOUTS, find_frames
from mult.errors import UserError

Array = NDArray[Any]
NORMAL = np.array([0.3, -0.4, -0.85]) / np.linalg.norm([0.3, -0.4, -0.85])
HEIGHT, WIDTH = SIZE = (60, 80)


def plane_m(camera: tuple[float, float, float, float], distance_m: float, size: tuple[int, int] = SIZE) -> tuple[Array, Array]:
    """Metres along z of a plane that no axis mirrors, and the length of each pixel's ray."""
    fx, fy, cx, cy = camera
    rows, columns = np.mgrid[: size[0], : size[1]]
    rays = np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones(size)])
    return -distance_m / np.tensordot(NORMAL, rays, 1), np.linalg.norm(rays, axis=0)


def picture(seed: int, size: tuple[int, int] = SIZE) -> Array:
    """Smooth enough to survive a JPEG and a resize, and without symmetry."""
    y, x = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    return np.stack([40 + 100 * x + 9 * seed, 30 + 150 * y, 200 - 90 * x * y], -1).astype(np.uint8)


def save(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        Image.fromarray(values).save(path, quality=95, subsampling=0)
    else:
        Image.fromarray(values).save(path)


def save_mm(path: Path, metres: Array, units: float = 1000, none: int = 0) -> None:
    save(path, np.where(np.arange(metres.shape[1]) < 3, none, np.rint(metres * units)).astype(np.uint16))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


SCALED = 8.0
"""Cameras of 640 x 480 images, of which the tests' are an eighth."""


def small(*camera: float) -> tuple[float, float, float, float]:
    fx, fy, cx, cy = camera
    return fx / SCALED, fy / SCALED, (cx + 0.5) / SCALED - 0.5, (cy + 0.5) / SCALED - 0.5


Camera = tuple[float, float, float, float]
Written = tuple[list[str], dict[str, Camera]]
"""What the call needs beside --from and --out, and {building: the camera of its views}, two each."""


def write_tum(root: Path) -> Written:
    camera = small(517.3, 516.5, 318.6, 255.3)
    scene = root / "rgbd_dataset_freiburg1_desk"
    rgb, depth = [], []
    for i in range(2):
        save(scene / f"rgb/13050319{i}.7000.png", picture(i))
        save_mm(scene / f"depth/13050319{i}.7134.png", plane_m(camera, 1.5 + i)[0], 5000)
        rgb.append(f"13050319{i}.7000 rgb/13050319{i}.7000.png")
        depth.append(f"13050319{i}.7134 depth/13050319{i}.7134.png")
    write_text(scene / "rgb.txt", "# color images\n# timestamp filename\n" + "\n".join(rgb) + "\n")
    write_text(scene / "depth.txt", "# depth maps\n" + "\n".join(depth) + "\n")
    return ["--intrinsics", *map(str, camera)], {scene.name: camera}


def write_7scenes(root: Path) -> Written:
    camera = small(585, 585, 320, 240)
    for i, sequence in enumerate(("seq-01", "seq-02")):
        save(root / f"chess/{sequence}/frame-00000{i}.color.png", picture(i))
        save_mm(root / f"chess/{sequence}/frame-00000{i}.depth.png", plane_m(camera, 1.5 + i)[0], none=65535)
        write_text(root / f"chess/{sequence}/frame-00000{i}.pose.txt", "1 0 0 0")
    return ["--intrinsics", *map(str, camera)], {"chess": camera}


def write_sunrgbd(root: Path) -> Written:
    camera = (66.0, 65.0, 40.5, 29.0)
    for i, name in enumerate(("NYU0001", "NYU0002")):
        scene = root / "SUNRGBD/kv1/NYUdata" / name
        save(scene / f"image/{name}.jpg", picture(i))
        code = np.rint(plane_m(camera, 1.5 + i)[0] * 1000).astype(np.uint16)
        code[:, :3] = 0
        save(scene / f"depth_bfx/{name}_abs.png", (code << 3) | (code >> 13))
        write_text(scene / "intrinsics.txt", "66.0 0 40.5 \n0 65.0 29.0 \n0 0 1 \n")
    return [], {"SUNRGBD_kv1_NYUdata": camera}


def write_scannet(root: Path) -> Written:
    camera = (72.0, 71.0, 39.5, 29.5)
    for scan in ("scene0000_00", "scene0000_01"):
        i = int(scan[-1])
        save(root / scan / "color/0.jpg", picture(i, (121, 162)))  # 968 x 1296, an eighth
        save_mm(root / scan / "depth/0.png", plane_m(camera, 1.5 + i)[0])
        matrix = "72.0 0.0 39.5 0.0\n0.0 71.0 29.5 0.0\n0.0 0.0 1.0 0.0\n0.0 0.0 0.0 1.0\n"
        write_text(root / scan / "intrinsic/intrinsic_depth.txt", matrix)
        write_text(root / scan / "intrinsic/intrinsic_color.txt", "146.0 0 79 0\n0 146 59 0\n0 0 1 0\n0 0 0 1\n")
    return [], {"scene0000": camera}


def write_arkitscenes(root: Path) -> Written:
    camera = (53.0, 54.0, 41.0, 28.5)
    frames = root / "raw/Training/40753679/40753679_frames"
    for i in range(2):
        time = f"6791.{i}07"
        save(frames / f"lowres_wide/40753679_{time}.png", picture(i))
        save_mm(frames / f"lowres_depth/40753679_{time}.png", plane_m(camera, 1.5 + i)[0], none=700)
        confidence = np.full(SIZE, 2, np.uint8)
        confidence[:, :3] = 1
        save(frames / f"confidence/40753679_{time}.png", confidence)
        write_text(frames / f"lowres_wide_intrinsics/40753679_6791.{i}08.pincam", "80 60 53.0 54.0 41.0 28.5")
    return [], {"raw_Training_40753679_40753679_frames": camera}


def write_record3d(root: Path) -> Written:
    openexr = pytest.importorskip("OpenEXR")
    of_rgb, camera = (160.0, 160.0, 81.5, 58.5), (80.0, 80.0, 40.5, 29.0)  # of images of twice the size
    for i in range(2):
        save(root / f"hall/EXR_RGBD/rgb/{i}.jpg", picture(i, (120, 160)))
        metres = plane_m(camera, 1.5 + i)[0].astype(np.float32)
        metres[:, :3] = np.nan
        path = root / f"hall/EXR_RGBD/depth/{i}.exr"
        path.parent.mkdir(exist_ok=True)
        header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
        openexr.File(header, {"R": np.ascontiguousarray(metres)}).write(str(path))
    fx, fy, cx, cy = of_rgb
    coefficients = [[fx, fy, cx, cy], [fx, fy, cx, cy]]
    metadata = {"w": 160, "h": 120, "K": [1.5 * fx, 0, 0, 0, fy, 0, cx, cy, 1], "perFrameIntrinsicCoeffs": coefficients}
    write_text(root / "hall/EXR_RGBD/metadata.json", json.dumps(metadata))
    return [], {"hall_EXR_RGBD": camera}


def write_hypersim(root: Path) -> Written:
    h5py = pytest.importorskip("h5py")
    camera = tuple(value / 12.8 for value in (886.81, 886.81, 512.0, 384.0))
    camera = (camera[0], camera[1], camera[2] - 0.5, camera[3] - 0.5)
    for i in range(2):
        images = root / "ai_001_001/images"
        save(images / f"scene_cam_0{i}_final_preview/frame.0007.tonemap.jpg", picture(i))
        save(images / f"scene_cam_0{i}_final_preview/frame.0007.color.jpg", picture(5))
        z, ray = plane_m(camera, 1.5 + i)
        distance = (z * ray).astype(np.float16).astype(np.float32)
        distance[:, :3] = np.nan
        path = images / f"scene_cam_0{i}_geometry_hdf5/frame.0007.depth_meters.hdf5"
        path.parent.mkdir()
        with h5py.File(path, "w") as file:
            file["dataset"] = distance
    return ["--intrinsics", *map(str, camera)], {"ai_001_001": camera}


def write_diode(root: Path) -> Written:
    camera = (886.81 / 12.8, 927.06 / 12.8, 512.5 / 12.8 - 0.5, 384.5 / 12.8 - 0.5)
    for i in range(2):
        stem = root / f"val/indoors/scene_00019/scan_00183/00019_00183_indoors_{i}00_010"
        save(Path(f"{stem}.png"), picture(i))
        metres = plane_m(camera, 1.5 + i)[0].astype(np.float32)[..., None]
        np.save(f"{stem}_depth.npy", metres)
        np.save(f"{stem}_depth_mask.npy", (np.arange(WIDTH) >= 3).astype(np.float32) * np.ones(SIZE, np.float32))
    return ["--intrinsics", *map(str, camera)], {"val_indoors_scene_00019": camera}


def write_nyu_raw(root: Path) -> Written:
    camera = small(518.858, 519.470, 325.582, 253.736)
    for i in range(2):
        save(root / f"kitchen_0001/rgb_0004{i}.jpg", picture(i))
        save_mm(root / f"kitchen_0001/sync_depth_0004{i}.png", plane_m(camera, 1.5 + i)[0])
    return ["--intrinsics", *map(str, camera)], {"kitchen_0001": camera}


WRITERS: dict[str, Callable[[Path], Written]] = {
    "tum": write_tum,
    "7scenes": write_7scenes,
    "sunrgbd": write_sunrgbd,
    "scannet": write_scannet,
    "arkitscenes": write_arkitscenes,
    "record3d": write_record3d,
    "hypersim": write_hypersim,
    "diode": write_diode,
    "nyu-raw": write_nyu_raw,
}


def test_every_layout_is_written_here() -> None:
    assert list(WRITERS) == list(LAYOUTS)


@pytest.mark.parametrize("name", WRITERS)
def test_a_layout_is_read_as_it_lies(name: str, tmp_path: Path, script: Callable[..., Any]) -> None:
    options, buildings = WRITERS[name](tmp_path / "source")
    done = script("annotate", "--from", name, tmp_path / "source", "--out", tmp_path / "root", "--workers", 1, *options)
    assert done.status == 0, done.err
    assert ("note: " in done.out) == bool(LAYOUTS[name].note)
    dataset = Taskonomy(tmp_path / "root", "train", tasks=["depth_zbuffer", "normal", "reshading"])
    assert dataset.buildings == list(buildings)
    assert len(dataset) == 2 * len(buildings)
    for i in range(len(dataset)):
        camera, sample = buildings[dataset.group(i)], dataset[i]
        intrinsics, size = dataset.camera(i)
        assert size == SIZE
        np.testing.assert_allclose(intrinsics, camera, rtol=1e-6, atol=1e-9)
        z, ray = plane_m(camera, 1.5 + i)
        valid = sample["valid"]["depth_zbuffer"][0].numpy()
        np.testing.assert_array_equal(valid, np.broadcast_to(np.arange(WIDTH) >= 3, SIZE))
        np.testing.assert_allclose(sample["targets"]["depth_zbuffer"][0].numpy()[valid], z[valid], atol=0.0035)
        cosine = np.tensordot(NORMAL, sample["targets"]["normal"].numpy(), 1)[valid]
        assert np.degrees(np.median(np.arccos(np.clip(cosine, -1, 1)))) < 1.5
        shade = 12.8 / (8 + (z * ray) ** 2) * -np.tensordot(NORMAL, np.stack(rays(camera)), 1) / ray
        assert np.median(np.abs(sample["targets"]["reshading"][0].numpy() - shade)[valid]) < 0.012
        colours = np.rint(255 * sample["image"].permute(1, 2, 0).numpy()).astype(int)
        assert np.abs(colours - picture(i).astype(int)).mean() < 4


def rays(camera: Camera) -> list[Array]:
    fx, fy, cx, cy = camera
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return [(columns - cx) / fx, (rows - cy) / fy, np.ones(SIZE)]


@pytest.mark.parametrize("name", ["tum", "7scenes", "hypersim"])
def test_a_layout_names_what_is_missing(name: str, tmp_path: Path, script: Callable[..., Any]) -> None:
    (tmp_path / "empty").mkdir()
    done = script("annotate", "--from", name, tmp_path / "empty", "--out", tmp_path / "root")
    assert done.status == 2
    layout = LAYOUTS[name]
    for pattern in layout.pairs or (layout.rgb, layout.depth):
        assert pattern in done.err
    assert not (tmp_path / "root").exists()


def test_the_published_cameras_are_of_the_published_images(tmp_path: Path) -> None:
    """Files of the published size, read with the camera of the table: ScanNet's and others' are read from files above."""
    sizes = {"7scenes": (480, 640), "hypersim": (768, 1024), "diode": (768, 1024), "nyu-raw": (480, 640)}
    for name, (height, width) in sizes.items():
        intrinsics = LAYOUTS[name].intrinsics
        assert isinstance(intrinsics, tuple)
        assert abs(intrinsics[2] - (width - 1) / 2) < 0.03 * width
        assert abs(intrinsics[3] - (height - 1) / 2) < 0.06 * height


def test_tum_takes_its_camera_by_the_robot(tmp_path: Path, script: Callable[..., Any]) -> None:
    write_tum(tmp_path / "source")
    (tmp_path / "source/rgbd_dataset_freiburg1_desk").rename(tmp_path / "source/mine")
    done = script("annotate", "--from", "tum", tmp_path / "source", "--out", tmp_path / "root", "--workers", 1)
    assert done.status == 2
    assert "got a path without freiburg1, freiburg2, freiburg3, which say the camera" in done.err


def test_an_unknown_layout_is_refused(tmp_path: Path, script: Callable[..., Any]) -> None:
    done = script("annotate", "--from", "scanet", tmp_path, "--out", tmp_path / "root")
    assert done.status == 2
    assert "--from: got 'scanet'; expected one of tum," in done.err
    assert "did you mean 'scannet'" in done.err


def test_two_pictures_in_a_folder_of_one_are_refused(tmp_path: Path) -> None:
    write_sunrgbd(tmp_path)
    save(tmp_path / "SUNRGBD/kv1/NYUdata/NYU0001/image/other.jpg", picture(0))
    with pytest.raises(UserError, match=r"got a second file beside NYU0001.jpg; expected one a folder"):
        find_frames(tmp_path, LAYOUTS["sunrgbd"])
