"""Toy trees in the layouts of NYUD_MT and PASCAL_MT, of rendered rooms: to test and to try the benchmarks without their data.

Images, depth and normals are those of a view of Rooms, cut to a landscape format. The other labels stand in for what the
benchmarks have, and no number that comes of them means anything:

- boundaries of NYUD_MT are where one object ends and the next begins, those of PASCAL_MT where the class changes;
- saliency is how near a pixel is: above one half is nearer than half of the view;
- every chair and couch is a person, whose parts are six bands from its top to its bottom.

A tree is a function of its size, its numbers of images and its seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mult.data.disk.images import Array, Mask, write_png
from mult.data.disk.splits import read_nyu_lists
from mult.data.pascal.dataset import CLASSES
from mult.data.pascal.labels import PARTS, PERSON
from mult.data.rooms import dataset as rooms
from mult.data.rooms import parts
from mult.errors import UserError
from mult.files import write_array, write_file, write_text
from mult.tasks import IGNORE

Size = tuple[int, int]
"""(height, width)."""

_NYU_CLASSES = {
    parts.BACKGROUND: "wall",
    parts.CHAIR: "chair",
    parts.COUCH: "sofa",
    parts.BED: "bed",
    parts.TABLE: "table",
    parts.TOILET: "toilet",
    parts.TV: "television",
    parts.SINK: "sink",
    parts.FRIDGE: "refridgerator",  # as the published list has it
    parts.BOOK: "books",
}
"""Code of a class of Rooms -> its name among NYU's 40 classes; all other objects are `otherprop`."""
_VOC_CLASSES = {
    parts.BOTTLE: "bottle",
    parts.CHAIR: "chair",
    parts.COUCH: "sofa",
    parts.PLANT: "pottedplant",
    parts.TABLE: "diningtable",
    parts.TV: "tvmonitor",
}
"""The same among VOC's classes; all else is background."""
_CONTEXT_CLASSES = {
    "unknown": parts.UNCERTAIN,
    "wall": parts.BACKGROUND,
    "bottle": parts.BOTTLE,
    "chair": parts.CHAIR,
    "sofa": parts.COUCH,
    "pottedplant": parts.PLANT,
    "bed": parts.BED,
    "table": parts.TABLE,
    "tvmonitor": parts.TV,
}
_SHARED_CLASSES = ("wall", "chair", "sofa", "bed", "table", "unknown")
"""Of PASCAL-Context's labels those that NYU has too, on which the normals are valid; tvmonitor is another."""
_PEOPLE = (parts.CHAIR, parts.COUCH)


@dataclass(frozen=True)
class View:
    """What the labels are made of, each (H, W): depth in metres, class codes of mult/data/rooms/parts.py, numbers of objects.

    image (H, W, 3) uint8; normal (H, W, 3); where valid is False there is no geometry.
    """

    image: Array
    depth_m: Array
    normal: Array
    class_code: Array
    instance: Array
    valid: Mask


def write_toys(root: Path, benchmark: str, train: int, val: int, size: Size, seed: int = 0) -> None:
    """Write `train` and `val` images, of rooms of their own, in the layout that the dataset `benchmark` reads.

    Raises UserError, before anything is written, for a benchmark that is not in BENCHMARKS, for a size that is no landscape
    format of at least 32 pixels, for a split without images and for a folder that is not empty.
    """
    if benchmark not in BENCHMARKS:
        raise UserError(f"toys: got {benchmark!r}; expected one of {', '.join(BENCHMARKS)}; choose one")
    height, width = size
    if not 32 <= height <= width:
        raise UserError(f"toys: got the size {height} x {width}; expected a height of at least 32 and at most the width")
    if min(train, val) < 1:
        raise UserError(f"toys: got {train} images to train and {val} to evaluate; expected at least one of each")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"toys: got {root}, which is there already; expected a new folder; choose another or delete it")
    BENCHMARKS[benchmark](root, {"train": range(train), "val": range(train, train + val)}, size, seed)


def _write_nyud(root: Path, splits: Mapping[str, range], size: Size, seed: int) -> None:
    names = [str(name) for name in read_nyu_lists()["classes40"]]
    codes = np.full(parts.VASE + 1, 1 + names.index("otherprop"), np.uint8)
    codes[parts.UNCERTAIN] = 0
    for code, name in _NYU_CLASSES.items():
        codes[code] = 1 + names.index(name)
    for split, numbers in splits.items():
        ids = [f"{number + 1:04d}" for number in numbers]
        for number, name in zip(numbers, ids, strict=True):
            view = _render(seed, number, size)
            _write_jpeg(root / "images" / f"{name}.jpg", view.image)
            write_png(root / "segmentation" / f"{name}.png", codes[view.class_code])
            write_array(root / "depth" / f"{name}.npy", np.where(view.valid, view.depth_m, 0).astype(np.float32))
            write_png(root / "normals" / f"{name}.png", _encode_normals(view))
            write_png(root / "edge" / f"{name}.png", _find_changes(view.instance).astype(np.uint8) * 255)
        write_text(root / "gt_sets" / f"{split}.txt", "".join(f"{name}\n" for name in ids))


def _write_pascal(root: Path, splits: Mapping[str, range], size: Size, seed: int) -> None:
    codes = np.zeros(parts.VASE + 1, np.uint8)
    codes[parts.UNCERTAIN] = IGNORE
    for code, name in _VOC_CLASSES.items():
        codes[code] = CLASSES.index(name)
    for split, numbers in splits.items():
        ids = [f"2008_{number + 1:06d}" for number in numbers]
        for number, name in zip(numbers, ids, strict=True):
            view = _render(seed, number, size)
            _write_jpeg(root / "JPEGImages" / f"{name}.jpg", view.image)
            source = "VOC12" if number % 2 else "pascal-context"  # as in the benchmark, where VOC labels some of the images
            write_png(root / "semseg" / source / f"{name}.png", codes[view.class_code])
            _write_mat(root / "pascal-context/trainval" / f"{name}.mat", {"LabelMap": view.class_code.astype(np.uint16)})
            write_png(root / "normals_distill" / f"{name}.png", _encode_normals(view))
            write_png(root / "sal_distill" / f"{name}.png", _rate_nearness(view))
            people = [person for person in map(_build_person, _find_people(view)) if person is not None]
            if people:
                _write_mat(root / "human_parts" / f"{name}.mat", {"anno": {"imname": name, "objects": _build_objects(people)}})
        write_text(root / "ImageSets/Context" / f"{split}.txt", "".join(f"{name}\n" for name in ids))
    (root / "human_parts").mkdir(exist_ok=True)
    write_text(root / "db_info/nyu_classes.json", json.dumps(_SHARED_CLASSES))
    write_text(root / "db_info/context_classes.json", json.dumps(_CONTEXT_CLASSES))


BENCHMARKS: Mapping[str, Callable[[Path, Mapping[str, range], Size, int], None]] = {
    "nyu": _write_nyud,
    "pascal": _write_pascal,
}
"""`data.dataset` that reads the tree -> the function that writes it."""


# --- Labels ---


def _render(seed: int, number: int, size: Size) -> View:
    """A view of the room of this number, its middle rows."""
    height, width = size
    view = rooms.render(seed, width, building=number, number=0)
    top = (width - height) // 2
    rows = slice(top, top + height)
    return View(
        image=view.image[rows],
        depth_m=view.depth_m[rows],
        normal=view.normal.transpose(1, 2, 0)[rows],
        class_code=view.class_code[rows],
        instance=view.instance[rows],
        valid=view.valid[rows],
    )


def _find_changes(labels: Array) -> Mask:
    """The pixels whose label is not that of the next one to the right or below."""
    changes = np.zeros(labels.shape, np.bool_)
    changes[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    changes[:-1] |= labels[:-1] != labels[1:]
    return changes


def _encode_normals(view: View) -> Array:
    """255 (n + 1) / 2 in 8 bits, (128, 128, 128) where there is none."""
    return np.rint((np.where(view.valid[..., None], view.normal, 0) + 1) * 127.5).astype(np.uint8)


def _rate_nearness(view: View) -> Array:
    """255 m / (m + depth) with the view's median depth m, in 8 bits; 0 where there is no geometry."""
    median = np.median(view.depth_m[view.valid]) if view.valid.any() else 1.0
    return np.where(view.valid, 255 * median / (median + view.depth_m), 0).astype(np.uint8)


def _find_people(view: View) -> list[Mask]:
    """The pixels of each chair and couch."""
    numbers = np.unique(view.instance[np.isin(view.class_code, _PEOPLE)])
    return [(view.instance == number) & np.isin(view.class_code, _PEOPLE) for number in numbers]


def _build_person(mask: Mask) -> tuple[Any, ...] | None:
    """An object of PASCAL-Part, its fields in the file's order; None for one of fewer rows than there are parts."""
    names = [group[0] for group in PARTS.values() if group]
    rows = np.flatnonzero(mask.any(1))
    if len(rows) < len(names):
        return None
    bands = np.linspace(rows[0], rows[-1] + 1, len(names) + 1).round().astype(int)
    listed = np.empty((1, len(names)), dtype=[("part_name", object), ("mask", object)])
    for place, name in enumerate(names):
        part = np.zeros(mask.shape, np.uint8)
        part[bands[place] : bands[place + 1]] = mask[bands[place] : bands[place + 1]]
        listed[0, place] = (name, part)
    return "person", PERSON, mask.astype(np.uint8), listed


def _build_objects(people: list[tuple[Any, ...]]) -> Array:
    objects = np.empty((1, len(people)), dtype=[(name, object) for name in ("class", "class_ind", "mask", "parts")])
    for place, person in enumerate(people):
        objects[0, place] = person
    return objects


# --- Files ---


def _write_jpeg(path: Path, pixels: Array) -> None:
    picture = Image.fromarray(pixels)
    write_file(path, lambda file: picture.save(file, format="JPEG", quality=95, subsampling=0), durable=False)


def _write_mat(path: Path, variables: Mapping[str, Any]) -> None:
    try:
        from scipy.io import savemat
    except ImportError as error:
        raise UserError(f'{path}: got no SciPy to write it; expected it; run: pip install "mult-dense[labels]"') from error
    write_file(path, lambda file: savemat(file, dict(variables)), durable=False)
