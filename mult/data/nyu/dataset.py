"""NYU Depth v2, the 1,449 labelled views (data.md, "NYU Depth v2"), in any of three folders (nyu_forms.py).

The published split is 795 for training and 654 to test on; there is no validation split. `val` means the 654 too, as in the
code of most papers: whoever chooses a checkpoint by it has chosen on the test set.

Depth is that of the dataset's `depths`, which its authors filled in where the sensor saw nothing. Normals are derived.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mult.data.disk.camera import Camera
from mult.data.disk.derived import DERIVABLE, Cache, warn_of_median
from mult.data.disk.images import Array
from mult.data.disk.splits import SPLITS, published_list
from mult.data.nyu.forms import form_of
from mult.data.sample import IGNORE, BadFileError, Sample
from mult.errors import UserError
from mult.labels import Intrinsics
from mult.tasks import TASKS

INTRINSICS: Intrinsics = (518.858, 519.470, 325.582, 253.736)
SIZE = (480, 640)
"""(height, width) of the images that INTRINSICS are of, as published with the dataset's toolbox."""
CROP = (slice(44, 471), slice(40, 601))
"""Where depth was projected into the image: 45:471, 41:601 of the toolbox, which counts from 1. 427 x 561 pixels."""
_MULTITASK_SIZE, _MULTITASK_CORNER = (425, 560), (45, 40)
"""NYUD_MT's images, and which row and column of the original their first pixel is."""
SPACES = (13, 40, 894)


class NYU(Dataset[Sample]):
    """Map-style dataset of NYU Depth v2; `dataset[i]` is a `Sample` at the files' own size.

    `tasks`: by default all that there are labels of. `space`: how many classes, 13, 40 or 894; by default 40 where the folder
    has them. Of 894, class ids from 255 on are one higher than the label's place, as 255 means ignore everywhere; the
    class of that id is named "" and no pixel has it. `crop` cuts the border that has no depth. `intrinsics` (fx, fy, cx, cy)
    in pixel indices of the files' images, before `crop`; they are known for the original, for NYUD_MT and for what has the
    original's shape.

    Raises UserError for a folder of no known form, unknown names, a space that the folder's labels
    do not give, a task without labels and, on access, for a damaged file, naming it.
    """

    metric_depth = True

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        tasks: Iterable[str] | None = None,
        *,
        space: int | None = None,
        crop: bool = False,
        intrinsics: Intrinsics | None = None,
        max_depth_m: float | None = None,
    ) -> None:
        self.root, self.crop, self.max_depth_m = Path(root), crop, max_depth_m
        if not self.root.is_dir():
            raise UserError(f"data.root: got {str(root)!r}, which is no folder; expected NYU's; correct the path")
        if split not in SPLITS:
            raise UserError(f"split: got {split!r}; expected one of {', '.join(SPLITS)}; choose one of them")
        facts = json.loads(published_list("nyu", "json").read_text())
        self._form = form_of(self.root, split, facts)
        self._space = min(self._form.space, 40) if space is None else space
        self._table, names = _label_space(self.root, self._form.space, self._space, facts, self._form.names)
        self._intrinsics = None if intrinsics is None else Camera(1.0, intrinsics).intrinsics
        self.cache = Cache(self.root)
        self.labelled = frozenset({"segment_semantic"} | ({"depth_zbuffer"} if self._form.has_depth else set()))
        self.available = self.cache.require(tasks or (), self.labelled, self._form.folders, f"split {split!r}")
        wanted = set(self.available if tasks is None else tasks)
        self.tasks = tuple(task for task in TASKS if task in wanted)
        self.classes = {task: names for task in self.tasks if TASKS[task].categorical}
        whole = "labels are derived of whole images; leave data.options.crop out"
        self.underivable: Mapping[str, str] = dict.fromkeys(DERIVABLE, whole) if crop else {}
        with suppress(BadFileError):  # of the first view: whoever reads it is told, or leaves it out (data.on_bad_file)
            self._check_first()

    def __len__(self) -> int:
        return len(self._form.ids)

    def __getitem__(self, i: int) -> Sample:
        i = self._index(i)
        image = self._form.image(i)
        size = image.shape[1:]
        if self.crop and size != SIZE:
            raise BadFileError(f"{self.name(i)}: got an image of {size} to crop; expected {SIZE}; fetch it again", "size")
        native = {}
        if "segment_semantic" in self.tasks:
            target = self._table[self._form.codes(i, size)]
            native["segment_semantic"] = torch.from_numpy(target), torch.from_numpy(target != IGNORE)[None]
        if "depth_zbuffer" in self.tasks:
            depth_m, valid = self._form.depth(i, size)
            if self.max_depth_m is not None:
                valid &= depth_m <= self.max_depth_m
            native["depth_zbuffer"] = torch.from_numpy(depth_m * valid)[None], torch.from_numpy(valid)[None]
        sample = self.cache.complete(self.name(i), torch.from_numpy(image), native, self.tasks)
        return _cut(sample) if self.crop else sample

    def name(self, i: int) -> str:
        """The id of the i-th sample."""
        return self._form.ids[self._index(i)]

    def group(self, i: int) -> str:
        """The scene of the i-th view, "" where the folder does not say."""
        return self._form.scene(self._index(i))

    def native(self, i: int) -> frozenset[str]:
        """The tasks of which the i-th view has a label of its own, whether or not they are read."""
        self._index(i)
        return self.labelled

    def camera(self, i: int) -> tuple[Intrinsics, tuple[int, int]]:
        """A view's intrinsics (fx, fy, cx, cy) in pixel indices and its (height, width); UserError where they are unknown."""
        height, width = size = self._form.image(self._index(i)).shape[1:]
        fx, fy, cx, cy = INTRINSICS
        scale = width / SIZE[1]
        if self._intrinsics is not None:
            fx, fy, cx, cy = self._intrinsics
        elif size == _MULTITASK_SIZE:
            cx, cy = cx - _MULTITASK_CORNER[1], cy - _MULTITASK_CORNER[0]
        elif height == scale * SIZE[0]:
            # A pixel index is a pixel's centre, half a pixel from the edge that scaling keeps.
            fx, fy, cx, cy = fx * scale, fy * scale, (cx + 0.5) * scale - 0.5, (cy + 0.5) * scale - 0.5
        else:
            raise UserError(
                f"{self.root}: got images of {size} (height, width), whose camera is unknown; expected the shape of {SIZE} or "
                f"NYUD_MT's {_MULTITASK_SIZE}, or data.options.intrinsics; give fx, fy, cx, cy in pixels"
            )
        if self.crop:
            rows, columns = CROP
            return (fx, fy, cx - columns.start, cy - rows.start), (rows.stop - rows.start, columns.stop - columns.start)
        return (fx, fy, cx, cy), size

    def _check_first(self) -> None:
        """Refuse images that cannot be cropped, and warn of depth that is not in metres."""
        size = self._form.image(0).shape[1:]
        if self.crop and size != SIZE:
            raise UserError(f"{self.root}: got data.options.crop for images of {size}; expected {SIZE}; leave it out")
        if "depth_zbuffer" in self.tasks:
            depth_m, valid = self._form.depth(0, size)
            median = float(np.median(depth_m[valid])) if valid.any() else None
            warn_of_median(median, f"is the depth of {self.root} in metres?")

    def _index(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise IndexError(f"view {i} of {len(self)}")
        return i % len(self)


def _label_space(
    root: Path, own: int, space: int, facts: Mapping[str, list[int]], names: list[str] | None
) -> tuple[Array, list[str]]:
    """The class id of each code 0..own of the labels, and the classes' names."""
    given = [each for each in SPACES if each <= own]
    if space not in given:
        raise UserError(
            f"data.options.space: got {space!r} for {root} with labels of {own} classes; expected one of {given}; choose one"
        )
    codes = np.arange(own + 1)
    if own == 894 and space < 894:
        codes = np.array([0, *facts["labels894_to_40"]])[codes]
    if own > 13 and space == 13:
        codes = np.array([0, *facts["classes40_to_13"]])[codes]
    table = np.where(codes == 0, IGNORE, np.where(codes <= IGNORE, codes - 1, codes))
    if space < 894:
        return table, [str(name) for name in facts[f"classes{space}"]]
    assert names is not None
    return table, [*names[:IGNORE], "", *names[IGNORE:]]


def _cut(sample: Sample) -> Sample:
    def cut(values: Tensor) -> Tensor:
        return values[..., CROP[0], CROP[1]]

    return {
        **sample,
        "image": cut(sample["image"]),
        "targets": {task: cut(target) for task, target in sample["targets"].items()},
        "valid": {task: cut(valid) for task, valid in sample["valid"].items()},
    }
