"""PASCAL_MT of a few images, written by formulas without a symmetry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

Map = NDArray[Any]


def make_maps(height: int, width: int, seed: int) -> dict[str, Map]:
    """The values of an image's files: segmentation 0 to 20 and 255, label ids, a person's parts, normals, saliency."""
    y, x = np.mgrid[:height, :width]
    segments = ((x + 2 * y + seed) // 3) % 22
    normals = np.stack([0.2 + x / 40, 0.3 - y / 30, -0.6 - x * y / 900], axis=2)
    return {
        "image": np.stack([5 * x % 256, (250 - 3 * y) % 256, (x + y + seed) % 256], axis=2).astype(np.uint8),
        "segments": np.where(segments == 21, 255, segments).astype(np.uint8),
        "labels": (100 + 50 * (x > width // 3) + 200 * (y > 2 * height // 3) + seed).astype(np.uint16),
        "head": (x < width // 4) & (y < height // 2),
        "hand": (x >= width // 2) & (y > height // 3),
        "hair": (x < width // 4) & (y < 2),
        "normals": normals / np.linalg.norm(normals, axis=2, keepdims=True),
        "saliency": np.where((x > 2) & (y < height - 3), 130, 120).astype(np.uint8),
    }


def make_object(number: int, mask: Map, parts: dict[str, Map]) -> dict[str, Any]:
    """An object of PASCAL-Part: its fields in the file's order."""
    listed = np.empty((1, len(parts)), dtype=[("part_name", object), ("mask", object)])
    for place, (name, part) in enumerate(parts.items()):
        listed[0, place] = (name, part.astype(np.uint8))
    return {
        "class": "thing",
        "class_ind": number,
        "mask": mask.astype(np.uint8),
        "parts": listed if parts else np.zeros((0, 0)),
    }


def write_parts(path: Path, objects: list[dict[str, Any]]) -> None:
    """A file of human_parts."""
    listed = np.empty((1, len(objects)), dtype=[(name, object) for name in ("class", "class_ind", "mask", "parts")])
    for place, one in enumerate(objects):
        listed[0, place] = tuple(one.values())
    savemat(path, {"anno": {"imname": path.stem, "objects": listed}})


def write_pascal(root: Path, size: tuple[int, int], ids: dict[str, list[str]]) -> dict[str, dict[str, Map]]:
    """Write the images {split: ids} and their labels; the first of each split lacks human parts. Returns their maps."""
    folders = ["JPEGImages", "ImageSets/Context", "semseg/VOC12", "semseg/pascal-context", "pascal-context/trainval"]
    for folder in [*folders, "human_parts", "normals_distill", "sal_distill", "db_info"]:
        (root / folder).mkdir(parents=True)
    (root / "db_info/nyu_classes.json").write_text(json.dumps(["wall", "unknown", "sofa", "television"]))
    context = {"unknown": 350, "wall": 150, "tvmonitor": 300, "sheep": 100}
    (root / "db_info/context_classes.json").write_text(json.dumps(context))
    written = {}
    for split, names in ids.items():
        (root / "ImageSets/Context" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for place, name in enumerate(names):
            maps = make_maps(*size, seed=0)
            written[name] = maps
            Image.fromarray(maps["image"]).save(root / "JPEGImages" / f"{name}.jpg", quality=100, subsampling=0)
            folder = "semseg/VOC12" if place % 2 else "semseg/pascal-context"
            Image.fromarray(maps["segments"]).save(root / folder / f"{name}.png")
            savemat(root / "pascal-context/trainval" / f"{name}.mat", {"LabelMap": maps["labels"]})
            codes = np.rint((maps["normals"] + 1) / 2 * 255).astype(np.uint8)
            Image.fromarray(codes).save(root / "normals_distill" / f"{name}.png")
            Image.fromarray(maps["saliency"]).save(root / "sal_distill" / f"{name}.png")
            if place:
                person = make_object(15, maps["head"] | maps["hand"], {"head": maps["head"], "rhand": maps["hand"]})
                dog = make_object(12, maps["hair"], {"head": np.ones(size)})
                write_parts(root / "human_parts" / f"{name}.mat", [dog, person])
    return written
