"""The exact depth and kind of surface at every pixel of an upright camera's view of a Doom map.

Such a map is two-dimensional: sectors, each with the heights of its floor and its ceiling, bounded by lines. A column of the
image is one ray in the plane. The lines that it crosses, in order, give the sectors that it passes through; within a sector the
floor, the ceiling and the walls towards the next sector follow from the heights. All columns are traced at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.labels import Intrinsics

Floats = NDArray[np.floating[Any]]

NOTHING, FLOOR, CEILING, WALL = range(4)
"""The kinds of surface."""
_NO_SECTOR = -1


@dataclass(frozen=True)
class UprightCamera:
    """An upright camera: its position in units of the map, and its direction in degrees from the x axis towards the y axis."""

    x: float
    y: float
    z: float
    angle_deg: float
    intrinsics: Intrinsics
    size: tuple[int, int]  # height, width


@dataclass(frozen=True)
class DoomMap:
    """Lines (L, 4) as x1, y1, x2, y2, the sectors on their two sides (L, 2), -1 for none, and the heights of S sectors (S,)."""

    lines: Floats
    sides: NDArray[np.int64]
    floors: Floats
    ceilings: Floats

    @classmethod
    def from_sectors(cls, sectors: Iterable[tuple[float, float, Iterable[tuple[float, float, float, float, bool]]]]) -> DoomMap:
        """From sectors (floor, ceiling, lines), with lines (x1, y1, x2, y2, whether it blocks).

        A line of two sectors is between them. A line of one sector is a wall if it blocks, else it is inside the sector.
        """
        sides: dict[Any, list[int]] = {}
        blocks: dict[Any, bool] = {}
        heights = []
        for number, (floor, ceiling, lines) in enumerate(sectors):
            heights.append((floor, ceiling))
            for x1, y1, x2, y2, does_block in lines:
                key = min(((x1, y1), (x2, y2)), ((x2, y2), (x1, y1)))
                sides.setdefault(key, []).append(number)
                blocks[key] = does_block
        pairs = [(around[0], around[-1] if len(around) > 1 or not blocks[key] else _NO_SECTOR) for key, around in sides.items()]
        floors, ceilings = np.array(heights, np.float64).reshape(-1, 2).T
        return cls(np.array(list(sides), np.float64).reshape(-1, 4), np.array(pairs, np.int64), floors, ceilings)

    def sector_at(self, x: float, y: float) -> int | None:
        """The sector that a point is in; None outside the map, and where lines that do not close leave it undecided."""
        x1, y1, x2, y2 = self.lines.T
        across = (y1 > y) != (y2 > y)
        crossing = x1[across] + (y - y1[across]) * (x2 - x1)[across] / (y2 - y1)[across]
        sides = self.sides[across][crossing > x]
        sides = sides[sides[:, 0] != sides[:, 1]]
        inside = np.flatnonzero(np.bincount(sides[sides >= 0], minlength=len(self.floors)) % 2)
        return int(inside[0]) if len(inside) == 1 else None

    def trace(self, camera: UprightCamera, sector: int) -> tuple[Floats, NDArray[np.uint8]]:
        """Depth (H, W) along the camera's axis in units of the map, inf where there is no surface, and the kind (H, W).

        `sector` is the one that the camera is in.
        """
        assert self.floors[sector] < camera.z < self.ceilings[sector]
        fx, fy, cx, cy = camera.intrinsics
        height, width = camera.size
        distances, hits = self._crossings(camera, (np.arange(width) - cx) / fx)
        slopes = (np.arange(height) - cy)[:, None] / fy  # by how much a pixel's ray falls per unit of depth
        depth = np.full(camera.size, np.inf)
        kind = np.zeros(camera.size, np.uint8)
        within = np.full(width, sector)
        # The slopes between which each column is open: below the ceilings and above the floors that it has passed.
        top, bottom = np.full(width, -np.inf), np.full(width, np.inf)
        open_columns = np.arange(width)
        for step in range(distances.shape[1]):
            open_columns = open_columns[np.isfinite(distances[open_columns, step]) & (top[open_columns] < bottom[open_columns])]
            if not len(open_columns):
                break
            here, distance, line = within[open_columns], distances[open_columns, step], hits[open_columns, step]
            first, second = self.sides[line].T
            beyond = np.where(first == here, second, np.where(second == here, first, here))
            solid = beyond == _NO_SECTOR
            fall = camera.z - np.stack([self.ceilings[here], self.floors[here]])
            # Above these slopes is this sector's ceiling, below them its floor, between them the line.
            edges = np.clip(fall / distance, top[open_columns], bottom[open_columns])
            # Between these the ray goes on; where no sector follows, all between the edges is wall.
            next_fall = camera.z - np.stack([self.ceilings[beyond], self.floors[beyond]])
            opening = np.clip(next_fall / distance, *edges)
            opening[0, solid] = opening[1, solid]

            visible = (slopes > top[open_columns]) & (slopes < bottom[open_columns])
            for surface, mask, falls in (
                (CEILING, visible & (slopes < edges[0]), fall[0]),
                (FLOOR, visible & (slopes > edges[1]), fall[1]),
            ):
                rows, columns = np.nonzero(mask)
                depth[rows, open_columns[columns]] = falls[columns] / slopes[rows, 0]
                kind[rows, open_columns[columns]] = surface
            rows, columns = np.nonzero(
                visible & (slopes >= edges[0]) & (slopes <= edges[1]) & ((slopes < opening[0]) | (slopes > opening[1]) | solid)
            )
            depth[rows, open_columns[columns]] = distance[columns]
            kind[rows, open_columns[columns]] = WALL

            top[open_columns], bottom[open_columns] = opening
            within[open_columns] = beyond
            open_columns = open_columns[~solid]
        return depth, kind

    def _crossings(self, camera: UprightCamera, slopes: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """The depths (columns, n) at which each column's ray crosses lines, ascending, then inf, and the lines (columns, n)."""
        angle = np.radians(camera.angle_deg)
        forward, right = np.array([np.cos(angle), np.sin(angle)]), np.array([np.sin(angle), -np.cos(angle)])
        starts, ends = (points - (camera.x, camera.y) for points in (self.lines[:, :2], self.lines[:, 2:]))
        # In the camera's frame: along its axis and to its right.
        start_z, end_z, start_x, end_x = starts @ forward, ends @ forward, starts @ right, ends @ right
        start_side = start_x - slopes[:, None] * start_z  # (columns, lines)
        end_side = end_x - slopes[:, None] * end_z
        columns, lines = np.nonzero((start_side <= 0) != (end_side <= 0))
        start_side, end_side = start_side[columns, lines], end_side[columns, lines]
        fraction = start_side / (start_side - end_side)
        depths = start_z[lines] + fraction * (end_z - start_z)[lines]
        ahead = depths > 0
        columns, lines, depths = columns[ahead], lines[ahead], depths[ahead]
        order = np.lexsort((depths, columns))
        columns, lines, depths = columns[order], lines[order], depths[order]
        counts = np.bincount(columns, minlength=len(slopes))
        place = np.arange(len(columns)) - np.repeat(np.cumsum(counts) - counts, counts)
        distances = np.full((len(slopes), int(counts.max(initial=0))), np.inf)
        hits = np.zeros(distances.shape, np.int64)
        distances[columns, place], hits[columns, place] = depths, lines
        return distances, hits
