"""Things that lie around: on the floor boxes, baskets, balls, cushions and books, on furniture mugs, bowls, packs and lamps."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from mult.data.rooms.parts import ACCENTS, BOOKS, FABRICS, VASES, WHITE, WOODS, Colour, Shape, pick_colour, scale_colour
from mult.data.rooms.room import Room
from mult.data.rooms.small_objects import build_books
from mult.data.rooms.texture import Material, Pattern

PATTERNS = (Pattern.PLAIN, Pattern.FABRIC, Pattern.STRIPES, Pattern.CHECKS)


def add_clutter(room: Room) -> None:
    """Lay up to six things on the floor and up to eight on furniture, where there is room."""
    rng = room.rng
    for _ in range(int(rng.integers(0, 7))):
        thing = build_books(rng, room.style) if rng.random() < 0.2 else _build_floor_thing(rng)
        room.place(thing, wall=rng.random() < 0.5, gap=rng.uniform(0.03, 0.3), tries=8)
    room.place_on_supports([_build_small_thing(rng) for _ in range(int(rng.integers(0, 9)))])


def _pick_material(rng: Generator, colours: tuple[Colour, ...]) -> Material:
    colour = pick_colour(rng, colours, spread=0.15)
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
    return Material(colour, scale_colour(colour, rng.uniform(0.5, 1.5)), pattern, rng.uniform(0.03, 0.12), rng.uniform(0, 0.2))


def _build_floor_thing(rng: Generator) -> Shape:
    s, yaw = Shape(), rng.uniform(-0.6, 0.6)
    w, d, h = rng.uniform(0.1, 0.22), rng.uniform(0.1, 0.2), rng.uniform(0.1, 0.35)
    match int(rng.integers(4)):
        case 0:  # a box
            s.box((-w, w), (0.05, 0.05 + 2 * d), (0, h), _pick_material(rng, (*WOODS, *ACCENTS)), yaw=yaw)
        case 1:  # a basket with a cloth in it
            s.cylinder((0, 0.25), w, (0, h), _pick_material(rng, (*WOODS, *FABRICS)))
            s.ball((0, 0.25, h), (0.9 * w, 0.9 * w, 0.06), _pick_material(rng, (*FABRICS, WHITE)))
        case 2:
            s.ball((0, 0.25, 0.6 * w), 0.6 * w, _pick_material(rng, ACCENTS))
        case _:  # a cushion
            s.ball((0, 0.3, 0.09), (1.3 * w, 1.2 * d, 0.09), _pick_material(rng, (*ACCENTS, *FABRICS)))
    return s


def _build_small_thing(rng: Generator) -> Shape:
    s, r, h = Shape(), rng.uniform(0.035, 0.08), rng.uniform(0.05, 0.14)
    match int(rng.integers(4)):
        case 0:  # a mug with its handle
            mug = _pick_material(rng, (*VASES, WHITE))
            s.cylinder((0, 0.12), 0.04, (0, 0.095), mug)
            s.box((0.035, 0.06), (0.113, 0.127), (0.02, 0.075), mug)
        case 1:  # a bowl of fruit
            s.cylinder((0, 0.15), r, (0, 0.03), _pick_material(rng, (*WOODS, *VASES)))
            for angle in np.arange(3) * 2.1 + rng.uniform(0, 2):
                fruit = Material(pick_colour(rng, ((0.8, 0.2, 0.12), (0.9, 0.6, 0.1), (0.5, 0.65, 0.15))), gloss=0.2)
                s.ball((0.5 * r * np.cos(angle), 0.15 + 0.5 * r * np.sin(angle), 0.055), 0.034, fruit)
        case 2:  # a box or a pack
            s.box((-r, r), (0.1, 0.1 + r), (0, h), _pick_material(rng, (*BOOKS, *ACCENTS)), yaw=rng.uniform(-0.5, 0.5))
        case _:  # a table lamp
            s.cylinder((0, 0.14), 0.06, (0, 0.015), Material((0.3, 0.3, 0.32), gloss=0.3))
            s.cylinder((0, 0.14), 0.012, (0.015, 0.2), Material((0.3, 0.3, 0.32), gloss=0.3))
            s.cylinder((0, 0.14), 0.09, (0.2, 0.34), _pick_material(rng, (WHITE, *FABRICS)))
    return s
