"""How good labels are, as a table: `pytest -m slow -n0 tests/data/prepare/test_quality.py` prints it, some minutes later.

The parts are those of other tests, here over all files at hand: frames of real cameras where they lie beside the checkout, and
what the tests write. In brackets what the first version had, measured in the same way.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mult.data.disk.images import read_photograph, read_pixels
from mult.data.prepare.annotate import annotate
from mult.data.prepare.layouts import Layout
from mult.data.rooms.dataset import render_missing
from mult.data.sample import BadFileError
from mult.labels import edge_texture, keypoints2d, normals_from_depth
from tests.data.disk.test_stored import MODES, png
from tests.data.prepare import test_inspection, test_layouts
from tests.data.prepare.test_inspection import FAULTS, find_wrong
from tests.data.prepare.test_layouts import WRITERS
from tests.test_noisy_depth import CLEAN, SENSORS, SHARED, measure_angle, planar_pixels, read_frame

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs {SHARED}")]
FIRST_DEG = {
    "lingbot0": 12.1,
    "lingbot1": 20.4,
    "lingbot2": 18.6,
    "esanet": 3.3,
    "ch5": 10.5,
    "ch7": 8.1,
    "ch12": 0.1282,
    "livingroom": 0.1602,
    "rooms": 0.1338,
}
"""Median angle to wide planes of the first version's normals."""
PHOTOGRAPHS = (
    "sensors/lingbot/examples/1/rgb.jpg",
    "sensors/slambook2/ch7/1.png",
    "sensors/promptda/assets/example_images/image.jpg",
    "livingroom/image/00120.jpg",
)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str, str, str], None]:
    """Print a line of the table."""

    def call(what: str, measured: str, wanted: str) -> None:
        with capsys.disabled():
            print(f"\n{what:<48} {measured:<42} {wanted}", end="", flush=True)

    return call


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms") / "rooms"
    render_missing(root, buildings=6, views=6, size=128, seed=4, workers=1)
    return root


def read_rooms(folder: Path) -> Iterator[tuple[Any, Any, Any]]:
    """(depth, valid, intrinsics) of rendered views."""
    render_missing(folder, buildings=3, views=3, size=256, seed=2, workers=1)
    for path in sorted((folder / "depth_zbuffer").rglob("*.png")):
        name = path.name.replace("depth_zbuffer.png", "point_info.json")
        camera = json.loads((folder / "point_info" / path.parent.name / name).read_text())
        code = np.asarray(Image.open(path)).astype(np.float64)
        yield np.where(code < 65535, code, 0) / 512, code < 65535, tuple(camera["intrinsics"])


def test_normals_against_wide_planes(tmp_path: Path, say: Callable[[str, str, str], None]) -> None:
    frames = {name: [read_frame(*frame)] for name, frame in (SENSORS | CLEAN).items()}
    for name, views in (frames | {"rooms": list(read_rooms(tmp_path / "rooms"))}).items():
        angles, with_normal, with_depth = [], 0, 0
        for depth, valid, intrinsics in views:
            planar, wide = planar_pixels(depth, valid, intrinsics)
            normal, has_normal = normals_from_depth(depth, intrinsics, valid)
            angles.append(measure_angle(normal, wide)[planar & has_normal])
            with_normal, with_depth = with_normal + int(has_normal.sum()), with_depth + int(valid.sum())
        angle, share = float(np.median(np.concatenate(angles))), with_normal / with_depth
        bound, share_wanted = (5.0, 0.85) if name in SENSORS else (1.05 * FIRST_DEG[name], 1.0)
        measured = f"{angle:.2f} deg ({FIRST_DEG[name]:.2f}), {share:.1%} of the pixels"
        say(f"normals to wide planes, {name}", measured, f"at most {bound:.2f} deg, {share_wanted:.0%}")
        assert angle <= bound
        assert share >= share_wanted


def test_layouts_as_they_lie(tmp_path: Path, script: Callable[..., Any], say: Callable[[str, str, str], None]) -> None:
    for name in WRITERS:
        (tmp_path / name).mkdir()
        test_layouts.test_a_layout_is_read_as_it_lies(name, tmp_path / name, script)
    say("layouts read as they lie", f"{len(WRITERS)} (0): {', '.join(WRITERS)}", "9")
    assert len(WRITERS) == 9


def test_planted_faults(tmp_path: Path, rooms: Path, say: Callable[[str, str, str], None]) -> None:
    silent = []
    for fault, (plant, expected) in FAULTS.items():
        root = tmp_path / fault / "rooms"
        shutil.copytree(rooms, root)
        plant(root)
        wrong = find_wrong(root)
        if not all(text in wrong.get(subject, "") for subject, text in expected.items()):
            silent.append(fault)
        shutil.rmtree(root)
    shutil.copytree(rooms, tmp_path / "flipped")
    test_inspection.test_flipped_bits_are_named(tmp_path / "flipped")
    say("planted faults named", f"{len(FAULTS) + 1 - len(silent)} of {len(FAULTS) + 1} (8 of 15)", "15")
    assert len(FAULTS) == 14
    assert not silent


def test_right_trees(tmp_path: Path, say: Callable[[str, str, str], None]) -> None:
    """Rendered rooms of several sizes, and parts of a film that annotate labels."""
    alarms: dict[str, dict[str, str]] = {}
    for seed, size in enumerate((96, 128, 128, 160, 192, 224)):
        root = tmp_path / f"rooms {seed}, {size} pixels"
        render_missing(root, buildings=6, views=6, size=size, seed=10 + seed, workers=1)
        alarms[root.name] = find_wrong(root)
    layout = Layout("image/*.jpg", "depth/*.png", 1000, (525, 525, 319.5, 239.5))
    for start in (0, 55, 110, 165):
        root = tmp_path / f"film from {start}"
        annotate(SHARED / "livingroom", layout, root, "room", frames=(start, start + 10), workers=1)
        alarms[root.name] = find_wrong(root)
    false = {name: wrong for name, wrong in alarms.items() if wrong}
    say("right trees with a false alarm", f"{len(false)} of {len(alarms)}", "0 of 10")
    assert len(alarms) == 10
    assert not false


@pytest.mark.parametrize("label", [edge_texture, keypoints2d])
def test_a_label_of_160_pixels(label: Callable[..., Any], say: Callable[[str, str, str], None]) -> None:
    correlations, ratios = [], []
    for name in PHOTOGRAPHS:
        image = read_photograph(SHARED / name)
        width, height = image.size
        large, small = ((round(width * side / min(image.size)), round(height * side / min(image.size))) for side in (512, 160))
        image = image.resize(large, Image.Resampling.BICUBIC)
        expected = np.asarray(Image.fromarray(label(np.asarray(image))[0]).resize(small, Image.Resampling.BOX))
        of_small = label(np.asarray(image.resize(small, Image.Resampling.BICUBIC)))[0]
        correlations.append(float(np.corrcoef(of_small.ravel(), expected.ravel())[0, 1]))
        ratios.append(float(of_small.mean() / expected.mean()))
    what = f"{label.__name__}, 160 px against 512 px"
    first = {"edge_texture": "1.4 to 1.8", "keypoints2d": ".27 to .68"}[label.__name__]
    measured = f"correlation {min(correlations):.4f}, ratio {min(ratios):.3f} to {max(ratios):.3f} ({first})"
    say(what, measured, "at least .99, .97 to 1.03")
    assert min(correlations) >= 0.99
    assert max(abs(ratio - 1) for ratio in ratios) <= 0.03


def test_flips_in_idat(tmp_path: Path, say: Callable[[str, str, str], None]) -> None:
    rng, path = np.random.default_rng(5), tmp_path / "picture.png"
    silent, in_pillow, flips = 0, 0, 0
    for kind in ("depth", "rgb"):
        content = png(kind)
        begin, end = content.index(b"IDAT") + 4, content.rindex(b"IEND") - 8  # IDAT's checksum and IEND's length between
        pixels = np.asarray(Image.open(io.BytesIO(content)))
        for position in rng.integers(8 * begin, 8 * end, 1425):
            flipped = bytearray(content)
            flipped[position // 8] ^= 1 << (position % 8)
            path.write_bytes(flipped)
            flips += 1
            try:
                read_pixels(path, MODES)
                silent += 1
            except BadFileError:
                pass
            try:
                with Image.open(path) as picture:
                    in_pillow += not np.array_equal(np.asarray(picture), pixels)
            except Exception:
                continue
    say("flips in IDAT that pass silently", f"{silent} of {flips} ({in_pillow} with Pillow alone)", "0")
    assert silent == 0
