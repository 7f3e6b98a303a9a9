"""Antialiasing of the edges between surfaces: four rays a pixel say how much of it each surface covers.

Textures and shadows need none: patterns fade where they are finer than a pixel (texture.py), and shadows are soft. So a ray
is only asked which of the surfaces that the pixel and its four neighbours show it meets, and has the colour of that pixel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mult.data.rooms.raycast import (
    BALL,
    CYLINDER,
    SHELL,
    Array,
    Hits,
    PosedCamera,
    Solids,
    face_axes,
    intersect,
    trace_shells,
)

RAYS = ((-0.375, -0.125), (-0.125, 0.375), (0.125, -0.375), (0.375, 0.125))
"""(row, column) from the pixel's centre: no two in one row or column, so that nearly level edges have five shades too."""


def blend_edges(solids: Solids, camera: PosedCamera, hits: Hits, radiance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Radiance (3, H, W) in which each pixel that shows more than one surface has their mean."""
    height, width = camera.size
    surface = _number_surfaces(solids.kind[hits.index], hits.index, hits.point).ravel()
    rows, columns = _find_edges(surface.reshape(height, width))
    # The pixel first: of surfaces that a ray meets at the same place, the first counts.
    around = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
    pixels = np.clip(rows + around[:, :1], 0, height - 1) * width + np.clip(columns + around[:, 1:], 0, width - 1)  # (5, E)
    fx, fy, cx, cy = camera.intrinsics
    down, right = np.array(RAYS)[:, :, None].swapaxes(0, 1)
    choice = _choose(solids, camera, surface[pixels], (columns + right - cx) / fx, (rows + down - cy) / fy)
    blended = radiance.copy()
    blended[:, rows, columns] = radiance.reshape(3, -1)[:, np.take_along_axis(pixels, choice, 0)].mean(1)
    return blended


def _number_surfaces(kind: NDArray[np.integer], index: NDArray[np.integer], point: Array) -> NDArray[np.int64]:
    """A number for the face of each solid: 8 * solid + face. A box has six, a cylinder its side and two caps, a ball one."""
    axis = face_axes(kind, point)
    side = 2 * axis + (np.take_along_axis(point, axis[None], 0)[0] > 0)
    curved = (kind == BALL) | ((kind == CYLINDER) & (axis == 0))
    return index.astype(np.int64) * 8 + np.where(curved, 0, side)


def _find_edges(surface: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows and columns of the pixels of which a neighbour shows another surface."""
    edge = np.zeros(surface.shape, np.bool_)
    level, upright = surface[:, 1:] != surface[:, :-1], surface[1:] != surface[:-1]
    edge[:, 1:] |= level
    edge[:, :-1] |= level
    edge[1:] |= upright
    edge[:-1] |= upright
    rows, columns = np.nonzero(edge)
    return rows, columns


def _choose(solids: Solids, camera: PosedCamera, candidates: NDArray[np.int64], x: Array, y: Array) -> NDArray[np.intp]:
    """Which of the candidates (K, E), numbers of surfaces, each of the rays (x, y, 1), all (R, E), meets first: (R, E)."""
    to_local = solids.to_local @ camera.rotation.T
    origin = np.einsum("nij,nj->ni", solids.to_local, camera.position - solids.centre)
    shells = np.flatnonzero(solids.kind == SHELL)
    shell, behind = trace_shells(solids, origin, [[m[0] * x + m[1] * y + m[2] for m in to_local[n]] for n in shells])
    distance = np.full((len(candidates), *x.shape), np.inf)
    new = np.ones(candidates.shape, np.bool_)  # not a surface that the pixel itself shows
    new[1:] = candidates[1:] != candidates[0]
    number, pixel = np.nonzero(new)
    solid = candidates[number, pixel] // 8
    order = np.argsort(solid, kind="stable")
    starts = np.flatnonzero(np.diff(solid[order], prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        place = order[start:stop]
        n, own = int(solid[place[0]]), pixel[place]
        x_own, y_own = x[:, own], y[:, own]
        along = [m[0] * x_own + m[1] * y_own + m[2] for m in to_local[n]]
        kind = int(solids.kind[n])
        if kind == SHELL:
            hit = np.where(shell[:, own] == n, behind[:, own], np.inf)
        else:
            near, far = intersect(kind, origin[n], along)
            hit = np.where((near < far) & (near > 0), near, np.inf)
        if kind != BALL:  # it has several faces, of which the ray meets one
            reached = np.where(np.isfinite(hit), hit, 0)
            point = np.stack([o + a * reached for o, a in zip(origin[n], along, strict=True)])
            met = _number_surfaces(solids.kind[[n]], np.array(n), point)
            hit = hit + 1e-4 * (met != candidates[number[place], own])
        distance[number[place], :, own] = hit.T
    return distance.argmin(0)
