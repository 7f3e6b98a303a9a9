"""Furniture as boxes, cylinders and ellipsoids, a function an object.

Each takes the random generator and the building's `Style`: the objects of a building match, while a class has the same shapes
and ranges of colour in every building.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from mult.data.rooms.parts import (
    BACKGROUND,
    BED,
    CHAIR,
    COUCH,
    DARK,
    ENAMEL,
    METAL,
    SINK,
    TABLE,
    TOILET,
    TV,
    UNCERTAIN,
    Interval,
    Shape,
    Style,
    SupportSurface,
    scale_colour,
)
from mult.data.rooms.small_objects import build_books
from mult.data.rooms.texture import Material, Pattern


def build_chair(rng: Generator, style: Style) -> Shape:
    s, w, d, z = Shape(CHAIR), rng.uniform(0.2, 0.24), rng.uniform(0.4, 0.46), rng.uniform(0.43, 0.47)
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


def build_couch(rng: Generator, style: Style) -> Shape:
    s, seats = Shape(COUCH), int(rng.integers(2, 4))
    w, d, arm = seats * rng.uniform(0.31, 0.36), rng.uniform(0.85, 0.98), rng.uniform(0.14, 0.22)
    base = Material(scale_colour(style.fabric.colour, 0.85), style.fabric.second_colour, Pattern.FABRIC)
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


def build_bed(rng: Generator, style: Style) -> Shape:
    s, w, length = Shape(BED), rng.uniform(0.5, 0.9), rng.uniform(1.95, 2.1)
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


def build_dining_table(rng: Generator, style: Style) -> Shape:
    s, z = Shape(TABLE), rng.uniform(0.72, 0.78)
    if rng.random() < 0.3:
        r = rng.uniform(0.5, 0.65)
        s.cylinder((0, r), r, (z - 0.04, z), style.wood)
        s.cylinder((0, r), 0.06, (0.03, z - 0.04), style.wood)
        s.cylinder((0, r), 0.3, (0, 0.03), style.wood)
        s.supports.append(SupportSurface((-r * 0.65, r * 0.65), (r * 0.35, r * 1.65), z))
        return s
    w, d = rng.uniform(0.6, 0.95), rng.uniform(0.75, 0.95)
    s.box((-w, w), (0, d), (z - 0.04, z), style.wood)
    s.box((-w + 0.06, w - 0.06), (0.06, d - 0.06), (z - 0.12, z - 0.04), style.wood)
    s.legs((-w + 0.04, w - 0.04), (0.04, d - 0.04), z - 0.04, 0.07, style.wood)
    s.supports.append(SupportSurface((-w + 0.1, w - 0.1), (0.12, d - 0.12), z))
    return s


def build_low_table(rng: Generator, style: Style) -> Shape:
    s, w, d, z = Shape(), rng.uniform(0.4, 0.6), rng.uniform(0.45, 0.6), rng.uniform(0.36, 0.44)
    s.box((-w, w), (0, d), (z - 0.03, z), style.stone if rng.random() < 0.3 else style.wood)
    s.legs((-w + 0.03, w - 0.03), (0.03, d - 0.03), z - 0.03, 0.045, style.wood)
    s.supports.append(SupportSurface((-w + 0.06, w - 0.06), (0.08, d - 0.08), z))
    return s


def build_bookshelf(rng: Generator, style: Style) -> Shape:
    s, w, d, h = Shape(), rng.uniform(0.35, 0.6), 0.3, rng.uniform(1.5, 2.0)
    s.box((-w, w), (0, 0.015), (0, h), style.wood)
    for x in (-w, w - 0.025):
        s.box((x, x + 0.025), (0.015, d), (0, h), style.wood)
    levels = np.arange(0.06, h - 0.2, 0.36)
    for z in (*levels, h - 0.025):
        s.box((-w + 0.025, w - 0.025), (0.015, d), (z, z + 0.025), style.wood)
    for z in levels:
        if rng.random() < 0.78:
            width = (2 * w - 0.06) * rng.uniform(0.45, 1)
            row = build_books(rng, style, width, flat=False)
            s.join(row, (rng.uniform(-1, 1) * (w - 0.03 - width / 2), 0.08, z + 0.025))
        else:
            s.supports.append(SupportSurface((-w + 0.05, w - 0.05), (0.04, d - 0.01), z + 0.025))
    return s


def build_cabinet(style: Style, width: float, depth: float, height: float, doors: int, drawers: bool = False) -> Shape:
    s = Shape()
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
        s.supports.append(SupportSurface((-w + 0.05, w - 0.05), (0.03, depth - 0.03), height))
    return s


def build_television(rng: Generator, style: Style) -> Shape:
    """A screen with a foot; the origin is at its lower edge, for hanging too."""
    s, w = Shape(TV), rng.uniform(0.4, 0.72)
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


def build_toilet(rng: Generator, style: Style) -> Shape:
    s = Shape(TOILET)
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


def build_bathtub(rng: Generator, style: Style) -> Shape:
    s, w, d, z, t = Shape(), rng.uniform(0.75, 0.9), 0.75, 0.56, 0.06
    s.box((-w, w), (0, d), (0, 0.14), ENAMEL)
    for x in (-w, w - t):
        s.box((x, x + t), (0, d), (0.14, z), ENAMEL)
    for y in (0.0, d - t):
        s.box((-w + t, w - t), (y, y + t), (0.14, z), ENAMEL)
    s.box((-0.03, 0.03), (0.0, 0.16), (z + 0.1, z + 0.14), METAL)
    return s


def add_basin(s: Shape, x: Interval, y: Interval, z: float, depth: float, material: Material) -> None:
    """Add a rectangular open basin, its rim at height z, and a tap behind it."""
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


def build_washstand(rng: Generator, style: Style) -> Shape:
    """A bathroom sink: a white basin in a cabinet, or on a pedestal."""
    s, z = Shape(BACKGROUND), rng.uniform(0.8, 0.88)
    w, d = (rng.uniform(0.3, 0.5), 0.5) if rng.random() < 0.6 else (0.28, 0.46)
    inner = ((-0.22, 0.22), (0.13, d - 0.05))
    for x in ((-w, inner[0][0]), (inner[0][1], w)):
        s.box(x, (0, d), (z - 0.05, z), ENAMEL, SINK)
    for y in ((0.0, inner[1][0]), (inner[1][1], d)):
        s.box(inner[0], y, (z - 0.05, z), ENAMEL, SINK)
    add_basin(s, *inner, z, 0.14, ENAMEL)
    if w > 0.29:
        s.box((-w + 0.02, w - 0.02), (0, d - 0.02), (0.08, z - 0.17), style.paint)
        s.box((-w + 0.02, w - 0.02), (d - 0.035, d - 0.02), (z - 0.17, z - 0.05), style.paint)
        for left in (-w + 0.02, w - 0.035):
            s.box((left, left + 0.015), (0, d - 0.035), (z - 0.17, z - 0.05), style.paint)
        s.box((-0.004, 0.004), (d - 0.02, d - 0.016), (0.1, z - 0.18), DARK)
        s.supports.append(SupportSurface((-w + 0.04, inner[0][0] - 0.02), (0.12, d - 0.12), z))
    else:
        s.cylinder((0, 0.22), 0.1, (0, z - 0.15), ENAMEL, SINK)
        s.ball((0, 0.25, z - 0.14), (0.24, 0.2, 0.12), ENAMEL, SINK)
    return s


def build_mirror(rng: Generator) -> Shape:
    s, w = Shape(), rng.uniform(0.25, 0.4)
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
