"""A furnished room as the ray caster sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mult.data.rooms.clutter import add_clutter
from mult.data.rooms.fixtures import add_door, add_lamps, add_pictures, add_skirting, add_window, pick_shell_materials
from mult.data.rooms.parts import BACKGROUND, Part, Shape, pick_style
from mult.data.rooms.raycast import SHELL, Solids
from mult.data.rooms.room import Rectangle, Room
from mult.data.rooms.texture import Material


@dataclass(frozen=True)
class Scene:
    """N solids, each with its material, class code and object number, and what lights them; lengths in metres."""

    solids: Solids
    materials: list[Material]
    class_code: NDArray[np.uint8]
    """(N,): the code of parts.py, which is that of Taskonomy's files."""
    object: NDArray[np.int32]
    """(N,): solids of one object have the same number; 0 is the shell of the room, which is the first solid."""
    size: NDArray[np.float64]
    """Width, depth and height."""
    lamps: list[NDArray[np.float64]]
    """Positions."""
    window: tuple[NDArray[np.float64], NDArray[np.float64]]
    """Middle of the window and its direction into the room."""
    footprints: list[Rectangle]
    """Where objects stand on the floor and darken it."""
    shell_materials: tuple[Material, Material, Material]
    """Of the walls, the floor and the ceiling."""


def build_room(
    rng: Generator, furnish: Callable[[Room], None], size: tuple[float, float], l_shaped: bool, tiled: bool
) -> Scene:
    """A room whose width and depth are `size`, in metres, to within 10 %; `furnish` places the furniture."""
    width, depth = size[0] * rng.uniform(0.9, 1.1), size[1] * rng.uniform(0.9, 1.1)
    room = Room(rng, pick_style(rng), width, depth, rng.uniform(2.4, 2.9))
    if l_shaped:
        room.cutout = (width * rng.uniform(0.55, 0.65), depth * rng.uniform(0.55, 0.65), width + 0.1, depth + 0.1)
    shell_materials = pick_shell_materials(rng, tiled)
    window = add_window(room)
    add_door(room, shell_materials[0])
    furnish(room)
    add_clutter(room)
    add_skirting(room)
    add_pictures(room)
    lamps = add_lamps(room)
    if room.cutout:
        corner = Shape()
        x0, y0, x1, y1 = room.cutout
        corner.box((x0, x1), (y0, y1), (0, room.height), shell_materials[0])
        room.add(corner, np.zeros(2), 0, standing=False)
    extent = np.array([width, depth, room.height])
    shell = Part(SHELL, extent / 2, extent / 2, np.eye(3), shell_materials[0], BACKGROUND)
    parts = [(0, shell), *room.parts]
    solids = Solids(*(np.array([getattr(part, name) for _, part in parts]) for name in ("kind", "centre", "half", "axes")))
    return Scene(
        solids=solids,
        materials=[part.material for _, part in parts],
        class_code=np.array([part.class_code for _, part in parts], np.uint8),
        object=np.array([number for number, _ in parts], np.int32),
        size=extent,
        lamps=lamps,
        window=window,
        footprints=room.footprints,
        shell_materials=shell_materials,
    )
