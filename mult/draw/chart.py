"""Charts as inline SVG. Text and axes take the page's colours, so that they can be read on light and on dark pages.

The colours of lines are Okabe and Ito's, which people with any colour vision tell apart; each has a dash pattern of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from mult.draw.colours import Array
from mult.errors import UserError

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("", "6 3", "2 2", "8 3 2 3", "4 4", "1 3")
WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 70, 10, 10, 34
MAX_POINTS = 300


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name, x and y (N,); NaN in y leaves a gap.

    steps: y are the heights of bars that reach from each x to the next, and x has one value more. band: the low and high ends
    (N,) of an area around the line. place: the number of its name in the legend (`draw_key`), which sets colour and dashes; a
    chart may lack some of the lines in the legend.
    """

    name: str
    x: Array
    y: Array
    steps: bool = False
    band: tuple[Array, Array] | None = None
    place: int = 0


def thin(x: Array, y: Array, limit: int = MAX_POINTS) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """Means of x and of y over `limit` runs of neighbours, and the lowest and highest y of each; None if all points fit."""
    if len(x) <= limit:
        return x, y, None
    parts = np.array_split(np.arange(len(x)), limit)
    means = [np.array([values[part].mean() for part in parts]) for values in (x, y)]
    return means[0], means[1], tuple(np.array([end(y[part]) for part in parts]) for end in (np.min, np.max))  # type: ignore[return-value]


def place_ticks(low: float, high: float, limit: int = 5) -> list[float]:
    """Two to `limit` round numbers from low to high, at steps of 1, 2 or 5 times a power of ten: one alone gives no scale."""
    rough = (high - low) / (limit - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    places = range(0)
    for step in (10 * power, 5 * power, 2 * power, power):  # a step below `rough` too, where the steps above leave one tick
        if len(places) > 1 and step < rough * (1 - 1e-9):
            break
        places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        ticks = [round(k * step, 12) for k in places]
    return ticks


def draw_chart(title: str, across: str, up: str, lines: Sequence[Line], levels: Sequence[tuple[str, float]] = ()) -> str:
    """An SVG of lines; across and up: the names of the axes; levels: (name, y) of horizontal dotted lines.

    Screen readers read the title. Points that are not finite are left out. Raises UserError where no point is left.
    """
    xs = np.concatenate([line.x for line in lines]) if lines else np.zeros(0)
    heights = [line.y for line in lines] + [end for line in lines for end in line.band or ()]
    ys = np.concatenate([*heights, np.array([level for _, level in levels])]) if heights else np.zeros(0)
    xs, ys = xs[np.isfinite(xs)], ys[np.isfinite(ys)]
    if not len(xs) or not len(ys):
        raise UserError(f"chart: got no point of {title}; expected at least one; leave the chart out")
    if any(line.steps for line in lines):
        ys = np.append(ys, 0)
    frame = _Frame(*_find_range(xs), *_find_range(ys))
    parts = [frame.axes(across, up)]
    for name, level in levels:
        ((_, y),) = frame.place([frame.left], [level])
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{y - 3:.1f}" text-anchor="end">{escape(name)}</text>')
    for line in lines:
        colour, dash = _choose_style(line.place)
        if line.band is not None:
            around = [*frame.place(line.x, line.band[0]), *reversed(frame.place(line.x, line.band[1]))]
            parts.append(f'<polygon points="{_format_points(around)}" fill="{colour}" opacity="0.2"/>')
        across_all, up_all = (np.repeat(line.x, 2)[1:-1], np.repeat(line.y, 2)) if line.steps else (line.x, line.y)
        finite = np.isfinite(up_all)
        for stretch in np.split(np.arange(len(up_all)), np.flatnonzero(np.diff(finite.astype(int))) + 1):
            if len(stretch) and finite[stretch[0]]:
                points = frame.place(across_all[stretch], up_all[stretch])
                style = f'stroke="{colour}" stroke-dasharray="{dash}"'
                if len(points) == 1:
                    parts.append(f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5" fill="{colour}"/>')
                parts.append(
                    f'<polyline points="{_format_points(points)}" {style}><title>{escape(line.name)}</title></polyline>'
                )
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg class="chart" role="img" aria-label="{escape(title)}" {size}>{"".join(parts)}</svg>'


def draw_key(names: Sequence[str]) -> str:
    """The legend of lines with these names: small SVGs and their texts, as HTML."""
    entries = []
    for place, name in enumerate(names):
        colour, dash = _choose_style(place)
        line = f'<line x1="0" x2="28" y1="5" y2="5" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        entries.append(f'<span><svg width="28" height="10" aria-hidden="true">{line}</svg> {escape(name)}</span>')
    return f'<p class="key">{" ".join(entries)}</p>'


def _choose_style(place: int) -> tuple[str, str]:
    """The colour and the dash pattern of a line; 36 differ."""
    return LINES[place % len(LINES)], DASHES[(place + place // len(LINES)) % len(DASHES)]


@dataclass(frozen=True)
class _Frame:
    """The values at the ends of the two axes."""

    left: float
    right: float
    bottom: float
    top: float

    def place(self, x: Sequence[float] | Array, y: Sequence[float] | Array) -> list[tuple[float, float]]:
        """Values -> points of the picture."""
        across = (np.asarray(x, float) - self.left) / (self.right - self.left)
        down = (self.top - np.asarray(y, float)) / (self.top - self.bottom)
        points = LEFT + across * (WIDTH - LEFT - RIGHT), TOP + down * (HEIGHT - TOP - BOTTOM)
        return list(zip(points[0].tolist(), points[1].tolist(), strict=True))

    def axes(self, across: str, up: str) -> str:
        parts, floor = [], HEIGHT - BOTTOM
        for tick in place_ticks(self.bottom, self.top):
            ((_, y),) = self.place([self.left], [tick])
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        for tick in place_ticks(self.left, self.right):
            ((x, _),) = self.place([tick], [self.bottom])
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 3}"/>')
            parts.append(f'<text x="{x:.1f}" y="{floor + 14}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
        parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(across)}</text>')
        middle = (TOP + floor) / 2
        turned = f'transform="rotate(-90 10 {middle})"'
        parts.append(f'<text x="10" y="{middle}" text-anchor="middle" {turned}>{escape(up)}</text>')
        return "".join(parts)


def _find_range(values: Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def _format_points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
