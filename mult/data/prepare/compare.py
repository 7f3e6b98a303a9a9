"""Stored normals and reshading beside those that the depth gives.

Labels that were computed from the same depth agree with it whatever its scale and camera: that is no test, and is called "not
compared". It is told from the labels themselves. Normals of a mesh or a renderer turn at edges and on small objects, where
those of depth are a mean over a window; normals that were computed from this depth are the same there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from mult import labels
from mult.data.disk.images import Array, Mask
from mult.data.prepare.verdict import Verdict
from mult.labels import Intrinsics

STRIDE = 8
"""Every STRIDE-th pixel is compared: its neighbours have almost the same values."""
ONE_ORIGIN_DEG = 15.0
"""Where 99 % of the normals are within this angle of those of the depth, they were computed from it: 6 to 8 degrees, from the
rounding of both to their files' codes. With normals of a renderer it is 40 to 80 degrees."""
MAX_MEDIAN_DEG = 8.0
"""The median angle above which stored normals are not those of the depth: 0.2 to 1 degree where they are, for Kinect 2 to 6."""
BETTER = 0.6
"""Another frame or camera is the cause if under it the median angle is below this share of that as stored."""
MIN_WRONG_DEG = 2.0
"""What stays below needs no other explanation than noise and rounding."""
FOCAL_FACTORS = 2.0 ** (np.arange(-24, 25) / 12)
SCALES = 2.0 ** (np.arange(-160, 161) / 16)
"""The factors of depth under which reshading is computed; the middle one is 1."""
AXES = "xyz"


class Directions(NamedTuple):
    """Normals of the same pixels, stored ones and those of the depth, both (3, N)."""

    stored: Array
    computed: Array


class Frame(NamedTuple):
    """How stored normals have to be changed to be in the camera frame: the axis to take for each of x, y, z, and its sign."""

    axes: tuple[int, ...] = (0, 1, 2)
    signs: tuple[int, ...] = (1, 1, 1)

    def apply(self, normals: Array) -> Array:
        """Normals (3, ...) in the camera frame."""
        return np.stack([sign * normals[axis] for axis, sign in zip(self.axes, self.signs, strict=True)])

    def __str__(self) -> str:
        if self.axes != Frame().axes:
            written = [f"{'-' if sign < 0 else ''}{AXES[axis]}" for axis, sign in zip(self.axes, self.signs, strict=True)]
            return f"axes exchanged: x, y, z of the camera frame are {', '.join(written)} as stored"
        return f"{' and '.join(axis for axis, sign in zip(AXES, self.signs, strict=True) if sign < 0)} flipped"


class Shaded(NamedTuple):
    """What a view's reshading can be computed from, and the stored one: depth, valid and reshading (H, W), normal (3, H, W)."""

    depth_m: Array
    normal: Array
    intrinsics: Intrinsics
    valid: Mask
    reshading: Array


def measure_directions(depth_m: Array, valid: Mask, normal: Array, has_normal: Mask, intrinsics: Intrinsics) -> Directions:
    """Stored normals (3, H, W) beside those of depth (H, W), at every STRIDE-th pixel that has both."""
    computed, is_computed = labels.normals_from_depth(depth_m.astype(np.float64), intrinsics, valid)
    both = has_normal & is_computed  # computed ones are invalid where depth is 0
    return Directions(normal[:, both][:, ::STRIDE], computed[:, both][:, ::STRIDE])


def shade_coarsely(depth_m: Array, normal: Array, intrinsics: Intrinsics, valid: Mask, reshading: Array) -> Shaded:
    """Every STRIDE-th pixel of a view, the first among them."""
    step = slice(None, None, STRIDE)
    fx, fy, cx, cy = intrinsics
    coarse = (fx / STRIDE, fy / STRIDE, cx / STRIDE, cy / STRIDE)
    return Shaded(depth_m[step, step], normal[:, step, step], coarse, valid[step, step], reshading[step, step])


def is_of_one_origin(directions: Directions) -> bool:
    """Whether stored normals were computed from the depth."""
    return float(np.quantile(_angles_deg(directions.stored, directions.computed), 0.99)) < ONE_ORIGIN_DEG


def judge_kind(along_z: Directions, along_ray: Directions) -> Verdict | None:
    """The verdict that depth is the distance along the ray, if stored normals fit it far better when it is taken for that."""
    as_z, as_ray = (_median_deg(each, find_frame(each)) for each in (along_z, along_ray))
    if as_ray >= BETTER * as_z or as_z < MIN_WRONG_DEG:
        return None
    text = (
        f"the depth is the distance along the ray, not along z: median angle to the stored normals {as_z:.1f} deg as read, "
        f"{as_ray:.1f} deg with that corrected; divide it by sqrt(1 + x^2 + y^2)"
    )
    return Verdict("kind of depth", "wrong", text)


def judge_frame(directions: Directions) -> tuple[Frame, list[Verdict]]:
    """The frame of stored normals, and the verdicts about it and about the focal length, which stretches x and y of normals."""
    frame, verdicts = find_frame(directions), []
    median = _median_deg(directions, frame)
    if frame != Frame():
        text = (
            f"{frame}: mean angle to the normals that depth gives {_mean_deg(directions, Frame()):.1f} deg as stored, "
            f"{_mean_deg(directions, frame):.1f} deg without; expected x right, y down, z forward, normals towards the camera"
        )
        verdicts.append(Verdict("normal", "wrong", text))
    factor = min(FOCAL_FACTORS, key=lambda factor: _median_deg(_stretch(directions, factor), frame))
    best = _median_deg(_stretch(directions, factor), frame)
    if best < BETTER * median and median > MIN_WRONG_DEG:
        text = (
            f"the focal length is wrong: median angle to the stored normals {median:.1f} deg as given, {best:.1f} deg with "
            f"{factor:.2g} times the focal length; correct the intrinsics, which belong to the size of the depth image"
        )
        verdicts.append(Verdict("focal length by normals", "wrong", text))
    elif median > MAX_MEDIAN_DEG:
        text = f"disagree with the depth under all frames and focal lengths: median angle {median:.1f} deg; of another view?"
        return Frame(), [Verdict("normal", "wrong", text)]
    return frame, verdicts or [Verdict("normal", "right", f"agree with the depth: median angle {median:.1f} deg")]


def find_frame(directions: Directions) -> Frame:
    """The frame under which stored normals agree best with computed ones.

    An axis is judged by its own component: a floor may be a tenth of the pixels, and its flip changes no median angle.
    """
    products = directions.computed @ directions.stored.T  # of each axis in the camera frame with each stored one
    size = np.abs(directions.computed) @ np.abs(directions.stored).T
    order = max(permutations(range(3)), key=lambda axes: sum(abs(products[row, axis]) for row, axis in enumerate(axes)))
    gain = sum(abs(products[row, axis]) - abs(products[row, row]) for row, axis in enumerate(order))
    if gain < 0.05 * directions.stored.shape[1]:
        order = (0, 1, 2)
    agreement = [products[row, axis] / max(size[row, axis], 1e-9) for row, axis in enumerate(order)]
    return Frame(order, tuple(-1 if each < -0.5 else 1 for each in agreement))


def measure_scale_errors(shaded: Sequence[Shaded], frame: Frame) -> Array:
    """The mean absolute difference of stored reshading to that of depth times each of SCALES."""
    total, pixels = np.zeros(len(SCALES)), 0
    for view in shaded:
        normal = frame.apply(view.normal)
        for k, scale in enumerate(SCALES):
            computed = labels.reshading(scale * view.depth_m, normal, view.intrinsics, view.valid)[0]
            total[k] += np.abs(computed - view.reshading)[view.valid].sum()
        pixels += int(view.valid.sum())
    return total / pixels


def judge_scale(errors: Array, one_origin: bool) -> Verdict:
    """Whether the reshading, whose error at each of SCALES is given, was made from depth as it is read."""
    subject = "depth scale by reshading"
    best, as_read = int(errors.argmin()), len(SCALES) // 2
    if errors[best] > 0.1:
        text = f"reshading is off by {errors[best]:.3f} at best; it was not made from this depth and these normals"
        return Verdict(subject, "cannot tell", text)
    if abs(best - as_read) <= 2 or errors[as_read] <= 1.5 * errors[best] + 0.002:
        if one_origin:
            return Verdict(subject, "not compared", "it was computed from this depth: it agrees whatever the scale")
        return Verdict(subject, "right", f"the reshading is off by {errors[as_read]:.3f}")
    text = (
        f"reshading was made from {SCALES[best]:.3g} times the depth that is read (off by {errors[as_read]:.3f} as read, "
        f"{errors[best]:.3f} if scaled); correct the depth scale, in Taskonomy's files 512 units a metre"
    )
    return Verdict(subject, "wrong", text)


def _stretch(directions: Directions, factor: float) -> Directions:
    """The directions if the focal length were `factor` times as long: 1 / z has the same slopes over columns and rows."""
    computed = directions.computed * np.array([[factor], [factor], [1.0]])
    return directions._replace(computed=computed / np.linalg.norm(computed, axis=0))


def _angles_deg(one: Array, other: Array) -> Array:
    between = np.linalg.norm(one - other, axis=0), np.linalg.norm(one + other, axis=0)
    return np.asarray(np.degrees(2 * np.arctan2(*between)))


def _median_deg(directions: Directions, frame: Frame) -> float:
    return float(np.median(_angles_deg(frame.apply(directions.stored), directions.computed)))


def _mean_deg(directions: Directions, frame: Frame) -> float:
    return float(_angles_deg(frame.apply(directions.stored), directions.computed).mean())
