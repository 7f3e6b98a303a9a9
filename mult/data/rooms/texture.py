"""Procedural textures: a material is two colours, a pattern that mixes them, and a gloss.

Patterns are functions of surface coordinates in metres, vectorised over pixels. Details finer than a pixel on the surface fade
to their mean, as an antialiased photograph of them would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Pattern(IntEnum):
    (
        PLAIN,
        FABRIC,
        WOOD,
        PLANKS,
        TILES,
        STRIPES,
        CHECKS,
        RUG,
        PICTURE,
        SCREEN,
        LEAVES,
        DIAL,
        MARBLE,
        SPINE,
        RINGS,
        BRUSHED,
        SKY,
    ) = range(17)


@dataclass(frozen=True)
class Material:
    """Colours are sRGB in [0, 1]; `scale` is the pattern's period in metres; `gloss` the strength of highlights."""

    colour: tuple[float, float, float]
    second_colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pattern: Pattern = Pattern.PLAIN
    scale: float = 0.1
    gloss: float = 0.05


@dataclass(frozen=True)
class Surface:
    """P pixels with one pattern, all (P,).

    Position (u, v) in metres, and as (across, up) in [-1, 1] over the face; `pixel`, the width of a pixel on the surface in
    metres; `scale` of the material; `seed` in [0, 1), a number of the solid.
    """

    u: Array
    v: Array
    across: Array
    up: Array
    pixel: Array
    scale: Array
    seed: Array


@lru_cache(maxsize=1)
def _noise_table() -> Array:
    """(256, 256) tileable fractal noise, mean 0, in [-1, 1]."""
    rng = np.random.default_rng(7)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)) * 256
    spectrum = np.fft.fft2(rng.standard_normal((256, 256))) * np.where(frequency > 0, 1 / np.maximum(frequency, 3) ** 1.3, 0)
    table = np.fft.ifft2(spectrum).real
    return np.clip(table / table.std() / 2.5, -1, 1).astype(np.float32)


def noise(x: Array, y: Array) -> Array:
    """Smooth noise of period 1 in x and y, finest detail 1/256, in [-1, 1]."""
    table = _noise_table()
    x, y = x * 256, y * 256
    left, top = np.floor(x), np.floor(y)
    fx, fy = x - left, y - top
    j, i = left.astype(np.int32) & 255, top.astype(np.int32) & 255
    j1, i1 = (j + 1) & 255, (i + 1) & 255
    above = table[i, j] * (1 - fx) + table[i, j1] * fx
    below = table[i1, j] * (1 - fx) + table[i1, j1] * fx
    return above * (1 - fy) + below * fy


def _random(cell: Array, other: Array, seed: Array) -> Array:
    """A hash in [0, 1) of every grid cell and seed."""
    mixed = cell.astype(np.int64) * 374761393 + other.astype(np.int64) * 668265263 + (seed * 1e6).astype(np.int64) * 2147483647
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed ^ (mixed >> 16)) & 0xFFFF).astype(np.float32) / 65536


def _fade(s: Surface, detail_m: float) -> Array:
    """1 where a detail of this size is at least a pixel wide, towards 0 where it is finer."""
    return np.clip(detail_m / s.pixel, 0, 1)


def _line(distance: Array, width_m: float, s: Surface) -> Array:
    """The part of a pixel that a line of this width covers, whose middle is `distance` metres away."""
    return np.clip((width_m / 2 + s.pixel / 2 - np.abs(distance)) / s.pixel, 0, np.minimum(1, width_m / s.pixel))


def _step(signed: Array, s: Surface) -> Array:
    """0 to 1 over a pixel where `signed`, in metres, passes 0."""
    return np.clip(signed / s.pixel + 0.5, 0, 1)


# Patterns: Surface -> (part of the second colour in the mixture, factor on the mixture).


def _plain(s: Surface) -> tuple[Array, Array]:
    return np.zeros_like(s.u), 1 + 0.05 * noise(s.u * 0.4 + s.seed, s.v * 0.4)


def _fabric(s: Surface) -> tuple[Array, Array]:
    weave = noise(s.u * 3 + s.seed, s.v * 3) + noise(s.v * 7, s.u * 7 + s.seed) * _fade(s, 0.02)
    return np.clip(0.4 + 0.5 * noise(s.u + s.seed, s.v), 0, 1), 1 + 0.13 * weave * _fade(s, 0.03)


def _grain(u: Array, v: Array, s: Surface) -> Array:
    rings = noise(u * 0.12 + s.seed * 7, v * 1.1)
    fine = noise(u * 0.3, v * 6 + s.seed) * _fade(s, 0.006)
    return np.clip(0.45 + 0.5 * rings + 0.25 * fine, 0, 1)


def _wood(s: Surface) -> tuple[Array, Array]:
    return _grain(s.u, s.v, s), np.ones_like(s.u)


def _planks(s: Surface) -> tuple[Array, Array]:
    row = np.floor(s.v / s.scale)
    along = s.u / (s.scale * 8) + _random(row, row, s.seed)
    board = np.floor(along)
    tone = _random(row, board, s.seed)
    edge = (s.v / s.scale - row - 0.5) * s.scale
    end = (along - board - 0.5) * s.scale * 8
    gap = np.maximum(_line(s.scale / 2 - np.abs(edge), 0.007, s), _line(s.scale * 4 - np.abs(end), 0.007, s))
    return _grain(s.u + tone * 9, s.v, s), (0.8 + 0.36 * tone) * (1 - 0.6 * gap)


def _tiles(s: Surface) -> tuple[Array, Array]:
    column, row = np.floor(s.u / s.scale), np.floor(s.v / s.scale)
    tone = _random(column, row, s.seed)
    x, y = (s.u / s.scale - column - 0.5) * s.scale, (s.v / s.scale - row - 0.5) * s.scale
    grout = np.maximum(_line(s.scale / 2 - np.abs(x), 0.012, s), _line(s.scale / 2 - np.abs(y), 0.012, s))
    return grout, 0.94 + 0.1 * tone + 0.05 * noise(s.u * 0.7 + tone, s.v * 0.7)


def _wave(x: Array, s: Surface) -> Array:
    """A square wave of 0 and 1 with the period `scale`; its mean where it is finer than pixels."""
    phase = np.abs((x / s.scale) % 1 - 0.5) - 0.25
    resolved = np.clip(s.scale / s.pixel / 3, 0, 1)
    return 0.5 + (_step(phase * s.scale, s) - 0.5) * resolved


def _stripes(s: Surface) -> tuple[Array, Array]:
    return _wave(s.u, s), 1 + 0.04 * noise(s.u + s.seed, s.v)


def _checks(s: Surface) -> tuple[Array, Array]:
    return 0.5 * (_wave(s.u, s) + _wave(s.v, s)), 1 + 0.08 * noise(s.u * 3 + s.seed, s.v * 3) * _fade(s, 0.03)


def _rug(s: Surface) -> tuple[Array, Array]:
    edge = np.maximum(np.abs(s.across), np.abs(s.up))
    border = ((edge > 0.8) & (edge < 0.88)) | (edge > 0.95)
    diamond = np.abs((s.u / s.scale / 4) % 1 - 0.5) + np.abs((s.v / s.scale / 4) % 1 - 0.5)
    inside = (edge < 0.76) & (np.abs(diamond - 0.4 - 0.3 * (s.seed - 0.5)) < 0.13) & (s.seed < 0.7)
    return (border | inside).astype(np.float32) * 0.85, 1 + 0.16 * noise(s.u * 5 + s.seed, s.v * 5) * _fade(s, 0.03)


def _picture(s: Surface) -> tuple[Array, Array]:
    hills = 0.25 * noise(s.across * 0.11 + s.seed, s.seed) + 0.5 * (s.seed - 0.6)
    far = 0.2 * noise(s.across * 0.07 + 3 * s.seed, 2 * s.seed) + 0.15 + 0.4 * (s.seed - 0.5)
    land, ridge = s.up < hills, s.up < far
    sun = np.hypot(s.across - 1.2 * (s.seed * 7 % 1 - 0.5), s.up - 0.6) < 0.17
    mix = np.where(land, 1.0, np.where(ridge, 0.6, np.where(sun, 0.35, 0.12 * (1 - s.up)))).astype(np.float32)
    return mix, 1.0 + np.where(sun & ~land & ~ridge, 0.35, 0) + 0.2 * noise(s.across * 0.3 + s.seed, s.up * 0.3)


def _screen(s: Surface) -> tuple[Array, Array]:
    return np.clip(0.5 * (s.up * 0.6 + s.across * 0.5 + 0.2), 0, 1), np.ones_like(s.u)


def _leaves(s: Surface) -> tuple[Array, Array]:
    return np.clip(0.4 + 1.1 * noise(s.u * 1.7 + s.seed * 5, s.v * 1.7), 0, 1), 1 + 0.3 * noise(s.u * 4, s.v * 4 + s.seed)


def _dial(s: Surface) -> tuple[Array, Array]:
    """A clock's dial on the cap of a disc: twelve ticks and two hands."""
    x, y, unit = s.across, s.up, np.hypot(s.u, s.v) / np.maximum(np.hypot(s.across, s.up), 1e-6)
    radius, angle = np.hypot(x, y), np.arctan2(x, y)
    nearest = (angle / (np.pi / 6) + 0.5) % 1 - 0.5
    ticks = _line(nearest * np.pi / 6 * radius * unit, 0.012, s) * ((radius > 0.76) & (radius < 0.93))
    for turn, length in ((s.seed, 0.45), (s.seed * 12 % 1, 0.68)):
        hx, hy = np.sin(2 * np.pi * turn), np.cos(2 * np.pi * turn)
        along = x * hx + y * hy
        ticks = np.maximum(ticks, _line((x * hy - y * hx) * unit, 0.014, s) * ((along > -0.1) & (along < length)))
    return ticks.astype(np.float32), np.ones_like(s.u)


def _marble(s: Surface) -> tuple[Array, Array]:
    veins = 1 - np.minimum(1, np.abs(noise(s.u * 0.5 + s.seed, s.v * 0.5)) * 9)
    return np.clip(0.3 + 0.3 * noise(s.u * 4, s.v * 4) * _fade(s, 0.02) + 0.5 * veins, 0, 1), np.ones_like(s.u)


def _spine(s: Surface) -> tuple[Array, Array]:
    band = (np.abs(s.up - 0.6) < 0.06) | (np.abs(s.up + 0.3 + 0.4 * s.seed) < 0.12 * (s.seed > 0.4))
    return band * 0.8 * _fade(s, 0.01), np.ones_like(s.u)


def _rings(s: Surface) -> tuple[Array, Array]:
    return (np.abs(((np.hypot(s.across, s.up) + s.up) * 2.5) % 1 - 0.5) < 0.17).astype(np.float32) * 0.9, np.ones_like(s.u)


def _brushed(s: Surface) -> tuple[Array, Array]:
    return np.clip(0.5 + 0.5 * noise(s.u * 0.2 + s.seed, s.v * 5), 0, 1), 1 + 0.06 * s.up


PATTERNS: dict[Pattern, Callable[[Surface], tuple[Array, Array]]] = {
    Pattern.PLAIN: _plain,
    Pattern.FABRIC: _fabric,
    Pattern.WOOD: _wood,
    Pattern.PLANKS: _planks,
    Pattern.TILES: _tiles,
    Pattern.STRIPES: _stripes,
    Pattern.CHECKS: _checks,
    Pattern.RUG: _rug,
    Pattern.PICTURE: _picture,
    Pattern.SCREEN: _screen,
    Pattern.LEAVES: _leaves,
    Pattern.DIAL: _dial,
    Pattern.MARBLE: _marble,
    Pattern.SPINE: _spine,
    Pattern.RINGS: _rings,
    Pattern.BRUSHED: _brushed,
    Pattern.SKY: _plain,
}
