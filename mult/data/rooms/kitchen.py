"""Kitchen appliances and units, as in furniture.py."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from mult.data.rooms.furniture import add_basin, build_cabinet
from mult.data.rooms.parts import DARK, ENAMEL, FRIDGE, METAL, MICROWAVE, OVEN, TOASTER, Shape, Style, SupportSurface
from mult.data.rooms.raycast import BALL, CYLINDER
from mult.data.rooms.texture import Material, Pattern


def build_refrigerator(rng: Generator, style: Style) -> Shape:
    s, w, h, d = Shape(FRIDGE), rng.uniform(0.3, 0.42), rng.uniform(1.65, 1.95), rng.uniform(0.6, 0.7)
    split = h * rng.uniform(0.32, 0.68)
    s.box((-w, w), (0.02, d - 0.05), (0.03, h), style.appliance)
    s.box((-w + 0.03, w - 0.03), (0.06, d - 0.08), (0, 0.03), DARK)
    for z in ((0.05, split - 0.006), (split + 0.006, h)):
        s.box((-w, w), (d - 0.045, d), z, style.appliance)
        middle = max(z[0] + 0.08, z[1] - 0.5) if z[0] < 0.1 else z[0] + 0.06
        s.box((-w + 0.05, -w + 0.08), (d, d + 0.04), (middle, min(z[1] - 0.05, middle + 0.4)), METAL)
    return s


def build_oven(rng: Generator, style: Style) -> Shape:
    s, w, d, h = Shape(OVEN), 0.3, 0.62, 0.9
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


def build_microwave(rng: Generator, style: Style) -> Shape:
    s, w, h, d = Shape(MICROWAVE), rng.uniform(0.23, 0.27), rng.uniform(0.27, 0.32), 0.36
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


def build_toaster(rng: Generator, style: Style) -> Shape:
    s = Shape(TOASTER)
    body = (METAL, Material((0.75, 0.12, 0.1), gloss=0.5), Material((0.9, 0.85, 0.7), gloss=0.4))[rng.integers(3)]
    s.box((-0.16, 0.16), (0.05, 0.25), (0.02, 0.2), body)
    s.add(BALL, (0, 0.15, 0.19), (0.16, 0.1, 0.035), body)
    s.box((-0.14, 0.14), (0.07, 0.23), (0, 0.02), DARK)
    for y in (0.11, 0.17):
        s.box((-0.12, 0.12), (y, y + 0.025), (0.2, 0.228), DARK)
    s.box((0.16, 0.18), (0.13, 0.17), (0.12, 0.145), DARK)
    s.cylinder((0.165, 0.15), 0.02, (0.05, 0.08), DARK)
    return s


def build_counter(rng: Generator, style: Style, width: float) -> Shape:
    s = build_cabinet(style, width, 0.6, 0.88, 1 if width < 0.7 else 2, drawers=rng.random() < 0.4)
    s.box((-width / 2, width / 2), (0, 0.63), (0.88, 0.92), style.stone)
    s.supports[0] = SupportSurface((-width / 2 + 0.03, width / 2 - 0.03), (0.06, 0.5), 0.92)
    return s


def build_sink_unit(rng: Generator, style: Style, width: float) -> Shape:
    s = build_cabinet(style, width, 0.6, 0.74, 2)
    s.supports.clear()
    w, z = width / 2, (0.88, 0.92)
    x, y = (-0.28, 0.28), (0.14, 0.53)
    for side in ((-w, x[0]), (x[1], w)):
        s.box(side, (0, 0.63), z, style.stone)
    for side in ((0.0, y[0]), (y[1], 0.63)):
        s.box(x, side, z, style.stone)
    s.box((-w, w), (0.57, 0.6), (0.74, 0.88), style.paint)
    add_basin(s, x, y, z[1], 0.16, METAL)
    return s


def build_kitchen_row(rng: Generator, style: Style, units: list[str]) -> Shape:
    """Units side by side, with cabinets on the wall above some of them; `units`: fridge, oven, sink or counter."""
    widths = [
        {"fridge": 0.88, "oven": 0.6, "sink": rng.uniform(0.75, 0.95), "counter": rng.uniform(0.66, 0.9)}[unit]
        for unit in units
    ]
    row, x = Shape(), -sum(widths) / 2
    for unit, width in zip(units, widths, strict=True):
        if unit == "fridge":
            row.join(build_refrigerator(rng, style), (x + width / 2, 0, 0))
        elif unit == "oven":
            row.join(build_oven(rng, style), (x + width / 2, 0, 0))
        else:
            row.join((build_sink_unit if unit == "sink" else build_counter)(rng, style, width), (x + width / 2, 0, 0))
            if rng.random() < 0.7:
                row.box((x, x + width - 0.006), (0, 0.34), (1.45, 2.1), style.paint)
                row.box((x + width - 0.1, x + width - 0.085), (0.34, 0.355), (1.5, 1.65), METAL)
        x += width
    return row
