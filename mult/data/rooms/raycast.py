"""Analytic ray casting in NumPy: boxes, cylinders, ellipsoids and the inside of a room, exact depth and normals.

Every solid is an affine image of a canonical convex one (the cube [-1, 1]^3, the cylinder of radius 1 about z with
|z| <= 1, the unit ball), so a ray meets it in one interval [near, far] of its parameter, in closed form. Rays are (x,
y, 1) in the camera frame of data.md (x right, y down, z forward): their parameter *is* the depth along z. A shell is
a box seen from inside (near root dropped, normal inwards). Solids are culled by the pixel rectangle of their
projected corners.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOX, CYLINDER, BALL, SHELL = range(4)

Array = NDArray[np.floating]

CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
NEAR_M = 0.02  # a solid reaching behind this plane is tested against every pixel


@dataclass(frozen=True)
class Solids:
    """N solids in world coordinates: kind (N,); centre and half extents (N, 3) in metres; axes (N, 3, 3), rows = local axes."""

    kind: NDArray[np.integer]
    centre: Array
    half: Array
    axes: Array

    @property
    def to_local(self) -> Array:
        """(N, 3, 3): world vectors -> vectors in units of the half extents."""
        return self.axes / self.half[:, :, None]


@dataclass(frozen=True)
class Camera:
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
    """What every pixel sees: index (H, W) of the solid, -1 for none; depth along z (H, W) in metres, inf for none; unit normal
    (3, H, W) in the camera frame, towards the camera, 0 for none; point (3, H, W) in the solid's own units ([-1, 1])."""

    index: NDArray[np.int32]
    depth: Array
    normal: Array
    point: Array


def _slab(origin: float, direction: Array) -> tuple[Array, Array]:
    if not direction.all():
        direction = np.where(direction == 0, 1e-30, direction)
    inverse = 1 / direction
    middle, reach = -origin * inverse, np.abs(inverse)
    return middle - reach, middle + reach


def _round(origin: Array, direction: Sequence[Array]) -> tuple[Array, Array]:
    """The interval inside |point| <= 1 over the given axes; near > far where the line misses."""
    a = sum(d * d for d in direction) + 1e-30
    b = sum(o * d for o, d in zip(origin, direction, strict=True))
    discriminant = b * b - a * (origin @ origin - 1)
    root = np.sqrt(np.maximum(discriminant, 0))
    near, far = (-b - root) / a, (-b + root) / a
    return np.where(discriminant > 0, near, np.inf), np.where(discriminant > 0, far, -np.inf)


def interval(kind: int, origin: Array, direction: Sequence[Array]) -> tuple[Array, Array]:
    """Where lines origin + t direction, in local units, are inside the canonical solid: t in [near, far].

    near >= far where they miss it. `direction` is three arrays of one shape, which is the shape of the result.
    """
    if kind == BALL:
        return _round(origin, direction)
    axes = (2,) if kind == CYLINDER else (0, 1, 2)
    near, far = _slab(origin[axes[0]], direction[axes[0]])
    for axis in axes[1:]:
        enter, leave = _slab(origin[axis], direction[axis])
        near, far = np.maximum(near, enter), np.minimum(far, leave)
    if kind == CYLINDER:
        enter, leave = _round(origin[:2], direction[:2])
        near, far = np.maximum(near, enter), np.minimum(far, leave)
    return near, far


def _rectangles(solids: Solids, camera: Camera) -> Iterator[tuple[int, slice, slice]]:
    """(solid, rows, columns) of the pixels that may see each solid."""
    height, width = camera.size
    fx, fy, cx, cy = camera.intrinsics
    corners = solids.centre[:, None] + np.einsum("ck,nk,nkw->ncw", CORNERS, solids.half, solids.axes)
    x, y, z = np.moveaxis((corners - camera.position) @ camera.rotation.T, -1, 0)
    ahead = z > NEAR_M
    safe = np.where(ahead, z, 1)
    column, row = fx * x / safe + cx, fy * y / safe + cy
    whole = (~ahead).any(1) | (solids.kind == SHELL)
    left = np.where(whole, 0, np.clip(np.floor(column.min(1)), 0, width)).astype(int)
    right = np.where(whole, width, np.clip(np.ceil(column.max(1)) + 1, 0, width)).astype(int)
    top = np.where(whole, 0, np.clip(np.floor(row.min(1)), 0, height)).astype(int)
    bottom = np.where(whole, height, np.clip(np.ceil(row.max(1)) + 1, 0, height)).astype(int)
    seen = ahead.any(1) & (right > left) & (bottom > top)
    for n in np.flatnonzero(seen):
        yield int(n), slice(top[n], bottom[n]), slice(left[n], right[n])


def visible(solids: Solids, camera: Camera) -> tuple[NDArray[np.int32], Array]:
    """The nearest solid of every pixel (H, W), -1 for none, and its depth along z in metres, inf for none."""
    x, y = camera.rays()
    to_local = solids.to_local
    origin = np.einsum("nij,nj->ni", to_local, camera.position - solids.centre)
    turn = to_local @ camera.rotation.T
    index = np.full(camera.size, -1, np.int32)
    depth = np.full(camera.size, np.inf)
    for n, rows, columns in _rectangles(solids, camera):
        direction = [t[0] * x[columns] + t[2] + (t[1] * y[rows])[:, None] for t in turn[n]]
        near, far = interval(int(solids.kind[n]), origin[n], direction)
        reached = far if solids.kind[n] == SHELL else np.where((near < far) & (near > 0), near, np.inf)
        closer = reached < depth[rows, columns]
        np.copyto(depth[rows, columns], reached, where=closer)
        np.copyto(index[rows, columns], n, where=closer)
    return index, depth


def faces(kind: NDArray[np.integer], point: Array) -> NDArray[np.intp]:
    """The axis (...) across the face that surface points (3, ...) in local units lie on; of a cylinder, 2 or (side) 0."""
    size = np.abs(point)
    cap = size[2] > np.hypot(point[0], point[1])
    return np.where(kind == CYLINDER, np.where(cap, 2, 0), size.argmax(0))


def _outward(kind: NDArray[np.integer], point: Array) -> Array:
    """The direction (3, ...) out of each canonical solid at surface points (3, ...), of any length; inwards for a shell."""
    face = faces(kind, point)
    flat = np.stack([np.where(face == axis, np.sign(point[axis]), 0) for axis in range(3)])
    side = np.stack([point[0], point[1], np.zeros_like(point[2])])
    outward = np.where((kind == CYLINDER) & (face == 0), side, flat)
    outward = np.where(kind == BALL, point, outward)
    return np.where(kind == SHELL, -outward, outward)


def cast(solids: Solids, camera: Camera) -> Hits:
    """Casts a ray through the centre of every pixel; exact up to float64."""
    index, depth = visible(solids, camera)
    hit = index >= 0
    n = np.where(hit, index, 0)
    x, y = camera.rays()
    distance = np.where(hit, depth, 1)
    seen = np.stack([x * distance, y[:, None] * distance, distance])
    turn = solids.to_local @ camera.rotation.T
    origin = np.einsum("nij,nj->ni", solids.to_local, camera.position - solids.centre)
    point = np.stack([sum(turn[:, i, j][n] * seen[j] for j in range(3)) + origin[:, i][n] for i in range(3)])
    outward = _outward(solids.kind[n], point)
    normal = np.stack([sum(turn[:, i, j][n] * outward[i] for i in range(3)) for j in range(3)])
    normal *= hit / np.sqrt((normal**2).sum(0))
    return Hits(index, depth, normal, point)


def lit(solids: Solids, casters: NDArray[np.integer], light: Array, points: Array) -> Array:
    """How much of a small lamp at `light` (3,) reaches world points (3, P): (P,) from 0 (shadow) to 1.

    The edge of a shadow is soft: a solid darkens by the length of the light's way through it, fully from its own thickness
    (at most 0.25 m) on. A point on the lit side of a solid is not shadowed by it.
    """
    way = points - light.astype(points.dtype)[:, None]
    bundles = _Bundles.of(way)
    way, distance = way[:, bundles.order], bundles.distance
    free = np.ones(len(distance), points.dtype)
    to_local = solids.to_local
    offset = solids.centre[casters] - light
    for row, some in bundles.towards(offset, np.sqrt((solids.half[casters] ** 2).sum(1))):
        n = casters[row]
        matrix = to_local[n].astype(points.dtype)
        x, y, z = way.take(some, axis=1)
        direction = [m[0] * x + m[1] * y + m[2] * z for m in matrix]
        origin = -np.einsum("ij,j->i", to_local[n], offset[row]).astype(points.dtype)
        near, far = interval(int(solids.kind[n]), origin, direction)
        inside = np.minimum(far, 1) - np.maximum(near, 0)
        met = np.flatnonzero(inside > 0)  # few
        some = some[met]
        soft = np.minimum(inside[met] * distance[some] / min(0.25, 2 * float(solids.half[n].min())), 1)
        free[some] *= 1 - soft * soft * (3 - 2 * soft)
    result = np.empty_like(free)
    result[bundles.order] = free
    return result


@dataclass(frozen=True)
class _Bundles:
    """P rays from one origin, sorted into bundles of similar direction, so that most are passed over together."""

    order: NDArray[np.intp]
    distance: Array
    start: NDArray[np.intp]
    count: NDArray[np.intp]
    axis: Array
    spread: Array
    reach: Array

    @classmethod
    def of(cls, way: Array) -> _Bundles:
        distance = np.sqrt((way * way).sum(0)) + 1e-9
        unit = way / distance
        turn = np.floor(np.arctan2(unit[1], unit[0]) * (48 / np.pi)).astype(np.int16)
        cell = (turn + 64) * 64 + np.floor(unit[2] * 24).astype(np.int16)
        order = np.argsort(cell, kind="stable")
        start = np.flatnonzero(np.diff(cell[order], prepend=-1))
        count = np.diff(start, append=len(order))
        if not start.size:
            return cls(order, distance, start, count, np.empty((3, 0)), np.empty(0), np.empty(0))
        unit, distance = unit[:, order], distance[order]
        axis = np.add.reduceat(unit, start, axis=1)
        axis /= np.sqrt((axis * axis).sum(0))
        cosine = np.minimum.reduceat((np.repeat(axis, count, axis=1) * unit).sum(0), start)
        # float32 cosines near 1 lose small angles: the margin keeps the bundle conservative.
        spread = np.arccos(np.clip(cosine, -1, 1)) + 1e-3
        return cls(order, distance, start, count, axis, spread, np.maximum.reduceat(distance, start))

    def towards(self, centre: Array, radius: Array) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """(ball, positions in `order` of the rays whose bundle may reach it) of N balls that do not hold the origin.

        centre (N, 3), radius (N,); balls that no bundle may reach are left out.
        """
        away = np.sqrt((centre**2).sum(1))
        sine = np.minimum(radius / away, 1)
        x, y, z = (centre / away[:, None]).T[:, :, None]
        cosine = x * self.axis[0] + y * self.axis[1] + z * self.axis[2]
        # The cosine of the ball's and the bundle's half angles together, which are less than pi.
        widest = np.sqrt(1 - sine**2)[:, None] * np.cos(self.spread) - sine[:, None] * np.sin(self.spread)
        met = (cosine > widest) & (self.reach > (away - radius)[:, None]) & (away > radius)[:, None]
        for ball in np.flatnonzero(met.any(1)):
            start, count = self.start[met[ball]], self.count[met[ball]]
            first = np.cumsum(count) - count
            yield int(ball), np.repeat(start - first, count) + np.arange(count.sum())
