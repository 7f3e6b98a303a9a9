"""Labels computed from depth and colour, and the job that computes those that a dataset lacks (`scripts/annotate.py`).

Where the files are and what they hold says disk/derived.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from mult.data.disk.derived import DERIVABLE, FROM_COLOUR, FROM_DEPTH, DerivedLabels, warn_if_implausible
from mult.data.disk.images import Array, Mask
from mult.data.parallel import map_with_progress
from mult.data.sample import Reader
from mult.errors import UserError
from mult.labels import Intrinsics, normals_from_depth, reshading


@dataclass(frozen=True)
class Geometry:
    """Depth (H, W) along z, its mask, (fx, fy, cx, cy) in pixel indices and, if the dataset has any, normals and a mask."""

    depth_m: Array
    valid: Mask
    intrinsics: Intrinsics
    normal: tuple[Array, Mask] | None = None


def derive(tasks: Iterable[str], image: Array, geometry: Geometry | None) -> dict[str, tuple[Array, Mask]]:
    """{task: (target (C, H, W), valid (H, W))} of an image uint8 (H, W, 3) and, for FROM_DEPTH, its geometry."""
    labels: dict[str, tuple[Array, Mask]] = {}
    normal = None if geometry is None else geometry.normal
    for task in tasks:
        if task in FROM_COLOUR:
            labels[task] = FROM_COLOUR[task](image), np.ones(image.shape[:2], np.bool_)
            continue
        assert geometry is not None
        normal = normal or normals_from_depth(geometry.depth_m, geometry.intrinsics, geometry.valid)
        if task == "normal":
            labels[task] = normal
        else:
            valid = geometry.valid & normal[1]
            labels[task] = reshading(geometry.depth_m, normal[0], geometry.intrinsics, valid), valid
    return labels


@dataclass(frozen=True)
class Filled:
    """What `fill` did.

    counts: {task: {state: views}}, where the label was "written", was "there" before, is "native" to the dataset, or the view
    lacks the "depth" for it. refused: {task that cannot be derived: why}. median_depth_m: of the views whose geometry was read.
    """

    counts: dict[str, dict[str, int]]
    refused: dict[str, str]
    median_depth_m: float | None

    def __str__(self) -> str:
        phrases = {"written": "written", "there": "were there", "native": "the dataset's own", "depth": "without depth"}
        lines = [
            f"{task}: " + ", ".join(f"{count[state]} {phrases[state]}" for state in phrases if state in count)
            for task, count in self.counts.items()
        ]
        return "\n".join([*lines, *(f"{task}: not derived, {reason}" for task, reason in self.refused.items())])


def fill(
    open_views: Callable[[Sequence[str]], Reader], tasks: Sequence[str] | None = None, workers: int | None = None
) -> Filled:
    """Compute and write the labels that the views of a dataset lack and that were not derived yet.

    `open_views(tasks)` opens the dataset with labels of `tasks`. By default all of DERIVABLE are computed for which the
    dataset's depth suffices; a named one for which it does not is refused with a UserError. Files are whole or absent, so that
    an interrupted call can be repeated. Warns of an implausible median depth. Raises UserError for a view with depth whose
    camera is unknown.
    """
    views = open_views(())
    refused = dict(views.underivable)
    if not views.metric_depth:
        refused.setdefault("reshading", "its fall-off needs metres and the depth of this dataset has no metric scale")
    sources = [task for task in ("depth_zbuffer", "normal") if task in views.labelled]
    if "depth_zbuffer" not in sources:
        refused |= dict.fromkeys(FROM_DEPTH, "no view has depth")
    for task in tasks or ():
        if task not in DERIVABLE:
            raise UserError(f"tasks: got {task!r}; expected some of {', '.join(DERIVABLE)}; no other can be derived")
        if task in refused:
            raise UserError(f"tasks: got {task}; expected what can be derived, {refused[task]}; leave it out")
    derivable = [task for task in DERIVABLE if task not in refused and task in (tasks or DERIVABLE)]

    fill_view = partial(_fill_view, open_views(sources), derivable)
    counts = {task: Counter[str]() for task in derivable}
    medians = []
    for states, median_m in map_with_progress(fill_view, range(len(views)), workers, "derived labels", "view", chunk=8):
        for task, state in states.items():
            counts[task][state] += 1
        if median_m is not None:
            medians.append(median_m)
    median_depth_m = float(np.median(medians)) if medians and views.metric_depth else None
    warn_if_implausible(median_depth_m, f"are the options of {views.root} right?")
    return Filled({task: dict(count) for task, count in counts.items()}, {} if tasks else refused, median_depth_m)


def _fill_view(views: Reader, tasks: Sequence[str], i: int) -> tuple[dict[str, str], float | None]:
    """Fill one view: {task: its state, as in Filled}, and the median depth, None where no depth was read."""
    derived_labels, name, native = DerivedLabels(views.root), views.name(i), views.native(i)
    states = {}
    for task in tasks:
        if task in native:
            states[task] = "native"
        elif task in FROM_DEPTH and "depth_zbuffer" not in native:
            states[task] = "depth"
        else:
            states[task] = "there" if derived_labels.path(task, name).exists() else "written"
    missing = [task for task in tasks if states[task] == "written"]
    if not missing:
        return states, None
    sample = views[i]
    image = to_8_bit(sample["image"])
    geometry, median_m = None, None
    if any(task in FROM_DEPTH for task in missing):
        depth_m, valid = sample["targets"]["depth_zbuffer"][0].numpy(), sample["valid"]["depth_zbuffer"][0].numpy()
        intrinsics, size = views.camera(i)
        if size != image.shape[:2]:
            raise UserError(
                f"{views.root}: {name}: got a camera of {size} pixels (height, width); expected {image.shape[:2]}, as the "
                "image has; correct the camera"
            )
        normal = (sample["targets"]["normal"].numpy(), sample["valid"]["normal"][0].numpy()) if "normal" in native else None
        geometry = Geometry(depth_m.astype(np.float64), valid, intrinsics, normal)
        median_m = float(np.median(depth_m[valid])) if valid.any() else None
    for task, (target, mask) in derive(missing, image, geometry).items():
        derived_labels.write(task, name, target, mask)
    return states, median_m


def to_8_bit(image: Tensor) -> Array:
    """A sample's image as uint8 (H, W, 3): the values of its file."""
    return np.rint(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
