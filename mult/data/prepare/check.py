"""What is wrong with a dataset, before a network finds out: every file read once, and stored labels against derived ones.

The stored normals are held against those that the depth gives (labels.py), axis by axis, so that a flip is named. The scale
of depth does not show in normals but in the reshading, whose light falls off with the distance in metres. Edges and keypoints
follow from the image alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mult import labels
from mult.data.disk.derived import FROM_COLOUR, PLAUSIBLE_MEDIAN_M
from mult.data.disk.images import Array
from mult.data.parallel import in_processes
from mult.data.sample import BadFileError, Reader, Sample
from mult.errors import UserError
from mult.tasks import TASKS

MOST_LISTED = 1000
STRIDE = 8  # of the pixels that are compared: neighbours say the same
MOST_DEG = 20.0  # the median angle above which stored normals are not those of the depth
SCALES = 2.0 ** (np.arange(-160, 161) / 16)
AXES = "xyz"
NOWHERE = torch.zeros(1, dtype=torch.bool)


@dataclass(frozen=True)
class Problem:
    """One finding: its kind (of a BadFileError, or "constant" or "scale") and what was found where."""

    kind: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """What a stored label says beside a derived one; `is_right` None where they could not be compared."""

    task: str
    is_right: bool | None
    text: str


@dataclass
class Report:
    """What `check` found in one split of a dataset; `problems` make training stop, `warnings` do not.

    views: all of the split, of which `read` were read. tasks: {task: {"native", "derived", "valid"}}: views with a label, and
    the mean part of their pixels that is valid. buildings: views of each. Of each kind of problem all are counted, some listed.
    """

    split: str
    views: int
    read: int = 0
    buildings: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    median_depth_m: float | None = None
    comparisons: list[Comparison] = field(default_factory=list)

    def can_train(self, skipping: bool = False) -> bool:
        """Whether training can start; `skipping` the samples whose files are bad (`data.on_bad_file: skip`)."""
        are_right = not any(comparison.is_right is False for comparison in self.comparisons)
        return are_right and (not self.problems or (skipping and any(self.tasks[task]["valid"] for task in self.tasks)))


@dataclass(frozen=True)
class _View:
    """What one view gave: {task: (is derived, valid part)}, findings, and its median depth."""

    labels: Mapping[str, tuple[bool, float]]
    problems: Sequence[Problem]
    warnings: Sequence[Problem]
    median_depth: float | None


def check(
    open_views: Callable[[Sequence[str]], Reader], split: str, most: int | None = None, workers: int = 1, compared: int = 24
) -> Report:
    """Read the views of a split, at most `most` at equal distances, and compare the labels of `compared` of them.

    `open_views(tasks)` opens the split with targets of `tasks`. Files are read by `workers` processes. Raises UserError for a
    dataset that cannot be opened at all.
    """
    tasks = open_views(()).available
    views = open_views(tasks)
    report = Report(split, len(views))
    report.tasks = {task: {"native": 0, "derived": 0, "valid": 0.0} for task in tasks}
    chosen = spread(len(views), most)
    medians: list[float] = []
    counts = Counter[str]()
    work = partial(_check_view, views, [open_views((task,)) for task in tasks])
    for view in tqdm(in_processes(work, chosen, workers, chunk=8), desc=f"check {split}", total=len(chosen), unit="view"):
        report.read += 1
        for task, (is_derived, valid) in view.labels.items():
            entry = report.tasks[task]
            entry["derived" if is_derived else "native"] += 1
            entry["valid"] += valid
        for found, listed in ((view.problems, report.problems), (view.warnings, report.warnings)):
            counts.update(problem.kind for problem in found)
            listed += found[: max(0, MOST_LISTED - len(listed))]
        medians += [] if view.median_depth is None else [view.median_depth]
    report.buildings = dict(Counter(map(views.group, range(len(views)))).most_common())
    report.counts = dict(counts.most_common())
    for entry in report.tasks.values():
        entry["valid"] /= max(1, entry["native"] + entry["derived"])
    if medians and views.metric_depth:
        report.median_depth_m = float(np.median(medians))
        low, high = PLAUSIBLE_MEDIAN_M
        if not low <= report.median_depth_m <= high:
            text = f"the median depth is {report.median_depth_m:.4g} m, outside {low} to {high} m: is the depth scale right?"
            report.warnings.append(Problem("scale", text))
    report.comparisons = list(compare(views, spread(len(views), compared)))
    return report


def spread(length: int, most: int | None) -> list[int]:
    """Up to `most` (None: all) indices at equal distances, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most or length)).round().astype(int)).tolist()


def _check_view(views: Reader, singles: Sequence[Reader], i: int) -> _View:
    try:
        sample = views[i]
    except BadFileError:  # one file is named; each task alone names all of them
        bad = dict.fromkeys(problem for single in singles for problem in _bad_file(single, i))
        return _View({}, list(bad), [], None)
    found = {}
    warnings = list(_suspicious(sample))
    native = views.native(i)
    for task, valid in sample["valid"].items():
        if task in native or task in sample["derived"]:
            found[task] = (task in sample["derived"], float(valid.float().mean()))
    median = None
    if sample["valid"].get("depth_zbuffer", NOWHERE).any():
        median = float(sample["targets"]["depth_zbuffer"][sample["valid"]["depth_zbuffer"]].median())
    return _View(found, [], warnings, median)


def _bad_file(views: Reader, i: int) -> Iterator[Problem]:
    try:
        views[i]
    except BadFileError as error:
        yield Problem(error.kind, str(error))


def _suspicious(sample: Sample) -> Iterator[Problem]:
    """Images and maps that are of one value: readable, but hardly meant."""
    image = sample["image"].flatten(1)
    if bool((image == image[:, :1]).all()):
        yield Problem(
            "constant", f"{sample['id']}: the image is of one colour; is it a placeholder? make it again or remove it"
        )
    for task, target in sample["targets"].items():
        places = sample["valid"][task][0]
        if not places.any():
            continue  # counted in the valid part
        values = target[..., places].reshape(-1, int(places.sum()))
        if not TASKS[task].categorical and values.shape[1] > 1 and bool((values == values[:, :1]).all()):
            text = f"{sample['id']}: {task} is of one value; is it a placeholder? make it again or remove it"
            yield Problem("constant", text)


# --- Stored labels against derived ones ---


def compare(views: Reader, indices: Sequence[int]) -> Iterator[Comparison]:
    """Hold the stored labels of some views against what depth and colour give; views with bad files are passed over."""
    samples = []
    for i in tqdm(indices, desc="compare", leave=False):
        try:
            samples.append((i, views[i]))
        except BadFileError:
            continue
    native = [(i, _native(sample, views.native(i))) for i, sample in samples]
    yield from _compare_geometry(views, native)
    for task, derive in FROM_COLOUR.items():
        pairs = [
            (maps[task][0], derive(_pixels(sample)))
            for (_, maps), (_, sample) in zip(native, samples, strict=True)
            if task in maps
        ]
        if pairs:
            coarse = [[side[0, ::STRIDE, ::STRIDE].ravel() for side in pair] for pair in pairs]
            yield _compare_values(task, *(np.concatenate(sides) for sides in zip(*coarse, strict=True)))


def _native(sample: Sample, native: frozenset[str]) -> dict[str, tuple[Array, Array]]:
    """{task: (target, valid (H, W))} of the labels that the dataset itself ships."""
    return {
        task: (target.numpy(), sample["valid"][task][0].numpy())
        for task, target in sample["targets"].items()
        if task in native and sample["valid"][task].any()
    }


def _pixels(sample: Sample) -> Array:
    return np.rint(sample["image"].permute(1, 2, 0).numpy() * 255).astype(np.uint8)


def _compare_geometry(views: Reader, native: Sequence[tuple[int, dict[str, tuple[Array, Array]]]]) -> Iterator[Comparison]:
    """The frame of the normals, then the scale of depth by the reshading."""
    products, shaded = [], []
    with_depth = [(i, maps) for i, maps in native if "depth_zbuffer" in maps]
    for i, maps in with_depth:
        depth, valid = maps["depth_zbuffer"]
        try:
            intrinsics, _ = views.camera(i)
        except UserError as error:
            yield Comparison("normal", None, f"not compared with depth: {error}")
            return
        if "normal" in maps:
            stored, there = maps["normal"]
            made, known = labels.normals_from_depth(depth[0].astype(np.float64), intrinsics, valid)
            both = there & known  # not where depth is 0: no light falls from there
            if both.any():
                products.append((stored * made)[:, both][:, ::STRIDE])
            if "reshading" in maps and (lit := both & maps["reshading"][1])[::STRIDE, ::STRIDE].any():
                shaded.append((depth[0], stored, intrinsics, lit, maps["reshading"][0][0]))
    if not products:
        yield Comparison("normal", None, "not compared with depth: no pixel has both of its own")
        return
    signs, comparison = judge_frame(np.concatenate(products, axis=1))
    yield comparison
    if not shaded or not views.metric_depth:
        yield Comparison(
            "depth_zbuffer", None, "scale not compared: no view has reshading, normals and metric depth of its own"
        )
        return
    yield judge_scale(_scale_errors(shaded, signs))


def judge_frame(products: Array) -> tuple[tuple[int, ...], Comparison]:
    """The signs of the axes under which stored normals fit derived ones; products (3, N) of their components.

    An axis is judged by its own component: a floor may be a tenth of the pixels, and its flip shows in no median angle.
    """
    agreement = products.sum(1) / np.maximum(np.abs(products).sum(1), 1e-9)
    signs = tuple(-1 if share < -0.5 else 1 for share in agreement)

    def angle(frame: tuple[int, ...]) -> tuple[float, float]:
        angles = np.degrees(np.arccos(np.clip(np.array(frame) @ products, -1, 1)))
        return float(angles.mean()), float(np.median(angles))

    mean, median = angle((1, 1, 1))
    best_mean, best_median = angle(signs)
    if best_median > MOST_DEG:
        text = f"not as depth says, in no flipped frame: median angle {best_median:.1f} deg; is the focal length right?"
        return (1, 1, 1), Comparison("normal", False, text)
    if signs == (1, 1, 1):
        return signs, Comparison("normal", True, f"as depth says: median angle {median:.1f} deg")
    names = " and ".join(axis for axis, sign in zip(AXES, signs, strict=True) if sign < 0)
    text = (
        f"{names} flipped: mean angle to the normals that depth gives {mean:.1f} deg as stored, {best_mean:.1f} deg with "
        f"{names} negated; expected x right, y down, z forward, normals towards the camera"
    )
    return signs, Comparison("normal", False, text)


def _scale_errors(shaded: Sequence[tuple[Any, ...]], signs: tuple[int, ...]) -> Array:
    """The mean absolute difference of stored reshading to that of depth times each of SCALES."""
    flips = np.array(signs)[:, None, None]
    total, pixels = np.zeros(len(SCALES)), 0
    step = slice(None, None, STRIDE)
    for depth, normal, intrinsics, valid, stored in shaded:
        coarse = tuple(value / STRIDE for value in intrinsics)  # of every STRIDE-th pixel, the first among them
        valid = valid[step, step]
        for k, scale in enumerate(SCALES):
            made = labels.reshading(scale * depth[step, step], flips * normal[:, step, step], coarse, valid)[0]
            total[k] += np.abs(made - stored[step, step])[valid].sum()
        pixels += int(valid.sum())
    return total / pixels


def judge_scale(errors: Array) -> Comparison:
    """Whether the reshading, whose error at each of SCALES is given, was made from depth as it is read."""
    best, as_read = int(errors.argmin()), len(SCALES) // 2
    if errors[best] > 0.1:
        text = (
            f"scale not told: reshading is off by {errors[best]:.3f} at best; it was not made from this depth and these normals"
        )
        return Comparison("depth_zbuffer", None, text)
    if abs(best - as_read) <= 2 or errors[as_read] <= 1.5 * errors[best] + 0.002:
        return Comparison("depth_zbuffer", True, f"scale as reshading says: it is off by {errors[as_read]:.3f}")
    text = (
        f"scale wrong: reshading was made from {SCALES[best]:.3g} times the depth that is read (off by {errors[as_read]:.3f} "
        f"as read, {errors[best]:.3f} so); correct the depth scale, in Taskonomy's files 512 units a metre"
    )
    return Comparison("depth_zbuffer", False, text)


def _compare_values(task: str, stored: Array, made: Array) -> Comparison:
    """Whether stored values are those that the image gives, up to rounding: by correlation and by the ratio of the means."""
    correlation = float(np.corrcoef(stored, made)[0, 1]) if stored.std() and made.std() else 0.0
    ratio = float(stored.mean() / made.mean()) if made.mean() else np.inf
    right = correlation > 0.9 and 0.8 < ratio < 1.25
    said = f"correlation {correlation:.3f}, mean {ratio:.3g} times that of the image's"
    return Comparison(
        task, right, f"as the image says: {said}" if right else f"not as the image says: {said}; made of another image?"
    )
