"""What objects are made of: solids with a material and a class, the colours to pick from, and the style of a building.

A `Shape` is in the object's own frame: x to the right, y away from the wall that it stands at, z up; the origin is on the floor
in the middle of its back. Lengths are in metres, colours sRGB in [0, 1].
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
"""Class codes as in Taskonomy's files: 0 is uncertain, class ids are one less."""

Interval = tuple[float, float]
"""From, to."""
Colour = tuple[float, float, float]

WHITE, STEEL, BLACK = (0.93, 0.93, 0.91), (0.66, 0.68, 0.7), (0.05, 0.05, 0.06)
ENAMEL = Material(WHITE, gloss=0.35)
METAL = Material(STEEL, (0.75, 0.77, 0.79), Pattern.BRUSHED, gloss=0.5)
DARK = Material(BLACK, gloss=0.4)
GLASS = Material(WHITE, pattern=Pattern.SKY)


@dataclass(frozen=True)
class Part:
    """One solid of an object: its kind, one of raycast.py, centre, half extents, and axes as rows."""

    kind: int
    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    axes: NDArray[np.float64]
    material: Material
    class_code: int


@dataclass(frozen=True)
class SupportSurface:
    """A level rectangle that small objects may stand on, in the frame of its shape."""

    x: Interval
    y: Interval
    z: float


@dataclass(frozen=True)
class Style:
    """The materials that the objects of a building share."""

    wood: Material
    paint: Material
    fabric: Material
    accent: Material
    stone: Material
    appliance: Material
    chair: Material


@dataclass
class Shape:
    """The parts of one object, to which the methods add; a part is of the class `class_code` unless it is given another."""

    class_code: int = BACKGROUND
    parts: list[Part] = field(default_factory=list)
    supports: list[SupportSurface] = field(default_factory=list)

    def add(
        self,
        kind: int,
        centre: Sequence[float],
        half: Sequence[float],
        material: Material,
        class_code: int | None = None,
        yaw: float = 0,
    ) -> None:
        cosine, sine = np.cos(yaw), np.sin(yaw)
        axes = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
        class_code = self.class_code if class_code is None else class_code
        self.parts.append(Part(kind, np.array(centre, float), np.array(half, float), axes, material, class_code))

    def box(
        self, x: Interval, y: Interval, z: Interval, material: Material, class_code: int | None = None, yaw: float = 0
    ) -> None:
        low, high = np.transpose([x, y, z])
        self.add(BOX, (low + high) / 2, (high - low) / 2, material, class_code, yaw)

    def cylinder(
        self,
        at: tuple[float, float],
        radius: float | tuple[float, float],
        z: Interval,
        material: Material,
        class_code: int | None = None,
    ) -> None:
        """An upright cylinder; a pair of radii makes it elliptic."""
        rx, ry = radius if isinstance(radius, tuple) else (radius, radius)
        self.add(CYLINDER, (*at, (z[0] + z[1]) / 2), (rx, ry, (z[1] - z[0]) / 2), material, class_code)

    def ball(
        self, centre: Sequence[float], half: float | Sequence[float], material: Material, class_code: int | None = None
    ) -> None:
        self.add(BALL, centre, (half,) * 3 if isinstance(half, float) else half, material, class_code)

    def disc(
        self, centre: Sequence[float], radius: float, thickness: float, material: Material, class_code: int | None = None
    ) -> None:
        """A flat cylinder that faces away from the wall."""
        class_code = self.class_code if class_code is None else class_code
        axes = np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
        half = np.array([radius, radius, thickness / 2])
        self.parts.append(Part(CYLINDER, np.array(centre, float), half, axes, material, class_code))

    def join(self, other: Shape, at: Sequence[float]) -> None:
        """Add another object, its origin at `at` of this one's frame."""
        offset = np.array(at, float)
        self.parts += [replace(part, centre=part.centre + offset) for part in other.parts]
        for support in other.supports:
            x, y = (support.x[0] + at[0], support.x[1] + at[0]), (support.y[0] + at[1], support.y[1] + at[1])
            self.supports.append(SupportSurface(x, y, support.z + at[2]))

    def legs(self, x: Interval, y: Interval, height: float, thickness: float, material: Material) -> None:
        """Four legs in the corners of a rectangle."""
        for left in (x[0], x[1] - thickness):
            for back in (y[0], y[1] - thickness):
                self.box((left, left + thickness), (back, back + thickness), (0, height), material)


def scale_colour(colour: Sequence[float], factor: float) -> Colour:
    red, green, blue = (min(1.0, c * factor) for c in colour)
    return red, green, blue


def pick_colour(rng: Generator, colours: Sequence[Colour], spread: float = 0.05) -> Colour:
    """One of the colours, its brightness varied by up to 10 % and each channel by Gaussian noise."""
    colour = np.clip(
        np.array(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.9, 1.1) + rng.normal(0, spread / 2, 3), 0.02, 1
    )
    return float(colour[0]), float(colour[1]), float(colour[2])


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


def pick_style(rng: Generator) -> Style:
    wood = pick_colour(rng, WOODS)
    cloth, stone = pick_colour(rng, FABRICS), pick_colour(rng, STONES)
    oak = Material(wood, scale_colour(wood, 0.72), Pattern.WOOD, gloss=0.12)
    return Style(
        wood=oak,
        paint=Material(pick_colour(rng, PAINTS), gloss=0.1) if rng.random() < 0.6 else oak,
        fabric=Material(cloth, scale_colour(cloth, 0.8), Pattern.FABRIC),
        accent=Material(
            pick_colour(rng, ACCENTS),
            pick_colour(rng, ACCENTS),
            Pattern(rng.choice([Pattern.FABRIC, Pattern.CHECKS, Pattern.STRIPES])),
            0.12,
        ),
        stone=Material(stone, scale_colour(stone, 1.35), Pattern.MARBLE, gloss=0.3),
        appliance=ENAMEL if rng.random() < 0.5 else METAL,
        chair=oak
        if rng.random() < 0.6
        else Material(pick_colour(rng, ((0.15, 0.15, 0.16), (0.85, 0.83, 0.8), *FABRICS)), gloss=0.15),
    )
