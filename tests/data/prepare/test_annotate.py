"""annotate.py: files in, files out, the latter read with plain Pillow; on tiny asymmetric views of one plane."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mult.data import Taskonomy
from mult.data.prepare.annotate import Annotated
from mult.data.prepare.annotate import annotate as annotate_frames
from mult.data.prepare.layouts import Layout
from mult.errors import UserError
from mult.labels import edge_texture, keypoints2d

ROOT = Path(__file__).resolve().parents[3]
LIVINGROOM = ROOT / "../shared/data/livingroom"

Array = NDArray[Any]
SHAPE = (26, 34)
FX, FY, CX, CY = INTRINSICS = (40.0, 31.0, 15.5, 11.0)
NORMAL = np.array([0.3, -0.5, -0.8]) / np.linalg.norm([0.3, -0.5, -0.8])


def rays() -> Array:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.stack([(columns - CX) / FX, (rows - CY) / FY, np.ones(SHAPE)])


def plane_mm(distance_m: float = 1.6) -> Array:
    return np.asarray(np.round(-1000 * distance_m / np.tensordot(NORMAL, rays(), axes=1)).astype(np.uint16))


def picture(seed: int) -> Array:
    image = np.random.default_rng(seed).integers(0, 60, (*SHAPE, 3), dtype=np.uint8)
    image[4:15, 20:30] = (200, 90, 10)
    return image


def write_frames(folder: Path, stems: tuple[str, ...] = ("frame2", "frame10", "frame9")) -> tuple[Path, Path]:
    """One RGB-D pair a stem; depth grows by stem; the first has a hole coded 0 and one coded 65535."""
    rgb, depth = folder / "rgb", folder / "depth"
    rgb.mkdir(parents=True)
    depth.mkdir()
    for i, stem in enumerate(stems):
        Image.fromarray(picture(i)).save(rgb / f"{stem}.png")
        millimetres = plane_mm(1.6 + 0.1 * i)
        if i == 0:
            millimetres[2:5, 6:8] = 0
            millimetres[20, 30:33] = 65535
        Image.fromarray(millimetres).save(depth / f"{stem}.png")
    return rgb, depth


def annotate(folders: tuple[Path, Path], root: Path, building: str = "house", **options: Any) -> Annotated:
    scale, intrinsics = options.pop("depth_scale", 1000.0), options.pop("intrinsics", INTRINSICS)
    rgb, depth = map(str, folders)
    layout = Layout(rgb, depth, scale, intrinsics)
    return annotate_frames(folders[0].parent, layout, root, building, workers=1, **options)[building]


def stored(root: Path, domain: str, point: int, building: str = "house") -> Array:
    with Image.open(root / domain / building / f"point_{point}_view_0_domain_{domain}.png") as image:
        return np.asarray(image)


def splits(root: Path) -> list[list[str]]:
    with open(root / "splits.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_files_hold_the_labels(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path), tmp_path / "root"
    done = annotate(folders, root)
    assert (done.written, done.skipped, done.unencodable_pixels) == (3, 0, 0)
    assert done.depth is not None
    assert done.depth.median_m == pytest.approx(float(np.median(plane_mm(1.7))) / 1000)

    measured = np.ones(SHAPE, bool)
    measured[2:5, 6:8] = measured[20, 30:33] = False
    depth_m = plane_mm() / 1000
    assert stored(root, "rgb", 0).tolist() == picture(0).tolist()
    np.testing.assert_array_equal(stored(root, "mask_valid", 0) > 0, measured)
    np.testing.assert_array_equal(stored(root, "depth_zbuffer", 0), np.where(measured, np.rint(depth_m * 512), 65535))

    normal = stored(root, "normal", 0).astype(float) / 255 * 2 - 1
    cosine = normal @ NORMAL / np.linalg.norm(normal, axis=-1)
    # Half a millimetre of rounding within 3 pixels of a border or hole, and 8 bits.
    assert np.degrees(np.arccos(np.clip(cosine[measured], -1, 1))).max() < 3
    assert (stored(root, "normal", 0)[~measured] == 128).all()

    r = depth_m * np.linalg.norm(rays(), axis=0)
    shade = 255 * np.clip(1.6 * 8 / (8 + r**2) * -np.tensordot(NORMAL, rays(), 1) * depth_m / r, 0, 1)
    reshading = stored(root, "reshading", 0)
    assert reshading.shape == (*SHAPE, 3)
    assert np.abs(reshading[measured] - shade[measured][:, None]).max() < 8
    assert np.abs(reshading[measured] - shade[measured][:, None]).mean() < 1
    assert (reshading[~measured] == 0).all()

    for domain, generate in (("edge_texture", edge_texture), ("keypoints2d", keypoints2d)):
        pixels = stored(root, domain, 0).astype(int)
        assert np.abs(pixels - generate(picture(0))[0] * 65535).max() <= 0.51
        assert pixels.max() > 100

    info = json.loads((root / "point_info/house/point_0_view_0_domain_point_info.json").read_text())
    assert info["intrinsics"] == list(INTRINSICS)
    assert info["size"] == list(SHAPE)
    assert splits(root) == [["id", "train", "val", "test"], ["house", "1", "0", "0"]]
    assert not list(root.rglob("*.tmp*"))


def test_frames_are_in_natural_order(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path), tmp_path / "root"
    annotate(folders, root)
    for point, seed in enumerate((0, 2, 1)):  # frame2, frame9, frame10
        np.testing.assert_array_equal(stored(root, "rgb", point), picture(seed))
        depth = np.rint(plane_mm(1.6 + 0.1 * seed) / 1000 * 512)
        assert stored(root, "depth_zbuffer", point)[10, 10] == depth[10, 10]


def test_ranges_become_buildings_of_their_splits(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path), tmp_path / "root"
    annotate(folders, root, "a", frames=(0, 1))
    annotate(folders, root, "b", frames=(1, 2), split="val")
    annotate(folders, root, "c", frames=(2, None), split="test")
    assert splits(root)[1:] == [["a", "1", "0", "0"], ["b", "0", "1", "0"], ["c", "0", "0", "1"]]
    names = sorted(str(path.relative_to(root / "rgb")) for path in (root / "rgb").rglob("*.png"))
    assert names == [f"{building}/point_{i}_view_0_domain_rgb.png" for i, building in enumerate("abc")]
    with pytest.raises(
        UserError, match=r"splits.csv: got building 'a' for split 'test'; expected 'train', in which it is there"
    ):
        annotate(folders, root, "a", split="test")


def test_the_reader_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders, root = write_frames(tmp_path), tmp_path / "root"
    annotate(folders, root, split="val")
    tasks = ("depth_zbuffer", "normal", "keypoints2d", "edge_texture", "reshading")
    dataset = Taskonomy(root, split="val", tasks=tasks)
    assert len(dataset) == 3
    sample = dataset[0]
    assert set(sample["targets"]) == set(tasks)
    depth = sample["targets"]["depth_zbuffer"][0].numpy()
    valid = sample["valid"]["depth_zbuffer"][0].numpy()
    assert (~valid).sum() == 9
    np.testing.assert_allclose(depth[valid], plane_mm()[valid] / 1000, atol=0.5 / 512 + 1e-6)


def test_float_depth_in_npy(tmp_path: Path) -> None:
    (rgb, depth), root = write_frames(tmp_path, ("only",)), tmp_path / "root"
    (depth / "only.png").unlink()
    values = plane_mm() / 1000 * 4
    values[0, :5] = np.nan, np.inf, -1, 0, np.nan
    np.save(depth / "only.npy", values.astype(np.float32))
    annotate((rgb, depth), root, depth_scale=4.0)
    code = np.rint(plane_mm() / 1000 * 512)
    code[0, :5] = 65535
    np.testing.assert_array_equal(stored(root, "depth_zbuffer", 0), code)


def test_a_pixel_without_normal_is_no_geometry(tmp_path: Path) -> None:
    (rgb, depth), root = write_frames(tmp_path, ("only",)), tmp_path / "root"
    alone = np.zeros(SHAPE, np.uint16)
    alone[12, 20] = 1500
    Image.fromarray(alone).save(depth / "only.png")
    annotate((rgb, depth), root)
    assert not stored(root, "mask_valid", 0).any()
    assert (stored(root, "depth_zbuffer", 0) == 65535).all()
    assert not stored(root, "reshading", 0).any()


def test_16_bit_gray_is_scaled_and_an_orientation_does_not_turn_colour_against_depth(tmp_path: Path) -> None:
    (rgb, depth), root = write_frames(tmp_path, ("gray", "turned")), tmp_path / "root"
    gray = np.linspace(0, 65535, SHAPE[0] * SHAPE[1]).astype(np.uint16).reshape(SHAPE)
    Image.fromarray(gray).save(rgb / "gray.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(picture(1)).save(rgb / "turned.png", exif=exif)
    annotate((rgb, depth), root)
    np.testing.assert_array_equal(stored(root, "rgb", 0), np.repeat((gray // 257)[..., None], 3, axis=2))
    np.testing.assert_array_equal(stored(root, "rgb", 1), picture(1))


def test_complete_views_are_left_alone(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path), tmp_path / "root"
    annotate(folders, root, frames=(0, 2))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.png")}
    (root / "point_info/house/point_1_view_0_domain_point_info.json").unlink()
    done = annotate(folders, root)
    assert (done.written, done.skipped) == (2, 1)
    touched = {path.name.split("_")[1] for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert touched == {"1"}
    done = annotate(folders, root)
    assert (done.written, done.skipped) == (0, 3)
    assert done.depth is not None
    assert len(splits(root)) == 2


def test_other_options_are_refused_and_again_writes_anew(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path), tmp_path / "root"
    annotate(folders, root)
    before = stored(root, "depth_zbuffer", 1)
    different = (
        r"house: got depth_scale 2000.0, intrinsics \[41.0, .*\]; expected depth_scale 1000.0, intrinsics \[40.0, .*--again"
    )
    options: dict[str, Any] = {"depth_scale": 2000.0, "intrinsics": (41.0, *INTRINSICS[1:])}
    with pytest.raises(UserError, match=different):
        annotate(folders, root, **options)
    np.testing.assert_array_equal(stored(root, "depth_zbuffer", 1), before)
    done = annotate(folders, root, **options, again=True)
    assert (done.written, done.skipped) == (3, 0)
    np.testing.assert_array_equal(stored(root, "depth_zbuffer", 1), np.rint(plane_mm(1.8) / 2000 * 512))
    assert annotate(folders, root, **options).skipped == 3
    # Other pictures under the same names are other labels too.
    moved = write_frames(tmp_path / "other")
    with pytest.raises(UserError, match=r"house: got rgb '.*other/rgb', depth '.*other/depth'; expected rgb '.*/rgb'"):
        annotate(moved, root, **options)


def test_views_of_an_earlier_version_are_not_taken_for_these(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path), tmp_path / "root"
    annotate(folders, root)
    (root / "labels/house.json").unlink()
    with pytest.raises(UserError, match=r"house: got labels without a record of what they were made from"):
        annotate(folders, root)
    assert annotate(folders, root, again=True).written == 3


def test_a_frame_that_sorts_first_moves_no_number(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path, ("frame2", "frame9")), tmp_path / "root"
    annotate(folders, root)
    before = {point: stored(root, "rgb", point).tolist() for point in (0, 1)}
    Image.fromarray(picture(7)).save(folders[0] / "frame1.png")
    Image.fromarray(plane_mm(1.5)).save(folders[1] / "frame1.png")
    done = annotate(folders, root)
    assert (done.written, done.skipped) == (1, 2)
    assert {point: stored(root, "rgb", point).tolist() for point in (0, 1)} == before
    np.testing.assert_array_equal(stored(root, "rgb", 2), picture(7))
    assert json.loads((root / "labels/house.json").read_text())["frames"] == {"frame2": 0, "frame9": 1, "frame1": 2}


def test_labels_say_what_they_were_made_from(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path, ("only",)), tmp_path / "root"
    noise = np.random.default_rng(0).normal(0, 0.002, (120, 160))
    depth_m = 1 / (1 / 1.6 + 0.0005 * np.arange(160) + noise)
    Image.fromarray(np.rint(5000 * depth_m).astype(np.uint16)).save(folders[1] / "only.png")
    Image.fromarray(np.zeros((120, 160, 3), np.uint8)).save(folders[0] / "only.png")
    done = annotate(folders, root, depth_scale=5000.0, intrinsics=(150.0, 150.0, 80.0, 60.0))
    record = json.loads((root / "labels/house.json").read_text())
    made_from = record["made_from"]
    assert (made_from["depth_scale"], made_from["depth_kind"], made_from["formulas"]) == (5000, "z", 2)
    assert made_from["rgb"] == str(folders[0])
    assert 0.0014 < record["noise_per_m"] < 0.002  # what 95 % of the image exceed
    assert record["normal_share"] == pytest.approx(0.97, abs=0.005)
    assert done.depth is not None
    assert record["tilt_deg"] == done.depth.tilt_deg
    assert re.search(r"noise of inverse depth 0.00[12]\d* /m, as of a sensor: .* 97.0% of the pixels", str(done.depth))
    info = json.loads((root / "point_info/house/point_0_view_0_domain_point_info.json").read_text())
    assert info["origin"]["depth"] == str(folders[1] / "only.png")
    assert info["origin"]["depth_facts"][1] == record["noise_per_m"]


def test_a_tree_of_scenes_in_one_call(tmp_path: Path, script: Callable[..., Any]) -> None:
    for scene, stems in (("hall", ("f1", "f2")), ("attic/east", ("f1",))):
        write_frames(tmp_path / "scans" / scene, stems)
    root, scans = tmp_path / "root", tmp_path / "scans"
    root.mkdir()
    (root / "splits.csv").write_text("id,train,val,test\nhall,0,1,0\n")
    arguments = ["annotate", "--rgb", scans / "**/rgb/*.png", "--depth", scans / "**/depth/*.png", "--depth-scale", 1000]
    arguments += ["--out", root, "--workers", 1, "--intrinsics", *INTRINSICS]
    broken = scans / "hall/depth/f2.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    stopped = script(*arguments)
    assert (stopped.status, "f2.png: got a file that cannot be read" in stopped.err) == (2, True)
    assert ["hall", "0", "1", "0"] in splits(root)
    broken.write_bytes(whole)
    done = script(*arguments)
    assert done.status == 0, done.err
    assert re.search(
        r"root: attic_east: [01] views? written, [01] there before; .*\n.*root: hall: [12] views? written", done.out
    )
    # What splits.csv says of a building stays; the others train.
    assert sorted(splits(root)[1:]) == [["attic_east", "1", "0", "0"], ["hall", "0", "1", "0"]]
    np.testing.assert_array_equal(stored(root, "rgb", 0, "attic_east"), picture(0))
    assert {path.name.split("_")[1] for path in (root / "rgb/hall").iterdir()} == {"0", "1"}
    again = script(*arguments)
    assert "attic_east: 0 views written, 1 there before" in again.out
    assert script(*arguments, "--split", "test").status == 2


def test_the_median_is_of_what_the_files_hold(tmp_path: Path) -> None:
    (rgb, depth), root = write_frames(tmp_path, ("only",)), tmp_path / "root"
    values = np.full(SHAPE, 3.0, np.float32)
    values[:15] = 200  # more than half of the pixels
    np.save(depth / "only.npy", values)
    (depth / "only.png").unlink()
    with pytest.warns(UserWarning, match="pixels with depth outside"):
        done = annotate((rgb, depth), root, depth_scale=1.0)
    assert done.depth is not None
    assert done.depth.median_m == 3


def test_ranges_at_once_lose_no_frame(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path, tuple(f"frame{i}" for i in range(3))), tmp_path / "root"
    camera = ["--depth-scale", "1000", "--intrinsics", *map(str, INTRINSICS), "--out", str(root), "--workers", "1"]
    files = ["--rgb", str(folders[0]), "--depth", str(folders[1])]
    calls = [["--building", "one", "--stop", "1"], ["--building", "one", "--start", "1"]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(ROOT / "scripts/annotate.py"), *files, *camera]
    processes = [subprocess.Popen([*script, *call], env=environment, stderr=subprocess.DEVNULL) for call in calls]
    assert [process.wait() for process in processes] == [0, 0]
    assert splits(root)[1:] == [["one", "1", "0", "0"]]
    assert json.loads((root / "labels/one.json").read_text())["frames"] == {f"frame{i}": i for i in range(3)}


def test_a_bad_frame_leaves_whole_views_and_no_split(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path), tmp_path / "root"
    image = folders[0] / "frame9.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"frame9.png: got a file that cannot be read \(.*\); expected a whole picture"):
        annotate(folders, root)
    assert not (root / "splits.csv").exists()
    assert len(list((root / "point_info/house").iterdir())) == 1
    image.write_bytes(whole)
    assert annotate(folders, root).written == 2


def test_depth_out_of_range_is_invalid_and_said(tmp_path: Path) -> None:
    (rgb, depth), root = write_frames(tmp_path, ("only",)), tmp_path / "root"
    values = np.full(SHAPE, 3.0, np.float32)
    values[8, 10:14] = 127.9961, 128.0, 200.0, 0.0009
    np.save(depth / "only.npy", values)
    (depth / "only.png").unlink()
    with pytest.warns(UserWarning, match=r"^3 pixels with depth outside 0.0020 to 128.00 m"):
        done = annotate((rgb, depth), root, depth_scale=1.0)
    assert done.unencodable_pixels == 3
    assert stored(root, "depth_zbuffer", 0)[8, 9:15].tolist() == [1536, 65534, 65535, 65535, 65535, 1536]


def test_files_without_partner_are_said(tmp_path: Path) -> None:
    (rgb, depth), root = write_frames(tmp_path), tmp_path / "root"
    (depth / "frame9.png").rename(depth / "frame8.png")
    (rgb / "notes.txt").write_text("not an image")
    with pytest.warns(UserWarning, match=r"^2 files without a partner of the same name left out, e.g. .*frame8.png"):
        assert annotate((rgb, depth), root).written == 2


@pytest.mark.parametrize(("scale", "median"), [(20000.0, "0.055"), (10.0, "110")])
def test_an_implausible_scale_is_said(tmp_path: Path, scale: float, median: str) -> None:
    (rgb, depth), root = write_frames(tmp_path, ("only",)), tmp_path / "root"
    Image.fromarray(np.full(SHAPE, 1100, np.uint16)).save(depth / "only.png")
    message = rf"^the median depth is {median} m, outside 0.2 to 100.0 m: is the depth scale of {scale} units a metre right"
    with pytest.warns(UserWarning, match=message):
        annotate((rgb, depth), root, depth_scale=scale)


@pytest.mark.parametrize(
    ("scale", "unit", "message"),
    [
        (
            1.0,
            1000,
            r"got 1, with which 100.0% of the depth in 3 of 3 frames is .* median is 20[56]\d m; .*; 1000 would .* 2.1 m",
        ),
        (1000.0, 1, r"got 1000, with which 100.0% of .* median is 0.0020[56] m; .*; 1 would make the median 2.1 m"),
        (1.0, 3e6, r"got 1, .*; expected what these files have; give their units a metre"),
    ],
)
def test_a_forgotten_scale_is_refused_before_a_building_is_lost(
    tmp_path: Path, scale: float, unit: float, message: str
) -> None:
    folders, root = write_frames(tmp_path), tmp_path / "root"
    for path in list(folders[1].iterdir()):
        with Image.open(path) as image:
            millimetres = np.asarray(image)
        np.save(path.with_suffix(".npy"), np.where(millimetres == 65535, 0, millimetres) / np.float32(1000 / unit))
        path.unlink()
    annotate(folders, root, depth_scale=unit)
    files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"^--depth-scale: {message}$"):
        annotate(folders, root, depth_scale=scale, again=True)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == files


def test_a_street_with_much_depth_beyond_the_range_is_written(tmp_path: Path) -> None:
    (rgb, depth), root = write_frames(tmp_path, ("only",)), tmp_path / "root"
    values = np.full(SHAPE, 20.0, np.float32)
    values[:14] = 290  # more than half of the pixels
    np.save(depth / "only.npy", values)
    (depth / "only.png").unlink()
    with pytest.warns(UserWarning, match=r"^476 pixels with depth outside 0.0020 to 128.00 m"):
        assert annotate((rgb, depth), root, depth_scale=1.0).written == 1


# Bad input.


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "depth/frame9.png",
            np.zeros((26, 30), np.uint16),
            r"frame9.png: got \(26, 30\) pixels .* expected the shape of \(26, 34\), as",
        ),
        (
            "depth/frame9.png",
            np.zeros((26, 34), np.uint8),
            r"frame9.png: got uint8 \(26, 34\); expected depth, \(H, W\) numbers",
        ),
        ("depth/frame9.png", b"nothing", r"frame9.png: got a file that cannot be read"),
        ("depth/frame9.npy", np.zeros((3, 26, 34)), r"frame9.npy: got float64 \(3, 26, 34\); expected depth, \(H, W\)"),
        ("depth/frame9.npy", np.zeros((26, 34), "U1"), r"frame9.npy: got <U1 \(26, 34\); expected numbers in npy"),
        (
            "depth/frame9.npy",
            b"nothing",
            r"frame9.npy: got a file that cannot be read \(.*\); expected numbers in npy; save it again",
        ),
        ("rgb/frame9.jpg", np.zeros((26, 34, 3), np.uint8), r"frame9.png: got a second file beside frame9.jpg"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    folders, path = write_frames(tmp_path), tmp_path / name
    if path.suffix == ".npy":
        path.with_suffix(".png").unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        Image.fromarray(content).save(path)
    with pytest.raises(UserError, match=message):
        annotate(folders, tmp_path / "root")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth_scale": 0.0}, r"depth-scale: got 0.0; expected depth units a metre, above 0; 1000 if depth is in millimetres"),
        ({"intrinsics": (0.0, 1.0, 2.0, 3.0)}, r"intrinsics: got \(0.0, .*\); expected \[fx, fy, cx, cy\] with fx, fy above 0"),
        ({"building": "a/b"}, r"building: got 'a/b'; expected letters, digits"),
        ({"building": ".."}, r"building: got '..'; expected letters, digits"),
        ({"split": "dev"}, r"split: got 'dev'; expected one of train, val, test"),
        ({"frames": (0, 4)}, r"start, stop: got 0, 4; expected 0 <= start < stop <= 3, the number of pairs"),
        ({"frames": (2, 2)}, r"start, stop: got 2, 2; expected"),
        ({"frames": (-1, None)}, r"start, stop: got -1, 3; expected"),
    ],
)
def test_bad_options_write_nothing(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    folders = write_frames(tmp_path)
    with pytest.raises(UserError, match=message):
        annotate(folders, tmp_path / "root", **options)
    assert not (tmp_path / "root").exists()


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    rgb, depth = write_frames(tmp_path)
    with pytest.raises(UserError, match=r"nowhere: got neither a folder nor a file; expected a folder, or a pattern"):
        annotate((rgb, tmp_path / "nowhere"), tmp_path / "root")
    for path in list(depth.iterdir()):
        path.rename(depth / f"d_{path.name}")
    with pytest.raises(
        ValueError,
        match=r"got 3 files of colour \(e.g. frame10.png\) and 3 of depth \(e.g. d_frame10.png\), of which 0 are "
        r"pairs; expected pairs of at least half of the files; give patterns",
    ):
        annotate((rgb, depth), tmp_path / "root")


def test_a_damaged_splits_file_is_refused(tmp_path: Path) -> None:
    folders, root = write_frames(tmp_path), tmp_path / "root"
    root.mkdir()
    (root / "splits.csv").write_text("id,training\n")
    with pytest.raises(UserError, match=r"splits.csv: got the columns \['id', 'training'\]; expected id,train,val,test"):
        annotate(folders, root)
    assert [path.name for path in root.iterdir()] == ["splits.csv"]


# The script.


def run_script(rgb: Path, depth: Path, root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    camera = ["--depth-scale", "1000", "--intrinsics", *map(str, INTRINSICS)]
    script = [sys.executable, str(ROOT / "scripts/annotate.py"), "--rgb", str(rgb), "--depth", str(depth)]
    command = [*script, *camera, "--out", str(root), "--building", "house", *more]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_script_in_processes_writes_what_one_process_does(tmp_path: Path) -> None:
    folders = write_frames(tmp_path, tuple(f"frame{i}" for i in range(7)))
    done = run_script(*folders, tmp_path / "two", "--split", "test", "--start", "1", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "house: 6 views written, 0 there before; depth: median 2.36 m, noise of inverse depth" in done.stdout
    assert splits(tmp_path / "two")[1:] == [["house", "0", "0", "1"]]
    annotate(folders, tmp_path / "one", split="test", frames=(1, None))
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_script_names_a_bad_file_and_exits_2(tmp_path: Path) -> None:
    folders = write_frames(tmp_path, tuple(f"frame{i}" for i in range(6, 12)))
    (folders[0] / "frame10.png").write_bytes(b"nothing")
    done = run_script(*folders, tmp_path / "root", "--workers", "2")
    assert done.returncode == 2
    assert "frame10.png: got a file that cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not LIVINGROOM.exists(), reason="needs ../shared/data/livingroom")
def test_real_frames(tmp_path: Path) -> None:
    folders, root = (LIVINGROOM / "image", LIVINGROOM / "depth"), tmp_path / "root"
    done = annotate(folders, root, intrinsics=(525.0, 525.0, 319.5, 239.5), frames=(0, 2))
    assert done.written == 2
    assert done.depth is not None
    assert done.depth.median_m == pytest.approx(1.84, abs=0.05)
    assert done.depth.noise_per_m < 1e-5
    normal, valid = stored(root, "normal", 0), stored(root, "mask_valid", 0) > 0
    floor, wall = normal[400:470, 100:300], normal[10:90, 340:580]
    for surface in (floor, wall):  # flat, to the steps of 8 bits and of the millimetres
        unit = surface.reshape(-1, 3) / 255 * 2 - 1
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        mean = unit.mean(0) / np.linalg.norm(unit.mean(0))
        assert np.median(np.degrees(np.arccos(np.clip(unit @ mean, -1, 1)))) < 1
    assert floor[..., 1].max() < 64
    assert (normal[valid][:, 2] < 128).mean() > 0.95
