"""What furniture is drawn with: parts with a material and a class code of data.md, palettes, and the style of a building.

A `Sketch` is drawn in the object's own frame: x to the right, y away from the wall it stands at, z up; the origin is
on the floor at the middle of its back. Sizes are in metres, colours sRGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mult.data.rooms.raycast import BALL, BOX, CYLINDER
from mult.data.rooms.texture import Material, Pattern

UNCERTAIN, BACKGROUND, BOTTLE, CHAIR, COUCH, PLANT, BED, TABLE, TOILET, TV = range(10)
MICROWAVE, OVEN, TOASTER, SINK, FRIDGE, BOOK, CLOCK, VASE = range(10, 18)

Pair = tuple[float, float]
Colour = tuple[float, float, float]

WHITE, STEEL, BLACK = (0.93, 0.93, 0.91), (0.66, 0.68, 0.7), (0.05, 0.05, 0.06)
ENAMEL = Material(WHITE, gloss=0.35)
METAL = Material(STEEL, (0.75, 0.77, 0.79), Pattern.BRUSHED, gloss=0.5)
DARK = Material(BLACK, gloss=0.4)
GLASS = Material(WHITE, pattern=Pattern.SKY)


@dataclass(frozen=True)
class Part:
    """One solid of an object: `solid` is BOX, CYLINDER or BALL of raycast.py; `axes` has the local axes as rows."""

    solid: int
    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    axes: NDArray[np.float64]
    material: Material
    code: int


@dataclass(frozen=True)
class Top:
    """A level rectangle that small things may stand on, in the frame of its sketch."""

    x: Pair
    y: Pair
    z: float


@dataclass(frozen=True)
class Style:
    """The choices that a building's objects share."""

    wood: Material
    paint: Material
    fabric: Material
    accent: Material
    stone: Material
    appliance: Material
    chair: Material


@dataclass
class Sketch:
    """A drawing in progress: parts get `code` unless told otherwise."""

    code: int = BACKGROUND
    parts: list[Part] = field(default_factory=list)
    tops: list[Top] = field(default_factory=list)

    def add(
        self,
        solid: int,
        centre: Sequence[float],
        half: Sequence[float],
        material: Material,
        code: int | None = None,
        yaw: float = 0,
    ) -> None:
        cosine, sine = np.cos(yaw), np.sin(yaw)
        axes = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
        code = self.code if code is None else code
        self.parts.append(Part(solid, np.array(centre, float), np.array(half, float), axes, material, code))

    def box(self, x: Pair, y: Pair, z: Pair, material: Material, code: int | None = None, yaw: float = 0) -> None:
        low, high = np.transpose([x, y, z])
        self.add(BOX, (low + high) / 2, (high - low) / 2, material, code, yaw)

    def cylinder(self, at: Pair, radius: float | Pair, z: Pair, material: Material, code: int | None = None) -> None:
        rx, ry = radius if isinstance(radius, tuple) else (radius, radius)
        self.add(CYLINDER, (*at, (z[0] + z[1]) / 2), (rx, ry, (z[1] - z[0]) / 2), material, code)

    def ball(self, centre: Sequence[float], half: float | Sequence[float], material: Material, code: int | None = None) -> None:
        self.add(BALL, centre, (half,) * 3 if isinstance(half, float) else half, material, code)

    def disc(
        self, centre: Sequence[float], radius: float, thickness: float, material: Material, code: int | None = None
    ) -> None:
        """A flat cylinder that faces away from the wall."""
        code = self.code if code is None else code
        axes = np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
        half = np.array([radius, radius, thickness / 2])
        self.parts.append(Part(CYLINDER, np.array(centre, float), half, axes, material, code))

    def join(self, other: Sketch, at: Sequence[float]) -> None:
        """Draw another object at a place of this one's frame."""
        shift = np.array(at, float)
        self.parts += [replace(part, centre=part.centre + shift) for part in other.parts]
        for top in other.tops:
            x, y = (top.x[0] + at[0], top.x[1] + at[0]), (top.y[0] + at[1], top.y[1] + at[1])
            self.tops.append(Top(x, y, top.z + at[2]))

    def legs(self, x: Pair, y: Pair, height: float, thickness: float, material: Material) -> None:
        for left in (x[0], x[1] - thickness):
            for back in (y[0], y[1] - thickness):
                self.box((left, left + thickness), (back, back + thickness), (0, height), material)


def shade(colour: Sequence[float], factor: float) -> Colour:
    red, green, blue = (min(1.0, c * factor) for c in colour)
    return red, green, blue


def pick(rng: Generator, colours: Sequence[Colour], spread: float = 0.05) -> Colour:
    """One of the colours, varied a little."""
    chosen = np.clip(
        np.array(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.9, 1.1) + rng.normal(0, spread / 2, 3), 0.02, 1
    )
    return float(chosen[0]), float(chosen[1]), float(chosen[2])


WOODS: tuple[Colour, ...] = ((0.62, 0.43, 0.25), (0.45, 0.28, 0.16), (0.75, 0.58, 0.38), (0.3, 0.19, 0.12), (0.55, 0.33, 0.18))
FABRICS: tuple[Colour, ...] = (
    (0.35, 0.38, 0.45),
    (0.55, 0.5, 0.42),
    (0.45, 0.2, 0.18),
    (0.25, 0.35, 0.33),
    (0.3, 0.27, 0.25),
    (0.6, 0.58, 0.55),
)
ACCENTS: tuple[Colour, ...] = (
    (0.75, 0.3, 0.2),
    (0.2, 0.4, 0.65),
    (0.85, 0.65, 0.2),
    (0.3, 0.55, 0.4),
    (0.6, 0.35, 0.55),
    (0.85, 0.82, 0.75),
)
PAINTS: tuple[Colour, ...] = ((0.92, 0.91, 0.88), (0.85, 0.82, 0.75), (0.4, 0.48, 0.45), (0.35, 0.42, 0.52), (0.7, 0.72, 0.72))
STONES: tuple[Colour, ...] = ((0.25, 0.25, 0.27), (0.82, 0.8, 0.77), (0.5, 0.46, 0.42), (0.14, 0.14, 0.15))
BOOKS: tuple[Colour, ...] = (
    (0.6, 0.15, 0.15),
    (0.15, 0.25, 0.5),
    (0.15, 0.4, 0.25),
    (0.75, 0.6, 0.25),
    (0.85, 0.82, 0.75),
    (0.3, 0.15, 0.3),
    (0.12, 0.12, 0.14),
)
VASES: tuple[Colour, ...] = ((0.2, 0.4, 0.7), (0.8, 0.45, 0.2), (0.85, 0.85, 0.88), (0.15, 0.5, 0.5), (0.6, 0.15, 0.2))
BOTTLES: tuple[Colour, ...] = ((0.08, 0.28, 0.12), (0.3, 0.15, 0.05), (0.1, 0.25, 0.3), (0.25, 0.35, 0.1))


def style(rng: Generator) -> Style:
    wood = pick(rng, WOODS)
    cloth, stone = pick(rng, FABRICS), pick(rng, STONES)
    oak = Material(wood, shade(wood, 0.72), Pattern.WOOD, gloss=0.12)
    return Style(
        wood=oak,
        paint=Material(pick(rng, PAINTS), gloss=0.1) if rng.random() < 0.6 else oak,
        fabric=Material(cloth, shade(cloth, 0.8), Pattern.FABRIC),
        accent=Material(
            pick(rng, ACCENTS), pick(rng, ACCENTS), Pattern(rng.choice([Pattern.FABRIC, Pattern.CHECKS, Pattern.STRIPES])), 0.12
        ),
        stone=Material(stone, shade(stone, 1.35), Pattern.MARBLE, gloss=0.3),
        appliance=ENAMEL if rng.random() < 0.5 else METAL,
        chair=oak if rng.random() < 0.6 else Material(pick(rng, ((0.15, 0.15, 0.16), (0.85, 0.83, 0.8), *FABRICS)), gloss=0.15),
    )
