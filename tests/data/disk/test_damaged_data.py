"""14,000 damaged files of every format that the readers of datasets decode: each is one message, or what the file held.

Formats without a checksum may hold other values after a flip, which nobody can see; PNG never. The test prints the counts.
"""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mult.data.cocodoom.annotations import Annotations
from mult.data.disk.images import read_npy, read_photograph, read_pixels
from mult.data.disk.splits import read_splits
from mult.data.pascal.labels import read_label_map, read_parts
from mult.data.prepare.depth_files import read_depth
from mult.data.taskonomy.dataset import Taskonomy
from mult.data.taskonomy.write import write_view
from mult.errors import UserError
from tests.data.cocodoom import archive
from tests.data.pascal.tree import make_object, write_parts

SIDE = 48
Y, X = np.mgrid[:SIDE, :SIDE]
COLOURS = np.stack([5 * X, 3 * Y, (X * Y) % 251], axis=-1).astype(np.uint8)
DEPTH = (900 + 31 * X + 17 * Y + (X * Y) % 7).astype(np.uint16)
MODES = ("I;16", "I;16B", "I", "RGB", "L")


def picture(pixels: Any, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=form, **options)
    return file.getvalue()


def array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def netpbm(header: str, values: Any) -> bytes:
    return header.encode() + values.tobytes()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, depth=DEPTH)
    return file.getvalue()


def hdf5() -> bytes:
    file = io.BytesIO()
    with pytest.importorskip("h5py").File(file, "w") as content:
        content.create_dataset("depth", data=DEPTH, compression="gzip")
        content["other"] = np.arange(4)
    return file.getvalue()


def exr() -> bytes:
    openexr = pytest.importorskip("OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.exr")
        openexr.File(header, {"R": DEPTH.astype(np.float32)}).write(str(path))
        return path.read_bytes()


def label_map() -> bytes:
    file = io.BytesIO()
    savemat(file, {"LabelMap": DEPTH}, do_compression=True)
    return file.getvalue()


def parts() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mat")
        write_parts(path, [make_object(15, X > 9, {"head": X > 9, "rhand": Y > 30})])
        return path.read_bytes()


def read_coco(path: Path) -> Any:
    """The categories and the masks of a COCO JSON."""
    annotations = Annotations(path.parent, path, lambda ids, files: {})
    target = np.zeros((len(annotations), *archive.SIZE), np.int64)
    for i, image in enumerate(target):
        annotations.paint(i, image, 1)
    return {"names": annotations.names, "classes": target.tolist(), "ids": annotations.ids.tolist()}


def read_camera(path: Path) -> Any:
    """The camera of a view whose point_info is at `path`."""
    return np.array(Taskonomy(path.parents[2], "train", tasks=()).camera(0).intrinsics)


FORMATS: dict[str, tuple[int, str, bytes, Callable[[Path], Any]]] = {
    "png, colour": (2200, "a.png", picture(COLOURS, "PNG"), lambda path: read_pixels(path, MODES)),
    "png, 16 bits": (2200, "a.png", picture(DEPTH, "PNG"), lambda path: read_pixels(path, MODES)),
    "jpg": (1200, "a.jpg", picture(COLOURS, "JPEG"), read_photograph),
    "tiff, 16 bits": (1000, "a.tiff", picture(DEPTH, "TIFF"), lambda path: read_pixels(path, MODES)),
    "tiff, deflated": (500, "a.tiff", picture(COLOURS, "TIFF", compression="tiff_deflate"), read_photograph),
    "bmp": (500, "a.bmp", picture(COLOURS, "BMP"), read_photograph),
    "webp": (500, "a.webp", picture(COLOURS, "WEBP"), read_photograph),
    "ppm": (500, "a.ppm", picture(COLOURS, "PPM"), read_photograph),
    "npy": (800, "a.npy", array(DEPTH.astype(np.float32)), read_npy),
    "pgm": (500, "a.pgm", netpbm("P5 48 48 65535\n", DEPTH.astype(">u2")), read_depth),
    "pfm": (500, "a.pfm", netpbm("Pf\n48 48\n-1.0\n", DEPTH.astype("<f4")), read_depth),
    "npz": (500, "a.npz", npz(), read_depth),
    "hdf5": (500, "a.hdf5", hdf5(), lambda path: read_depth(path, "depth")),
    "exr": (500, "a.exr", exr(), read_depth),
    "mat, label map": (500, "a.mat", label_map(), lambda path: read_label_map(path, (SIDE, SIDE))),
    "mat, parts": (500, "a.mat", parts(), lambda path: read_parts(path, (SIDE, SIDE))),
    "COCO JSON": (500, "a.json", json.dumps(archive.TREE).encode(), read_coco),
    "splits.csv": (300, "splits.csv", b"id,train,val,test\nalder,1,0,0\nbirch,0,1,0\ncedar,0,0,1\n", read_splits),
    "point_info": (300, "", b"", read_camera),
}
"""{format: (how many, name, content, reader)}; of point_info the content is that of a view."""


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three bits flipped, or the file cut, or a part of it zero or noise."""
    changed = bytearray(content)
    start = int(rng.integers(len(changed)))
    match rng.integers(4):
        case 0:
            del changed[start:]
        case 1:
            changed[start : start + 16] = bytes(len(changed[start : start + 16]))
        case 2:
            changed[start : start + 16] = rng.bytes(len(changed[start : start + 16]))
        case _:
            for place in rng.integers(len(changed), size=rng.integers(1, 4)):
                changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def is_same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.asarray(one), np.asarray(other))) if not isinstance(one, dict) else one == other


@pytest.mark.slow
def test_damage_is_one_message_or_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(number for number, *_ in FORMATS.values()) == 14_000
    rng, lines = np.random.default_rng(7), []
    for form, (number, name, content, read) in FORMATS.items():
        path = tmp_path / name
        if form == "point_info":
            labels = {"depth_zbuffer": DEPTH[None] / 512}
            camera = (50.0, 51.0, 23.5, 22.5)
            valid = np.ones((SIDE, SIDE), np.bool_)
            write_view(tmp_path / "t", "alder", 0, 0, image=COLOURS, targets=labels, valid=valid, intrinsics=camera)
            (tmp_path / "t" / "splits.csv").write_text("id,train,val,test\nalder,1,0,0\n")
            (path,) = (tmp_path / "t").rglob("*.json")
            content = path.read_bytes()
        path.write_bytes(content)
        expected, counts = read(path), Counter[str]()
        for _ in range(number):
            damaged = damage(content, rng)
            path.write_bytes(damaged)
            if damaged == content:
                counts["not damaged"] += 1
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, beside a picture that it reads
                try:
                    counts["the same" if is_same(read(path), expected) else "other values"] += 1
                except UserError as error:
                    is_good = path.name in str(error) and "\n" not in str(error) and len(str(error)) < 700
                    counts["one message" if is_good else "bad message"] += 1
        lines.append(f"{form:<16}{number:>6}: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
        if form.startswith("png"):
            assert counts["other values"] == 0
        assert counts["one message"] > 0
        assert counts["bad message"] == 0
    with capsys.disabled():
        print("", *lines, sep="\n")
