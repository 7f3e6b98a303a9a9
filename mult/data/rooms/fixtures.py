"""What belongs to the building: window, door, skirting, pictures, lamps, and the materials of walls, floor and ceiling."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mult.data.rooms.parts import DARK, FABRICS, GLASS, METAL, PAINTS, UNCERTAIN, WOODS, Shape, pick_colour, scale_colour
from mult.data.rooms.raycast import SHELL
from mult.data.rooms.room import Room, bounding_rectangle
from mult.data.rooms.texture import Material, Pattern


def add_window(room: Room) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Add a window, perhaps with curtains, at a random wall; returns its middle and the direction into the room."""
    rng, s, side = room.rng, Shape(), int(room.rng.integers(4))
    w, low, high = rng.uniform(0.5, min(1.1, room.wall_length(side) / 2 - 0.5)), rng.uniform(0.85, 1.0), rng.uniform(2.0, 2.25)
    frame = Material(pick_colour(rng, ((0.93, 0.93, 0.92), (0.4, 0.26, 0.15), (0.25, 0.26, 0.28))), gloss=0.2)
    s.box((-w, w), (0, 0.004), (low, high), GLASS, UNCERTAIN)
    for x in (-w - 0.06, w):
        s.box((x, x + 0.06), (0, 0.05), (low, high), frame)
    for z in (low - 0.06, high):
        s.box((-w - 0.06, w + 0.06), (0, 0.05), (z, z + 0.06), frame)
    # Glazing bars are too thin, and too dark against the light, to be labelled: uncertain.
    for x in ((0.0,), (-w / 3, w / 3))[rng.integers(2)]:
        s.box((x - 0.02, x + 0.02), (0, 0.035), (low, high), frame, UNCERTAIN)
    if rng.random() < 0.5:
        s.box((-w, w), (0, 0.035), ((low + high) / 2 - 0.02, (low + high) / 2 + 0.02), frame, UNCERTAIN)
    s.box((-w - 0.1, w + 0.1), (0, 0.16), (low - 0.1, low - 0.06), frame)
    if rng.random() < 0.6:
        cloth = pick_colour(rng, ((0.85, 0.8, 0.72), *FABRICS))
        drape = Material(cloth, scale_colour(cloth, 0.82), Pattern.STRIPES, 0.09)
        for x in (-w - 0.36, w + 0.04):
            for fold in np.arange(0, 0.3, 0.075):
                s.cylinder((x + fold + 0.04, 0.1), (0.042, 0.05), (0.06, high + 0.14), drape)
        s.box((-w - 0.45, w + 0.45), (0.09, 0.11), (high + 0.14, high + 0.16), DARK, UNCERTAIN)
    # The cutout of an L-shaped room is the corner of the largest x and y: there is no wall there.
    reach = room.wall_length(side) / 2 - w - 0.45
    along = rng.uniform(-max(reach, 0), 0 if room.cutout else max(reach, 0)) * (-1 if side == 2 and room.cutout else 1)
    at, yaw = room.locate_on_wall(side, along)
    room.add(s, at, yaw, standing=False)
    room.occupied_walls.append(bounding_rectangle((-w - 0.4, w + 0.4), (0.0, 0.25), at, yaw))
    inwards = np.array([-np.sin(yaw), np.cos(yaw), 0])
    return np.array([*at, (low + high) / 2]) + 0.1 * inwards, inwards


LEAF_M = (0.84, 2.03)
"""Width and height of a door's leaf."""


def add_door(room: Room, wall: Material) -> None:
    """Add a door, open or closed, at a random place of a wall with free floor to open it; none if there is no such place."""
    rng, (width, height) = room.rng, LEAF_M
    half = width / 2
    for _ in range(20):
        side = int(rng.integers(4))
        reach = room.wall_length(side) / 2 - 0.6
        along = rng.uniform(-reach, reach)
        at, yaw = room.locate_on_wall(side, along)
        swing = bounding_rectangle((-0.5, 0.5), (0.01, 0.9), at, yaw)
        if room.is_free(swing, tall=True):
            break
    else:
        return
    frame, trim = Shape(), Material((0.9, 0.89, 0.86), gloss=0.1)
    for left in (-half - 0.08, half):
        frame.box((left, left + 0.08), (0, 0.05), (0, height + 0.08), trim)
    frame.box((-half, half), (0, 0.05), (height, height + 0.08), trim)
    room.add(frame, at, yaw, standing=False)
    angle = np.radians(rng.uniform(20, 95)) if rng.random() < 0.5 else 0.0
    hinge = 1 if rng.random() < 0.5 else -1  # the side of the opening, seen from the room with the wall behind it
    if angle:
        room.add(_build_hall(rng, wall), at, yaw, standing=False)
    across, inwards = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    axis = at + hinge * half * across + (0.05 if angle else 0) * inwards
    room.add(_build_leaf(rng, hinge), axis, yaw - hinge * angle, standing=False)
    room.doors.append((side, along))
    room.occupied.append(swing)
    room.occupied_walls.append(bounding_rectangle((-0.5, 0.5), (0.0, 0.2), at, yaw))


def _build_leaf(rng: Generator, hinge: int) -> Shape:
    """A door's leaf; the origin is at its hinge, and it reaches to the left of it (hinge 1) or to the right (-1)."""
    s = Shape()
    width, height = LEAF_M
    leaf = Material(pick_colour(rng, (*PAINTS[:3], *WOODS[:3])), gloss=0.15)
    panel = Material(scale_colour(leaf.colour, 0.86), gloss=0.15)
    middle = -hinge * width / 2
    s.box((middle - width / 2, middle + width / 2), (0, 0.03), (0, height), leaf)
    for y in ((0.03, 0.036), (-0.006, 0)):
        for z in ((0.15, 0.9), (1.05, 1.9)):
            for x in ((-0.34, -0.04), (0.04, 0.34)):
                s.box((middle + x[0], middle + x[1]), y, z, panel)
    for knob in (-0.04, 0.07):
        s.ball((middle - hinge * 0.35, knob, 1.0), 0.028, METAL)
    return s


def _build_hall(rng: Generator, wall: Material) -> Shape:
    """What is seen through a door: an opening in the wall as deep as that, and a hall behind."""
    s, (width, height), depth = Shape(), LEAF_M, rng.uniform(0.9, 2.2)
    low, high = -width / 2 - rng.uniform(0.05, 0.9), width / 2 + rng.uniform(0.05, 0.9)
    s.add(SHELL, (0, -0.06, height / 2), (width / 2, 0.06, height / 2), wall)
    s.add(SHELL, ((low + high) / 2, -0.12 - depth / 2, 1.2), ((high - low) / 2, depth / 2, 1.2), wall)
    return s


def add_skirting(room: Room) -> None:
    """Add skirting boards, with gaps at the doors."""
    rng = room.rng
    trim = Material(pick_colour(rng, ((0.92, 0.91, 0.88), room.style.wood.colour)), gloss=0.1)
    for side in range(4):
        s, reach = Shape(), room.wall_length(side) / 2 + 0.012
        ends = [-reach]
        for _, along in sorted(door for door in room.doors if door[0] == side):
            ends += [along - LEAF_M[0] / 2, along + LEAF_M[0] / 2]
        for start, end in zip(ends[::2], [*ends[1::2], reach], strict=True):
            s.box((start, end), (-0.012, 0.012), (0, 0.09), trim)
        room.add(s, *room.locate_on_wall(side, 0), standing=False)
    if room.cutout:
        s, (x0, y0, x1, y1) = Shape(), room.cutout
        s.box((x0 - 0.012, x1), (y0 - 0.012, y1), (0, 0.09), trim)
        room.add(s, np.zeros(2), 0, standing=False)


def add_pictures(room: Room) -> None:
    """Hang one to three pictures where the walls are free."""
    rng = room.rng
    for _ in range(int(rng.integers(1, 4))):
        w, h, picture = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.4), Shape()
        frame = Material(pick_colour(rng, ((0.1, 0.1, 0.1), (0.9, 0.9, 0.88), (0.6, 0.48, 0.25))), gloss=0.2)
        picture.box((-w, w), (0, 0.03), (-h, h), frame)
        picture.box((-w + 0.035, w - 0.035), (0.03, 0.032), (-h + 0.035, h - 0.035), Material((0.9, 0.88, 0.82)))
        inner = (w - 0.035) * rng.uniform(0.7, 1), (h - 0.035) * rng.uniform(0.7, 1)
        canvas = Material(
            pick_colour(rng, ((0.75, 0.82, 0.9), (0.92, 0.8, 0.6), (0.85, 0.6, 0.5))),
            pick_colour(rng, ((0.15, 0.3, 0.2), (0.2, 0.2, 0.35), (0.4, 0.2, 0.12))),
            Pattern.PICTURE,
        )
        picture.box((-inner[0], inner[0]), (0.032, 0.034), (-inner[1], inner[1]), canvas)
        room.hang(picture, rng.uniform(1.5, 1.75))


def add_lamps(room: Room) -> list[NDArray[np.float64]]:
    """Add one or two lamps at the ceiling; returns the positions that their light comes from."""
    rng, positions = room.rng, []
    spots = [(0.5, 0.5)] if room.width * room.depth < 16 else [(0.3, 0.4), (0.72, 0.35)]
    flat, tone = rng.random() < 0.5, pick_colour(rng, ((0.95, 0.92, 0.85), (0.3, 0.3, 0.32), (0.7, 0.5, 0.25)))
    for x, y in spots:
        lamp, drop = Shape(), rng.uniform(0.45, 0.7)
        at = np.array([room.width * x, room.depth * y])
        if flat:
            drop = 0.1
            lamp.cylinder((0, 0), 0.2, (-0.1, 0), Material((1, 0.98, 0.93), gloss=0.3))
        else:
            lamp.cylinder((0, 0), 0.008, (-drop, 0), DARK, UNCERTAIN)
            lamp.ball((0, 0, -drop), (0.19, 0.19, 0.13), Material(tone, gloss=0.3))
        room.add(lamp, at, 0, room.height, standing=False)
        positions.append(np.array([*at, room.height - drop - 0.2]))
    return positions


def pick_shell_materials(rng: Generator, tiled: bool) -> tuple[Material, Material, Material]:
    """Materials of the walls, the floor and the ceiling; `tiled`: tiles on walls and floor, as in bathrooms."""
    wall = pick_colour(
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
    walls = Material(
        wall, scale_colour(wall, 0.93), Pattern.STRIPES if rng.random() < 0.2 else Pattern.PLAIN, rng.uniform(0.12, 0.3)
    )
    wood, stone, cloth = (
        pick_colour(rng, WOODS),
        pick_colour(rng, ((0.75, 0.72, 0.67), (0.5, 0.5, 0.5), (0.62, 0.5, 0.42), (0.85, 0.84, 0.82))),
        pick_colour(rng, ((0.6, 0.56, 0.5), (0.45, 0.45, 0.48), (0.5, 0.42, 0.36))),
    )
    floors = (
        Material(stone, scale_colour(stone, 0.62), Pattern.TILES, rng.uniform(0.25, 0.5), 0.25),
        Material(wood, scale_colour(wood, 0.72), Pattern.PLANKS, rng.uniform(0.09, 0.16), 0.2),
        Material(cloth, scale_colour(cloth, 0.85), Pattern.FABRIC, gloss=0),
    )
    if tiled:
        tile = pick_colour(rng, ((0.88, 0.9, 0.9), (0.7, 0.8, 0.84), (0.85, 0.82, 0.75), (0.65, 0.78, 0.74)))
        walls = Material(tile, scale_colour(tile, 0.75), Pattern.TILES, rng.uniform(0.14, 0.26), 0.25)
    return walls, floors[0] if tiled else floors[rng.choice(3, p=(0.2, 0.55, 0.25))], Material((0.95, 0.95, 0.94))
