"""Objects that stand on furniture or hang on walls, and plants, as in furniture.py."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from mult.data.rooms.parts import (
    ACCENTS,
    BOOK,
    BOOKS,
    BOTTLE,
    BOTTLES,
    CLOCK,
    DARK,
    METAL,
    PLANT,
    UNCERTAIN,
    VASE,
    VASES,
    Shape,
    Style,
    pick_colour,
    scale_colour,
)
from mult.data.rooms.texture import Material, Pattern


def build_potted_plant(rng: Generator, style: Style, size: float = 1.0) -> Shape:
    """A plant with its pot, about `size` metres high."""
    s, r = Shape(PLANT), 0.17 * size
    pot = pick_colour(rng, ((0.7, 0.36, 0.22), (0.85, 0.83, 0.8), (0.3, 0.3, 0.32)))
    green = pick_colour(rng, ((0.13, 0.36, 0.12), (0.22, 0.45, 0.14), (0.1, 0.3, 0.17)))
    s.cylinder((0, 0.3 * size), r * 0.85, (0, 0.26 * size), Material(pot, gloss=0.1))
    s.cylinder((0, 0.3 * size), r, (0.24 * size, 0.32 * size), Material(pot, gloss=0.1))
    s.cylinder((0, 0.3 * size), r * 0.85, (0.32 * size, 0.322 * size), Material((0.15, 0.1, 0.07)))
    s.cylinder((0, 0.3 * size), 0.02 * size, (0.3 * size, 0.6 * size), Material((0.3, 0.25, 0.12)), UNCERTAIN)
    for _ in range(int(rng.integers(9, 15))):
        angle, out, z = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.2) * size, rng.uniform(0.48, 0.92) * size
        leaf = Material(scale_colour(green, rng.uniform(0.75, 1.4)), scale_colour(green, 0.45), Pattern.LEAVES)
        half = rng.uniform(0.07, 0.14, 3) * size
        s.ball((out * np.cos(angle), 0.3 * size + out * np.sin(angle), z), tuple(half), leaf)
    return s


def build_vase(rng: Generator, style: Style) -> Shape:
    s, r, h = Shape(VASE), rng.uniform(0.07, 0.11), rng.uniform(0.2, 0.34)
    colour = pick_colour(rng, VASES)
    glaze = Material(colour, scale_colour(colour, 0.6), Pattern.RINGS if rng.random() < 0.4 else Pattern.PLAIN, gloss=0.6)
    s.cylinder((0, 0.12), r * 0.6, (0, 0.02), glaze)
    s.ball((0, 0.12, h * 0.42), (r, r, h * 0.42), glaze)
    s.cylinder((0, 0.12), r * 0.42, (h * 0.7, h), glaze)
    s.cylinder((0, 0.12), r * 0.62, (h - 0.015, h), glaze)
    if rng.random() < 0.4:
        for _ in range(4):
            dx, dy = rng.uniform(-0.07, 0.07, 2)
            s.cylinder((dx / 2, 0.12 + dy / 2), 0.005, (h, h + 0.16), Material((0.2, 0.4, 0.15)), UNCERTAIN)
            s.ball((dx, 0.12 + dy, h + 0.17), 0.035, Material(pick_colour(rng, ACCENTS)), UNCERTAIN)
    return s


def build_bottle(rng: Generator, style: Style) -> Shape:
    s, r, h = Shape(BOTTLE), rng.uniform(0.035, 0.05), rng.uniform(0.26, 0.34)
    glass = Material(pick_colour(rng, BOTTLES), gloss=0.8)
    s.cylinder((0, 0.08), r, (0, h * 0.6), glass)
    s.ball((0, 0.08, h * 0.6), (r, r, r * 1.2), glass)
    s.cylinder((0, 0.08), r * 0.36, (h * 0.6, h), glass)
    s.cylinder((0, 0.08), r * 0.45, (h * 0.93, h + 0.01), Material(pick_colour(rng, ACCENTS)))
    s.cylinder((0, 0.08), r * 1.02, (h * 0.2, h * 0.48), Material((0.9, 0.87, 0.78)))
    return s


def build_books(rng: Generator, style: Style, width: float = 0.25, flat: bool = True) -> Shape:
    """A pile of lying books if `flat`, else a row of standing ones that is `width` metres long."""
    s = Shape(BOOK)
    if flat:
        z = 0.0
        for _ in range(int(rng.integers(2, 6))):
            t, w, d = rng.uniform(0.02, 0.045), rng.uniform(0.09, 0.12), rng.uniform(0.13, 0.17)
            yaw = rng.normal(0, 0.2)
            cover = Material(pick_colour(rng, BOOKS))
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
                Material(pick_colour(rng, BOOKS), (0.85, 0.75, 0.4), Pattern.SPINE),
            )
        x += t + 0.002
    return s


def build_clock(rng: Generator, style: Style) -> Shape:
    """A round clock to hang on a wall: the origin is its middle."""
    s, r = Shape(CLOCK), rng.uniform(0.14, 0.22)
    rim = (DARK, style.wood, Material((0.6, 0.15, 0.12)), METAL)[rng.integers(4)]
    s.disc((0, 0.02, 0), r, 0.04, rim)
    s.disc((0, 0.0225, 0), r * 0.88, 0.045, Material((0.93, 0.92, 0.88), (0.08, 0.08, 0.08), Pattern.DIAL))
    return s
