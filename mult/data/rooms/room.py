"""A furnished room from a generator: where the furniture of furniture.py stands, hangs and lies.

World coordinates: x and y along the walls, z up, metres, the floor's corner at the origin. Objects at a wall are put
by rejection against the rectangles already taken; what does not fit is left out, so small rooms hold less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mult.data.rooms.parts import (
    BACKGROUND,
    DARK,
    FABRICS,
    GLASS,
    METAL,
    PAINTS,
    UNCERTAIN,
    WOODS,
    Pair,
    Part,
    Sketch,
    Style,
    Top,
    pick,
    shade,
    style,
)
from mult.data.rooms.raycast import SHELL, Solids
from mult.data.rooms.texture import Material, Pattern

Rectangle = tuple[float, float, float, float]
"""x0, y0, x1, y1."""

SILL_M = 0.95  # furniture higher than this does not stand before a window


@dataclass(frozen=True)
class Scene:
    """A room to look at: solids with a material, a code and an object's number each (0 = the building itself)."""

    solids: Solids
    materials: list[Material]
    code: NDArray[np.uint8]
    object: NDArray[np.int32]
    size: NDArray[np.float64]
    lamps: list[NDArray[np.float64]]
    window: tuple[NDArray[np.float64], NDArray[np.float64]]
    """Middle of the window and its direction into the room."""
    footprints: list[Rectangle]
    """Where objects stand on the floor."""
    shell_materials: tuple[Material, Material, Material]
    """Of the walls, the floor and the ceiling."""


@dataclass
class Room:
    """A room being furnished."""

    rng: Generator
    style: Style
    width: float
    depth: float
    height: float
    block: Rectangle | None = None
    """A corner of the bounding rectangle that does not belong to an L-shaped room."""
    parts: list[tuple[int, Part]] = field(default_factory=list)
    taken: list[Rectangle] = field(default_factory=list)
    walls: list[Rectangle] = field(default_factory=list)
    """Pieces along the walls where nothing else hangs or stands high."""
    footprints: list[Rectangle] = field(default_factory=list)
    tops: list[tuple[Top, NDArray[np.float64], float]] = field(default_factory=list)
    objects: int = 0

    def wall(self, side: int, along: float, out: float = 0.0) -> tuple[NDArray[np.float64], float]:
        """The point of wall 0..3 at `along` metres from its middle, `out` metres before it, and the yaw that looks inwards."""
        yaw = side * np.pi / 2
        across, inwards = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
        middle = np.array([self.width, self.depth]) / 2
        return middle + across * along - inwards * (middle @ np.abs(inwards) - out), yaw

    def length(self, side: int) -> float:
        return self.width if side % 2 == 0 else self.depth

    def add(self, sketch: Sketch, at: NDArray[np.float64], yaw: float, z: float = 0.0, standing: bool = True) -> None:
        """Put an object's parts and tops into the world; one that stands on the floor darkens it."""
        self.objects += 1
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        offset = np.array([*at, z])
        for part in sketch.parts:
            self.parts.append((self.objects, replace(part, centre=turn @ part.centre + offset, axes=part.axes @ turn.T)))
        self.tops += [(replace(top, z=top.z + z), at, yaw) for top in sketch.tops]
        if standing:
            self.footprints.append(_rectangle(*_extent(sketch), at, yaw))

    def put(
        self, sketch: Sketch, *, wall: bool = True, gap: float = 0.02, front: float = 0.0, tries: int = 25
    ) -> tuple[NDArray[np.float64], float] | None:
        """Stand an object at a wall, or free in the room, where it and `front` metres before it are free; None if nowhere."""
        (x0, x1), (y0, y1) = _extent(sketch)
        tall = max(part.centre[2] + part.half[2] for part in sketch.parts) > SILL_M
        for _ in range(tries):
            side = int(self.rng.integers(4))
            free = self.length(side) / 2 - 0.03
            if 2 * free < x1 - x0:
                continue
            out = gap if wall else self.rng.uniform(0.7, max(0.71, self.length(side + 1) - y1 - 0.7))
            at, yaw = self.wall(side, self.rng.uniform(-free - x0, free - x1), out)
            here = _rectangle((x0, x1), (y0, y1), at, yaw)
            if self.free(_rectangle((x0 - 0.03, x1 + 0.03), (y0, y1 + front), at, yaw), tall):
                self.add(sketch, at, yaw)
                self.taken.append(here)
                if tall:
                    self.walls.append(here)
                return at, yaw
        return None

    def free(self, rectangle: Rectangle, tall: bool) -> bool:
        x0, y0, x1, y1 = rectangle
        inside = x0 > 0 and y0 > 0 and x1 < self.width and y1 < self.depth
        others = self.taken + (self.walls if tall else []) + ([self.block] if self.block else [])
        return inside and not any(_overlap(rectangle, other) for other in others)

    def hang(self, sketch: Sketch, z: float, tries: int = 20) -> bool:
        """Hang an object on a free piece of wall, its origin at height z."""
        (x0, x1), _ = _extent(sketch)
        for _ in range(tries):
            side = int(self.rng.integers(4))
            free = self.length(side) / 2 - 0.1
            if 2 * free < x1 - x0:
                continue
            at, yaw = self.wall(side, self.rng.uniform(-free - x0, free - x1))
            here = _rectangle((x0 - 0.05, x1 + 0.05), (0.001, 0.1), at, yaw)
            if not any(_overlap(here, other) for other in self.walls + ([self.block] if self.block else [])):
                self.add(sketch, at, yaw, z, standing=False)
                self.walls.append(here)
                return True
        return False

    def lay(self, sketches: list[Sketch]) -> None:
        """Stand small things side by side on the tops there are, in random order; those without a place are left out."""
        waiting = [sketches[i] for i in self.rng.permutation(len(sketches))]
        for n in self.rng.permutation(len(self.tops)):
            top, at, yaw = self.tops[n]
            x = top.x[0]
            while waiting:
                (x0, x1), (y0, y1) = _extent(waiting[-1])
                room, spare = top.x[1] - x - (x1 - x0), top.y[1] - top.y[0] - (y1 - y0)
                if room < 0 or spare < 0:
                    break
                x += self.rng.uniform(0, min(room, 0.25))
                local = np.array([x - x0, top.y[0] - y0 + self.rng.uniform(0, spare)])
                turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
                self.add(waiting.pop(), at + turn @ local, yaw, top.z, standing=False)
                x += x1 - x0 + 0.03
            self.tops[n] = replace(top, x=(x, top.x[1])), at, yaw


def _extent(sketch: Sketch) -> tuple[Pair, Pair]:
    low = np.min([part.centre - np.abs(part.axes.T @ part.half) for part in sketch.parts], axis=0)
    high = np.max([part.centre + np.abs(part.axes.T @ part.half) for part in sketch.parts], axis=0)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def _rectangle(x: Pair, y: Pair, at: NDArray[np.float64], yaw: float) -> Rectangle:
    """The axis-parallel hull in the world of a rectangle in an object's frame."""
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    corners = np.array([(a, b) for a in x for b in y]) @ turn.T + at
    return (*corners.min(0).tolist(), *corners.max(0).tolist())


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# What belongs to the building: openings, skirting, lamps, rugs, pictures.


def _window(room: Room) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng, s, side = room.rng, Sketch(), int(room.rng.integers(4))
    w, low, high = rng.uniform(0.5, min(1.1, room.length(side) / 2 - 0.5)), rng.uniform(0.85, 1.0), rng.uniform(2.0, 2.25)
    frame = Material(pick(rng, ((0.93, 0.93, 0.92), (0.4, 0.26, 0.15), (0.25, 0.26, 0.28))), gloss=0.2)
    s.box((-w, w), (0, 0.004), (low, high), GLASS, UNCERTAIN)
    for x in (-w - 0.06, w):
        s.box((x, x + 0.06), (0, 0.05), (low, high), frame)
    for z in (low - 0.06, high):
        s.box((-w - 0.06, w + 0.06), (0, 0.05), (z, z + 0.06), frame)
    # Bars are thin and seen against the light: nobody could say where they end.
    for x in ((0.0,), (-w / 3, w / 3))[rng.integers(2)]:
        s.box((x - 0.02, x + 0.02), (0, 0.035), (low, high), frame, UNCERTAIN)
    if rng.random() < 0.5:
        s.box((-w, w), (0, 0.035), ((low + high) / 2 - 0.02, (low + high) / 2 + 0.02), frame, UNCERTAIN)
    s.box((-w - 0.1, w + 0.1), (0, 0.16), (low - 0.1, low - 0.06), frame)
    if rng.random() < 0.6:
        cloth = pick(rng, ((0.85, 0.8, 0.72), *FABRICS))
        drape = Material(cloth, shade(cloth, 0.82), Pattern.STRIPES, 0.09)
        for x in (-w - 0.36, w + 0.04):
            for fold in np.arange(0, 0.3, 0.075):
                s.cylinder((x + fold + 0.04, 0.1), (0.042, 0.05), (0.06, high + 0.14), drape)
        s.box((-w - 0.45, w + 0.45), (0.09, 0.11), (high + 0.14, high + 0.16), DARK, UNCERTAIN)
    # An L-shaped room's block is at the back right; its walls get no window there.
    shift = room.length(side) / 2 - w - 0.45
    along = rng.uniform(-max(shift, 0), 0 if room.block else max(shift, 0)) * (-1 if side == 2 and room.block else 1)
    at, yaw = room.wall(side, along)
    room.add(s, at, yaw, standing=False)
    room.walls.append(_rectangle((-w - 0.4, w + 0.4), (0.0, 0.25), at, yaw))
    inwards = np.array([-np.sin(yaw), np.cos(yaw), 0])
    return np.array([*at, (low + high) / 2]) + 0.1 * inwards, inwards


def _door(room: Room) -> None:
    rng, s = room.rng, Sketch()
    leaf = Material(pick(rng, (*PAINTS[:3], *WOODS[:3])), gloss=0.15)
    panel, trim = Material(shade(leaf.colour, 0.86), gloss=0.15), Material((0.9, 0.89, 0.86), gloss=0.1)
    s.box((-0.42, 0.42), (0, 0.03), (0, 2.03), leaf)
    for z in ((0.15, 0.9), (1.05, 1.9)):
        for x in ((-0.34, -0.04), (0.04, 0.34)):
            s.box(x, (0.03, 0.036), z, panel)
    for left in (-0.5, 0.42):
        s.box((left, left + 0.08), (0, 0.05), (0, 2.11), trim)
    s.box((-0.42, 0.42), (0, 0.05), (2.03, 2.11), trim)
    s.ball((0.35, 0.07, 1.0), 0.028, METAL)
    for _ in range(20):
        side = int(rng.integers(4))
        free = room.length(side) / 2 - 0.6
        at, yaw = room.wall(side, rng.uniform(-free, free))
        swing = _rectangle((-0.5, 0.5), (0.01, 0.9), at, yaw)
        if room.free(swing, tall=True):
            room.add(s, at, yaw, standing=False)
            room.taken.append(swing)
            room.walls.append(_rectangle((-0.5, 0.5), (0.0, 0.2), at, yaw))
            return


def _finish(room: Room) -> list[NDArray[np.float64]]:
    """Skirting, a rug, pictures and the lamps, whose positions are returned."""
    rng, s = room.rng, Sketch()
    trim = Material(pick(rng, ((0.92, 0.91, 0.88), room.style.wood.colour)), gloss=0.1)
    for side in range(4):
        at, _ = room.wall(side, 0)
        reach = np.abs(np.array([np.cos(side * np.pi / 2), np.sin(side * np.pi / 2)])) * room.length(side) / 2 + 0.012
        s.box((at[0] - reach[0], at[0] + reach[0]), (at[1] - reach[1], at[1] + reach[1]), (0, 0.09), trim)
    if room.block:
        x0, y0, x1, y1 = room.block
        s.box((x0 - 0.012, x1), (y0 - 0.012, y1), (0, 0.09), trim)
    room.add(s, np.zeros(2), 0, standing=False)
    for _ in range(int(rng.integers(1, 4))):
        w, h, picture = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.4), Sketch()
        frame = Material(pick(rng, ((0.1, 0.1, 0.1), (0.9, 0.9, 0.88), (0.6, 0.48, 0.25))), gloss=0.2)
        picture.box((-w, w), (0, 0.03), (-h, h), frame)
        picture.box((-w + 0.035, w - 0.035), (0.03, 0.032), (-h + 0.035, h - 0.035), Material((0.9, 0.88, 0.82)))
        inner = (w - 0.035) * rng.uniform(0.7, 1), (h - 0.035) * rng.uniform(0.7, 1)
        canvas = Material(
            pick(rng, ((0.75, 0.82, 0.9), (0.92, 0.8, 0.6), (0.85, 0.6, 0.5))),
            pick(rng, ((0.15, 0.3, 0.2), (0.2, 0.2, 0.35), (0.4, 0.2, 0.12))),
            Pattern.PICTURE,
        )
        picture.box((-inner[0], inner[0]), (0.032, 0.034), (-inner[1], inner[1]), canvas)
        room.hang(picture, rng.uniform(1.5, 1.75))
    lamps = []
    spots = [(0.5, 0.5)] if room.width * room.depth < 16 else [(0.3, 0.4), (0.72, 0.35)]
    shape, tone = rng.random(), pick(rng, ((0.95, 0.92, 0.85), (0.3, 0.3, 0.32), (0.7, 0.5, 0.25)))
    for x, y in spots:
        lamp, drop = Sketch(), rng.uniform(0.45, 0.7)
        at = np.array([room.width * x, room.depth * y])
        if shape < 0.5:
            drop = 0.1
            lamp.cylinder((0, 0), 0.2, (-0.1, 0), Material((1, 0.98, 0.93), gloss=0.3))
        else:
            lamp.cylinder((0, 0), 0.008, (-drop, 0), DARK, UNCERTAIN)
            lamp.ball((0, 0, -drop), (0.19, 0.19, 0.13), Material(tone, gloss=0.3))
        room.add(lamp, at, 0, room.height, standing=False)
        lamps.append(np.array([*at, room.height - drop - 0.2]))
    return lamps


def _shell(rng: Generator, wet: bool) -> tuple[Material, Material, Material]:
    """Materials of the walls, the floor and the ceiling."""
    wall = pick(
        rng,
        (
            (0.86, 0.83, 0.77),
            (0.75, 0.8, 0.82),
            (0.82, 0.76, 0.66),
            (0.7, 0.76, 0.68),
            (0.88, 0.86, 0.85),
            (0.78, 0.68, 0.62),
            (0.6, 0.66, 0.72),
        ),
    )
    walls = Material(wall, shade(wall, 0.93), Pattern.STRIPES if rng.random() < 0.2 else Pattern.PLAIN, rng.uniform(0.12, 0.3))
    wood, stone, cloth = (
        pick(rng, WOODS),
        pick(rng, ((0.75, 0.72, 0.67), (0.5, 0.5, 0.5), (0.62, 0.5, 0.42), (0.85, 0.84, 0.82))),
        pick(rng, ((0.6, 0.56, 0.5), (0.45, 0.45, 0.48), (0.5, 0.42, 0.36))),
    )
    floors = (
        Material(stone, shade(stone, 0.62), Pattern.TILES, rng.uniform(0.25, 0.5), 0.25),
        Material(wood, shade(wood, 0.72), Pattern.PLANKS, rng.uniform(0.09, 0.16), 0.2),
        Material(cloth, shade(cloth, 0.85), Pattern.FABRIC, gloss=0),
    )
    if wet:
        tile = pick(rng, ((0.88, 0.9, 0.9), (0.7, 0.8, 0.84), (0.85, 0.82, 0.75), (0.65, 0.78, 0.74)))
        walls = Material(tile, shade(tile, 0.75), Pattern.TILES, rng.uniform(0.14, 0.26), 0.25)
    return walls, floors[0] if wet else floors[rng.choice(3, p=(0.2, 0.55, 0.25))], Material((0.95, 0.95, 0.94))


def furnish(rng: Generator, kind: Callable[[Room], None], size: tuple[float, float], l_shaped: bool, wet: bool) -> Scene:
    """A room of about `size` (width, depth in metres), furnished by `kind`."""
    width, depth = size[0] * rng.uniform(0.9, 1.1), size[1] * rng.uniform(0.9, 1.1)
    room = Room(rng, style(rng), width, depth, rng.uniform(2.4, 2.9))
    if l_shaped:
        room.block = (width * rng.uniform(0.55, 0.65), depth * rng.uniform(0.55, 0.65), width + 0.1, depth + 0.1)
    shell = _shell(rng, wet)
    window = _window(room)
    _door(room)
    kind(room)
    lamps = _finish(room)
    if room.block:
        corner = Sketch()
        x0, y0, x1, y1 = room.block
        corner.box((x0, x1), (y0, y1), (0, room.height), shell[0])
        room.add(corner, np.zeros(2), 0, standing=False)
    extent = np.array([width, depth, room.height])
    parts = [(0, Part(SHELL, extent / 2, extent / 2, np.eye(3), shell[0], BACKGROUND)), *room.parts]
    solids = Solids(*(np.array([getattr(part, name) for _, part in parts]) for name in ("solid", "centre", "half", "axes")))
    return Scene(
        solids=solids,
        materials=[part.material for _, part in parts],
        code=np.array([part.code for _, part in parts], np.uint8),
        object=np.array([number for number, _ in parts], np.int32),
        size=extent,
        lamps=lamps,
        window=window,
        footprints=room.footprints,
        shell_materials=shell,
    )
