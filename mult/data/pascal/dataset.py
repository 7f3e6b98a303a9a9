"""PASCAL-Context in five tasks, in the folder PASCAL_MT that multitask papers share (layout: mult/data/README.md).

Segmentation into VOC's 21 classes, human parts, saliency, normals and boundaries; 4,998 images for training and 5,105 for
evaluation. `val` and `test` are both the latter, as in the code of most papers: a checkpoint that was selected by its `val`
results was selected on the test set. The benchmark matches boundaries within 0.0075 of the diagonal.

Saliency and normals are outputs of other networks. The normals are valid only on labels that NYU has too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from mult.data.disk.benchmark_files import read_names, read_normals
from mult.data.disk.derived import DerivedLabels
from mult.data.disk.images import Array, Mask, channels_first, read_photograph, read_pixels
from mult.data.disk.splits import check_split_name
from mult.data.pascal.labels import PARTS, find_boundaries, read_label_map, read_parts
from mult.data.sample import BadFileError, Camera, Sample, wrap_index
from mult.errors import UserError
from mult.tasks import IGNORE, TASKS

Size = tuple[int, int]

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The names of class ids 0..20 of segmentation."""
_LABEL_MAPS, _DB_INFO = "pascal-context/trainval", "db_info"
_FOLDERS = {
    "segment_semantic": ("semseg",),
    "normal": ("normals_distill", _LABEL_MAPS, _DB_INFO),
    "boundary": (_LABEL_MAPS,),
    "saliency": ("sal_distill",),
    "human_parts": ("human_parts",),
}
"""Task -> the folders that its labels are made of."""
_OF_MAT_FILES = frozenset({"normal", "boundary", "human_parts"})


class Pascal(Dataset[Sample]):
    """Map-style dataset of PASCAL_MT; `dataset[i]` is a `Sample` at the files' own size.

    `tasks`: by default all whose folders are there. An image without a file of human parts, or in which no person has parts,
    has no valid pixel of that task. Raises UserError for a folder of another form, unknown names, a task without labels, a
    missing SciPy and, on access, for a damaged file.
    """

    metric_depth = True
    metric_arguments: Mapping[str, Mapping[str, float]] = {"boundary": {"max_distance": 0.0075}}
    benchmark_splits = frozenset({"val", "test"})
    border = 0
    underivable: Mapping[str, str] = {}

    def __init__(self, root: str | Path, split: str = "train", tasks: Iterable[str] | None = None) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(
                f"data.root: got {str(root)!r}, which is no folder; expected PASCAL_MT, of which mult's README says where it "
                "is from; give the place, data.root=PATH"
            )
        check_split_name(split)
        self._ids = read_names(self.root / "ImageSets" / "Context" / f"{'train' if split == 'train' else 'val'}.txt")
        self._derived = DerivedLabels(self.root)
        self.labelled = frozenset(
            task for task, folders in _FOLDERS.items() if all((self.root / folder).is_dir() for folder in folders)
        )
        requested = None if tasks is None else set(tasks)
        self.available = self._derived.list_available(requested or (), self.labelled, [""], f"split {split!r}")
        self.tasks = tuple(task for task in TASKS if task in (self.available if requested is None else requested))
        if _OF_MAT_FILES & set(self.tasks) and find_spec("scipy") is None:
            raise UserError(f'{self.root}: got no SciPy to read .mat files; expected it; run: pip install "mult-dense[labels]"')
        names = {"segment_semantic": list(CLASSES), "human_parts": list(PARTS)}
        self.classes = {task: names[task] for task in self.tasks if task in names}
        self._labels_with_normals = self._find_labels_with_normals() if "normal" in self.tasks else np.empty(0)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, i: int) -> Sample:
        i = wrap_index(i, len(self))
        image = channels_first(np.asarray(read_photograph(self._path("JPEGImages", i, "jpg"), upright=False)))
        size = (image.shape[1], image.shape[2])
        native = {}
        for task in self.labelled & set(self.tasks):
            target, valid = self._read(task, i, size)
            native[task] = torch.from_numpy(target), torch.from_numpy(valid)[None]
        return self._derived.build_sample(self.name(i), torch.from_numpy(image / np.float32(255)), native, self.tasks)

    def name(self, i: int) -> str:
        """The id of the i-th sample."""
        return self._ids[wrap_index(i, len(self))]

    def group(self, i: int) -> str:
        """ "": the photographs have no place in common."""
        return ""

    def native(self, i: int) -> frozenset[str]:
        """The tasks of which the dataset itself has a file of the i-th image, whether or not it is read."""
        has_parts = self._path("human_parts", wrap_index(i, len(self)), "mat").exists()
        return self.labelled if has_parts else self.labelled - {"human_parts"}

    def camera(self, i: int) -> Camera:
        """Refused: the photographs' cameras are unknown."""
        raise UserError(
            f"{self.root}: got photographs of unknown cameras; expected none to be needed; leave out what needs one"
        )

    # --- One image ---

    def _path(self, folder: str, i: int, suffix: str) -> Path:
        return self.root / folder / f"{self._ids[i]}.{suffix}"

    def _read(self, task: str, i: int, size: Size) -> tuple[Array, Mask]:
        """The target and the mask (H, W) of one of the dataset's own labels."""
        if task == "segment_semantic":
            target = self._read_classes(i, size)
            return target, target != IGNORE
        if task == "human_parts":
            path = self._path("human_parts", i, "mat")
            target = read_parts(path, size) if path.exists() else np.full(size, IGNORE, np.int64)
            return target, target != IGNORE
        if task == "saliency":
            pixels = read_pixels(self._path("sal_distill", i, "png"), ("L",), size)
            return (pixels > 127).astype(np.float32)[None], np.ones(size, np.bool_)
        labels = read_label_map(self._path(_LABEL_MAPS, i, "mat"), size)
        if task == "boundary":
            return find_boundaries(labels).astype(np.float32)[None], np.ones(size, np.bool_)
        normals, valid = read_normals(self._path("normals_distill", i, "png"), size)
        valid &= np.isin(labels, self._labels_with_normals)
        return normals * valid, valid

    def _read_classes(self, i: int, size: Size) -> Array:
        """Class ids (H, W): VOC's own labels where the image has some, else those made of PASCAL-Context's."""
        path = self._path("semseg/VOC12", i, "png")
        if not path.exists():
            path = self._path("semseg/pascal-context", i, "png")
        target = read_pixels(path, ("L", "P"), size).astype(np.int64)
        highest = target[target != IGNORE].max(initial=0)
        if highest >= len(CLASSES):
            raise BadFileError(
                f"{path}: got class {highest}; expected 0 to {len(CLASSES) - 1}, or {IGNORE} (none); restore the file", "range"
            )
        return target

    def _find_labels_with_normals(self) -> Array:
        """The ids of those labels of PASCAL-Context that NYU has too; a television has another name there."""
        paths = [self.root / _DB_INFO / f"{name}.json" for name in ("nyu_classes", "context_classes")]
        try:
            nyu, context = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
            ids = [int(context[name]) for name in {*nyu, "tvmonitor"} - {"unknown"} if name in context]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{self.root / _DB_INFO}: got no lists of classes ({error!r:.300}); expected nyu_classes.json, a list of "
                "names, and context_classes.json, {name: id}; fetch them again"
            ) from error
        return np.array(sorted(ids))
