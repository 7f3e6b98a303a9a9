"""What depth and a camera tell of themselves: rooms have flat walls, at right angles, that are as high as people build.

On a plane 1 / z is affine in the ray (x, y) = ((column - cx) / fx, (row - cy) / fy): 1 / z = a x + b y + c, where -(a, b, c)
has the direction of the normal and 1 / |(a, b, c)| is the plane's distance from the camera. No second source is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mult.data.disk.images import Array, Mask
from mult.data.prepare.verdict import Verdict
from mult.errors import pluralize
from mult.labels import Intrinsics

SMALL_CELLS, LARGE_CELLS = 16, 6
"""Cells along the short side: small ones lie on one plane, on large ones a bent plane shows."""
FLAT = 0.004
"""A cell is a plane if inverse depth is this share of its mean off it: ten times the rounding to 1/512 m at 1 m, and twice what
Kinect's noise leaves at 2 m."""
FOCAL_FACTORS = 2.0 ** (np.arange(-24, 25) / 12)
"""The factors of the focal length under which angles are measured; the middle one is 1, and neighbours differ by 6 %."""
RIGHT_ANGLE, STEEP = 0.035, 0.5
"""Cosines of the angle of two planes: within 2 degrees of 90, and within 30, beyond which they are taken for parallel."""
MIN_PAIRS = 400
MIN_SHARE = 0.35
"""In rooms, 0.86 to 0.92 of the pairs that are steep to each other are at right angles; under another focal length than the
camera's 0.00 to 0.18 (rendered rooms, a rendered living room)."""
MIN_VOTES = 8
UPRIGHT = 0.75
"""The y of the normal from which on a plane is a floor or ceiling: the camera looks up or down by at most 41 degrees."""
ROOM_HEIGHT_M = (2.0, 4.2)
IMPOSSIBLE_HEIGHT_M = (1.2, 20.0)
MIN_ROOM_VIEWS = 4


def fit_cells(depth_m: Array, valid: Mask, intrinsics: Intrinsics) -> Array:
    """The planes (N, 3), rows (a, b, c), of the flat ones of an image's small cells."""
    x, y, is_there = _rays(depth_m, valid, intrinsics)
    planes, error = _fit(x, y, np.divide(1.0, depth_m, out=np.zeros(depth_m.shape), where=is_there), is_there, SMALL_CELLS)
    return planes[error < FLAT]


def measure_bends(depth_m: Array, valid: Mask, intrinsics: Intrinsics) -> Array:
    """How far large cells are off their planes (2, N), as a share: with depth along z, and along the ray; of the flat ones."""
    x, y, is_there = _rays(depth_m, valid, intrinsics)
    inverse = np.divide(1.0, depth_m, out=np.zeros(depth_m.shape), where=is_there)
    per_ray = inverse * np.sqrt(1 + x**2 + y**2)  # 1 / z, if the file's numbers are distances along the ray
    errors = np.stack([_fit(x, y, each, is_there, LARGE_CELLS)[1] for each in (inverse, per_ray)])
    return errors[:, errors.min(0) < FLAT]


def from_ray_distance(distance: Array, intrinsics: Intrinsics) -> Array:
    """Depth along z of distances (H, W) along the ray."""
    x, y, _ = _rays(distance, np.ones(distance.shape, np.bool_), intrinsics)
    return np.asarray(distance / np.sqrt(1 + x**2 + y**2))


def judge_kind(bends: Sequence[Array]) -> Verdict:
    """Whether depth is along z: a wall whose distances along the ray are taken for z is bent, and flat otherwise."""
    along_z, along_ray = np.concatenate(bends, axis=1) if bends else np.zeros((2, 0))
    flat, bent = int((2 * along_z < along_ray).sum()), int((2 * along_ray < along_z).sum())
    counts = f"of {flat + bent} large planes {flat} are flat with depth along z, {bent} along the ray"
    if flat + bent < MIN_VOTES or 0.25 * (flat + bent) < bent < 0.75 * (flat + bent):
        return Verdict("kind of depth", "cannot tell", counts)
    if flat > bent:
        return Verdict("kind of depth", "right", f"along z: {counts}")
    text = f"the depth is the distance along the ray, not along z: {counts}; divide it by sqrt(1 + x^2 + y^2)"
    return Verdict("kind of depth", "wrong", text)


def judge_focal(planes: Sequence[Array]) -> Verdict:
    """Whether planes (N, 3) of each view meet at right angles under the camera's focal length, or under another one."""
    steep, right = np.zeros(len(FOCAL_FACTORS)), np.zeros(len(FOCAL_FACTORS))
    for of_view in planes:
        first, second = np.triu_indices(len(of_view), 1)
        for k, factor in enumerate(FOCAL_FACTORS):
            normals = of_view * (factor, factor, 1)
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)
            cosine = np.abs(normals @ normals.T)[first, second]
            steep[k] += (cosine < STEEP).sum()
            right[k] += (cosine < RIGHT_ANGLE).sum()
    share = right / np.maximum(steep, 1)
    share[right < MIN_PAIRS] = 0
    as_given, best = len(FOCAL_FACTORS) // 2, int(share.argmax())
    numbers = f"{100 * share[as_given]:.0f} % of steep pairs of planes are at right angles"
    if share[best] < MIN_SHARE:
        return Verdict("focal length", "cannot tell", f"too few planes at right angles to each other: {numbers}")
    octave = (len(FOCAL_FACTORS) - 1) // 4
    sides = [share[max(best - octave, 0)], share[min(best + octave, len(share) - 1)]]
    if max(sides) > 0.6 * share[best]:
        return Verdict("focal length", "cannot tell", f"the planes are at right angles under any: {numbers}")
    if abs(best - as_given) <= 1 or share[as_given] > 0.6 * share[best]:
        return Verdict("focal length", "right", numbers)
    text = (
        f"the focal length is wrong: {numbers}, but {100 * share[best]:.0f} % with {FOCAL_FACTORS[best]:.2g} times the focal "
        "length; correct the intrinsics, which belong to the size of the depth image"
    )
    return Verdict("focal length", "wrong", text)


def measure_room(planes: Array) -> float | None:
    """The distance of floor and ceiling [m] in a view that shows both, from its planes (N, 3); None for another view."""
    length = np.linalg.norm(planes, axis=1)
    distance, y = 1 / np.maximum(length, 1e-9), -planes[:, 1] / np.maximum(length, 1e-9)
    floor, ceiling = distance[y < -UPRIGHT], distance[y > UPRIGHT]
    if min(len(floor), len(ceiling)) < 3:
        return None
    # Tables and shelves are nearer than the floor; the upper quartile leaves out a single cell that is off.
    return float(np.quantile(floor, 0.75) + np.quantile(ceiling, 0.75))


def judge_room_height(heights: Sequence[float]) -> Verdict:
    """Whether rooms are as high as rooms are: a wrong depth scale shows, as long as views show floor and ceiling."""
    subject = "depth scale by rooms"
    if len(heights) < MIN_ROOM_VIEWS:
        return Verdict(
            subject, "cannot tell", f"{pluralize(len(heights), 'view')} with floor and ceiling, {MIN_ROOM_VIEWS} are needed"
        )
    height = float(np.median(heights))
    measured = f"from floor to ceiling {height:.2f} m in {len(heights)} views"
    low, high = ROOM_HEIGHT_M
    if low <= height <= high:
        return Verdict(subject, "right", measured)
    factor = 2.6 / height
    text = f"{measured}; expected {low} to {high} m: a scale that is off by a factor of about {factor:.2g} would explain it"
    is_possible = IMPOSSIBLE_HEIGHT_M[0] <= height <= IMPOSSIBLE_HEIGHT_M[1]
    return Verdict(subject, "wrong", f"{text}; correct the depth scale, unless the rooms are like that", blocks=not is_possible)


def _rays(depth_m: Array, valid: Mask, intrinsics: Intrinsics) -> tuple[Array, Array, Mask]:
    fx, fy, cx, cy = intrinsics
    rows, columns = np.indices(depth_m.shape)
    return (columns - cx) / fx, (rows - cy) / fy, valid & np.isfinite(depth_m) & (depth_m > 0)


def _fit(x: Array, y: Array, values: Array, valid: Mask, cells: int) -> tuple[Array, Array]:
    """The planes (N, 3) of the cells that are valid almost everywhere, and how far they are off, as a share of the mean."""
    height, width = values.shape
    size = max(4, min(height, width) // cells)
    rows, columns = height // size, width // size

    def cut(image: Array) -> Array:
        inside = image[: rows * size, : columns * size].reshape(rows, size, columns, size)
        return inside.swapaxes(1, 2).reshape(rows * columns, size * size)

    is_there = cut(valid)
    is_used = is_there.mean(1) > 0.9
    weight = is_there[is_used].astype(np.float64)
    wanted = cut(values)[is_used] * weight
    basis = np.stack([cut(x)[is_used], cut(y)[is_used], np.ones_like(weight)], 2) * weight[..., None]
    squares = np.einsum("nki,nkj->nij", basis, basis)
    planes = np.linalg.solve(squares, np.einsum("nki,nk->ni", basis, wanted)[..., None])[..., 0]
    error = np.sqrt(np.square(wanted - np.einsum("nki,ni->nk", basis, planes)).sum(1) / weight.sum(1))
    return planes, error * weight.sum(1) / np.maximum(wanted.sum(1), 1e-9)
