"""NYU Depth v2, its 1,449 labelled views, in any of three folders (forms.py).

The published split has 795 views for training and 654 for testing, and no validation split. `val` is the 654 too, as in the
code of most papers: a checkpoint that was selected by its `val` results was selected on the test set.

Depth is the dataset's `depths`, in which its authors filled the pixels that the sensor did not measure. Normals are derived
from it, or read from NYUD_MT's files. Boundaries are NYUD_MT's; the benchmark matches them within 0.011 of the diagonal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from mult.data.disk.camera import check_intrinsics, scale_intrinsics
from mult.data.disk.derived import DERIVABLE, FROM_COLOUR, DerivedLabels, warn_if_implausible
from mult.data.disk.images import Array
from mult.data.disk.splits import check_split_name, read_nyu_lists
from mult.data.nyu.forms import Form, find_form
from mult.data.sample import BadFileError, Camera, Sample, crop, wrap_index
from mult.errors import UserError
from mult.labels import Intrinsics
from mult.tasks import IGNORE, TASKS

INTRINSICS: Intrinsics = (518.858, 519.470, 325.582, 253.736)
SIZE = (480, 640)
"""(height, width) of the images that INTRINSICS are of, as published with the dataset's toolbox."""
BORDER = 8
"""Pixels at each side of the original images that are white: 6 to 8, by the side."""
CROP = (slice(44, 471), slice(40, 601))
"""The 427 x 561 pixels onto which depth was projected: 45:471, 41:601 in the toolbox, which counts from 1."""
_NYUD_MT_SIZE, _NYUD_MT_CORNER = (425, 560), (45, 40)
"""(height, width) of NYUD_MT's images, and the row and column of the original image at which they begin."""
SPACES = (13, 40, 894)
"""Label spaces, by their number of classes."""


class NYU(Dataset[Sample]):
    """Map-style dataset of NYU Depth v2; `dataset[i]` is a `Sample` at the files' own size.

    `tasks`: by default all with labels. `space`: the number of classes, 13, 40 or 894; by default 40 if the folder has them. Of
    894 classes, ids from 255 on are one higher than the class's index, as 255 means ignore everywhere; the class of id 255 is
    named "" and no pixel has it. `crop` removes the border without depth. `intrinsics` (fx, fy, cx, cy) in pixel indices of the
    files' images, before `crop`; by default those of the original images, of NYUD_MT, or of the originals at another size.
    `normals`: "depth" for those that `mult annotate` derives, "file" for NYUD_MT's own, whose frame is not documented.

    Raises UserError for a folder of no known form, unknown names, a label space that the folder's labels do not give, a task
    without labels and, on access, for a damaged file.
    """

    metric_depth = True
    metric_arguments: Mapping[str, Mapping[str, float]] = {"boundary": {"max_distance": 0.011}}
    benchmark_splits = frozenset({"val", "test"})
    border = 0

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        tasks: Iterable[str] | None = None,
        *,
        space: int | None = None,
        crop: bool = False,
        intrinsics: Intrinsics | None = None,
        normals: Literal["file", "depth"] = "depth",
        max_depth_m: float | None = None,
    ) -> None:
        self.root, self.crop, self.max_depth_m = Path(root), crop, max_depth_m
        if not self.root.is_dir():
            raise UserError(
                f"data.root: got {str(root)!r}, which is no folder; expected NYU's, which `mult prepare-nyu` unpacks from its "
                ".mat, or NYUD_MT; give the place, data.root=PATH"
            )
        check_split_name(split)
        lists = read_nyu_lists()
        self._form = find_form(self.root, split, lists)
        self._space = min(self._form.space, 40) if space is None else space
        self._table, names = _build_table(self.root, self._form.space, self._space, lists, self._form.names)
        self._intrinsics = None if intrinsics is None else check_intrinsics("data.options.intrinsics", intrinsics)
        self._derived = DerivedLabels(self.root)
        if normals == "file" and "normal" not in self._form.labels:
            raise UserError(
                f"{self.root}: got data.options.normals: file without NYUD_MT's normals/; expected depth; leave it out"
            )
        if normals == "depth":
            self._form.labels.pop("normal", None)
        self.labelled = frozenset({"segment_semantic", *self._form.labels})
        self.available = self._derived.list_available(tasks or (), self.labelled, self._form.folders, f"split {split!r}")
        requested = set(self.available if tasks is None else tasks)
        self.tasks = tuple(task for task in TASKS if task in requested)
        self.classes = {task: names for task in self.tasks if task == "segment_semantic"}
        reason = "labels are derived from uncropped images; leave data.options.crop out"
        self.underivable: Mapping[str, str] = dict.fromkeys(DERIVABLE, reason) if crop else {}
        # A training reads no image of the test split before its last step: a training image is looked at instead.
        form = self._form if split == "train" else _find_training_form(self.root, lists) or self._form
        with suppress(BadFileError):  # raised again when the view is read, where data.on_bad_file applies
            self._check_first_view(form)

    def __len__(self) -> int:
        return len(self._form.ids)

    def __getitem__(self, i: int) -> Sample:
        i = wrap_index(i, len(self))
        image = self._form.image(i)
        size = image.shape[1:]
        if self.crop and size != SIZE:
            raise BadFileError(f"{self.name(i)}: got an image of {size} to crop; expected {SIZE}; fetch it again", "size")
        native = {}
        if "segment_semantic" in self.tasks:
            target = self._table[self._form.codes(i, size)]
            native["segment_semantic"] = torch.from_numpy(target), torch.from_numpy(target != IGNORE)[None]
        for task, read in self._form.labels.items():
            if task in self.tasks:
                values, valid = read(i, size)
                if task == "depth_zbuffer" and self.max_depth_m is not None:
                    valid &= values[0] <= self.max_depth_m
                native[task] = torch.from_numpy(values * valid), torch.from_numpy(valid)[None]
        sample = self._derived.build_sample(self.name(i), torch.from_numpy(image), native, self.tasks)
        if size == SIZE:
            inside = slice(BORDER, -BORDER)
            for task in set(sample["derived"]).intersection(FROM_COLOUR):
                mask = torch.zeros_like(sample["valid"][task])
                mask[..., inside, inside] = True
                sample["valid"][task] = mask
                sample["targets"][task] *= mask
        return crop(sample, *CROP) if self.crop else sample

    def name(self, i: int) -> str:
        """The id of the i-th sample."""
        return self._form.ids[wrap_index(i, len(self))]

    def group(self, i: int) -> str:
        """The scene of the i-th view, "" if the folder does not say."""
        return self._form.scene(wrap_index(i, len(self)))

    def native(self, i: int) -> frozenset[str]:
        """The tasks of which the dataset itself has a label of the i-th view, whether or not it is read."""
        wrap_index(i, len(self))
        return self.labelled

    def camera(self, i: int) -> Camera:
        """A view's intrinsics (fx, fy, cx, cy) in pixel indices and its (height, width); UserError where they are unknown."""
        _, height, width = self._form.image(wrap_index(i, len(self))).shape
        size = (height, width)
        fx, fy, cx, cy = INTRINSICS
        scale = width / SIZE[1]
        if self._intrinsics is not None:
            fx, fy, cx, cy = check_intrinsics("data.options.intrinsics", self._intrinsics, size)
        elif size == _NYUD_MT_SIZE:
            cx, cy = cx - _NYUD_MT_CORNER[1], cy - _NYUD_MT_CORNER[0]
        elif height == scale * SIZE[0]:
            fx, fy, cx, cy = scale_intrinsics(INTRINSICS, SIZE, size)
        else:
            raise UserError(
                f"{self.root}: got images of {size} (height, width), whose camera is unknown; expected the shape of {SIZE} or "
                f"NYUD_MT's {_NYUD_MT_SIZE}, or data.options.intrinsics; give fx, fy, cx, cy in pixels"
            )
        if self.crop:
            rows, columns = CROP
            cropped_size = (rows.stop - rows.start, columns.stop - columns.start)
            return Camera((fx, fy, cx - columns.start, cy - rows.start), cropped_size)
        return Camera((fx, fy, cx, cy), size)

    def _check_first_view(self, form: Form) -> None:
        """Look for the white border, refuse images that cannot be cropped, and warn of depth that is not in metres."""
        _, height, width = form.image(0).shape
        size = (height, width)
        self.border = BORDER if size == SIZE else 0
        if self.crop and size != SIZE:
            raise UserError(f"{self.root}: got data.options.crop for images of {size}; expected {SIZE}; leave it out")
        if "depth_zbuffer" in self.tasks and "depth_zbuffer" in form.labels:
            depth_m, valid = form.labels["depth_zbuffer"](0, size)
            median = float(np.median(depth_m[0][valid])) if valid.any() else None
            warn_if_implausible(median, f"is the depth of {self.root} in metres?")


def _find_training_form(root: Path, lists: dict[str, list[int]]) -> Form | None:
    """The training split's files, None where the folder does not have them."""
    with suppress(UserError):
        return find_form(root, "train", lists)
    return None


def _build_table(
    root: Path, file_space: int, space: int, lists: Mapping[str, list[int]], names: list[str] | None
) -> tuple[Array, list[str]]:
    """The class id, in a label space, of each code 0..file_space in the label files, and the names of its classes."""
    possible = [each for each in SPACES if each <= file_space]
    if space not in possible:
        raise UserError(
            f"data.options.space: got {space!r} for {root} with labels of {file_space} classes; expected one of {possible}; "
            "choose one"
        )
    codes = np.arange(file_space + 1)
    if file_space == 894 and space < 894:
        codes = np.array([0, *lists["labels894_to_40"]])[codes]
    if file_space > 13 and space == 13:
        codes = np.array([0, *lists["classes40_to_13"]])[codes]
    table = np.where(codes == 0, IGNORE, np.where(codes <= IGNORE, codes - 1, codes))
    if space < 894:
        return table, [str(name) for name in lists[f"classes{space}"]]
    assert names is not None
    return table, [*names[:IGNORE], "", *names[IGNORE:]]
