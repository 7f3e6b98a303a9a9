"""What a camera sees of a map, against rooms whose depths are known in closed form and a walk in small steps along each ray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mult.data.cocodoom.doom_map import CEILING, FLOOR, WALL, DoomMap, UprightCamera

Array = NDArray[Any]
FX, FY, CX, CY = INTRINSICS = (20.0, 26.0, 14.5, 9.0)
SIZE = (20, 30)
SLOPE_X = (np.arange(SIZE[1]) - CX)[None] / FX
SLOPE_Y = (np.arange(SIZE[0]) - CY)[:, None] / FY


def outline(points: list[tuple[float, float]], through: tuple[int, ...] = ()) -> list[Any]:
    """The lines around a sector; those numbered in `through` do not block."""
    ends = [*points[1:], points[0]]
    return [(*a, *b, number not in through) for number, (a, b) in enumerate(zip(points, ends, strict=True))]


# A hall, x from 0 to 100 and y from -40 to 60, opens along all of x = 100 into a niche that reaches to x = 150; its floor is
# 20 higher and its ceiling 30 lower.
HALL = (0.0, 100.0, outline([(0, -40), (100, -40), (100, 60), (0, 60)], through=(1,)))
NICHE = (20.0, 70.0, outline([(100, 60), (100, -40), (150, -40), (150, 60)], through=(0,)))
LEVEL = DoomMap.from_sectors([HALL, NICHE])
EAST = UprightCamera(10, 5, 41, 0, INTRINSICS, SIZE)


def test_a_line_of_two_sectors_lies_between_them() -> None:
    assert LEVEL.lines.shape == (7, 4)
    assert sorted(map(tuple, LEVEL.sides.tolist())).count((0, 1)) == 1
    assert (LEVEL.sides[:, 1] == -1).sum() == 6


@pytest.mark.parametrize(("place", "expected"), [((50, 0), 0), ((99, 59), 0), ((101, 0), 1), ((-1, 0), None), ((50, 61), None)])
def test_sector_around_a_point(place: tuple[float, float], expected: int | None) -> None:
    assert LEVEL.sector_at(*place) == expected


def test_step_and_lintel_are_walls_and_what_is_between_is_seen_through() -> None:
    """Along the axis: the hall ends at 90, the niche at 140. The camera's z is 41: its floor is 41 below, the step's top 21."""
    depth, kind = LEVEL.trace(EAST, 0)
    column = 14
    for row in range(SIZE[0]):
        fall = float(SLOPE_Y[row, 0])
        if fall > 41 / 90:
            expected, what = 41 / fall, FLOOR
        elif fall > 21 / 90:
            expected, what = 90.0, WALL  # the step
        elif fall > 21 / 140:
            expected, what = 21 / fall, FLOOR
        elif fall > -29 / 140:
            expected, what = 140.0, WALL  # the niche's end
        elif fall > -29 / 90:
            expected, what = 29 / -fall, CEILING
        elif fall > -59 / 90:
            expected, what = 90.0, WALL  # the lintel
        else:
            expected, what = 59 / -fall, CEILING
        assert depth[row, column] == pytest.approx(expected), row
        assert kind[row, column] == what, row
    assert {FLOOR, CEILING, WALL} == set(kind[:, column])


def test_right_of_the_picture_is_right_of_the_camera() -> None:
    """Looking east, right is south: the wall at y = -40 is 45 from the camera, the one at y = 60 on the left 55."""
    depth, kind = LEVEL.trace(EAST, 0)
    assert kind[9, 29] == WALL
    assert depth[9, 29] == pytest.approx(45 / SLOPE_X[0, 29])
    assert depth[9, 0] == pytest.approx(55 / -SLOPE_X[0, 0])
    north, _ = LEVEL.trace(UprightCamera(10, 5, 41, 90, INTRINSICS, SIZE), 0)
    assert north[9, 14] == pytest.approx(55)
    assert north[9, 0] == pytest.approx(10 / -SLOPE_X[0, 0])  # the wall at x = 0


def ray(
    level: list[Any], camera: UprightCamera, row: int, column: int, step: float = 0.05, far: float = 260.0
) -> tuple[float, int]:
    """March along one ray until it is below a floor, above a ceiling or outside every sector."""
    fx, fy, cx, cy = camera.intrinsics
    angle = np.radians(camera.angle_deg)
    t = np.arange(step, far, step)
    across = t * (column - cx) / fx
    x = camera.x + t * np.cos(angle) + across * np.sin(angle)
    y = camera.y + t * np.sin(angle) - across * np.cos(angle)
    z = camera.z - t * (row - cy) / fy
    floor, ceiling, inside = np.full(len(t), np.inf), np.full(len(t), -np.inf), np.zeros(len(t), np.bool_)
    for low, high, lines in level:
        odd = np.zeros(len(t), np.bool_)
        for x1, y1, x2, y2, _ in lines:
            if y1 != y2:
                odd ^= ((y1 > y) != (y2 > y)) & (x1 + (y - y1) * (x2 - x1) / (y2 - y1) > x)
        floor[odd], ceiling[odd], inside[odd] = low, high, True
    stop = int(np.argmax(~inside | (z < floor) | (z > ceiling)))
    before = max(stop - 1, 0)
    if not inside[stop] or floor[stop] != floor[before] or ceiling[stop] != ceiling[before]:
        return float(t[stop]), WALL
    return float(t[stop]), FLOOR if z[stop] < floor[stop] else CEILING


# Slanted, concave, with a pillar of rock, a block that stands on the floor, and a line within one sector.
WILD: list[tuple[float, float, list[Any]]] = [
    (-10.0, 90.0, outline([(0, 0), (130, 20), (160, 110), (70, 140), (-20, 90)], through=(1,))),
    (5.0, 60.0, outline([(160, 110), (130, 20), (210, 40), (230, 120)], through=(0,))),
    (25.0, 90.0, outline([(60, 80), (80, 85), (75, 105), (55, 100)], through=(0, 1, 2, 3))),
]
WILD[0][2].extend([(80, 85, 60, 80, False), (75, 105, 80, 85, False), (55, 100, 75, 105, False), (60, 80, 55, 100, False)])
PILLAR = outline([(100, 60), (100, 70), (110, 72), (112, 61)])
WILD[0][2].extend(PILLAR)
INNER = [(20, 40, 30, 90, False)]


@pytest.mark.parametrize(("x", "y", "angle"), [(20, 30, 35), (60, 20, 80), (10, 80, -20), (180, 80, 190)])
def test_every_pixel_is_where_a_march_along_its_ray_stops(x: float, y: float, angle: float) -> None:
    level = DoomMap.from_sectors([(*WILD[0][:2], [*WILD[0][2], *INNER]), *WILD[1:]])
    sector = level.sector_at(x, y)
    assert sector is not None
    camera = UprightCamera(x, y, 31.3, angle, INTRINSICS, SIZE)
    depth, kind = level.trace(camera, sector)
    misses = 0
    for row in range(0, SIZE[0], 3):
        for column in range(0, SIZE[1], 3):
            expected, what = ray(WILD, camera, row, column)
            good = abs(depth[row, column] - expected) < 0.06 and kind[row, column] == what
            misses += not good
    assert misses <= 1  # a ray that grazes an edge
    assert len(np.unique(kind)) >= 2


def test_where_the_map_ends_there_is_nothing() -> None:
    """A sector whose east side is missing: rays that leave it there meet nothing."""
    open_hall = DoomMap.from_sectors([(0.0, 100.0, [line for line in HALL[2] if line[0] != 100 or line[2] != 100])])
    depth, kind = open_hall.trace(EAST, 0)
    assert np.isinf(depth[9, 14])
    assert kind[9, 14] == 0
    assert np.isfinite(depth[9, 29])
