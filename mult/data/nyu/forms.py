"""The three forms of folders in which NYU Depth v2 is in use, recognised by their contents.

- what prepare_nyu.py writes;
- NYUD_MT: images, segmentation (0 to 40), depth (npy), normals (png or npy), edge (png), gt_sets/{train,val}.txt; images are
  cropped to 425 x 560;
- the npy folders of MTAN and LibMTL: {train,val}/{image,label,depth}/0.npy, 288 x 384, 13 classes, -1 = none.

The normals of the last are not read: their frame is not documented.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from mult.data.disk.benchmark_files import read_binary, read_names, read_normals
from mult.data.disk.images import GRAY, GRAY_16_BIT, Array, Mask, read_image, read_npy, read_pixels
from mult.data.nyu.unpack import DEPTH_UNITS_PER_M, FOLDERS, LABELS, META, VIEWS
from mult.data.sample import BadFileError
from mult.errors import UserError

Size = tuple[int, int]
ReadLabel = Callable[[int, Size], tuple[Array, Mask]]

_SPLIT = {"train": "train", "val": "val", "test": "val"}
"""The folder or list of a split in the forms that call the 654 images of the test split val."""


class Form(Protocol):
    """The sample ids of one split, the folders that the ids begin with, and the reading of a view's files.

    `space` is the number of classes of the labels; `names` are their names if there are 894 of them. `codes` are 0 (none) or 1
    to `space`. `labels` has a function for each other task with files, (i, size) -> float32 (C, H, W) in the task's unit, and
    the mask (H, W).
    """

    space: int
    names: list[str] | None
    ids: list[str]
    folders: list[str]
    labels: dict[str, ReadLabel]

    def image(self, i: int) -> Array: ...
    def codes(self, i: int, size: Size) -> Array: ...
    def scene(self, i: int) -> str: ...


def find_form(root: Path, split: str, numbers: dict[str, list[int]]) -> Form:
    """The form of `root`; `numbers` are the published splits, counted from 1. Raises UserError for any other folder."""
    if (root / META).is_file():
        return PreparedForm(root, numbers["train" if split == "train" else "test"])
    if (root / "gt_sets").is_dir():
        return NyudMtForm(root, _SPLIT[split])
    if any((root / folder / "image").is_dir() for folder in ("train", "val")):
        return NpyForm(root, _SPLIT[split])
    incomplete = (root / FOLDERS[0]).is_dir() and (root / FOLDERS[2]).is_dir()
    raise UserError(
        f"{root}: got {'a preparation that did not finish' if incomplete else 'a folder of no known form'}; expected what "
        "`mult prepare-nyu` makes of nyu_depth_v2_labeled.mat, or NYUD_MT (gt_sets/), or LibMTL's npy (train/image/); "
        f"{'run prepare_nyu.py again' if incomplete else 'give one of them'}"
    )


class PreparedForm:
    """What prepare_nyu.py writes."""

    space = LABELS
    folders = [""]  # noqa: RUF012

    def __init__(self, root: Path, numbers: list[int]) -> None:
        self._root = root
        self.labels: dict[str, ReadLabel] = {"depth_zbuffer": self._depth}
        self.ids = [f"{number:04d}" for number in numbers]
        path = root / META
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            self.names: list[str] | None = [str(name) for name in meta["names"]]
            self._scenes = [str(meta["scenes"][number - 1]) for number in numbers]
            if len(self.names) != LABELS or len(meta["scenes"]) != VIEWS:
                raise UserError(f"{len(self.names)} names and {len(meta['scenes'])} scenes")
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise UserError(
                f"{path}: got no description of NYU ({error!r:.300}); expected {LABELS} names and {VIEWS} scenes; run "
                "prepare_nyu.py again"
            ) from error
        for folder in FOLDERS:
            present = {file.stem for file in (root / folder).glob("*.png")}
            missing = [name for name in self.ids if name not in present]
            if missing:
                raise UserError(
                    f"{root / folder}: got {len(self.ids) - len(missing)} of {len(self.ids)} views; expected all, such as "
                    f"{missing[0]}.png; run prepare_nyu.py again"
                )

    def image(self, i: int) -> Array:
        return read_image(self._path("images", i))

    def codes(self, i: int, size: Size) -> Array:
        return _check_codes(self._path("labels", i), read_pixels(self._path("labels", i), GRAY_16_BIT, size), LABELS)

    def _depth(self, i: int, size: Size) -> tuple[Array, Mask]:
        units = read_pixels(self._path("depth", i), GRAY_16_BIT, size)
        return units[None].astype(np.float32) / DEPTH_UNITS_PER_M, units > 0

    def scene(self, i: int) -> str:
        return self._scenes[i]

    def _path(self, folder: str, i: int) -> Path:
        return self._root / folder / f"{self.ids[i]}.png"


class NyudMtForm:
    """NYUD_MT."""

    space = 40
    names: list[str] | None = None
    folders = [""]  # noqa: RUF012

    def __init__(self, root: Path, list_name: str) -> None:
        self._root = root
        self.ids = read_names(root / "gt_sets" / f"{list_name}.txt")
        functions: dict[str, tuple[str, ReadLabel]] = {
            "depth": ("depth_zbuffer", self._depth),
            "normals": ("normal", self._normal),
            "edge": ("boundary", self._edge),
        }
        self.labels: dict[str, ReadLabel] = {
            task: function for folder, (task, function) in functions.items() if (root / folder).is_dir()
        }

    def image(self, i: int) -> Array:
        path = self._root / "images" / f"{self.ids[i]}.jpg"
        return read_image(path if path.exists() else path.with_suffix(".png"))

    def codes(self, i: int, size: Size) -> Array:
        path = self._root / "segmentation" / f"{self.ids[i]}.png"
        return _check_codes(path, read_pixels(path, (*GRAY, "P"), size), self.space)

    def _depth(self, i: int, size: Size) -> tuple[Array, Mask]:
        return _read_depth(self._root / "depth" / f"{self.ids[i]}.npy", size)

    def _normal(self, i: int, size: Size) -> tuple[Array, Mask]:
        path = self._root / "normals" / f"{self.ids[i]}.png"
        return read_normals(path if path.exists() else path.with_suffix(".npy"), size)

    def _edge(self, i: int, size: Size) -> tuple[Array, Mask]:
        lines = read_binary(self._root / "edge" / f"{self.ids[i]}.png", size)
        return lines, np.ones(size, np.bool_)

    def scene(self, i: int) -> str:
        return ""


class NpyForm:
    """The folders of MTAN and LibMTL."""

    space = 13
    names: list[str] | None = None

    def __init__(self, root: Path, folder: str) -> None:
        self._root, self.folders = root, [folder]
        stems = [path.stem for path in (root / folder / "image").glob("*.npy")]
        if not stems:
            raise UserError(f"{root / folder / 'image'}: got no .npy; expected 0.npy and so on; fetch the folder again")
        numbers = sorted(stems, key=lambda stem: (len(stem), stem))
        self.ids = [f"{folder}/{number}" for number in numbers]
        self.labels: dict[str, ReadLabel] = {"depth_zbuffer": self._depth} if (root / folder / "depth").is_dir() else {}

    def image(self, i: int) -> Array:
        path = self._path("image", i)
        values = read_npy(path)
        if values.ndim != 3 or values.shape[2] != 3 or not (values.min() >= 0 and values.max() <= 1):  # a NaN is neither
            raise BadFileError(
                f"{path}: got {values.shape} from {values.min():.4g} to {values.max():.4g}; expected (H, W, 3) in [0, 1]; "
                "save the image as MTAN does",
                "range",
            )
        return np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)

    def codes(self, i: int, size: Size) -> Array:
        path = self._path("label", i)
        codes = _check_size(path, read_npy(path), size) + 1
        if (codes != np.rint(codes)).any() or codes.min() < 0:
            raise BadFileError(
                f"{path}: got labels that are no whole numbers from -1 on; expected -1 (none) to 12; save it again", "range"
            )
        return _check_codes(path, codes.astype(np.int64), self.space)

    def _depth(self, i: int, size: Size) -> tuple[Array, Mask]:
        return _read_depth(self._path("depth", i), size)

    def scene(self, i: int) -> str:
        return ""

    def _path(self, kind: str, i: int) -> Path:
        folder, number = self.ids[i].split("/")
        return self._root / folder / kind / f"{number}.npy"


def _check_size(path: Path, values: Array, size: Size) -> Array:
    """The values (H, W) of an array (H, W) or (H, W, 1)."""
    plane = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if plane.shape != size:
        raise BadFileError(
            f"{path}: got {values.shape}; expected {size} (height, width), as the image has; save it again", "size"
        )
    return plane


def _read_depth(path: Path, size: Size) -> tuple[Array, Mask]:
    """Metres, 0 where invalid, and where they are valid: finite and above 0."""
    depth_m = _check_size(path, read_npy(path), size).astype(np.float32)
    valid = np.isfinite(depth_m) & (depth_m > 0)
    return np.where(valid, depth_m, 0)[None], valid


def _check_codes(path: Path, codes: Array, highest: int) -> Array:
    if codes.max() > highest:
        raise BadFileError(f"{path}: got label {codes.max()}; expected none above {highest}; restore the file", "range")
    return codes
