"""The furniture of Rooms, drawn from boxes, cylinders and ellipsoids: a function an object.

Each takes the generator and the building's `Style`, so that a building's objects go together, while classes keep
their shapes, places and ranges of colour from building to building.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from mult.data.rooms.parts import (
    ACCENTS,
    BACKGROUND,
    BED,
    BOOK,
    BOOKS,
    BOTTLE,
    BOTTLES,
    CHAIR,
    CLOCK,
    COUCH,
    DARK,
    ENAMEL,
    FRIDGE,
    METAL,
    MICROWAVE,
    OVEN,
    PLANT,
    SINK,
    TABLE,
    TOASTER,
    TOILET,
    TV,
    UNCERTAIN,
    VASE,
    VASES,
    Pair,
    Sketch,
    Style,
    Top,
    pick,
    shade,
)
from mult.data.rooms.raycast import BALL, CYLINDER
from mult.data.rooms.texture import Material, Pattern


def chair(rng: Generator, style: Style) -> Sketch:
    s, w, d, z = Sketch(CHAIR), rng.uniform(0.2, 0.24), rng.uniform(0.4, 0.46), rng.uniform(0.43, 0.47)
    height = rng.uniform(0.82, 1.0)
    s.legs((-w, w), (0, d), z, 0.04, style.chair)
    s.box((-w, w), (0, d), (z - 0.02, z + 0.03), style.chair if rng.random() < 0.5 else style.fabric)
    for x in (-w, w - 0.04):
        s.box((x, x + 0.04), (0, 0.04), (z, height), style.chair)
    if rng.random() < 0.5:
        s.box((-w + 0.04, w - 0.04), (0.005, 0.035), (z + 0.14, height), style.chair)
    else:
        for low in np.linspace(z + 0.12, height - 0.08, 3):
            s.box((-w + 0.04, w - 0.04), (0.01, 0.03), (low, low + 0.08), style.chair)
    return s


def couch(rng: Generator, style: Style) -> Sketch:
    s, seats = Sketch(COUCH), int(rng.integers(2, 4))
    w, d, arm = seats * rng.uniform(0.31, 0.36), rng.uniform(0.85, 0.98), rng.uniform(0.14, 0.22)
    base = Material(shade(style.fabric.colour, 0.85), style.fabric.second, Pattern.FABRIC)
    back, total = rng.uniform(0.75, 0.9), w + arm
    s.legs((-total + 0.03, total - 0.03), (0.04, d - 0.04), 0.08, 0.06, style.wood)
    s.box((-total, total), (0, d), (0.08, 0.3), base)
    s.box((-total, total), (0, 0.24), (0.3, back), base)
    for x in (-total, w):
        s.box((x, x + arm), (0.02, d), (0.3, rng.uniform(0.55, 0.62)), base)
    for i in range(seats):
        x0 = -w + 2 * w * i / seats
        s.box((x0 + 0.005, x0 + 2 * w / seats - 0.005), (0.24, d + 0.02), (0.3, 0.45), style.fabric)
        s.box((x0 + 0.01, x0 + 2 * w / seats - 0.01), (0.22, 0.38), (0.45, back + 0.04), style.fabric)
    for x in rng.uniform(-w + 0.2, w - 0.2, rng.integers(0, 3)):
        s.ball((x, 0.47, 0.62), (0.22, 0.09, 0.19), style.accent)
    return s


def bed(rng: Generator, style: Style) -> Sketch:
    s, w, length = Sketch(BED), rng.uniform(0.5, 0.9), rng.uniform(1.95, 2.1)
    sheet = Material((0.9, 0.89, 0.86), (0.8, 0.8, 0.8), Pattern.FABRIC)
    s.box((-w - 0.04, w + 0.04), (0, 0.07), (0, rng.uniform(0.85, 1.15)), style.wood if rng.random() < 0.6 else style.fabric)
    s.box((-w, w), (0.05, length), (0.08, 0.3), style.wood)
    s.legs((-w, w), (0.05, length), 0.08, 0.08, style.wood)
    s.box((-w + 0.02, w - 0.02), (0.07, length - 0.02), (0.3, 0.52), sheet)
    s.box((-w - 0.02, w + 0.02), (0.75, length + 0.01), (0.26, 0.565), style.accent)
    s.box((-w - 0.015, w + 0.015), (0.6, 0.78), (0.4, 0.575), sheet)
    for x in (-w / 2, w / 2) if w > 0.6 else (0.0,):
        s.ball((x, 0.32, 0.58), (min(0.36, w * 0.46), 0.22, 0.11), sheet)
    return s


def dining_table(rng: Generator, style: Style) -> Sketch:
    s, z = Sketch(TABLE), rng.uniform(0.72, 0.78)
    if rng.random() < 0.3:
        r = rng.uniform(0.5, 0.65)
        s.cylinder((0, r), r, (z - 0.04, z), style.wood)
        s.cylinder((0, r), 0.06, (0.03, z - 0.04), style.wood)
        s.cylinder((0, r), 0.3, (0, 0.03), style.wood)
        s.tops.append(Top((-r * 0.65, r * 0.65), (r * 0.35, r * 1.65), z))
        return s
    w, d = rng.uniform(0.6, 0.95), rng.uniform(0.75, 0.95)
    s.box((-w, w), (0, d), (z - 0.04, z), style.wood)
    s.box((-w + 0.06, w - 0.06), (0.06, d - 0.06), (z - 0.12, z - 0.04), style.wood)
    s.legs((-w + 0.04, w - 0.04), (0.04, d - 0.04), z - 0.04, 0.07, style.wood)
    s.tops.append(Top((-w + 0.1, w - 0.1), (0.12, d - 0.12), z))
    return s


def toilet(rng: Generator, style: Style) -> Sketch:
    s = Sketch(TOILET)
    s.box((-0.2, 0.2), (0, 0.19), (0.38, 0.78), ENAMEL)
    s.box((-0.21, 0.21), (0, 0.2), (0.78, 0.81), ENAMEL)
    s.box((-0.1, 0.1), (0.02, 0.4), (0, 0.36), ENAMEL)
    s.ball((0, 0.44, 0.36), (0.19, 0.26, 0.26), ENAMEL)
    s.cylinder((0, 0.44), (0.2, 0.27), (0.37, 0.41), ENAMEL)
    if rng.random() < 0.4:  # the lid is up
        s.box((-0.18, 0.18), (0.2, 0.23), (0.42, 0.78), ENAMEL)
        s.cylinder((0, 0.46), (0.13, 0.19), (0.41, 0.412), Material((0.45, 0.5, 0.52)))
    else:
        s.cylinder((0, 0.44), (0.19, 0.26), (0.41, 0.435), Material((0.88, 0.88, 0.86), gloss=0.4))
    s.cylinder((0.12, 0.1), 0.025, (0.81, 0.82), METAL)
    return s


def television(rng: Generator, style: Style) -> Sketch:
    """A screen on its foot, or to be hung: the origin is at its lower edge."""
    s, w = Sketch(TV), rng.uniform(0.4, 0.72)
    h, y = w * 1.14, 0.04
    s.box((-w, w), (y, y + 0.05), (0.06, 0.06 + h), DARK)
    s.box(
        (-w + 0.02, w - 0.02),
        (y + 0.05, y + 0.054),
        (0.085, 0.04 + h),
        Material((0.09, 0.1, 0.12), (0.2, 0.24, 0.3), Pattern.SCREEN, gloss=0.6),
    )
    s.box((-0.04, 0.04), (y, y + 0.03), (0, 0.1), DARK)
    s.box((-w * 0.45, w * 0.45), (0, 0.16), (0, 0.015), DARK)
    return s


def refrigerator(rng: Generator, style: Style) -> Sketch:
    s, w, h, d = Sketch(FRIDGE), rng.uniform(0.3, 0.42), rng.uniform(1.65, 1.95), rng.uniform(0.6, 0.7)
    split = h * rng.uniform(0.32, 0.68)
    s.box((-w, w), (0.02, d - 0.05), (0.03, h), style.appliance)
    s.box((-w + 0.03, w - 0.03), (0.06, d - 0.08), (0, 0.03), DARK)
    for z in ((0.05, split - 0.006), (split + 0.006, h)):
        s.box((-w, w), (d - 0.045, d), z, style.appliance)
        middle = max(z[0] + 0.08, z[1] - 0.5) if z[0] < 0.1 else z[0] + 0.06
        s.box((-w + 0.05, -w + 0.08), (d, d + 0.04), (middle, min(z[1] - 0.05, middle + 0.4)), METAL)
    return s


def oven(rng: Generator, style: Style) -> Sketch:
    s, w, d, h = Sketch(OVEN), 0.3, 0.62, 0.9
    s.box((-w, w), (0.01, d - 0.02), (0.08, h - 0.01), style.appliance)
    s.box((-w, w), (0.05, d - 0.06), (0, 0.08), DARK)
    s.box((-w, w), (0.0, d), (h - 0.01, h + 0.01), DARK)
    s.box((-w + 0.01, w - 0.01), (d - 0.02, d), (0.16, 0.72), style.appliance)
    s.box(
        (-w + 0.06, w - 0.06),
        (d, d + 0.004),
        (0.26, 0.6),
        Material((0.06, 0.05, 0.05), (0.2, 0.16, 0.14), Pattern.SCREEN, gloss=0.6),
    )
    s.box((-w + 0.05, w - 0.05), (d + 0.02, d + 0.045), (0.66, 0.69), METAL)
    s.box((-w, w), (d - 0.02, d + 0.002), (0.75, h - 0.01), DARK if rng.random() < 0.5 else METAL)
    for x in np.linspace(-0.22, 0.22, 5):
        s.add(CYLINDER, (x, d + 0.01, 0.82), (0.022, 0.022, 0.022), METAL)
    for x in (-0.14, 0.14):
        for y in (0.17, 0.44):
            s.cylinder((x, y), 0.09, (h + 0.01, h + 0.016), Material((0.22, 0.2, 0.2), (0.12, 0.1, 0.1), Pattern.RINGS))
    return s


def microwave(rng: Generator, style: Style) -> Sketch:
    s, w, h, d = Sketch(MICROWAVE), rng.uniform(0.23, 0.27), rng.uniform(0.27, 0.32), 0.36
    body = (ENAMEL, METAL, DARK)[rng.integers(3)]
    s.box((-w, w), (0.02, d), (0.01, h), body)
    s.box(
        (-w + 0.02, w * 0.45),
        (d, d + 0.008),
        (0.04, h - 0.03),
        Material((0.07, 0.07, 0.08), (0.25, 0.25, 0.27), Pattern.SCREEN, gloss=0.5),
    )
    s.box((w * 0.5, w * 0.54), (d + 0.01, d + 0.035), (0.05, h - 0.04), METAL)
    s.box((w * 0.6, w - 0.015), (d, d + 0.005), (h - 0.09, h - 0.04), Material((0.1, 0.3, 0.2)))
    for z in np.arange(0.05, h - 0.11, 0.04):
        s.box((w * 0.62, w - 0.02), (d, d + 0.006), (z, z + 0.022), Material((0.5, 0.5, 0.52)))
    return s


def toaster(rng: Generator, style: Style) -> Sketch:
    s = Sketch(TOASTER)
    body = (METAL, Material((0.75, 0.12, 0.1), gloss=0.5), Material((0.9, 0.85, 0.7), gloss=0.4))[rng.integers(3)]
    s.box((-0.16, 0.16), (0.05, 0.25), (0.02, 0.2), body)
    s.add(BALL, (0, 0.15, 0.19), (0.16, 0.1, 0.035), body)
    s.box((-0.14, 0.14), (0.07, 0.23), (0, 0.02), DARK)
    for y in (0.11, 0.17):
        s.box((-0.12, 0.12), (y, y + 0.025), (0.2, 0.228), DARK)
    s.box((0.16, 0.18), (0.13, 0.17), (0.12, 0.145), DARK)
    s.cylinder((0.165, 0.15), 0.02, (0.05, 0.08), DARK)
    return s


def basin(s: Sketch, x: Pair, y: Pair, z: float, depth: float, material: Material) -> None:
    """A rectangular tub with open top, its rim at z, and a tap behind it."""
    t, rim = 0.015, z + 0.008
    s.box(x, y, (z - depth - t, z - depth), material, SINK)
    s.box((x[0], x[0] + t), y, (z - depth, rim), material, SINK)
    s.box((x[1] - t, x[1]), y, (z - depth, rim), material, SINK)
    s.box(x, (y[0], y[0] + t), (z - depth, rim), material, SINK)
    s.box(x, (y[1] - t, y[1]), (z - depth, rim), material, SINK)
    middle, back = (x[0] + x[1]) / 2, y[0] - 0.04
    s.cylinder((middle, (y[0] + y[1]) / 2), 0.03, (z - depth, z - depth + 0.004), DARK, SINK)
    s.cylinder((middle, back), 0.016, (z, z + 0.24), METAL, SINK)
    s.box((middle - 0.012, middle + 0.012), (back, back + 0.17), (z + 0.22, z + 0.245), METAL, SINK)
    s.cylinder((middle, back + 0.16), 0.013, (z + 0.18, z + 0.22), METAL, SINK)


def washstand(rng: Generator, style: Style) -> Sketch:
    """A bathroom sink: a white basin in a cabinet, or on a pedestal."""
    s, z = Sketch(BACKGROUND), rng.uniform(0.8, 0.88)
    w, d = (rng.uniform(0.3, 0.5), 0.5) if rng.random() < 0.6 else (0.28, 0.46)
    inner = ((-0.22, 0.22), (0.13, d - 0.05))
    for x in ((-w, inner[0][0]), (inner[0][1], w)):
        s.box(x, (0, d), (z - 0.05, z), ENAMEL, SINK)
    for y in ((0.0, inner[1][0]), (inner[1][1], d)):
        s.box(inner[0], y, (z - 0.05, z), ENAMEL, SINK)
    basin(s, *inner, z, 0.14, ENAMEL)
    if w > 0.29:
        s.box((-w + 0.02, w - 0.02), (0, d - 0.02), (0.08, z - 0.17), style.paint)
        s.box((-w + 0.02, w - 0.02), (d - 0.035, d - 0.02), (z - 0.17, z - 0.05), style.paint)
        for left in (-w + 0.02, w - 0.035):
            s.box((left, left + 0.015), (0, d - 0.035), (z - 0.17, z - 0.05), style.paint)
        s.box((-0.004, 0.004), (d - 0.02, d - 0.016), (0.1, z - 0.18), DARK)
        s.tops.append(Top((-w + 0.04, inner[0][0] - 0.02), (0.12, d - 0.12), z))
    else:
        s.cylinder((0, 0.22), 0.1, (0, z - 0.15), ENAMEL, SINK)
        s.ball((0, 0.25, z - 0.14), (0.24, 0.2, 0.12), ENAMEL, SINK)
    return s


def potted_plant(rng: Generator, style: Style, size: float = 1.0) -> Sketch:
    """A pot with a crown of leaves; about `size` metres high."""
    s, r = Sketch(PLANT), 0.17 * size
    pot = pick(rng, ((0.7, 0.36, 0.22), (0.85, 0.83, 0.8), (0.3, 0.3, 0.32)))
    green = pick(rng, ((0.13, 0.36, 0.12), (0.22, 0.45, 0.14), (0.1, 0.3, 0.17)))
    s.cylinder((0, 0.3 * size), r * 0.85, (0, 0.26 * size), Material(pot, gloss=0.1))
    s.cylinder((0, 0.3 * size), r, (0.24 * size, 0.32 * size), Material(pot, gloss=0.1))
    s.cylinder((0, 0.3 * size), r * 0.85, (0.32 * size, 0.322 * size), Material((0.15, 0.1, 0.07)))
    s.cylinder((0, 0.3 * size), 0.02 * size, (0.3 * size, 0.6 * size), Material((0.3, 0.25, 0.12)), UNCERTAIN)
    for _ in range(int(rng.integers(9, 15))):
        angle, out, z = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.2) * size, rng.uniform(0.48, 0.92) * size
        leaf = Material(shade(green, rng.uniform(0.75, 1.4)), shade(green, 0.45), Pattern.LEAVES)
        half = rng.uniform(0.07, 0.14, 3) * size
        s.ball((out * np.cos(angle), 0.3 * size + out * np.sin(angle), z), tuple(half), leaf)
    return s


def vase(rng: Generator, style: Style) -> Sketch:
    s, r, h = Sketch(VASE), rng.uniform(0.07, 0.11), rng.uniform(0.2, 0.34)
    colour = pick(rng, VASES)
    glaze = Material(colour, shade(colour, 0.6), Pattern.RINGS if rng.random() < 0.4 else Pattern.PLAIN, gloss=0.6)
    s.cylinder((0, 0.12), r * 0.6, (0, 0.02), glaze)
    s.ball((0, 0.12, h * 0.42), (r, r, h * 0.42), glaze)
    s.cylinder((0, 0.12), r * 0.42, (h * 0.7, h), glaze)
    s.cylinder((0, 0.12), r * 0.62, (h - 0.015, h), glaze)
    if rng.random() < 0.4:
        for _ in range(4):
            dx, dy = rng.uniform(-0.07, 0.07, 2)
            s.cylinder((dx / 2, 0.12 + dy / 2), 0.005, (h, h + 0.16), Material((0.2, 0.4, 0.15)), UNCERTAIN)
            s.ball((dx, 0.12 + dy, h + 0.17), 0.035, Material(pick(rng, ACCENTS)), UNCERTAIN)
    return s


def bottle(rng: Generator, style: Style) -> Sketch:
    s, r, h = Sketch(BOTTLE), rng.uniform(0.035, 0.05), rng.uniform(0.26, 0.34)
    glass = Material(pick(rng, BOTTLES), gloss=0.8)
    s.cylinder((0, 0.08), r, (0, h * 0.6), glass)
    s.ball((0, 0.08, h * 0.6), (r, r, r * 1.2), glass)
    s.cylinder((0, 0.08), r * 0.36, (h * 0.6, h), glass)
    s.cylinder((0, 0.08), r * 0.45, (h * 0.93, h + 0.01), Material(pick(rng, ACCENTS)))
    s.cylinder((0, 0.08), r * 1.02, (h * 0.2, h * 0.48), Material((0.9, 0.87, 0.78)))
    return s


def books(rng: Generator, style: Style, width: float = 0.25, flat: bool = True) -> Sketch:
    """A lying pile, or a standing row that fills `width`."""
    s = Sketch(BOOK)
    if flat:
        z = 0.0
        for _ in range(int(rng.integers(2, 6))):
            t, w, d = rng.uniform(0.02, 0.045), rng.uniform(0.09, 0.12), rng.uniform(0.13, 0.17)
            yaw = rng.normal(0, 0.2)
            cover = Material(pick(rng, BOOKS))
            s.box((-w, w), (0.16 - d, 0.16 + d), (z, z + t), cover, yaw=yaw)
            s.box(
                (-w + 0.01, w + 0.002),
                (0.163 - d, 0.157 + d + 0.004),
                (z + 0.004, z + t - 0.004),
                Material((0.88, 0.85, 0.76)),
                yaw=yaw,
            )
            z += t
        return s
    x = -width / 2
    while x < width / 2 - 0.03:
        t, h, d = rng.uniform(0.022, 0.055), rng.uniform(0.19, 0.27), rng.uniform(0.14, 0.18)
        if rng.random() < 0.92:
            s.box(
                (x, min(x + t, width / 2)),
                (0.02, 0.02 + d),
                (0, h),
                Material(pick(rng, BOOKS), (0.85, 0.75, 0.4), Pattern.SPINE),
            )
        x += t + 0.002
    return s


def clock(rng: Generator, style: Style) -> Sketch:
    """Hung on a wall: the origin is its middle."""
    s, r = Sketch(CLOCK), rng.uniform(0.14, 0.22)
    rim = (DARK, style.wood, Material((0.6, 0.15, 0.12)), METAL)[rng.integers(4)]
    s.disc((0, 0.02, 0), r, 0.04, rim)
    s.disc((0, 0.0225, 0), r * 0.88, 0.045, Material((0.93, 0.92, 0.88), (0.08, 0.08, 0.08), Pattern.DIAL))
    return s
