"""What an upright camera sees of a map of Doom: distance along its axis and kind of surface, exactly, at every pixel.

Such a map is flat: sectors, each with the height of its floor and its ceiling, bounded by lines. So a column of the image
looks along one ray of the plane, whose crossings of lines, in order, say which sector follows which, and within a sector
floor, ceiling and the walls towards the next one follow from heights alone. All columns walk along their rays at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.labels import Intrinsics

Real = NDArray[np.floating[Any]]

NOTHING, FLOOR, CEILING, WALL = range(4)
"""The kinds of surface."""
_SOLID = -1


@dataclass(frozen=True)
class Camera:
    """Where an upright camera stands, in units of the map, and where it looks: degrees from x towards y."""

    x: float
    y: float
    z: float
    angle_deg: float
    intrinsics: Intrinsics
    size: tuple[int, int]  # height, width


@dataclass(frozen=True)
class Map:
    """Lines (L, 4) as x1, y1, x2, y2, the sectors on their two sides (L, 2), -1 for solid rock, and heights of sectors."""

    lines: Real
    sides: NDArray[np.int64]
    floors: Real
    ceilings: Real

    @classmethod
    def from_sectors(cls, sectors: Iterable[tuple[float, float, Iterable[tuple[float, float, float, float, bool]]]]) -> Map:
        """Of sectors (floor, ceiling, lines), lines being (x1, y1, x2, y2, does it block?).

        A line that two sectors have is between them. One that only one has is a wall if it blocks, and otherwise lies
        within the sector.
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
        pairs = [(around[0], around[-1] if len(around) > 1 or not blocks[key] else _SOLID) for key, around in sides.items()]
        floors, ceilings = np.array(heights, np.float64).reshape(-1, 2).T
        return cls(np.array(list(sides), np.float64).reshape(-1, 4), np.array(pairs, np.int64), floors, ceilings)

    def sector_at(self, x: float, y: float) -> int | None:
        """The sector around a point; None outside the map and where that is not clear."""
        x1, y1, x2, y2 = self.lines.T
        across = (y1 > y) != (y2 > y)
        crossing = x1[across] + (y - y1[across]) * (x2 - x1)[across] / (y2 - y1)[across]
        sides = self.sides[across][crossing > x]
        sides = sides[sides[:, 0] != sides[:, 1]]
        inside = np.flatnonzero(np.bincount(sides[sides >= 0], minlength=len(self.floors)) % 2)
        return int(inside[0]) if len(inside) == 1 else None

    def see(self, camera: Camera, sector: int) -> tuple[Real, NDArray[np.uint8]]:
        """Depth (H, W) along the camera's axis, in units of the map, infinite where there is nothing, and the kind (H, W).

        `sector` is the one that the camera is in.
        """
        assert self.floors[sector] < camera.z < self.ceilings[sector]
        fx, fy, cx, cy = camera.intrinsics
        height, width = camera.size
        distances, hits = self._crossings(camera, (np.arange(width) - cx) / fx)
        slopes = (np.arange(height) - cy)[:, None] / fy  # how far a pixel's ray falls in a unit of depth
        depth = np.full(camera.size, np.inf)
        kind = np.zeros(camera.size, np.uint8)
        within = np.full(width, sector)
        # What is still seen of each column: between the lowest ceiling's and the highest floor's edge so far.
        top, bottom = np.full(width, -np.inf), np.full(width, np.inf)
        looking = np.arange(width)
        for step in range(distances.shape[1]):
            looking = looking[np.isfinite(distances[looking, step]) & (top[looking] < bottom[looking])]
            if not len(looking):
                break
            here, distance, line = within[looking], distances[looking, step], hits[looking, step]
            first, second = self.sides[line].T
            beyond = np.where(first == here, second, np.where(second == here, first, here))
            solid = beyond == _SOLID
            fall = camera.z - np.stack([self.ceilings[here], self.floors[here]])
            edges = np.clip(fall / distance, top[looking], bottom[looking])  # where this sector's flats end
            # Beyond rock the opening is empty: everything between the edges is wall.
            next_fall = camera.z - np.stack([self.ceilings[beyond], self.floors[beyond]])
            opening = np.clip(next_fall / distance, *edges)
            opening[0, solid] = opening[1, solid]

            seen = (slopes > top[looking]) & (slopes < bottom[looking])
            for surface, mask, falls in (
                (CEILING, seen & (slopes < edges[0]), fall[0]),
                (FLOOR, seen & (slopes > edges[1]), fall[1]),
            ):
                rows, columns = np.nonzero(mask)
                depth[rows, looking[columns]] = falls[columns] / slopes[rows, 0]
                kind[rows, looking[columns]] = surface
            rows, columns = np.nonzero(
                seen & (slopes >= edges[0]) & (slopes <= edges[1]) & ((slopes < opening[0]) | (slopes > opening[1]) | solid)
            )
            depth[rows, looking[columns]] = distance[columns]
            kind[rows, looking[columns]] = WALL

            top[looking], bottom[looking] = opening
            within[looking] = beyond
            looking = looking[~solid]
        return depth, kind

    def _crossings(self, camera: Camera, slopes: Real) -> tuple[Real, NDArray[np.int64]]:
        """Of each column's ray, the depths at which it crosses lines, ascending, infinite behind the last, and which."""
        angle = np.radians(camera.angle_deg)
        forward, right = np.array([np.cos(angle), np.sin(angle)]), np.array([np.sin(angle), -np.cos(angle)])
        starts, ends = (points - (camera.x, camera.y) for points in (self.lines[:, :2], self.lines[:, 2:]))
        # In the camera's frame: along its axis and to its right.
        start_z, end_z, start_x, end_x = starts @ forward, ends @ forward, starts @ right, ends @ right
        start_side = start_x - slopes[:, None] * start_z  # (columns, lines)
        end_side = end_x - slopes[:, None] * end_z
        columns, lines = np.nonzero((start_side <= 0) != (end_side <= 0))
        start_side, end_side = start_side[columns, lines], end_side[columns, lines]
        share = start_side / (start_side - end_side)
        depths = start_z[lines] + share * (end_z - start_z)[lines]
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
