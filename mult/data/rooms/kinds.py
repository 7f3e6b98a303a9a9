"""The kinds of rooms: which objects a living room, a kitchen, a bathroom, ... has, and where."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mult.data.rooms import furniture, kitchen, small_objects
from mult.data.rooms.parts import ACCENTS, Shape, pick_colour
from mult.data.rooms.room import Pose, Room
from mult.data.rooms.scene import Scene, build_room
from mult.data.rooms.texture import Material, Pattern


def _add_rug(room: Room, at: NDArray[np.float64], yaw: float, w: float, d: float) -> None:
    """Add a rug of 2 w by 2 d metres, its middle at `at`."""
    s, rng = Shape(), room.rng
    s.box(
        (-w, w),
        (-d, d),
        (0, 0.012),
        Material(
            pick_colour(rng, ACCENTS),
            pick_colour(rng, ((0.9, 0.86, 0.78), (0.2, 0.2, 0.25))),
            Pattern.RUG,
            rng.uniform(0.05, 0.1),
            0,
        ),
    )
    room.add(s, at, yaw, standing=False)


def _in_front_of(pose: Pose, distance: float, aside: float = 0.0) -> NDArray[np.float64]:
    """The point `distance` metres in front of an object's origin and `aside` metres to its right."""
    at, yaw = pose
    return at + distance * np.array([-np.sin(yaw), np.cos(yaw)]) + aside * np.array([np.cos(yaw), np.sin(yaw)])


def _add_table_with_chairs(room: Room) -> None:
    rng, s = room.rng, furniture.build_dining_table(room.rng, room.style)
    x0, x1 = s.parts[0].centre[0] - s.parts[0].half[0], s.parts[0].centre[0] + s.parts[0].half[0]
    d = s.parts[0].centre[1] + s.parts[0].half[1]
    pose = room.place(s, wall=False, front=0.4, tries=60)
    if pose is None:
        return
    if rng.random() < 0.4:
        _add_rug(room, _in_front_of(pose, d / 2), pose[1], (x1 - x0) / 2 + 0.5, d / 2 + 0.6)
    seats = [(x, d + rng.uniform(0.15, 0.4), np.pi) for x in ((-0.4, 0.4) if x1 - x0 > 1.3 else (0.0,))]
    seats += [(x, -rng.uniform(0.15, 0.4), 0.0) for x in ((-0.4, 0.4) if x1 - x0 > 1.3 else (0.0,))]
    if rng.random() < 0.5:
        seats.append((x1 + rng.uniform(0.1, 0.3), d / 2, np.pi / 2))
    for x, y, turn in seats:
        if rng.random() < 0.9:
            _add_chair(room, _in_front_of(pose, y, x), pose[1] + turn + rng.normal(0, 0.15))


def _add_chair(room: Room, at: NDArray[np.float64], yaw: float) -> None:
    """Add a chair that faces the direction of `yaw`, its front edge at `at`, if that is inside the room."""
    back = at - 0.22 * np.array([-np.sin(yaw), np.cos(yaw)])
    x, y = back
    inside = 0.3 < x < room.width - 0.3 and 0.3 < y < room.depth - 0.3
    if inside and not (room.cutout and x > room.cutout[0] - 0.3 and y > room.cutout[1] - 0.3):
        room.add(furniture.build_chair(room.rng, room.style), back, yaw)
        room.occupied.append((x - 0.25, y - 0.25, x + 0.25, y + 0.25))


def _add_couch_and_television(room: Room) -> None:
    rng, style = room.rng, room.style
    pose = room.place(furniture.build_couch(rng, style), front=0.9, tries=60)
    if pose is not None:
        if rng.random() < 0.7:
            _add_rug(room, _in_front_of(pose, 1.5), pose[1], rng.uniform(0.9, 1.2), rng.uniform(0.6, 0.8))
        table = furniture.build_low_table(rng, style)
        room.add(table, _in_front_of(pose, 1.25), pose[1])
        centre = _in_front_of(pose, 1.5)
        room.occupied.append((centre[0] - 0.6, centre[1] - 0.6, centre[0] + 0.6, centre[1] + 0.6))
    _add_television(room)
    if rng.random() < 0.4:
        room.place(furniture.build_couch(rng, style), front=0.3)


def _add_television(room: Room) -> None:
    rng, style = room.rng, room.style
    tv = furniture.build_television(rng, style)
    if rng.random() < 0.35 and room.hang(tv, rng.uniform(0.95, 1.15)):
        return
    stand = furniture.build_cabinet(style, rng.uniform(1.3, 1.7), 0.4, rng.uniform(0.45, 0.6), 3)
    support = stand.supports.pop()
    stand.join(tv, (0, 0.1, support.z))
    room.place(stand, front=0.5, tries=60)


def _add_kitchen_units(room: Room) -> None:
    """Add a row of units at a wall, shortened until it fits, and small appliances and bottles on it."""
    rng, style = room.rng, room.style
    units = [["fridge", "sink", "counter", "oven", "counter"], ["counter", "oven", "counter", "sink", "fridge"]][
        rng.integers(2)
    ]
    for _ in range(3):
        if room.place(kitchen.build_kitchen_row(rng, style, units), front=0.7, tries=120):
            break
        units.remove("counter" if "counter" in units else "sink")
    room.place_on_supports([kitchen.build_microwave(rng, style)])
    room.place_on_supports(
        [
            kitchen.build_toaster(rng, style),
            kitchen.build_toaster(rng, style),
            *(small_objects.build_bottle(rng, style) for _ in range(4)),
        ]
    )


def _add_plants(room: Room, count: int) -> None:
    for _ in range(count):
        room.place(small_objects.build_potted_plant(room.rng, room.style, room.rng.uniform(0.9, 1.5)), gap=0.1)


def _add_small_objects(room: Room, books: int, vases: int, bottles: int, plants: int) -> None:
    rng, style = room.rng, room.style
    room.place_on_supports(
        [small_objects.build_books(rng, style) for _ in range(books)]
        + [small_objects.build_vase(rng, style) for _ in range(vases)]
        + [small_objects.build_bottle(rng, style) for _ in range(bottles)]
        + [small_objects.build_potted_plant(rng, style, rng.uniform(0.35, 0.5)) for _ in range(plants)]
    )
    room.hang(small_objects.build_clock(rng, style), rng.uniform(1.7, 2.0))


def _furnish_living_room(room: Room) -> None:
    _add_couch_and_television(room)
    for _ in range(int(room.rng.integers(1, 3))):
        room.place(furniture.build_bookshelf(room.rng, room.style), front=0.3)
    _add_plants(room, 2)
    room.place(furniture.build_cabinet(room.style, 1.0, 0.42, 0.8, 2, drawers=True), front=0.3)
    _add_small_objects(room, 3, 3, 1, 1)


def _furnish_kitchen(room: Room) -> None:
    _add_kitchen_units(room)
    _add_table_with_chairs(room)
    _add_plants(room, 1)
    _add_small_objects(room, 1, 2, 3, 1)


def _furnish_bedroom(room: Room) -> None:
    rng, style = room.rng, room.style
    bed = furniture.build_bed(rng, style)
    w = bed.parts[0].half[0]
    for side in (-1, 1):
        bed.join(furniture.build_cabinet(style, 0.42, 0.38, 0.5, 1, drawers=True), (side * (w + 0.25), 0, 0))
    room.place(bed, front=0.3, tries=100)
    room.place(furniture.build_cabinet(style, rng.uniform(1.0, 1.6), 0.58, rng.uniform(1.9, 2.15), 2), front=0.3)
    _add_television(room)
    room.place(furniture.build_bookshelf(rng, style), front=0.3)
    _add_plants(room, 1)
    pose = room.place(furniture.build_low_table(rng, style), wall=True, front=0.3) if rng.random() < 0.3 else None
    if pose is None:
        chair = room.place(furniture.build_chair(rng, style), front=0.1)
        if chair and rng.random() < 0.5:
            room.place(furniture.build_chair(rng, style), front=0.1)
    _add_small_objects(room, 3, 2, 1, 1)


def _furnish_bathroom(room: Room) -> None:
    rng, style = room.rng, room.style
    room.place(furniture.build_bathtub(rng, style), tries=60)
    pose = room.place(furniture.build_washstand(rng, style), front=0.5, tries=60)
    if pose is not None:
        at = _in_front_of(pose, -0.02)
        room.add(furniture.build_mirror(rng), at, pose[1], 1.5, standing=False)
        room.occupied_walls.append((at[0] - 0.45, at[1] - 0.45, at[0] + 0.45, at[1] + 0.45))
    room.place(furniture.build_toilet(rng, style), front=0.4, tries=60)
    room.place(furniture.build_cabinet(style, rng.uniform(0.5, 0.8), 0.35, rng.uniform(0.75, 0.9), 2), front=0.2)
    if rng.random() < 0.3:
        room.place(furniture.build_toilet(rng, style), front=0.4)
    _add_plants(room, 1)
    _add_small_objects(room, 1, 2, 3, 1)


def _furnish_dining_room(room: Room) -> None:
    rng, style = room.rng, room.style
    _add_table_with_chairs(room)
    if rng.random() < 0.5:
        _add_table_with_chairs(room)
    for _ in range(2):
        room.place(furniture.build_bookshelf(rng, style), front=0.3)
    room.place(furniture.build_cabinet(style, rng.uniform(1.2, 1.7), 0.45, rng.uniform(0.75, 0.9), 3), front=0.4)
    _add_plants(room, 2)
    _add_small_objects(room, 3, 3, 3, 1)


def _furnish_studio(room: Room) -> None:
    _add_kitchen_units(room)
    _add_table_with_chairs(room)
    _add_couch_and_television(room)
    if room.rng.random() < 0.6:
        room.place(furniture.build_bed(room.rng, room.style), front=0.2, tries=60)
    room.place(furniture.build_bookshelf(room.rng, room.style), front=0.3)
    _add_plants(room, 2)
    _add_small_objects(room, 3, 2, 2, 1)


ROOM_KINDS: tuple[Callable[[Generator], Scene], ...] = (
    partial(build_room, furnish=_furnish_living_room, size=(5.2, 4.4), l_shaped=False, tiled=False),
    partial(build_room, furnish=_furnish_kitchen, size=(4.8, 4.0), l_shaped=False, tiled=False),
    partial(build_room, furnish=_furnish_bedroom, size=(4.4, 4.0), l_shaped=False, tiled=False),
    partial(build_room, furnish=_furnish_bathroom, size=(3.4, 2.9), l_shaped=False, tiled=True),
    partial(build_room, furnish=_furnish_dining_room, size=(4.8, 4.2), l_shaped=False, tiled=False),
    partial(build_room, furnish=_furnish_studio, size=(7.2, 6.2), l_shaped=True, tiled=False),
)
"""Each builds a furnished room from a generator."""
