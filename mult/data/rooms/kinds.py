"""The kinds of rooms that Rooms builds: which furniture of furniture.py stands in a living room, a kitchen, a bathroom, ..."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.random import Generator

from mult.data.rooms import furniture as f
from mult.data.rooms.parts import ACCENTS, DARK, ENAMEL, METAL, UNCERTAIN, Sketch, Style, Top, pick
from mult.data.rooms.room import Room, Scene, furnish
from mult.data.rooms.texture import Material, Pattern


def _cabinet(style: Style, width: float, depth: float, height: float, doors: int, drawers: bool = False) -> Sketch:
    s = Sketch()
    w = width / 2
    s.box((-w + 0.03, w - 0.03), (0.03, depth - 0.03), (0, 0.07), DARK)
    s.box((-w, w), (0, depth - 0.02), (0.07, height), style.paint)
    for i in range(doors):
        x = -w + width * i / doors
        rows = (
            ((0.08, height * 0.4), (height * 0.42, height * 0.7), (height * 0.72, height - 0.01))
            if drawers
            else ((0.08, height - 0.01),)
        )
        for z in rows:
            s.box((x + 0.006, x + width / doors - 0.006), (depth - 0.02, depth), z, style.paint)
            middle = x + width / doors / 2
            s.box((middle - 0.06, middle + 0.06), (depth, depth + 0.02), (z[1] - 0.06, z[1] - 0.045), METAL)
    if height < 1.3:
        s.tops.append(Top((-w + 0.05, w - 0.05), (0.03, depth - 0.03), height))
    return s


def _low_table(rng: Generator, style: Style) -> Sketch:
    s, w, d, z = Sketch(), rng.uniform(0.4, 0.6), rng.uniform(0.45, 0.6), rng.uniform(0.36, 0.44)
    s.box((-w, w), (0, d), (z - 0.03, z), style.stone if rng.random() < 0.3 else style.wood)
    s.legs((-w + 0.03, w - 0.03), (0.03, d - 0.03), z - 0.03, 0.045, style.wood)
    s.tops.append(Top((-w + 0.06, w - 0.06), (0.08, d - 0.08), z))
    return s


def _bookshelf(rng: Generator, style: Style) -> Sketch:
    s, w, d, h = Sketch(), rng.uniform(0.35, 0.6), 0.3, rng.uniform(1.5, 2.0)
    s.box((-w, w), (0, 0.015), (0, h), style.wood)
    for x in (-w, w - 0.025):
        s.box((x, x + 0.025), (0.015, d), (0, h), style.wood)
    levels = np.arange(0.06, h - 0.2, 0.36)
    for z in (*levels, h - 0.025):
        s.box((-w + 0.025, w - 0.025), (0.015, d), (z, z + 0.025), style.wood)
    for z in levels:
        if rng.random() < 0.78:
            width = (2 * w - 0.06) * rng.uniform(0.45, 1)
            row = f.books(rng, style, width, flat=False)
            s.join(row, (rng.uniform(-1, 1) * (w - 0.03 - width / 2), 0.08, z + 0.025))
        else:
            s.tops.append(Top((-w + 0.05, w - 0.05), (0.04, d - 0.01), z + 0.025))
    return s


def _bathtub(rng: Generator, style: Style) -> Sketch:
    s, w, d, z, t = Sketch(), rng.uniform(0.75, 0.9), 0.75, 0.56, 0.06
    s.box((-w, w), (0, d), (0, 0.14), ENAMEL)
    for x in (-w, w - t):
        s.box((x, x + t), (0, d), (0.14, z), ENAMEL)
    for y in (0.0, d - t):
        s.box((-w + t, w - t), (y, y + t), (0.14, z), ENAMEL)
    s.box((-0.03, 0.03), (0.0, 0.16), (z + 0.1, z + 0.14), METAL)
    return s


def _mirror(rng: Generator) -> Sketch:
    s, w = Sketch(), rng.uniform(0.25, 0.4)
    s.box((-w, w), (0, 0.025), (-0.38, 0.38), METAL)
    # What a mirror shows is not where it seems to be: uncertain.
    s.box(
        (-w + 0.02, w - 0.02),
        (0.025, 0.027),
        (-0.36, 0.36),
        Material((0.62, 0.67, 0.7), (0.82, 0.86, 0.88), Pattern.SCREEN, gloss=0.8),
        UNCERTAIN,
    )
    return s


def _rug(room: Room, at: np.ndarray, yaw: float, w: float, d: float) -> None:
    s, rng = Sketch(), room.rng
    s.box(
        (-w, w),
        (-d, d),
        (0, 0.012),
        Material(pick(rng, ACCENTS), pick(rng, ((0.9, 0.86, 0.78), (0.2, 0.2, 0.25))), Pattern.RUG, rng.uniform(0.05, 0.1), 0),
    )
    room.add(s, at, yaw, standing=False)


def _before(place: tuple[np.ndarray, float], distance: float, aside: float = 0.0) -> np.ndarray:
    at, yaw = place
    return at + distance * np.array([-np.sin(yaw), np.cos(yaw)]) + aside * np.array([np.cos(yaw), np.sin(yaw)])


def _table_with_chairs(room: Room) -> None:
    rng, s = room.rng, f.dining_table(room.rng, room.style)
    x0, x1 = s.parts[0].centre[0] - s.parts[0].half[0], s.parts[0].centre[0] + s.parts[0].half[0]
    d = s.parts[0].centre[1] + s.parts[0].half[1]
    place = room.put(s, wall=False, front=0.4, tries=60)
    if place is None:
        return
    if rng.random() < 0.4:
        _rug(room, _before(place, d / 2), place[1], (x1 - x0) / 2 + 0.5, d / 2 + 0.6)
    seats = [(x, d + rng.uniform(0.15, 0.4), np.pi) for x in ((-0.4, 0.4) if x1 - x0 > 1.3 else (0.0,))]
    seats += [(x, -rng.uniform(0.15, 0.4), 0.0) for x in ((-0.4, 0.4) if x1 - x0 > 1.3 else (0.0,))]
    if rng.random() < 0.5:
        seats.append((x1 + rng.uniform(0.1, 0.3), d / 2, np.pi / 2))
    for x, out, turn in seats:
        if rng.random() < 0.9:
            _seat(room, _before(place, out, x), place[1] + turn + rng.normal(0, 0.15))


def _seat(room: Room, at: np.ndarray, yaw: float) -> None:
    """A chair whose front edge is tucked in at `at`: it faces yaw's direction."""
    back = at - 0.22 * np.array([-np.sin(yaw), np.cos(yaw)])
    x, y = back
    around = (x - 0.25, y - 0.25, x + 0.25, y + 0.25)
    inside = 0.3 < x < room.width - 0.3 and 0.3 < y < room.depth - 0.3
    if inside and not (room.block and x > room.block[0] - 0.3 and y > room.block[1] - 0.3):
        room.add(f.chair(room.rng, room.style), back, yaw)
        room.taken.append(around)


def _lounge(room: Room) -> None:
    rng, style = room.rng, room.style
    place = room.put(f.couch(rng, style), front=0.9, tries=60)
    if place:
        if rng.random() < 0.7:
            _rug(room, _before(place, 1.5), place[1], rng.uniform(0.9, 1.2), rng.uniform(0.6, 0.8))
        table = _low_table(rng, style)
        room.add(table, _before(place, 1.25), place[1])
        centre = _before(place, 1.5)
        room.taken.append((centre[0] - 0.6, centre[1] - 0.6, centre[0] + 0.6, centre[1] + 0.6))
    _screen(room)
    if rng.random() < 0.4:
        room.put(f.couch(rng, style), front=0.3)


def _screen(room: Room) -> None:
    rng, style = room.rng, room.style
    tv = f.television(rng, style)
    if rng.random() < 0.35 and room.hang(tv, rng.uniform(0.95, 1.15)):
        return
    stand = _cabinet(style, rng.uniform(1.3, 1.7), 0.4, rng.uniform(0.45, 0.6), 3)
    top = stand.tops.pop()
    stand.join(tv, (0, 0.1, top.z))
    room.put(stand, front=0.5, tries=60)


def _kitchen(room: Room) -> None:
    """A row of units at one wall, with as many counters as fit, cabinets above, small appliances on it."""
    rng, style = room.rng, room.style
    orders = [["fridge", "sink", "counter", "oven", "counter"], ["counter", "oven", "counter", "sink", "fridge"]][
        rng.integers(2)
    ]
    for _ in range(3):
        if room.put(_kitchen_row(rng, style, orders), front=0.7, tries=120):
            break
        orders.remove("counter" if "counter" in orders else "sink")
    room.lay([f.microwave(rng, style)])
    room.lay([f.toaster(rng, style), f.toaster(rng, style), *(f.bottle(rng, style) for _ in range(4))])


def _kitchen_row(rng: Generator, style: Style, order: list[str]) -> Sketch:
    widths = [
        {"fridge": 0.88, "oven": 0.6, "sink": rng.uniform(0.75, 0.95), "counter": rng.uniform(0.66, 0.9)}[unit]
        for unit in order
    ]
    row, x = Sketch(), -sum(widths) / 2
    for unit, width in zip(order, widths, strict=True):
        if unit == "fridge":
            row.join(f.refrigerator(rng, style), (x + width / 2, 0, 0))
        elif unit == "oven":
            row.join(f.oven(rng, style), (x + width / 2, 0, 0))
        else:
            row.join((_sink_unit if unit == "sink" else _counter)(rng, style, width), (x + width / 2, 0, 0))
            if rng.random() < 0.7:
                row.box((x, x + width - 0.006), (0, 0.34), (1.45, 2.1), style.paint)
                row.box((x + width - 0.1, x + width - 0.085), (0.34, 0.355), (1.5, 1.65), METAL)
        x += width
    return row


def _counter(rng: Generator, style: Style, width: float) -> Sketch:
    s = _cabinet(style, width, 0.6, 0.88, 1 if width < 0.7 else 2, drawers=rng.random() < 0.4)
    s.box((-width / 2, width / 2), (0, 0.63), (0.88, 0.92), style.stone)
    s.tops[0] = Top((-width / 2 + 0.03, width / 2 - 0.03), (0.06, 0.5), 0.92)
    return s


def _sink_unit(rng: Generator, style: Style, width: float) -> Sketch:
    s = _cabinet(style, width, 0.6, 0.74, 2)
    s.tops.clear()
    w, z = width / 2, (0.88, 0.92)
    x, y = (-0.28, 0.28), (0.14, 0.53)
    for side in ((-w, x[0]), (x[1], w)):
        s.box(side, (0, 0.63), z, style.stone)
    for side in ((0.0, y[0]), (y[1], 0.63)):
        s.box(x, side, z, style.stone)
    s.box((-w, w), (0.57, 0.6), (0.74, 0.88), style.paint)
    f.basin(s, x, y, z[1], 0.16, METAL)
    return s


def _plants(room: Room, count: int) -> None:
    for _ in range(count):
        room.put(f.potted_plant(room.rng, room.style, room.rng.uniform(0.9, 1.5)), gap=0.1)


def _small(room: Room, books: int, vases: int, bottles: int, plants: int) -> None:
    rng, style = room.rng, room.style
    room.lay(
        [f.books(rng, style) for _ in range(books)]
        + [f.vase(rng, style) for _ in range(vases)]
        + [f.bottle(rng, style) for _ in range(bottles)]
        + [f.potted_plant(rng, style, rng.uniform(0.35, 0.5)) for _ in range(plants)]
    )
    room.hang(f.clock(rng, style), rng.uniform(1.7, 2.0))


def _living(room: Room) -> None:
    _lounge(room)
    for _ in range(int(room.rng.integers(1, 3))):
        room.put(_bookshelf(room.rng, room.style), front=0.3)
    _plants(room, 2)
    room.put(_cabinet(room.style, 1.0, 0.42, 0.8, 2, drawers=True), front=0.3)
    _small(room, 3, 3, 1, 1)


def _kitchen_room(room: Room) -> None:
    _kitchen(room)
    _table_with_chairs(room)
    _plants(room, 1)
    _small(room, 1, 2, 3, 1)


def _bedroom(room: Room) -> None:
    rng, style = room.rng, room.style
    bed = f.bed(rng, style)
    w = bed.parts[0].half[0]
    for side in (-1, 1):
        bed.join(_cabinet(style, 0.42, 0.38, 0.5, 1, drawers=True), (side * (w + 0.25), 0, 0))
    room.put(bed, front=0.3, tries=100)
    room.put(_cabinet(style, rng.uniform(1.0, 1.6), 0.58, rng.uniform(1.9, 2.15), 2), front=0.3)
    _screen(room)
    room.put(_bookshelf(rng, style), front=0.3)
    _plants(room, 1)
    place = room.put(_low_table(rng, style), wall=True, front=0.3) if rng.random() < 0.3 else None
    if place is None:
        spot = room.put(f.chair(rng, style), front=0.1)
        if spot and rng.random() < 0.5:
            room.put(f.chair(rng, style), front=0.1)
    _small(room, 3, 2, 1, 1)


def _bathroom(room: Room) -> None:
    rng, style = room.rng, room.style
    room.put(_bathtub(rng, style), tries=60)
    place = room.put(f.washstand(rng, style), front=0.5, tries=60)
    if place:
        at = _before(place, -0.02)
        room.add(_mirror(rng), at, place[1], 1.5, standing=False)
        room.walls.append((at[0] - 0.45, at[1] - 0.45, at[0] + 0.45, at[1] + 0.45))
    room.put(f.toilet(rng, style), front=0.4, tries=60)
    room.put(_cabinet(style, rng.uniform(0.5, 0.8), 0.35, rng.uniform(0.75, 0.9), 2), front=0.2)
    if rng.random() < 0.3:
        room.put(f.toilet(rng, style), front=0.4)
    _plants(room, 1)
    _small(room, 1, 2, 3, 1)


def _dining_room(room: Room) -> None:
    rng, style = room.rng, room.style
    _table_with_chairs(room)
    if rng.random() < 0.5:
        _table_with_chairs(room)
    for _ in range(2):
        room.put(_bookshelf(rng, style), front=0.3)
    room.put(_cabinet(style, rng.uniform(1.2, 1.7), 0.45, rng.uniform(0.75, 0.9), 3), front=0.4)
    _plants(room, 2)
    _small(room, 3, 3, 3, 1)


def _studio(room: Room) -> None:
    _kitchen(room)
    _table_with_chairs(room)
    _lounge(room)
    if room.rng.random() < 0.6:
        room.put(f.bed(room.rng, room.style), front=0.2, tries=60)
    room.put(_bookshelf(room.rng, room.style), front=0.3)
    _plants(room, 2)
    _small(room, 3, 2, 2, 1)


Builder = Callable[[Generator], Scene]

KINDS: tuple[Builder, ...] = (
    partial(furnish, kind=_living, size=(5.2, 4.4), l_shaped=False, wet=False),
    partial(furnish, kind=_kitchen_room, size=(4.8, 4.0), l_shaped=False, wet=False),
    partial(furnish, kind=_bedroom, size=(4.4, 4.0), l_shaped=False, wet=False),
    partial(furnish, kind=_bathroom, size=(3.4, 2.9), l_shaped=False, wet=True),
    partial(furnish, kind=_dining_room, size=(4.8, 4.2), l_shaped=False, wet=False),
    partial(furnish, kind=_studio, size=(7.2, 6.2), l_shaped=True, wet=False),
)
"""Each builds a furnished room from a generator."""
