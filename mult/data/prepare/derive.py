"""Labels computed from depth and colour, and the job that computes those that a dataset lacks (`mult annotate`).

Where the files are and what they hold says disk/derived.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mult.data.disk.derived import DERIVABLE, FROM_COLOUR, FROM_DEPTH, DerivedLabels, warn_if_implausible
from mult.data.disk.images import Array, Mask
from mult.data.disk.origin import derived_record, describe_origin, require_same_origin
from mult.data.parallel import map_with_progress
from mult.data.prepare.measure import DepthFacts, measure, summarise
from mult.data.sample import Reader
from mult.errors import UserError
from mult.files import hold_lock, read_json, remove_folder, write_json
from mult.labels import Intrinsics, normals_from_depth, reshading

_NO_INFLUENCE = ("space", "class_map", "by")
"""Options of datasets that change neither depth nor colours: they choose classes or splits."""


@dataclass(frozen=True)
class Geometry:
    """Depth (H, W) along z, its mask, (fx, fy, cx, cy) in pixel indices and, if the dataset has any, normals and a mask."""

    depth_m: Array
    valid: Mask
    intrinsics: Intrinsics
    normal: tuple[Array, Mask] | None = None


def derive(tasks: Iterable[str], image: Array, geometry: Geometry | None, border: int = 0) -> dict[str, tuple[Array, Mask]]:
    """{task: (target (C, H, W), valid (H, W))} of an image uint8 (H, W, 3) and, for FROM_DEPTH, its geometry.

    So many pixels at each side of the image as `border` are taken to go on as the image inside ends, and are not valid.
    """
    height, width = image.shape[:2]
    inside = slice(border, height - border), slice(border, width - border)
    colours = np.pad(image[inside], ((border, border), (border, border), (0, 0)), mode="edge")
    labels: dict[str, tuple[Array, Mask]] = {}
    normal = None if geometry is None else geometry.normal
    for task in tasks:
        if task in FROM_COLOUR:
            valid = np.zeros((height, width), np.bool_)
            valid[inside] = True
            labels[task] = FROM_COLOUR[task](colours), valid
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
    lacks the "depth" for it. refused: {task that cannot be derived: why}. depth: of the views whose geometry was read.
    """

    counts: dict[str, dict[str, int]]
    refused: dict[str, str]
    depth: DepthFacts | None

    def __str__(self) -> str:
        phrases = {"written": "written", "there": "there before", "native": "the dataset's own", "depth": "without depth"}
        lines = [
            f"{task}: " + ", ".join(f"{count[state]} {phrases[state]}" for state in phrases if state in count)
            for task, count in self.counts.items()
        ]
        depth = [] if self.depth is None else [str(self.depth)]
        return "\n".join([*lines, *depth, *(f"{task}: not derived, {reason}" for task, reason in self.refused.items())])


def fill(
    open_views: Callable[[Sequence[str]], Reader],
    tasks: Sequence[str] | None = None,
    workers: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Filled:
    """Compute and write the labels that the views of a dataset lack and that were not derived yet.

    `open_views(tasks)` opens the dataset with labels of `tasks`, and `options` are those that it is opened with. By default all
    of DERIVABLE are computed for which the dataset's depth suffices; a named one for which it does not is refused with a
    UserError. Files are whole or absent, so that an interrupted call can be repeated. Warns of an implausible median depth.
    Raises UserError for a view with depth whose camera is unknown, and where labels of these tasks are there that were made
    from other options or by other formulas (disk/origin.py; `remove_derived` makes room).
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
    _record(views.root, derivable, options or {})

    fill_view = partial(_fill_view, open_views(sources), derivable)
    counts = {task: Counter[str]() for task in derivable}
    facts = []
    for states, fact in map_with_progress(fill_view, range(len(views)), workers, "derived labels", "view", chunk=8):
        for task, state in states.items():
            counts[task][state] += 1
        if fact is not None:
            facts.append(fact)
    depth = summarise(facts) if views.metric_depth else None
    if depth is not None:
        warn_if_implausible(depth.median_m, f"are the options of {views.root} right?")
        _record(views.root, [task for task in derivable if task in FROM_DEPTH], options or {}, depth)
    return Filled({task: dict(count) for task, count in counts.items()}, {} if tasks else refused, depth)


def remove_derived(root: Path, tasks: Iterable[str]) -> None:
    """Remove the derived labels of some tasks, of all splits, and what is recorded of them."""
    with hold_lock(_lock(root)):
        records = _read_records(root)
        for task in tasks:
            remove_folder(root / "derived" / task)
            records.pop(task, None)
        if derived_record(root).exists():
            write_json(derived_record(root), records)


def _record(root: Path, tasks: Sequence[str], options: Mapping[str, Any], depth: DepthFacts | None = None) -> None:
    """Hold the labels that are there against the options, then write down what those to come are made from."""
    of_depth = {key: value for key, value in options.items() if key not in _NO_INFLUENCE}
    with hold_lock(_lock(root)):
        records = _read_records(root)
        for task in tasks:
            made_from = describe_origin(of_depth if task in FROM_DEPTH else {})
            if (root / "derived" / task).is_dir():
                stored = records.get(task)
                require_same_origin(f"{root / 'derived' / task}", stored and stored["made_from"], made_from)
            records[task] = records.get(task, {}) | {"made_from": made_from} | ({} if depth is None else depth._asdict())
        if tasks:
            write_json(derived_record(root), records)


def _lock(root: Path) -> Path:
    return root / "derived" / ".labels.lock"


def _read_records(root: Path) -> dict[str, Any]:
    path = derived_record(root)
    return read_json(path, "delete the folder: it is made again") if path.exists() else {}


def _fill_view(views: Reader, tasks: Sequence[str], i: int) -> tuple[dict[str, str], DepthFacts | None]:
    """Fill one view: {task: its state, as in Filled}, and what its depth shows, None where no depth was read."""
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
    geometry, fact = None, None
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
    labels = derive(missing, image, geometry, views.border)
    for task, (target, mask) in labels.items():
        derived_labels.write(task, name, target, mask)
    if geometry is not None:
        with_normal = labels["normal"][1] if "normal" in labels else None
        fact = measure(geometry.depth_m, geometry.valid, geometry.intrinsics, with_normal)
    return states, fact


def to_8_bit(image: Tensor) -> Array:
    """A sample's image as uint8 (H, W, 3): the values of its file."""
    return np.rint(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
