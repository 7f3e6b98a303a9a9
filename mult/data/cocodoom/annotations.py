"""COCO's annotation JSON in columns: which images there are, and which class covers which of their pixels.

The JSON is read once. What is needed of it is kept as NumPy arrays in `$XDG_CACHE_HOME/mult/index/<hash of the root>`,
memory-mapped from there: a Python object an annotation would cost every worker gigabytes on the whole of CocoDoom. The
cache holds for as long as neither the JSON nor a folder that its images lie in has changed.

Masks are polygons or runs (RLE, as lists of counts or in COCO's compressed strings). A pixel belongs to a polygon if
its centre does, (0.5, 0.5) being that of the first; this is the rule of area, and within half a pixel of pycocotools.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.data.sample import IGNORE
from mult.errors import UserError
from mult.files import cache_folder, write_atomically

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_VERSION = 1
_DTYPES = {
    "ids": np.int64,  # of images, sorted
    "sizes": np.int32,  # (images, 2): height, width
    "starts": np.int64,  # (images + 1,): the annotations of image i are starts[i]:starts[i + 1], large ones first
    "annotations": np.int64,  # their ids
    "categories": np.int16,  # their places in `names`
    "is_runs": np.bool_,  # runs, or else polygons
    "parts": np.int64,  # (annotations + 1,): the parts of annotation a are parts[a]:parts[a + 1]
    "ends": np.int64,  # (parts + 1,): the numbers of part p are ends[p]:ends[p + 1]
    "numbers": np.float32,  # x, y, x, y, ... of a polygon, or lengths of runs, which are whole and below 2^24
}


class Annotations:
    """The images of a COCO JSON with their masks; `ids` (N,) int64 sorted, `sizes` (N, 2) as (height, width).

    `names` are the categories in the order of their ids, `info` is the JSON's entry of that name. `check(ids, names)`
    is asked once whether image ids and file names are as the dataset wants them, and returns the folders that hold them,
    relative to the root: once one changes, the JSON is read again.
    Raises UserError for a missing JSON and, naming the first of what is wrong, for one that is none,
    for an id given twice, for an annotation of an unknown image or category and for a mask that does not fit its image.
    """

    def __init__(self, root: Path, path: Path, check: Callable[[Array, Sequence[str]], Sequence[str]]) -> None:
        self.path = path
        self._folder, self._stem = cache_folder(root), path.stem
        stat = path.stat()
        source = [_VERSION, str(path.resolve()), stat.st_size, stat.st_mtime_ns]
        if not self._load(root, source):
            tables, self._columns = _read(path)
            folders = check(self._columns["ids"], tables.pop("files"))
            stamps = {folder: os.stat(root / folder).st_mtime_ns for folder in folders}
            state = hashlib.sha256(json.dumps([source, stamps]).encode()).hexdigest()[:16]
            self._tables = {**tables, "source": source, "stamps": stamps, "state": state}
            self._save()
        self.names: list[str] = self._tables["names"]
        self.info: dict[str, Any] = self._tables["info"]
        self.ids, self.sizes = self._columns["ids"], self._columns["sizes"]

    def __len__(self) -> int:
        return len(self.ids)

    def paint(self, image: int, target: NDArray[np.int64], first: int) -> None:
        """Write class ids, `first` + the place of the category in `names`, into `target` (H, W) where the masks are.

        Where masks overlap the smaller one is on top.
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
        state = self.__dict__.copy()
        if isinstance(self.ids, np.memmap):  # a worker maps the files again instead of getting copies of them
            for name in ("_columns", "ids", "sizes"):
                del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_columns" not in state:
            self._map()
            self.ids, self.sizes = self._columns["ids"], self._columns["sizes"]

    def _load(self, root: Path, source: list[Any]) -> bool:
        """Map the cached columns, if there are some for this state of the JSON and its folders."""
        try:
            self._tables = json.loads((self._folder / f"{self._stem}.json").read_text())
            if self._tables["source"] != source:
                return False
            if any(os.stat(root / folder).st_mtime_ns != stamp for folder, stamp in self._tables["stamps"].items()):
                return False
            self._map()
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return False  # absent or damaged: the JSON is read again
        return True

    def _map(self) -> None:
        paths = {name: self._folder / f"{self._stem}-{name}-{self._tables['state']}.npy" for name in _DTYPES}
        self._columns = {name: np.load(path, mmap_mode="r") for name, path in paths.items()}

    def _save(self) -> None:
        """Write the cache, the table that names the state last, and map it; without one, the columns stay in memory."""
        state = self._tables["state"]
        try:
            for old in self._folder.glob(f"{self._stem}-*-*.npy"):
                if not old.stem.endswith(state):
                    old.unlink(missing_ok=True)
            for name, column in self._columns.items():
                path = self._folder / f"{self._stem}-{name}-{state}.npy"
                write_atomically(path, lambda file, column=column: np.save(file, column))  # type: ignore[misc]
            text = json.dumps(self._tables).encode()
            write_atomically(self._folder / f"{self._stem}.json", lambda file: file.write(text))
            self._map()
        except OSError as error:
            warnings.warn(
                f"the index of {self.path} cannot be kept in {self._folder} ({error}): the JSON is read again "
                "at every start; set XDG_CACHE_HOME to a folder that can be written",
                stacklevel=4,
            )


def mask_of_polygon(numbers: Array, height: int, width: int) -> Mask:
    """Where a pixel's centre is inside the polygon x, y, x, y, ... (even-odd rule), (height, width)."""
    x, y = np.asarray(numbers, np.float64).reshape(-1, 2).T
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    centres = np.arange(height)[:, None] + 0.5
    rows, edges = np.nonzero((y <= centres) != (y_next <= centres))
    slope = (x_next[edges] - x[edges]) / (y_next[edges] - y[edges])
    crossing = x[edges] + (centres[rows, 0] - y[edges]) * slope
    # From the first centre to its right on, a crossing turns outside into inside or back.
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    turns = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.asarray(turns.cumsum(axis=1)[:, :width] % 2 == 1)


def mask_of_runs(numbers: Array, height: int, width: int) -> Mask:
    """(height, width) of runs, down the columns, of False and True in turn."""
    lengths = np.asarray(numbers, np.int64)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


def runs_of_mask(mask: Mask) -> list[int]:
    """The lengths of runs, down the columns, of False and True in turn: what `mask_of_runs` takes."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def decompress_runs(text: str) -> NDArray[np.int64]:
    """The lengths of runs in COCO's compressed form: 5 bits a character, lowest first, signed; from the fourth length
    on, what is stored is the difference to the length before the last.
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


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """The tables (names of categories, info, files of the sorted images) and the columns of a JSON."""
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
        own = np.array([annotation["id"] for annotation in annotations], np.int64)
        owners = np.array([annotation["image_id"] for annotation in annotations], np.int64)
        labels = np.array([annotation["category_id"] for annotation in annotations], np.int64)
        areas = np.array([annotation["area"] for annotation in annotations], np.float64)
        info = tree.get("info") or {}
        if not isinstance(info, dict):
            raise TypeError(f"info is {info!r:.40}")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path}: got a file that is not read as COCO's JSON ({error!r}); expected images, annotations and categories; "
            "fetch or make it again"
        ) from error
    if not len(ids):
        raise UserError(f"{path}: got no image; expected at least one; choose another split")
    for what, numbers in (("image", ids), ("annotation", own), ("category", kinds)):
        values, counts = np.unique(numbers, return_counts=True)
        if (counts > 1).any():
            twice = int(values[counts > 1][0])
            raise UserError(f"{path}: got {what} id {twice} {counts.max()} times; expected each once; make the file again")
    ids, sizes, kinds = ids[order], sizes[order], np.sort(kinds)
    if len(kinds) > IGNORE - 3:
        raise UserError(f"{path}: got {len(kinds)} categories; expected at most {IGNORE - 3}; merge some of them")
    rows = _places(path, "image_id", owners, ids, own)
    labels = _places(path, "category_id", labels, kinds, own)
    by_image = np.lexsort((own, -areas, rows))
    parts = [_parts(path, annotations[place], *(int(length) for length in sizes[rows[place]])) for place in by_image]
    flat = [part for some in parts for part in some]
    columns = {
        "ids": ids,
        "sizes": sizes,
        "starts": np.searchsorted(rows[by_image], np.arange(len(ids) + 1)),
        "annotations": own[by_image],
        "categories": labels[by_image],
        "is_runs": np.array([isinstance(annotations[place]["segmentation"], dict) for place in by_image], np.bool_),
        "parts": np.cumsum([0, *map(len, parts)]),
        "ends": np.cumsum([0, *map(len, flat)]),
        "numbers": np.concatenate([np.zeros(0), *flat]),
    }
    return {"names": names, "info": info, "files": files}, {
        name: np.ascontiguousarray(columns[name], dtype) for name, dtype in _DTYPES.items()
    }


def _places(path: Path, key: str, values: Array, known: Array, own: Array) -> Array:
    """Where `values` are in the sorted `known`; UserError naming the annotation of the first that is not."""
    places = np.minimum(np.searchsorted(known, values), len(known) - 1) if len(known) else np.zeros(len(values), np.int64)
    wrong = np.flatnonzero(known[places] != values) if len(known) else np.arange(len(values))
    if len(wrong):
        raise UserError(
            f"{path}: got annotation {own[wrong[0]]} of {key} {values[wrong[0]]} ({len(wrong)} like it); "
            f"expected one that the file lists; make the file again"
        )
    return places


def _parts(path: Path, annotation: Mapping[str, Any], height: int, width: int) -> Sequence[Array]:
    """The numbers of each part of a mask: of each polygon, or of the one list of runs."""
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
