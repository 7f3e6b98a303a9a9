"""COCO's annotation JSON as NumPy columns: the images, and the masks and categories of their annotations.

The JSON is read once. Its columns are cached and mapped into memory (disk/array_cache.py), until the JSON or a folder with its
images changes: Python objects would cost every worker gigabytes on the full CocoDoom.

Masks are polygons or runs (RLE, as lists of counts or in COCO's compressed strings). A pixel is inside a polygon if its centre
is; the first pixel's is (0.5, 0.5). pycocotools draws its edges up to half a pixel elsewhere.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.data.disk.array_cache import ArrayCache, mapped_file, time_stamp
from mult.errors import UserError
from mult.tasks import IGNORE

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_VERSION = "2"
"""Of the cached columns."""
_DTYPES = {
    "ids": np.int64,  # of images, sorted
    "sizes": np.int32,  # (images, 2): height, width
    "starts": np.int64,  # (images + 1,): the annotations of image i are starts[i]:starts[i + 1], large ones first
    "annotations": np.int64,  # their ids
    "categories": np.int16,  # their indices in `names`
    "is_runs": np.bool_,  # else polygons
    "parts": np.int64,  # (annotations + 1,): the parts of annotation a are parts[a]:parts[a + 1]
    "ends": np.int64,  # (parts + 1,): the numbers of part p are ends[p]:ends[p + 1]
    "numbers": np.float32,  # x, y, x, y, ... of a polygon, or lengths of runs: integers below 2^24 are exact
}


class Annotations:
    """The images of a COCO JSON with their masks; `ids` (N,) int64 sorted, `sizes` (N, 2) as (height, width).

    `names` are the categories in the order of their ids, `info` is the JSON's entry of that name. `path` is a file in `root`.
    `check(ids, files)` raises for image ids and file names that are not the dataset's, and returns the time stamps of the
    folders that hold the files, relative to the root: until one changes, neither is the JSON read nor `check` called again.

    Raises UserError, with the first fault, for a JSON that is damaged, for an id that is there twice, for an annotation of an
    unknown image or category and for a mask that does not fit its image.
    """

    def __init__(self, root: Path, path: Path, check: Callable[[Array, Sequence[str]], Mapping[str, int]]) -> None:
        self.path = path
        self._cache = ArrayCache(root, path.stem, _VERSION)
        stored = self._cache.load()
        if stored is None:
            stamp = time_stamp(path)
            facts, files, columns = _read(path)
            stamps = {path.name: stamp, **check(columns["ids"], files)}
            self._columns = self._cache.save(stamps, facts, columns)
        else:
            facts, self._columns = stored
        self.names: list[str] = facts["names"]
        self.info: dict[str, Any] = facts["info"]

    @property
    def ids(self) -> Array:
        return self._columns["ids"]

    @property
    def sizes(self) -> Array:
        return self._columns["sizes"]

    def __len__(self) -> int:
        return len(self.ids)

    def paint(self, image: int, target: NDArray[np.int64], first: int) -> None:
        """Write class ids, `first` + the index of the category in `names`, into `target` (H, W) where the masks are.

        Where masks overlap, the smaller one covers the larger.
        """
        height, width = target.shape
        columns = self._columns
        for row in range(*columns["starts"][image : image + 2]):
            edges = columns["ends"][columns["parts"][row] : columns["parts"][row + 1] + 1]
            parts = [columns["numbers"][start:end] for start, end in itertools.pairwise(edges)]
            fill = mask_of_runs if columns["is_runs"][row] else mask_of_polygon
            for part in parts:
                target[fill(part, height, width)] = first + int(columns["categories"][row])

    def __getstate__(self) -> dict[str, Any]:
        # A worker maps the files again instead of getting copies of them.
        return {**self.__dict__, "_columns": {key: mapped_file(column) or column for key, column in self._columns.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._columns = {key: self._open(file) if isinstance(file, str) else file for key, file in state["_columns"].items()}

    def _open(self, file: str) -> Array:
        column = self._cache.open(file)
        if column is None:
            raise UserError(
                f"{self._cache.folder / file}: got no such file; expected what was read of {self.path}, which is in use; start "
                "again, and do not clear the cache meanwhile"
            )
        return column


def mask_of_polygon(numbers: Array, height: int, width: int) -> Mask:
    """The mask (height, width) of the polygon x, y, x, y, ... by the even-odd rule."""
    x, y = np.asarray(numbers, np.float64).reshape(-1, 2).T
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    centres = np.arange(height)[:, None] + 0.5
    rows, edges = np.nonzero((y <= centres) != (y_next <= centres))
    slope = (x_next[edges] - x[edges]) / (y_next[edges] - y[edges])
    crossing = x[edges] + (centres[rows, 0] - y[edges]) * slope
    # Each crossing toggles between inside and outside for all pixel centres to its right.
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    toggles = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.asarray(toggles.cumsum(axis=1)[:, :width] % 2 == 1)


def mask_of_runs(numbers: Array, height: int, width: int) -> Mask:
    """The mask (height, width) of runs of False and True in turn, column by column."""
    lengths = np.asarray(numbers, np.int64)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


def runs_of_mask(mask: Mask) -> list[int]:
    """The lengths of a mask's runs of False and True in turn, column by column: the inverse of `mask_of_runs`."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def decompress_runs(text: str) -> NDArray[np.int64]:
    """The lengths of runs in COCO's compressed form: signed numbers of 5 bits a character, lowest bits first.

    From the fourth number on they are differences to the length two before.
    """
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    last = codes & 0x20 == 0
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not last[-1]:
        raise UserError("a damaged compressed mask")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 10:
        raise UserError("a damaged compressed mask")
    lengths = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    negative = codes[ends] & 0x10 != 0
    lengths[negative] -= np.int64(1) << (5 * (place[ends[negative]] + 1))
    for first in (1, 2):
        lengths[first::2] = lengths[first::2].cumsum()
    return lengths


def _read(path: Path) -> tuple[dict[str, Any], list[str], dict[str, Array]]:
    """The names of the categories and the info, the file names of the sorted images, and the columns of a JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            tree = json.load(file)
        images, annotations, categories = tree["images"], tree["annotations"], tree["categories"]
        ids = np.array([image["id"] for image in images], np.int64)
        order = np.argsort(ids, kind="stable")
        sizes = np.array([[image["height"], image["width"]] for image in images], np.int32).reshape(-1, 2)
        files = [str(images[place]["file_name"]) for place in order]
        kinds = np.array([category["id"] for category in categories], np.int64)
        names = [str(categories[place]["name"]) for place in np.argsort(kinds, kind="stable")]
        annotation_ids = np.array([annotation["id"] for annotation in annotations], np.int64)
        image_ids = np.array([annotation["image_id"] for annotation in annotations], np.int64)
        category_ids = np.array([annotation["category_id"] for annotation in annotations], np.int64)
        areas = np.array([annotation["area"] for annotation in annotations], np.float64)
        info = tree.get("info") or {}
        if not isinstance(info, dict):
            raise TypeError(f"info is {info!r:.40}")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path}: got a file that is not read as COCO's JSON ({error!r:.300}); expected images, annotations and "
            "categories; fetch or make it again"
        ) from error
    if not len(ids):
        raise UserError(f"{path}: got no image; expected at least one; choose another split")
    for noun, numbers in (("image", ids), ("annotation", annotation_ids), ("category", kinds)):
        values, counts = np.unique(numbers, return_counts=True)
        if (counts > 1).any():
            repeated = int(values[counts > 1][0])
            raise UserError(f"{path}: got {noun} id {repeated} {counts.max()} times; expected each once; make the file again")
    ids, sizes, kinds = ids[order], sizes[order], np.sort(kinds)
    if len(kinds) > IGNORE - 3:
        raise UserError(f"{path}: got {len(kinds)} categories; expected at most {IGNORE - 3}; merge some of them")
    rows = _find_indices(path, "image_id", image_ids, ids, annotation_ids)
    categories = _find_indices(path, "category_id", category_ids, kinds, annotation_ids)
    by_image = np.lexsort((annotation_ids, -areas, rows))
    masks = [_read_mask(path, annotations[place], *(int(length) for length in sizes[rows[place]])) for place in by_image]
    parts = [part for mask in masks for part in mask]
    columns = {
        "ids": ids,
        "sizes": sizes,
        "starts": np.searchsorted(rows[by_image], np.arange(len(ids) + 1)),
        "annotations": annotation_ids[by_image],
        "categories": categories[by_image],
        "is_runs": np.array([isinstance(annotations[place]["segmentation"], dict) for place in by_image], np.bool_),
        "parts": np.cumsum([0, *map(len, masks)]),
        "ends": np.cumsum([0, *map(len, parts)]),
        "numbers": np.concatenate([np.zeros(0), *parts]),
    }
    contiguous: dict[str, Array] = {name: np.ascontiguousarray(columns[name], dtype) for name, dtype in _DTYPES.items()}
    return {"names": names, "info": info}, files, contiguous


def _find_indices(path: Path, key: str, values: Array, ids: Array, annotation_ids: Array) -> Array:
    """The indices of `values` in the sorted `ids`; UserError, with the annotation, for the first value that is not there."""
    indices = np.minimum(np.searchsorted(ids, values), len(ids) - 1) if len(ids) else np.zeros(len(values), np.int64)
    wrong = np.flatnonzero(ids[indices] != values) if len(ids) else np.arange(len(values))
    if len(wrong):
        raise UserError(
            f"{path}: got annotation {annotation_ids[wrong[0]]} of {key} {values[wrong[0]]} ({len(wrong)} like it); "
            f"expected one that the file lists; make the file again"
        )
    return indices


def _read_mask(path: Path, annotation: Mapping[str, Any], height: int, width: int) -> Sequence[Array]:
    """The numbers of each part of a mask: of each polygon, or of the list of runs."""
    try:
        stored = annotation["segmentation"]
        if isinstance(stored, Mapping):
            if list(stored["size"]) != [height, width]:
                raise UserError(f"a mask of {stored['size']} pixels (height, width) in an image of {[height, width]}")
            counts = stored["counts"]
            lengths = decompress_runs(counts) if isinstance(counts, str) else np.array(counts, np.int64)
            if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
                raise UserError(f"runs that do not add up to {height * width} pixels")
            return [lengths]
        if not isinstance(stored, list):
            raise TypeError(f"segmentation {stored!r:.40}")
        polygons = [np.array(polygon, np.float64) for polygon in stored]
        if any(polygon.ndim != 1 or len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
            raise UserError("a polygon of fewer than three points")
        if not all(np.isfinite(polygon).all() for polygon in polygons):
            raise UserError("a polygon whose points are not finite")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path}: got annotation {annotation['id']} with {error}; expected polygons [[x, y, x, y, ...], ...] or "
            "runs {counts, size} of the image's size; make the file again"
        ) from error
    return polygons
