"""RGB-D sequences as ReplicaSDK renders them and NICE-SLAM publishes them (data.md, "Replica"):
`<scene>/results/{frame000000.jpg,depth000000.png}`, and `<scene>/traj.txt` with a camera-to-world matrix a frame.

There names have no underscore: office0 is Replica's office_0.
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
from PIL import Image
from torch.utils.data import Dataset

from mult.data.disk.camera import Camera
from mult.data.disk.derived import Cache, warn_of_median
from mult.data.disk.encodings import NO_GEOMETRY
from mult.data.disk.images import GRAY_16_BIT, Array, read_image, read_pixels
from mult.data.disk.splits import SPLITS, published_list, read_splits
from mult.data.sample import BadFileError, Sample
from mult.errors import UserError
from mult.labels import Intrinsics
from mult.tasks import TASKS

DEPTH_UNITS_PER_M = 6553.5
INTRINSICS: Intrinsics = (600.0, 600.0, 599.5, 339.5)
SIZE = (680, 1200)
"""(height, width) of the frames that INTRINSICS are of."""
_SEMANTIC = "segment_semantic"


class Sequences(Dataset[Sample]):
    """ReplicaSDK's frames: their numbers, a row a frame, and of each scene where its rows begin."""

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
        self._camera = Camera(DEPTH_UNITS_PER_M if depth_scale is None else depth_scale, intrinsics or INTRINSICS)
        self.buildings = _of_split(root, scenes, split)
        self._folders = [scenes[scene] for scene in self.buildings]
        found = [_numbers(folder) for folder in self._folders]
        self._ends = np.cumsum([len(numbers["frame"]) for numbers in found])
        self._numbers = np.concatenate([numbers["frame"] for numbers in found])
        self._has = {
            task: np.concatenate([np.isin(numbers["frame"], numbers[kind]) for numbers in found])
            for task, kind in (("depth_zbuffer", "depth"), (_SEMANTIC, "semantic"))
        }
        self.labelled = frozenset(task for task, there in self._has.items() if there.any())
        self.cache = Cache(root)
        self.available = self.cache.require(tasks or (), self.labelled, self.buildings, f"split {split!r}")
        wanted = set(self.available) - {_SEMANTIC} if tasks is None else tasks
        self.tasks = tuple(task for task in TASKS if task in wanted)
        with suppress(BadFileError):  # of the first frame: whoever reads it is told, or leaves it out (data.on_bad_file)
            self._check_scale()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: int) -> Sample:
        image = torch.from_numpy(read_image(self._path(i, "frame", "jpg")))
        native = {}
        if "depth_zbuffer" in self.tasks and "depth_zbuffer" in self.native(i):
            depth_m, valid = self._depth(i, (image.shape[1], image.shape[2]))
            native["depth_zbuffer"] = torch.from_numpy(depth_m)[None], torch.from_numpy(valid)[None]
        return self.cache.complete(self.name(i), image, native, self.tasks)

    def name(self, i: int) -> str:
        return f"{self.group(i)}/frame{self._number(i):06d}"

    def group(self, i: int) -> str:
        return self.buildings[self._scene(i)]

    def native(self, i: int) -> frozenset[str]:
        self._number(i)  # that there is one
        return frozenset(task for task, there in self._has.items() if there[i])

    def instances(self, i: int) -> Path | None:
        return self._path(i, "semantic", "png") if _SEMANTIC in self.native(i) else None

    def camera(self, i: int) -> tuple[Intrinsics, tuple[int, int]]:
        path = self._path(i, "frame", "jpg")
        with Image.open(path) as image:
            width, height = image.size
        if self._of_size not in (None, (height, width)):
            raise UserError(
                f"{path}: got {(height, width)} pixels (height, width), whose camera is unknown; expected {SIZE}, or "
                "data.options.intrinsics; give fx, fy, cx, cy in pixels"
            )
        return self._camera.intrinsics, (height, width)

    def pose(self, i: int) -> NDArray[np.float64]:
        path, number = self._folders[self._scene(i)] / "traj.txt", self._number(i)
        try:
            with open(path, encoding="ascii") as file:
                line = next(islice(file, number, None))
            return np.array([float(value) for value in line.split()]).reshape(4, 4)
        except (OSError, ValueError, StopIteration) as error:
            raise UserError(
                f"{path}: got no pose of frame {number} ({error!r}); expected a line of 16 numbers a frame, camera to world; "
                "fetch the file again"
            ) from error

    def _number(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise IndexError(f"frame {i} of {len(self)}")
        return int(self._numbers[i])

    def _scene(self, i: int) -> int:
        self._number(i)
        return int(np.searchsorted(self._ends, i % len(self), side="right"))

    def _path(self, i: int, kind: str, suffix: str) -> Path:
        return self._folders[self._scene(i)] / "results" / f"{kind}{self._number(i):06d}.{suffix}"

    def _depth(self, i: int, size: tuple[int, int] | None = None) -> tuple[Array, Array]:
        """Metres (H, W), and where they are known: not 0, and not 65535, where the renderer's range ends."""
        stored = read_pixels(self._path(i, "depth", "png"), GRAY_16_BIT, size)
        depth_m = (stored / self._camera.depth_scale).astype(np.float32)
        valid = (stored > 0) & (stored != NO_GEOMETRY)
        if self.max_depth_m is not None:
            valid &= depth_m <= self.max_depth_m
        return depth_m * valid, valid

    def _check_scale(self) -> None:
        """Warn of a scale that does not fit the first frame with depth."""
        if "depth_zbuffer" in self.tasks and "depth_zbuffer" in self.labelled:
            depth_m, valid = self._depth(int(np.argmax(self._has["depth_zbuffer"])))
            median = float(np.median(depth_m[valid])) if valid.any() else None
            warn_of_median(
                median, f"is data.options.depth_scale, {self._camera.depth_scale} units a metre, right for {self.root}?"
            )


def scenes_in(root: Path) -> dict[str, Path]:
    """The scenes of a folder of sequences, or the one that the folder is; none if it holds something else."""
    folders = {root.resolve().name: root} | {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}
    return {name: folder for name, folder in folders.items() if any((folder / "results").glob("frame*.jpg"))}


def _of_split(root: Path, scenes: Mapping[str, Path], split: str) -> list[str]:
    if split not in SPLITS:
        raise UserError(f"split: got {split!r}; expected one of {', '.join(SPLITS)}; choose one of them")
    own = root / "splits.csv"
    listed = read_splits(own if own.is_file() else published_list("replica"))
    # NICE-SLAM calls office_0 office0.
    full = {name: name if name in listed else re.sub(r"(?<=[a-z])(\d+)$", r"_\1", name) for name in scenes}
    chosen = [name for name in scenes if split in listed.get(full[name], set())]
    if not chosen:
        wanted = sorted(name for name, splits in listed.items() if split in splits)
        raise UserError(
            f"{root}: got the scenes {', '.join(sorted(scenes))}; expected one of split {split!r}: {', '.join(wanted)}; choose "
            "another split or write the scenes into splits.csv (id,train,val,test)"
        )
    return sorted(chosen)


def _numbers(scene: Path) -> dict[str, Array]:
    """Of a scene's frames, depth and instance images the numbers, sorted."""
    text = "\n".join(path.name for path in (scene / "results").iterdir())
    kinds = {"frame": "jpg", "depth": "png", "semantic": "png"}
    found = {
        kind: np.sort(np.array(re.findall(rf"^{kind}(\d{{6}})\.{suffix}$", text, re.MULTILINE), dtype=np.int64))
        for kind, suffix in kinds.items()
    }
    if not len(found["frame"]):
        raise UserError(
            f"{scene / 'results'}: got no frame of six digits; expected frame000000.jpg and so on; rename them, depth and "
            "semantic images as well"
        )
    return found
