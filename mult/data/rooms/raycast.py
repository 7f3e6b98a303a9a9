"""Analytic ray casting in NumPy: exact depth and normals of boxes, cylinders, ellipsoids and the inside of a room.

Every solid is an affine image of a canonical convex one (the cube [-1, 1]^3, the cylinder of radius 1 about z with
|z| <= 1, the unit ball), so a ray is inside it for one interval [near, far] of its parameter, in closed form. Rays are
(x, y, 1) in the camera frame (x right, y down, z forward): their parameter is the depth along z. A shell is a box seen
from inside: its surface is at far, its normals point inwards. The camera is in the first shell; a ray that leaves a shell where
another begins, such as an open doorway, goes on to that one's surface. A solid is tested against the pixels of the rectangle
around its projected corners.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOX, CYLINDER, BALL, SHELL = range(4)

Array = NDArray[np.floating]

CUBE_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
NEAR_PLANE_M = 0.02
"""A solid that reaches behind this plane is tested against every pixel: its corners cannot be projected."""


@dataclass(frozen=True)
class Solids:
    """N solids in world coordinates: kind (N,), centre and half extents (N, 3) in metres, local axes as rows (N, 3, 3)."""

    kind: NDArray[np.integer]
    centre: Array
    half: Array
    axes: Array

    @property
    def to_local(self) -> Array:
        """(N, 3, 3): from world vectors to vectors along the local axes, in units of the half extents."""
        return self.axes / self.half[:, :, None]


@dataclass(frozen=True)
class PosedCamera:
    """A pinhole: position in the world (m), rotation (3, 3) with the camera's axes as rows.

    intrinsics (fx, fy, cx, cy) in pixel indices, size (height, width).
    """

    position: Array
    rotation: Array
    intrinsics: tuple[float, float, float, float]
    size: tuple[int, int]

    def rays(self) -> tuple[Array, Array]:
        """The x of every column and the y of every row on the plane z = 1."""
        fx, fy, cx, cy = self.intrinsics
        height, width = self.size
        return (np.arange(width) - cx) / fx, (np.arange(height) - cy) / fy


@dataclass(frozen=True)
class Hits:
    """The nearest surface of every pixel.

    index (H, W) of the solid, -1 for none; depth (H, W) along z in metres, inf for none; unit normal (3, H, W) in the camera
    frame, towards the camera, 0 for none; point (3, H, W) in the solid's local coordinates, in [-1, 1].
    """

    index: NDArray[np.int32]
    depth: Array
    normal: Array
    point: Array


def _intersect_slab(origin: float, direction: Array) -> tuple[Array, Array]:
    """The interval in which a coordinate is in [-1, 1]."""
    if not direction.all():
        direction = np.where(direction == 0, 1e-30, direction)
    inverse = 1 / direction
    middle, reach = -origin * inverse, np.abs(inverse)
    return middle - reach, middle + reach


def _intersect_unit_ball(origin: Array, direction: Sequence[Array]) -> tuple[Array, Array]:
    """The interval in which the point is in the unit ball, or disc, of the given axes; near > far where there is none."""
    a = sum(d * d for d in direction) + 1e-30
    b = sum(o * d for o, d in zip(origin, direction, strict=True))
    discriminant = b * b - a * (origin @ origin - 1)
    root = np.sqrt(np.maximum(discriminant, 0))
    near, far = (-b - root) / a, (-b + root) / a
    return np.where(discriminant > 0, near, np.inf), np.where(discriminant > 0, far, -np.inf)


def intersect(kind: int, origin: Array, direction: Sequence[Array]) -> tuple[Array, Array]:
    """near and far: the line origin + t direction, in local coordinates, is in the canonical solid for t in [near, far].

    near >= far where it misses the solid. `direction` is three arrays of one shape, which is the shape of the results.
    """
    if kind == BALL:
        return _intersect_unit_ball(origin, direction)
    axes = (2,) if kind == CYLINDER else (0, 1, 2)
    near, far = _intersect_slab(origin[axes[0]], direction[axes[0]])
    for axis in axes[1:]:
        enter, leave = _intersect_slab(origin[axis], direction[axis])
        near, far = np.maximum(near, enter), np.minimum(far, leave)
    if kind == CYLINDER:
        enter, leave = _intersect_unit_ball(origin[:2], direction[:2])
        near, far = np.maximum(near, enter), np.minimum(far, leave)
    return near, far


def trace_shells(solids: Solids, origin: Array, direction: Sequence[Sequence[Array]]) -> tuple[NDArray[np.int32], Array]:
    """The shell whose inside each ray meets, -1 for none, and where; origin and direction[n] are in solid n's coordinates."""
    index, depth = np.full(direction[0][0].shape, -1, np.int32), np.full(direction[0][0].shape, np.inf)
    for count, (n, along) in enumerate(zip(np.flatnonzero(solids.kind == SHELL), direction, strict=True)):
        near, far = intersect(SHELL, origin[n], along)
        goes_on = (near <= depth + 1e-6) & (far > depth) if count else np.ones(depth.shape, np.bool_)
        np.copyto(depth, far, where=goes_on)
        np.copyto(index, np.int32(n), where=goes_on)
    return index, depth


def _bound_pixels(solids: Solids, camera: PosedCamera) -> Iterator[tuple[int, slice, slice]]:
    """(solid, rows, columns): the pixels that may show each solid that is no shell."""
    height, width = camera.size
    fx, fy, cx, cy = camera.intrinsics
    corners = solids.centre[:, None] + np.einsum("ck,nk,nkw->ncw", CUBE_CORNERS, solids.half, solids.axes)
    x, y, z = np.moveaxis((corners - camera.position) @ camera.rotation.T, -1, 0)
    ahead = z > NEAR_PLANE_M
    safe = np.where(ahead, z, 1)
    column, row = fx * x / safe + cx, fy * y / safe + cy
    everywhere = (~ahead).any(1)
    left = np.where(everywhere, 0, np.clip(np.floor(column.min(1)), 0, width)).astype(int)
    right = np.where(everywhere, width, np.clip(np.ceil(column.max(1)) + 1, 0, width)).astype(int)
    top = np.where(everywhere, 0, np.clip(np.floor(row.min(1)), 0, height)).astype(int)
    bottom = np.where(everywhere, height, np.clip(np.ceil(row.max(1)) + 1, 0, height)).astype(int)
    in_image = ahead.any(1) & (right > left) & (bottom > top) & (solids.kind != SHELL)
    for n in np.flatnonzero(in_image):
        yield int(n), slice(top[n], bottom[n]), slice(left[n], right[n])


def find_nearest(solids: Solids, camera: PosedCamera) -> tuple[NDArray[np.int32], Array]:
    """The nearest solid of every pixel (H, W), -1 for none, and its depth along z in metres, inf for none."""
    x, y = camera.rays()
    to_local = solids.to_local
    origin = np.einsum("nij,nj->ni", to_local, camera.position - solids.centre)
    to_local_from_camera = to_local @ camera.rotation.T

    def direct(n: int, rows: slice, columns: slice) -> list[Array]:
        return [t[0] * x[columns] + t[2] + (t[1] * y[rows])[:, None] for t in to_local_from_camera[n]]

    whole = slice(None)
    shells = [direct(n, whole, whole) for n in np.flatnonzero(solids.kind == SHELL).tolist()]
    if shells:
        index, depth = trace_shells(solids, origin, shells)
    else:
        index, depth = np.full(camera.size, -1, np.int32), np.full(camera.size, np.inf)
    for n, rows, columns in _bound_pixels(solids, camera):
        near, far = intersect(int(solids.kind[n]), origin[n], direct(n, rows, columns))
        hit = np.where((near < far) & (near > 0), near, np.inf)
        closer = hit < depth[rows, columns]
        np.copyto(depth[rows, columns], hit, where=closer)
        np.copyto(index[rows, columns], n, where=closer)
    return index, depth


def face_axes(kind: NDArray[np.integer], point: Array) -> NDArray[np.intp]:
    """The axis (...) perpendicular to the face of surface points (3, ...) in local coordinates; 0 for a cylinder's side."""
    distance = np.abs(point)
    cap = distance[2] > np.hypot(point[0], point[1])
    return np.where(kind == CYLINDER, np.where(cap, 2, 0), distance.argmax(0))


def _outward(kind: NDArray[np.integer], point: Array) -> Array:
    """The outward normal (3, ...), of any length, of each canonical solid at surface points (3, ...); inward for a shell."""
    face = face_axes(kind, point)
    flat = np.stack([np.where(face == axis, np.sign(point[axis]), 0) for axis in range(3)])
    side = np.stack([point[0], point[1], np.zeros_like(point[2])])
    outward = np.where((kind == CYLINDER) & (face == 0), side, flat)
    outward = np.where(kind == BALL, point, outward)
    return np.where(kind == SHELL, -outward, outward)


def cast_rays(solids: Solids, camera: PosedCamera) -> Hits:
    """Cast a ray through the centre of every pixel; exact up to float64."""
    index, depth = find_nearest(solids, camera)
    hit = index >= 0
    n = np.where(hit, index, 0)
    x, y = camera.rays()
    distance = np.where(hit, depth, 1)
    in_camera = np.stack([x * distance, y[:, None] * distance, distance])
    to_local = solids.to_local @ camera.rotation.T
    origin = np.einsum("nij,nj->ni", solids.to_local, camera.position - solids.centre)
    point = np.stack([sum(to_local[:, i, j][n] * in_camera[j] for j in range(3)) + origin[:, i][n] for i in range(3)])
    outward = _outward(solids.kind[n], point)
    normal = np.stack([sum(to_local[:, i, j][n] * outward[i] for i in range(3)) for j in range(3)])
    normal *= hit / np.sqrt((normal**2).sum(0))
    return Hits(index, depth, normal, point)


def trace_shadows(solids: Solids, casters: NDArray[np.integer], light: Array, points: Array) -> Array:
    """The part of the light of a small lamp at `light` (3,) that reaches world points (3, P): (P,), 0 in full shadow.

    `casters` are the indices of the solids that cast shadows. The edge of a shadow is soft: how much of the light a solid
    absorbs grows with the length of the ray inside it, to all of it at the solid's own thickness or 0.25 m. A point on the side
    of a solid that faces the lamp is not in its shadow.
    """
    rays = points - light.astype(points.dtype)[:, None]
    bundles = _RayBundles.of(rays)
    rays, distance = rays[:, bundles.order], bundles.distance
    visibility = np.ones(len(distance), points.dtype)
    to_local = solids.to_local
    offset = solids.centre[casters] - light
    for row, near_solid in bundles.candidates(offset, np.sqrt((solids.half[casters] ** 2).sum(1))):
        n = casters[row]
        matrix = to_local[n].astype(points.dtype)
        x, y, z = rays.take(near_solid, axis=1)
        direction = [m[0] * x + m[1] * y + m[2] * z for m in matrix]
        origin = -np.einsum("ij,j->i", to_local[n], offset[row]).astype(points.dtype)
        near, far = intersect(int(solids.kind[n]), origin, direction)
        inside = np.minimum(far, 1) - np.maximum(near, 0)
        shaded = np.flatnonzero(inside > 0)  # few of them
        ray = near_solid[shaded]
        absorbed = np.minimum(inside[shaded] * distance[ray] / min(0.25, 2 * float(solids.half[n].min())), 1)
        visibility[ray] *= 1 - absorbed * absorbed * (3 - 2 * absorbed)
    result = np.empty_like(visibility)
    result[bundles.order] = visibility
    return result


@dataclass(frozen=True)
class _RayBundles:
    """P rays from one origin, sorted into bundles of similar direction: most bundles can be skipped as a whole.

    `order` sorts the rays, whose lengths are then `distance`; bundle b has `count[b]` rays from `start[b]` on, all within the
    angle `spread[b]` of its `axis[:, b]` and no longer than `reach[b]`.
    """

    order: NDArray[np.intp]
    distance: Array
    start: NDArray[np.intp]
    count: NDArray[np.intp]
    axis: Array
    spread: Array
    reach: Array

    @classmethod
    def of(cls, rays: Array) -> _RayBundles:
        distance = np.sqrt((rays * rays).sum(0)) + 1e-9
        unit = rays / distance
        azimuth = np.floor(np.arctan2(unit[1], unit[0]) * (48 / np.pi)).astype(np.int16)
        cell = (azimuth + 64) * 64 + np.floor(unit[2] * 24).astype(np.int16)
        order = np.argsort(cell, kind="stable")
        start = np.flatnonzero(np.diff(cell[order], prepend=-1))
        count = np.diff(start, append=len(order))
        if not start.size:
            return cls(order, distance, start, count, np.empty((3, 0)), np.empty(0), np.empty(0))
        unit, distance = unit[:, order], distance[order]
        axis = np.add.reduceat(unit, start, axis=1)
        axis /= np.sqrt((axis * axis).sum(0))
        cosine = np.minimum.reduceat((np.repeat(axis, count, axis=1) * unit).sum(0), start)
        # A cosine near 1 has no small angles in float32: the margin keeps every ray within the spread.
        spread = np.arccos(np.clip(cosine, -1, 1)) + 1e-3
        return cls(order, distance, start, count, axis, spread, np.maximum.reduceat(distance, start))

    def candidates(self, centre: Array, radius: Array) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """(ball, positions in `order` of the rays that may reach it) for N balls around the solids.

        centre (N, 3) from the rays' origin, radius (N,). Balls that no bundle may reach, or that hold the origin, are left out.
        """
        away = np.sqrt((centre**2).sum(1))
        sine = np.minimum(radius / away, 1)
        x, y, z = (centre / away[:, None]).T[:, :, None]
        cosine = x * self.axis[0] + y * self.axis[1] + z * self.axis[2]
        # The cosine of the sum of the ball's and the bundle's half angles, which is less than pi.
        limit = np.sqrt(1 - sine**2)[:, None] * np.cos(self.spread) - sine[:, None] * np.sin(self.spread)
        near = (cosine > limit) & (self.reach > (away - radius)[:, None]) & (away > radius)[:, None]
        for ball in np.flatnonzero(near.any(1)):
            start, count = self.start[near[ball]], self.count[near[ball]]
            first = np.cumsum(count) - count
            yield int(ball), np.repeat(start - first, count) + np.arange(count.sum())
