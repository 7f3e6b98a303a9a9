"""Stored labels beside those that depth and colour give.

Normals are compared with those of the depth (mult/labels.py), axis by axis, which finds a flipped frame. The scale of depth has
no effect on normals but on reshading, whose light falls off with the distance in metres. Edges and keypoints are functions of
the image alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mult import labels
from mult.data.disk.derived import FROM_COLOUR
from mult.data.disk.images import Array, Mask
from mult.data.prepare.derive import to_8_bit
from mult.data.sample import BadFileError, Reader, Sample
from mult.errors import UserError
from mult.labels import Intrinsics

STRIDE = 8
"""Every STRIDE-th pixel is compared: its neighbours have almost the same values."""
MAX_MEDIAN_DEG = 20.0
"""The median angle above which stored normals are not those of the depth."""
SCALES = 2.0 ** (np.arange(-160, 161) / 16)
"""The factors of depth under which reshading is computed; the middle one is 1."""
AXES = "xyz"

Labels = dict[str, tuple[Array, Mask]]
"""{task: (target, valid (H, W))} of one view."""


@dataclass(frozen=True)
class Comparison:
    """How a stored label compares with a computed one; `is_right` None where they could not be compared."""

    task: str
    is_right: bool | None
    text: str


class _Shaded(NamedTuple):
    """What a view's reshading can be computed from, and the stored one: depth, valid and reshading (H, W), normal (3, H, W)."""

    depth: Array
    normal: Array
    intrinsics: Intrinsics
    valid: Mask
    reshading: Array


def compare(views: Reader, indices: Sequence[int]) -> Iterator[Comparison]:
    """Compare the stored labels of some views with computed ones; views with bad files are left out."""
    samples = []
    for i in tqdm(indices, desc="compare", leave=False):
        try:
            samples.append((i, views[i]))
        except BadFileError:
            continue
    native = [(i, _native_labels(sample, views.native(i))) for i, sample in samples]
    yield from _compare_geometry(views, native)
    for task, compute in FROM_COLOUR.items():
        pairs = [
            (of_view[task][0], compute(to_8_bit(sample["image"])))
            for (_, of_view), (_, sample) in zip(native, samples, strict=True)
            if task in of_view
        ]
        if pairs:
            coarse = [[values[0, ::STRIDE, ::STRIDE].ravel() for values in pair] for pair in pairs]
            yield _compare_values(task, *(np.concatenate(values) for values in zip(*coarse, strict=True)))


def _native_labels(sample: Sample, native: frozenset[str]) -> Labels:
    return {
        task: (target.numpy(), sample["valid"][task][0].numpy())
        for task, target in sample["targets"].items()
        if task in native and sample["valid"][task].any()
    }


def _compare_geometry(views: Reader, native: Sequence[tuple[int, Labels]]) -> Iterator[Comparison]:
    """The frame of the normals, then the scale of depth by the reshading."""
    products, shaded = [], []
    for i, of_view in native:
        if "depth_zbuffer" not in of_view:
            continue
        depth, valid = of_view["depth_zbuffer"]
        try:
            intrinsics, _ = views.camera(i)
        except UserError as error:
            yield Comparison("normal", None, f"not compared with depth: {error}")
            return
        if "normal" in of_view:
            stored, stored_valid = of_view["normal"]
            computed, computed_valid = labels.normals_from_depth(depth[0].astype(np.float64), intrinsics, valid)
            both = stored_valid & computed_valid  # computed ones are invalid where depth is 0
            if both.any():
                products.append((stored * computed)[:, both][:, ::STRIDE])
            if "reshading" in of_view:
                reshading, reshading_valid = of_view["reshading"]
                lit = both & reshading_valid
                if lit[::STRIDE, ::STRIDE].any():
                    shaded.append(_Shaded(depth[0], stored, intrinsics, lit, reshading[0]))
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
    """The signs of the axes under which stored normals fit computed ones; products (3, N) of their components.

    An axis is judged by its own component: a floor may be a tenth of the pixels, and its flip changes no median angle.
    """
    agreement = products.sum(1) / np.maximum(np.abs(products).sum(1), 1e-9)
    signs = tuple(-1 if each < -0.5 else 1 for each in agreement)

    def measure_angle(frame: tuple[int, ...]) -> tuple[float, float]:
        angles = np.degrees(np.arccos(np.clip(np.array(frame) @ products, -1, 1)))
        return float(angles.mean()), float(np.median(angles))

    mean, median = measure_angle((1, 1, 1))
    best_mean, best_median = measure_angle(signs)
    if best_median > MAX_MEDIAN_DEG:
        text = (
            f"disagree with the depth under all signs of axes: median angle {best_median:.1f} deg; is the focal length right?"
        )
        return (1, 1, 1), Comparison("normal", False, text)
    if signs == (1, 1, 1):
        return signs, Comparison("normal", True, f"agree with the depth: median angle {median:.1f} deg")
    names = " and ".join(axis for axis, sign in zip(AXES, signs, strict=True) if sign < 0)
    text = (
        f"{names} flipped: mean angle to the normals that depth gives {mean:.1f} deg as stored, {best_mean:.1f} deg with "
        f"{names} negated; expected x right, y down, z forward, normals towards the camera"
    )
    return signs, Comparison("normal", False, text)


def _scale_errors(shaded: Sequence[_Shaded], signs: tuple[int, ...]) -> Array:
    """The mean absolute difference of stored reshading to that of depth times each of SCALES."""
    flips = np.array(signs)[:, None, None]
    total, pixels = np.zeros(len(SCALES)), 0
    step = slice(None, None, STRIDE)
    for view in shaded:
        fx, fy, cx, cy = view.intrinsics
        coarse = (fx / STRIDE, fy / STRIDE, cx / STRIDE, cy / STRIDE)  # of every STRIDE-th pixel, the first among them
        valid = view.valid[step, step]
        for k, scale in enumerate(SCALES):
            computed = labels.reshading(scale * view.depth[step, step], flips * view.normal[:, step, step], coarse, valid)[0]
            total[k] += np.abs(computed - view.reshading[step, step])[valid].sum()
        pixels += int(valid.sum())
    return total / pixels


def judge_scale(errors: Array) -> Comparison:
    """Whether the reshading, whose error at each of SCALES is given, was made from depth as it is read."""
    best, as_read = int(errors.argmin()), len(SCALES) // 2
    if errors[best] > 0.1:
        text = (
            f"scale unknown: reshading is off by {errors[best]:.3f} at best; it was not made from this depth and these normals"
        )
        return Comparison("depth_zbuffer", None, text)
    if abs(best - as_read) <= 2 or errors[as_read] <= 1.5 * errors[best] + 0.002:
        return Comparison("depth_zbuffer", True, f"scale agrees with the reshading, which is off by {errors[as_read]:.3f}")
    text = (
        f"scale wrong: reshading was made from {SCALES[best]:.3g} times the depth that is read (off by {errors[as_read]:.3f} "
        f"as read, {errors[best]:.3f} if scaled); correct the depth scale, in Taskonomy's files 512 units a metre"
    )
    return Comparison("depth_zbuffer", False, text)


def _compare_values(task: str, stored: Array, computed: Array) -> Comparison:
    """Whether stored values are those that the image gives, up to rounding: by correlation and by the ratio of the means."""
    correlation = float(np.corrcoef(stored, computed)[0, 1]) if stored.std() and computed.std() else 0.0
    ratio = float(stored.mean() / computed.mean()) if computed.mean() else np.inf
    is_right = correlation > 0.9 and 0.8 < ratio < 1.25
    numbers = f"correlation {correlation:.3f}, mean {ratio:.3g} times that of the image's"
    text = f"agrees with the image: {numbers}" if is_right else f"disagrees: {numbers}; was it made from another image?"
    return Comparison(task, is_right, text)
