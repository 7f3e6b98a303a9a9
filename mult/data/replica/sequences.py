"""RGB-D sequences as ReplicaSDK renders them and NICE-SLAM publishes them.

`<scene>/results/{frame000000.jpg,depth000000.png}`, and `<scene>/traj.txt` with a camera-to-world matrix a frame. Names of
scenes have no underscore: office0 is Replica's office_0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mult.data.disk.camera import check_depth_scale, check_intrinsics
from mult.data.disk.derived import DerivedLabels, warn_if_implausible
from mult.data.disk.encodings import NO_GEOMETRY
from mult.data.disk.images import GRAY_16_BIT, Array, read_image, read_pixels, read_size
from mult.data.disk.splits import check_split_name, published_list, read_splits
from mult.data.sample import BadFileError, Camera, Sample, wrap_index
from mult.errors import UserError
from mult.labels import Intrinsics
from mult.tasks import TASKS

DEPTH_UNITS_PER_M = 6553.5
INTRINSICS: Intrinsics = (600.0, 600.0, 599.5, 339.5)
SIZE = (680, 1200)
"""(height, width) of the frames that INTRINSICS are of."""
_SEMANTIC = "segment_semantic"


class Sequences(Dataset[Sample]):
    """The frames of a split's scenes, scene by scene, as the arguments of `Replica` say."""

    def __init__(
        self,
        root: Path,
        scenes: Mapping[str, Path],
        split: str,
        tasks: Sequence[str] | None,
        *,
        depth_scale: float | None,
        intrinsics: Intrinsics | None,
        max_depth_m: float | None,
    ) -> None:
        self.root, self.max_depth_m = root, max_depth_m
        self._of_size = SIZE if intrinsics is None else None
        self._intrinsics = INTRINSICS if intrinsics is None else check_intrinsics("data.options.intrinsics", intrinsics)
        self._depth_scale = (
            DEPTH_UNITS_PER_M if depth_scale is None else check_depth_scale("data.options.depth_scale", depth_scale)
        )
        self.buildings = _select_scenes(root, scenes, split)
        self._folders = [scenes[scene] for scene in self.buildings]
        scene_numbers = [_list_numbers(folder) for folder in self._folders]
        self._ends = np.cumsum([len(numbers["frame"]) for numbers in scene_numbers])
        self._numbers = np.concatenate([numbers["frame"] for numbers in scene_numbers])
        self._has = {
            task: np.concatenate([np.isin(numbers["frame"], numbers[kind]) for numbers in scene_numbers])
            for task, kind in (("depth_zbuffer", "depth"), (_SEMANTIC, "semantic"))
        }
        self.labelled = frozenset(task for task, has_label in self._has.items() if has_label.any())
        self._derived = DerivedLabels(root)
        self.available = self._derived.list_available(tasks or (), self.labelled, self.buildings, f"split {split!r}")
        requested = set(self.available) - {_SEMANTIC} if tasks is None else tasks
        self.tasks = tuple(task for task in TASKS if task in requested)
        with suppress(BadFileError):  # raised again when the frame is read, where data.on_bad_file applies
            self._check_scale()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: int) -> Sample:
        image = torch.from_numpy(read_image(self._path(i, "frame", "jpg")))
        native = {}
        if "depth_zbuffer" in self.tasks and "depth_zbuffer" in self.native(i):
            depth_m, valid = self._read_depth(i, (image.shape[1], image.shape[2]))
            native["depth_zbuffer"] = torch.from_numpy(depth_m)[None], torch.from_numpy(valid)[None]
        return self._derived.build_sample(self.name(i), image, native, self.tasks)

    def name(self, i: int) -> str:
        return f"{self.group(i)}/frame{self._number(i):06d}"

    def group(self, i: int) -> str:
        return self.buildings[self._scene(i)]

    def native(self, i: int) -> frozenset[str]:
        row = wrap_index(i, len(self))
        return frozenset(task for task, has_label in self._has.items() if has_label[row])

    def instances(self, i: int) -> Path | None:
        return self._path(i, "semantic", "png") if _SEMANTIC in self.native(i) else None

    def camera(self, i: int) -> Camera:
        path = self._path(i, "frame", "jpg")
        size = read_size(path)
        if self._of_size not in (None, size):
            raise UserError(
                f"{path}: got {size} pixels (height, width), whose camera is unknown; expected {SIZE}, or "
                "data.options.intrinsics; give fx, fy, cx, cy in pixels"
            )
        return Camera(check_intrinsics("data.options.intrinsics", self._intrinsics, size), size)

    def pose(self, i: int) -> NDArray[np.float64]:
        path, number = self._folders[self._scene(i)] / "traj.txt", self._number(i)
        try:
            with open(path, encoding="ascii") as file:
                line = next(islice(file, number, None))
            return np.array([float(value) for value in line.split()]).reshape(4, 4)
        except (OSError, ValueError, StopIteration) as error:
            raise UserError(
                f"{path}: got no pose of frame {number} ({error!r:.300}); expected a line of 16 numbers a frame, camera to "
                "world; fetch the file again"
            ) from error

    def _number(self, i: int) -> int:
        return int(self._numbers[wrap_index(i, len(self))])

    def _scene(self, i: int) -> int:
        return int(np.searchsorted(self._ends, wrap_index(i, len(self)), side="right"))

    def _path(self, i: int, kind: str, suffix: str) -> Path:
        return self._folders[self._scene(i)] / "results" / f"{kind}{self._number(i):06d}.{suffix}"

    def _read_depth(self, i: int, size: tuple[int, int] | None = None) -> tuple[Array, Array]:
        """Metres (H, W), and where they are valid: not 0, and not 65535, at which the renderer's range ends."""
        stored = read_pixels(self._path(i, "depth", "png"), GRAY_16_BIT, size)
        depth_m = (stored / self._depth_scale).astype(np.float32)
        valid = (stored > 0) & (stored != NO_GEOMETRY)
        if self.max_depth_m is not None:
            valid &= depth_m <= self.max_depth_m
        return depth_m * valid, valid

    def _check_scale(self) -> None:
        """Warn of a depth scale with which the first depth image is implausible."""
        if "depth_zbuffer" in self.tasks and "depth_zbuffer" in self.labelled:
            depth_m, valid = self._read_depth(int(np.argmax(self._has["depth_zbuffer"])))
            median = float(np.median(depth_m[valid])) if valid.any() else None
            warn_if_implausible(
                median, f"is data.options.depth_scale, {self._depth_scale} units a metre, right for {self.root}?"
            )


def find_scenes(root: Path) -> dict[str, Path]:
    """{name: folder} of the scenes in a folder, or of the scene that the folder itself is; empty if there is none."""
    folders = {root.resolve().name: root} | {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}
    return {name: folder for name, folder in folders.items() if any((folder / "results").glob("frame*.jpg"))}


def _select_scenes(root: Path, scenes: Mapping[str, Path], split: str) -> list[str]:
    check_split_name(split)
    own = root / "splits.csv"
    splits = read_splits(own if own.is_file() else published_list("replica"))
    # NICE-SLAM calls office_0 office0.
    names = {name: name if name in splits else re.sub(r"(?<=[a-z])(\d+)$", r"_\1", name) for name in scenes}
    selected = [name for name in scenes if splits.get(names[name]) == split]
    if not selected:
        expected = ", ".join(sorted(name for name, its_split in splits.items() if its_split == split))
        raise UserError(
            f"{root}: got the scenes {', '.join(sorted(scenes))}; expected one of split {split!r}: {expected}; choose "
            "another split or write the scenes into splits.csv (id,train,val,test)"
        )
    return sorted(selected)


def _list_numbers(scene: Path) -> dict[str, Array]:
    """The sorted numbers of a scene's frames, depth images and instance images."""
    text = "\n".join(path.name for path in (scene / "results").iterdir())
    kinds = {"frame": "jpg", "depth": "png", "semantic": "png"}
    numbers = {
        kind: np.sort(np.array(re.findall(rf"^{kind}(\d{{6}})\.{suffix}$", text, re.MULTILINE), dtype=np.int64))
        for kind, suffix in kinds.items()
    }
    if not len(numbers["frame"]):
        raise UserError(
            f"{scene / 'results'}: got no frame of six digits; expected frame000000.jpg and so on; rename them, depth and "
            "semantic images as well"
        )
    return numbers
