"""Unpack nyu_depth_v2_labeled.mat into a folder that `NYU` reads: images, depth and labels of 1,449 views.

A .mat of version 7.3 is HDF5, in which h5py shows MATLAB's axes reversed: an image of height H and width W is stored as
(3, W, H). Views are read and written one at a time, so that memory does not grow with the file. The folder gets
`images/0001.png` (RGB), `depth/0001.png` (16-bit, 5000 units a metre, 0 = none), `labels/0001.png` (16-bit, 0 = none, 1 to
894), numbered from 1 as the published splits are, and last `nyu.json` with each view's scene and the names of the labels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mult.data.disk.derived import warn_if_implausible
from mult.data.disk.images import Array, write_png
from mult.errors import UserError, pluralize
from mult.files import write_text

VIEWS = 1449
LABELS = 894
DEPTH_UNITS_PER_M = 5000
META = "nyu.json"
FOLDERS = ("images", "depth", "labels")


@dataclass(frozen=True)
class PreparationCounts:
    """The numbers of views that were written, and that were in the folder already."""

    written: int
    present: int


def prepare(mat: str | Path, root: str | Path) -> PreparationCounts:
    """Unpack the .mat into `root`; views that are there are kept, so that an interrupted call is continued when it is repeated.

    Raises UserError without h5py and for a file that is no HDF5, is truncated or has other contents; OSError for a file that
    cannot be written, as on a full disk: the files before it stay valid.
    """
    mat, root = Path(mat), Path(root)
    written, medians = 0, []
    with _open(mat) as content:
        arrays = _open_arrays(mat, content)
        meta = {
            "scenes": _read_strings(mat, content, "scenes", VIEWS),
            "names": _read_strings(mat, content, "names", LABELS),
        }
        for i in tqdm(range(VIEWS), desc="NYU", unit="view"):
            paths = {folder: root / folder / f"{i + 1:04d}.png" for folder in FOLDERS}
            if all(path.exists() for path in paths.values()):
                continue
            image, depth_m, labels = (_read(mat, array, i) for array in arrays.values())
            write_png(paths["images"], image.transpose(2, 1, 0))
            write_png(paths["depth"], _encode_depth(mat, i, depth_m.T))
            write_png(paths["labels"], _encode_labels(mat, i, labels.T))
            written += 1
            if (depth_m > 0).any():
                medians.append(float(np.median(depth_m[depth_m > 0])))
    write_text(root / META, json.dumps(meta))
    warn_if_implausible(float(np.median(medians)) if medians else None, f"is the depth of {mat} in metres?")
    return PreparationCounts(written, VIEWS - written)


def _open(mat: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError('prepare_nyu.py needs h5py; install it with: pip install "mult-dense[nyu]"') from error
    if not mat.is_file():
        raise UserError(f"--mat: got {str(mat)!r}, no such file; expected nyu_depth_v2_labeled.mat; correct the path")
    if not h5py.is_hdf5(mat):
        raise UserError(
            f"{mat}: got a file that is no HDF5; expected nyu_depth_v2_labeled.mat, a .mat of version 7.3; download it again"
        )
    try:
        return h5py.File(mat, "r")
    except OSError as error:
        raise _truncated_error(mat, error) from error


def _truncated_error(mat: Path, error: Exception) -> UserError:
    return UserError(
        f"{mat}: got a file that was cut short or damaged ({error}); expected all of nyu_depth_v2_labeled.mat; download it "
        "again"
    )


def _open_arrays(mat: Path, content: Any) -> dict[str, Any]:
    """The three arrays, not yet read; raises UserError for shapes and types that are not NYU's."""
    width, height = getattr(content.get("images"), "shape", ())[2:] or (0, 0)
    plane = (VIEWS, width, height)
    arrays = {}
    for key, kind, shape in (("images", "u", (VIEWS, 3, width, height)), ("depths", "f", plane), ("labels", "u", plane)):
        array = content.get(key)
        got = "nothing" if array is None else f"{getattr(array, 'dtype', 'a group')} {getattr(array, 'shape', '')}"
        if array is None or getattr(array, "shape", None) != shape or array.dtype.kind != kind or not width:
            expected = f"{'float' if kind == 'f' else 'unsigned'} ({', '.join(map(str, shape[:-2]))}, width, height)"
            raise UserError(f"{mat}: {key}: got {got}; expected {expected}, as h5py shows it; give the labelled dataset")
        arrays[key] = array
    return arrays


def _read_strings(mat: Path, content: Any, key: str, count: int) -> list[str]:
    """A cell array of strings, which are references to arrays of character codes."""
    try:
        texts = ["".join(map(chr, content[reference][()].ravel())) for reference in content[key][()].ravel()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{mat}: {key}: got {error!r:.300}; expected {count} texts; give the labelled dataset") from error
    except OSError as error:
        raise _truncated_error(mat, error) from error
    if len(texts) != count:
        raise UserError(f"{mat}: {key}: got {pluralize(len(texts), 'text')}; expected {count}; give the labelled dataset")
    return texts


def _read(mat: Path, array: Any, i: int) -> Array:
    try:
        return np.asarray(array[i])
    except OSError as error:
        raise _truncated_error(mat, error) from error


def _encode_depth(mat: Path, i: int, depth_m: Array) -> Array:
    farthest_m = 65535 / DEPTH_UNITS_PER_M
    depth_m = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0)
    if depth_m.max() > farthest_m:
        raise UserError(
            f"{mat}: view {i + 1}: got depth up to {depth_m.max():.4g}; expected metres, up to {farthest_m}; give the labelled "
            "dataset"
        )
    return np.rint(depth_m.astype(np.float64) * DEPTH_UNITS_PER_M).astype(np.uint16)


def _encode_labels(mat: Path, i: int, labels: Array) -> Array:
    if labels.max() > LABELS:
        raise UserError(f"{mat}: view {i + 1}: got label {labels.max()}; expected 0 to {LABELS}; give the labelled dataset")
    return labels.astype(np.uint16)
