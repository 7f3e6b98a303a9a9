"""Replica, in the two forms that are published, recognised by their contents.

Rendered by Omnidata: Taskonomy's layout and encodings, `<task>/replica/<space>/point_...`. Rendered by ReplicaSDK, as NICE-SLAM
and others publish it: sequences along a camera's path, `<scene>/results/{frame000000.jpg,depth000000.png}` and
`<scene>/traj.txt`; there the names have no underscore (office0 is office_0).

Neither has classes: Habitat's semantic images hold instance ids, which become classes by a class map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mult.data.disk.splits import published_list, read_splits
from mult.data.replica.instances import Instances
from mult.data.replica.sequences import Sequences, find_scenes
from mult.data.sample import Camera, Sample, empty_target
from mult.data.taskonomy.dataset import Taskonomy
from mult.errors import UserError
from mult.labels import Intrinsics
from mult.tasks import TASKS

_SEMANTIC = "segment_semantic"


class Replica(Dataset[Sample]):
    """Map-style dataset of Replica in either form; `dataset[i]` is a `Sample` at the files' own size.

    Scenes are split 10/4/4 by the published list, or by `splits.csv` (id,train,val,test) at the root. `tasks`: by default all
    with labels. `class_map` is the path of an `info_semantic.json`, absolute or below the root, in which `{scene}` stands for
    each scene's name; semantic segmentation needs one. Instance ids are read from `segment_semantic` in Omnidata's form, else
    from `results/semantic000000.png`.

    For sequences only: `depth_scale`, units a metre (by default 6553.5; some exports use 8192), and `intrinsics`
    (fx, fy, cx, cy) in pixel indices, by default those of NICE-SLAM's 1200 x 680 frames.

    Raises UserError for a root of neither form, unknown names, an empty split, options of the other form, a task without labels
    and, on access, for a damaged file.
    """

    metric_depth = True
    metric_arguments: Mapping[str, Mapping[str, float]] = {}
    benchmark_splits: frozenset[str] = frozenset()
    border = 0
    underivable: Mapping[str, str] = {}

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        tasks: Iterable[str] | None = None,
        *,
        depth_scale: float | None = None,
        intrinsics: Intrinsics | None = None,
        class_map: str | None = None,
        max_depth_m: float | None = None,
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"data.root: got {str(root)!r}, which is no folder; expected Replica's; correct the path")
        requested = list(TASKS if tasks is None else tasks)
        others = [task for task in requested if task != _SEMANTIC]
        scenes = find_scenes(self.root)
        self._views: Sequences | _OmnidataViews
        if scenes:
            self._views = Sequences(
                self.root,
                scenes,
                split,
                None if tasks is None else others,
                depth_scale=depth_scale,
                intrinsics=intrinsics,
                max_depth_m=max_depth_m,
            )
        elif (self.root / "rgb").is_dir() or any(self.root.glob("*_rgb")):
            for option, value in (("depth_scale", depth_scale), ("intrinsics", intrinsics)):
                if value is not None:
                    raise UserError(
                        f"data.options.{option}: got {value} for Omnidata's rendering, whose files say it themselves; "
                        "expected none; leave it out"
                    )
            self._views = _OmnidataViews(self.root, split, tasks=() if tasks is None else others, max_depth_m=max_depth_m)
            if tasks is None:
                self._views.tasks = tuple(task for task in self._views.available if task != _SEMANTIC)
        else:
            raise UserError(
                f"{self.root}: got neither rgb/replica/<space>/point_P_view_V_domain_rgb.png nor "
                "<scene>/results/frame000000.jpg; expected Replica as Omnidata or as ReplicaSDK renders it; "
                "give the folder that holds the task folders or the scenes"
            )
        self._instances = self._load_class_maps(class_map, _SEMANTIC in requested and tasks is not None)
        unusable = frozenset[str]() if self._instances else frozenset({_SEMANTIC})
        self.labelled = self._views.labelled - unusable
        self.available = tuple(task for task in self._views.available if task not in unusable)
        read = {*self._views.tasks, *((_SEMANTIC,) if self._instances and _SEMANTIC in requested else ())}
        self.tasks = tuple(task for task in TASKS if task in read)
        self.classes = {_SEMANTIC: next(iter(self._instances.values())).names} if _SEMANTIC in read else {}

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, i: int) -> Sample:
        sample = self._views[i]
        if _SEMANTIC not in self.tasks:
            return sample
        height, width = sample["image"].shape[-2:]
        labels = {task: (sample["targets"][task], sample["valid"][task]) for task in sample["targets"]}
        path = self._views.instances(i)
        if path is None:
            labels[_SEMANTIC] = empty_target(TASKS[_SEMANTIC], height, width)
        else:
            target, valid = self._instances[self.group(i)].read(path, (height, width))
            labels[_SEMANTIC] = torch.from_numpy(target), torch.from_numpy(valid)[None]
        targets = {task: labels[task][0] for task in self.tasks}
        return {**sample, "targets": targets, "valid": {task: labels[task][1] for task in self.tasks}}

    def name(self, i: int) -> str:
        """The id of the i-th sample."""
        return self._views.name(i)

    def group(self, i: int) -> str:
        """The scene of the i-th view, by its folder's name."""
        return self._views.group(i)

    def native(self, i: int) -> frozenset[str]:
        """The tasks of which the dataset itself has a label of the i-th view, whether or not it is read."""
        return self._views.native(i) & self.labelled

    def camera(self, i: int) -> Camera:
        """A view's intrinsics (fx, fy, cx, cy) in pixel indices and its (height, width); UserError where they are unknown."""
        return self._views.camera(i)

    def pose(self, i: int) -> NDArray[np.float64]:
        """Camera to world (4, 4) of a frame of a sequence, from traj.txt; UserError where there is none."""
        if not isinstance(self._views, Sequences):
            raise UserError(f"{self.root}: got Omnidata's rendering; expected a sequence with traj.txt; only those have poses")
        return self._views.pose(i)

    def _load_class_maps(self, class_map: str | None, needed: bool) -> dict[str, Instances]:
        """{scene: its class map}, none without `class_map`; all must have the same classes."""
        if class_map is None:
            if needed:
                raise UserError(
                    f"{self.root}: got task {_SEMANTIC} without a class map; expected data.options.class_map, as Replica's "
                    "semantic images hold instance ids, which are not classes; give the scenes' info_semantic.json, such as "
                    "'{scene}/habitat/info_semantic.json', or leave the task out"
                )
            return {}
        if _SEMANTIC not in self._views.labelled:
            raise UserError(
                f"{self.root}: got data.options.class_map but no image of instance ids; expected segment_semantic/ or "
                "<scene>/results/semantic000000.png; add them or leave the class map out"
            )
        maps = {scene: Instances.load(self.root / class_map.replace("{scene}", scene)) for scene in self._views.buildings}
        first = next(iter(maps.values()))
        for other in maps.values():
            if other.names != first.names:
                raise UserError(
                    f"{other.path}: got the classes {other.names[:4]}...; expected {first.names[:4]}..., as in {first.path}; "
                    "give all scenes one list of classes"
                )
        return maps


class _OmnidataViews(Taskonomy):
    """Omnidata's rendering, without the instance ids, which would be read as Taskonomy's classes."""

    def _read_published(self) -> tuple[str, dict[str, str]]:
        return "Replica's published split", read_splits(published_list("replica"))

    def instances(self, i: int) -> Path | None:
        """The image of instance ids of a view."""
        return self.index.path(self._row(i), _SEMANTIC)
