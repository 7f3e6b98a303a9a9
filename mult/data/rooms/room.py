"""A room that is being furnished: where objects stand on the floor, hang on walls and lie on other objects.

World coordinates: x and y along the walls, z up, in metres; the origin is a corner of the floor. An object is placed by
rejection sampling against the rectangles that are occupied; one that does not fit is left out, so small rooms hold less.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mult.data.rooms.parts import Interval, Part, Shape, Style, SupportSurface

Rectangle = tuple[float, float, float, float]
"""x0, y0, x1, y1."""
Pose = tuple[NDArray[np.float64], float]
"""Position (2,) of an object's origin, and its yaw: the direction (-sin yaw, cos yaw) is the object's y axis."""

WINDOW_SILL_M = 0.95
"""Objects taller than this are not placed in front of a window."""


@dataclass
class Room:
    """The parts, with the number of their object, that are in the room so far, and what is free."""

    rng: Generator
    style: Style
    width: float
    depth: float
    height: float
    cutout: Rectangle | None = None
    """The corner of the bounding rectangle that does not belong to an L-shaped room."""
    parts: list[tuple[int, Part]] = field(default_factory=list)
    occupied: list[Rectangle] = field(default_factory=list)
    """Pieces of the floor where nothing else stands."""
    occupied_walls: list[Rectangle] = field(default_factory=list)
    """Strips along the walls where nothing else hangs and no tall object stands."""
    footprints: list[Rectangle] = field(default_factory=list)
    """Pieces of the floor that are darker because an object stands on them."""
    supports: list[tuple[SupportSurface, Pose]] = field(default_factory=list)
    doors: list[tuple[int, float]] = field(default_factory=list)
    """The wall of each door, and where its middle is, in metres from the wall's."""
    objects: int = 0

    def locate_on_wall(self, side: int, along: float, distance: float = 0.0) -> Pose:
        """The pose that looks inwards from wall 0..3, `along` metres from the wall's middle and `distance` metres off it."""
        yaw = side * np.pi / 2
        across, inwards = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
        middle = np.array([self.width, self.depth]) / 2
        return middle + across * along - inwards * (middle @ np.abs(inwards) - distance), yaw

    def wall_length(self, side: int) -> float:
        return self.width if side % 2 == 0 else self.depth

    def add(self, shape: Shape, at: NDArray[np.float64], yaw: float, z: float = 0.0, standing: bool = True) -> None:
        """Add an object at a pose and height, whatever is there; `standing` on the floor it leaves a footprint."""
        self.objects += 1
        rotation = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        offset = np.array([*at, z])
        for part in shape.parts:
            moved = replace(part, centre=rotation @ part.centre + offset, axes=part.axes @ rotation.T)
            self.parts.append((self.objects, moved))
        self.supports += [(replace(support, z=support.z + z), (at, yaw)) for support in shape.supports]
        if standing:
            self.footprints.append(bounding_rectangle(*_measure_footprint(shape), at, yaw))

    def place(self, shape: Shape, *, wall: bool = True, gap: float = 0.02, front: float = 0.0, tries: int = 25) -> Pose | None:
        """Stand an object at a random place at a wall, or in the room, that is free, as are `front` metres in front of it.

        Returns its pose, None if `tries` places were occupied. `gap`: the distance from the wall.
        """
        (x0, x1), (y0, y1) = _measure_footprint(shape)
        tall = max(part.centre[2] + part.half[2] for part in shape.parts) > WINDOW_SILL_M
        for _ in range(tries):
            side = int(self.rng.integers(4))
            reach = self.wall_length(side) / 2 - 0.03
            if 2 * reach < x1 - x0:
                continue
            distance = gap if wall else self.rng.uniform(0.7, max(0.71, self.wall_length(side + 1) - y1 - 0.7))
            at, yaw = self.locate_on_wall(side, self.rng.uniform(-reach - x0, reach - x1), distance)
            rectangle = bounding_rectangle((x0, x1), (y0, y1), at, yaw)
            if self.is_free(bounding_rectangle((x0 - 0.03, x1 + 0.03), (y0, y1 + front), at, yaw), tall):
                self.add(shape, at, yaw)
                self.occupied.append(rectangle)
                if tall:
                    self.occupied_walls.append(rectangle)
                return at, yaw
        return None

    def is_free(self, rectangle: Rectangle, tall: bool) -> bool:
        """Whether a tall or a low object may stand on a piece of the floor."""
        x0, y0, x1, y1 = rectangle
        inside = x0 > 0 and y0 > 0 and x1 < self.width and y1 < self.depth
        others = self.occupied + (self.occupied_walls if tall else []) + ([self.cutout] if self.cutout else [])
        return inside and not any(_overlaps(rectangle, other) for other in others)

    def hang(self, shape: Shape, z: float, tries: int = 20) -> bool:
        """Hang an object at a random free place of a wall, its origin at height z; whether there was one."""
        (x0, x1), _ = _measure_footprint(shape)
        for _ in range(tries):
            side = int(self.rng.integers(4))
            reach = self.wall_length(side) / 2 - 0.1
            if 2 * reach < x1 - x0:
                continue
            at, yaw = self.locate_on_wall(side, self.rng.uniform(-reach - x0, reach - x1))
            rectangle = bounding_rectangle((x0 - 0.05, x1 + 0.05), (0.001, 0.1), at, yaw)
            if not any(_overlaps(rectangle, other) for other in self.occupied_walls + ([self.cutout] if self.cutout else [])):
                self.add(shape, at, yaw, z, standing=False)
                self.occupied_walls.append(rectangle)
                return True
        return False

    def place_on_supports(self, shapes: list[Shape]) -> None:
        """Stand small objects side by side on the support surfaces, in random order; those that do not fit are left out."""
        waiting = [shapes[i] for i in self.rng.permutation(len(shapes))]
        for n in self.rng.permutation(len(self.supports)):
            support, (at, yaw) = self.supports[n]
            x = support.x[0]  # up to here the surface is occupied
            while waiting:
                (x0, x1), (y0, y1) = _measure_footprint(waiting[-1])
                spare_width = support.x[1] - x - (x1 - x0)
                spare_depth = support.y[1] - support.y[0] - (y1 - y0)
                if spare_width < 0 or spare_depth < 0:
                    break
                x += self.rng.uniform(0, min(spare_width, 0.25))
                local = np.array([x - x0, support.y[0] - y0 + self.rng.uniform(0, spare_depth)])
                rotation = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
                self.add(waiting.pop(), at + rotation @ local, yaw, support.z, standing=False)
                x += x1 - x0 + 0.03
            self.supports[n] = replace(support, x=(x, support.x[1])), (at, yaw)


def bounding_rectangle(x: Interval, y: Interval, at: NDArray[np.float64], yaw: float) -> Rectangle:
    """The smallest axis-parallel rectangle of the room around a rectangle in an object's frame."""
    rotation = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    corners = np.array([(a, b) for a in x for b in y]) @ rotation.T + at
    return (*corners.min(0).tolist(), *corners.max(0).tolist())


def _measure_footprint(shape: Shape) -> tuple[Interval, Interval]:
    """The extent of an object along x and y of its own frame."""
    low = np.min([part.centre - np.abs(part.axes.T @ part.half) for part in shape.parts], axis=0)
    high = np.max([part.centre + np.abs(part.axes.T @ part.half) for part in shape.parts], axis=0)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def _overlaps(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
