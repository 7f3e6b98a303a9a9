"""What is in PASCAL_MT's .mat files: a map of PASCAL-Context's labels, and the people and their parts.

`pascal-context/trainval/*.mat` has `LabelMap`, (H, W) label ids. `human_parts/*.mat` has PASCAL-Part's `anno`, a struct whose
second field is the objects; an object's fields are its class, the class's number, its mask and its parts, and a part's are its
name and its mask.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from mult.data.disk.images import Array, Mask
from mult.data.disk.stored import bad_file, read_stored
from mult.data.sample import BadFileError
from mult.tasks import IGNORE

PERSON = 15
"""The number of the class person."""
PARTS: dict[str, tuple[str, ...]] = {
    "background": (),
    "head": ("hair", "head", "lear", "lebrow", "leye", "mouth", "nose", "rear", "rebrow", "reye"),
    "torso": ("neck", "torso"),
    "upper arm": ("luarm", "ruarm"),
    "lower arm": ("lhand", "llarm", "rhand", "rlarm"),
    "upper leg": ("luleg", "ruleg"),
    "lower leg": ("lfoot", "llleg", "rfoot", "rlleg"),
}
"""The seven classes of human parts, in the order of their ids, and PASCAL-Part's names of what each is made of."""
_CLASS_OF_PART = {part: number for number, parts in enumerate(PARTS.values()) for part in parts}


def read_label_map(path: Path, size: tuple[int, int]) -> Array:
    """The ids of PASCAL-Context's labels, (H, W); BadFileError, naming the file, if it is damaged or of another size."""
    labels = _load(path, "LabelMap")
    if labels.shape != size or labels.dtype.kind not in "iu":
        raise BadFileError(
            f"{path}: got LabelMap {labels.dtype} {labels.shape}; expected integers {size} (height, width), as the image has; "
            "fetch it again",
            "size",
        )
    return labels


def find_boundaries(labels: Array) -> Mask:
    """Where a label map changes, (H, W): the pixels whose label is not that of the next one to the right or below."""
    boundaries = np.zeros(labels.shape, np.bool_)
    boundaries[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    boundaries[:-1] |= labels[:-1] != labels[1:]
    return boundaries


def read_parts(path: Path, size: tuple[int, int]) -> Array:
    """Class ids (H, W) of human parts, all of them 255 where no person has parts.

    BadFileError, naming the file, if it is damaged or of another size.
    """
    target = np.zeros(size, np.int64)
    has_parts = False
    try:
        for person in _load(path, "anno").ravel()[0][1].ravel():
            if int(person[1].item()) != PERSON:
                continue
            for part in person[3].ravel():
                target[_check_mask(path, part[1], size)] = _CLASS_OF_PART[str(part[0].item())]
                has_parts = True
    except BadFileError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFileError(
            f"{path}: got no annotation of parts ({error!r:.300}); expected PASCAL-Part's anno, with the parts "
            f"{', '.join(_CLASS_OF_PART)} of people; fetch it again"
        ) from error
    return target if has_parts else np.full(size, IGNORE, np.int64)


def _check_mask(path: Path, mask: Array, size: tuple[int, int]) -> Mask:
    if mask.shape != size:
        raise BadFileError(
            f"{path}: got a part's mask {mask.shape}; expected {size} (height, width), as the image has; fetch it again", "size"
        )
    return mask.astype(np.bool_)


def _load(path: Path, name: str) -> Array:
    """A variable of a .mat file."""
    from scipy.io import loadmat

    remedy = "expected a .mat; fetch it again"
    stored = io.BytesIO(read_stored(path, remedy))
    try:
        content: dict[str, Any] = loadmat(stored, variable_names=[name])
    except Exception as error:  # damaged bytes make SciPy's parser raise almost anything
        raise bad_file(path, error, remedy) from error
    if name not in content:
        raise BadFileError(f"{path}: got no variable {name}; expected it; fetch the file again")
    return np.asarray(content[name])
