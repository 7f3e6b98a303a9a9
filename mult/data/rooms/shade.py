"""The light that comes from every pixel's surface towards the camera: colours, lamps, the window, and the light between them.

Lamps and the window cast shadows. The rest is ambient light, and one bounce from the walls, the floor and the ceiling in their
colours, both darker in corners, under and around objects. The colours are not physical.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mult.data.rooms.raycast import BALL, CYLINDER, SHELL, Hits, PosedCamera, face_axes, trace_shadows
from mult.data.rooms.scene import Scene
from mult.data.rooms.texture import PATTERNS, Pattern, Surface, noise

Float = NDArray[np.float32]
Light = tuple[NDArray[np.float64], Float, NDArray[np.float64] | None]
"""Position, colour (3, 1), and of a window the direction into the room."""


def compute_radiance(scene: Scene, camera: PosedCamera, hits: Hits, glass: NDArray[np.bool_], rng: Generator) -> Float:
    """Radiance (3, H, W) towards the camera; its typical value is 0.3, whatever the lamps' strength."""
    x, y = camera.rays()
    ray = np.stack([*np.broadcast_arrays(x, y[:, None]), np.ones(camera.size)]).reshape(3, -1)
    offset_m = _rotate(camera.rotation.T, ray * hits.depth.ravel())
    point = (offset_m + camera.position[:, None]).astype(np.float32)
    to_camera = (-offset_m / np.sqrt((offset_m * offset_m).sum(0))).astype(np.float32)
    normal = _rotate(camera.rotation.T, hits.normal.reshape(3, -1)).astype(np.float32)
    facing = np.clip((to_camera * normal).sum(0), 0, 1)
    pixel = hits.depth.ravel() / camera.intrinsics[0] / np.maximum(facing, 0.15)
    albedo, gloss = _compute_albedo(scene, hits, normal, pixel.astype(np.float32))

    sources = list(_light_sources(scene, rng))
    light = _compute_ambient(scene, sources, point, normal)
    light *= 1 - rng.uniform(0.5, 0.8) * _compute_occlusion(point.reshape(3, *camera.size), normal.reshape(3, *camera.size))
    shine = np.zeros_like(light)
    # What is behind an open door has no lamp of its own, and those of the room do not shine around the corner.
    behind_door = ((scene.solids.kind == SHELL) & (np.arange(len(scene.materials)) > 0))[hits.index.ravel()]
    light[:, behind_door] *= rng.uniform(0.25, 1.0)
    for position, colour, direction in sources:
        offset = position.astype(np.float32)[:, None] - point
        square = (offset * offset).sum(0)
        unit = offset / np.sqrt(square)
        cosine = np.maximum((unit * normal).sum(0), 0)
        falloff = _fall_off(unit, square, direction)
        lit_side = np.flatnonzero((cosine > 0) & ~behind_door)
        visibility = np.zeros_like(cosine)
        visibility[lit_side] = trace_shadows(scene.solids, _find_shadow_casters(scene), position, point[:, lit_side])
        light += colour * (cosine * falloff * visibility)
        halfway = unit + to_camera
        halfway /= np.sqrt((halfway * halfway).sum(0))
        shine += colour * (np.maximum((halfway * normal).sum(0), 0) ** 40 * visibility * gloss * falloff * 1.5)
    # At a grazing angle a glossy surface mirrors the bright room.
    radiance = albedo * light + shine + 0.4 * gloss * (1 - facing) ** 4

    through = glass.ravel()
    radiance *= 0.3 / np.exp(np.log(radiance.mean(0)[~through] + 0.02).mean())
    radiance[:, through] = _render_outdoors(-to_camera[:, through], rng)
    return radiance.reshape(3, *camera.size).astype(np.float32)


def _fall_off(unit: Float, square: Float, direction: NDArray[np.float64] | None) -> Float:
    """The part of a light that arrives (P,), from its direction `unit` (3, P) and the squared distance (P,)."""
    falloff: Float = 1 / (square + np.float32(1.2))
    if direction is not None:
        falloff *= np.clip(-(unit * direction.astype(np.float32)[:, None]).sum(0), 0.05, 1)
    return falloff


def _rotate(rotation: NDArray[np.float64], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """rotation @ vectors without BLAS, whose rounding may depend on the number of threads."""
    return np.stack([row[0] * vectors[0] + row[1] * vectors[1] + row[2] * vectors[2] for row in rotation])


def _light_sources(scene: Scene, rng: Generator) -> Iterator[Light]:
    """(position, colour (3, 1), direction or None) of every lamp and of the window, their strengths at random."""
    lamp, window = rng.uniform(0.8, 2.4) / len(scene.lamps) ** 0.7, rng.uniform(1.5, 5.0)
    for position in scene.lamps:
        yield position, (lamp * np.array([[1.0], [0.92], [0.8]])).astype(np.float32), None
    middle, inwards = scene.window
    yield middle, (window * np.array([[0.9], [0.97], [1.08]])).astype(np.float32), inwards


def _find_shadow_casters(scene: Scene) -> NDArray[np.intp]:
    """The solids that cast shadows: not the shell, not those that lie flat on it, and none whose shadow is too small to see."""
    shortest, middle, longest = np.sort(scene.solids.half, axis=1).T
    return np.flatnonzero((scene.solids.kind != SHELL) & (shortest > 0.006) & (middle > 0.018) & (longest > 0.06))


def _compute_ambient(scene: Scene, sources: list[Light], point: Float, normal: Float) -> Float:
    """Light from all directions (3, P), a part of it thrown back by walls, floor and ceiling in their colours.

    There is less where walls meet, and on the floor under and around objects.
    """
    light = np.full_like(point, 0.24) * np.array([[0.97], [1.0], [1.05]], np.float32) * (1 + 0.2 * normal[2])
    corners = np.ones_like(point[0])
    for axis in range(3):
        for sign in (1, -1):
            distance = point[axis] if sign == 1 else scene.size[axis].astype(np.float32) - point[axis]
            towards = (1 - sign * normal[axis]) / 2  # 1 where the surface faces this side of the room
            light += _reflect(scene, sources, axis, sign) * (towards**2 / (1 + (np.maximum(distance, 0) / 1.5) ** 2))
            corners *= 1 - 0.4 * towards * np.exp(-np.maximum(distance, 0) / 0.3)
    floor = np.flatnonzero((point[2] < 0.03) & (normal[2] > 0.9))
    x, y = point[:2, floor]
    openness = np.ones_like(x)
    for x0, y0, x1, y1 in np.array(scene.footprints, np.float32).reshape(-1, 4):
        gap = np.hypot(np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(y0 - y, y - y1), 0))
        openness *= 1 - 0.5 * np.exp(-gap / 0.12)
    corners[floor] *= openness
    return light * corners


def _reflect(scene: Scene, sources: list[Light], axis: int, sign: int) -> Float:
    """The light (3, 1) that the side of the room whose normal is `sign` along `axis` throws back from its middle."""
    middle = scene.size / 2
    middle[axis] = 0 if sign == 1 else scene.size[axis]
    walls, floor, ceiling = scene.shell_materials
    material = walls if axis < 2 else floor if sign == 1 else ceiling
    colour = (np.array([material.colour, material.second_colour], np.float32) ** np.float32(2.2))[
        : 1 if material.pattern is Pattern.PLAIN else 2
    ].mean(0)[:, None]
    arriving = np.zeros((3, 1), np.float32)
    for position, strength, direction in sources:
        offset = (position - middle).astype(np.float32)[:, None]
        square = (offset * offset).sum(0)
        unit = offset / np.sqrt(square)
        arriving += strength * np.maximum(sign * unit[axis], 0.1) * _fall_off(unit, square, direction)
    return 0.9 * colour * arriving


REACH_M = 0.35
"""How far away a surface may be that takes ambient light from another."""


def _compute_occlusion(point: Float, normal: Float) -> Float:
    """How much of the ambient light (P,) the surfaces seen around each pixel take, in [0, 1]; both maps are (3, H, W)."""
    size = point.shape[1]
    total = np.zeros(point.shape[1:], np.float32)
    for step in (max(1, size // 80), max(2, size // 25)):
        for down, right in ((step, 0), (0, step), (step, step), (step, -step)):
            top, bottom = slice(None, size - down), slice(down, None)
            left, far = (
                (slice(None, size - right), slice(right, None)) if right >= 0 else (slice(-right, None), slice(None, right))
            )
            offset = point[:, bottom, far] - point[:, top, left]
            square = (offset * offset).sum(0) + np.float32(1e-6)
            near = np.maximum(1 - square / np.float32(REACH_M**2), 0) / np.sqrt(square)
            # How high the other point is above this one's surface, and this one above the other's.
            total[top, left] += np.maximum((offset * normal[:, top, left]).sum(0) * near - np.float32(0.1), 0)
            total[bottom, far] += np.maximum(-(offset * normal[:, bottom, far]).sum(0) * near - np.float32(0.1), 0)
    return np.minimum(total / 8, 1).ravel()


def _compute_albedo(scene: Scene, hits: Hits, normal: Float, pixel: Float) -> tuple[Float, Float]:
    """Linear colour (3, P) and gloss (P,) of every pixel's surface; `pixel` (P,) is the pixel's width on it in metres."""
    index, solids = hits.index.ravel(), scene.solids
    point = hits.point.reshape(3, -1).astype(np.float32)
    kind, half = solids.kind[index], solids.half[index].T.astype(np.float32)
    face = face_axes(kind, point)
    # The face's two axes, the upright one second. A curved side is unrolled to (arc length, height).
    first, second = np.array([1, 0, 0])[face], np.array([2, 2, 1])[face]
    across, up = np.take_along_axis(point, first[None], 0)[0], np.take_along_axis(point, second[None], 0)[0]
    u, v = across * np.take_along_axis(half, first[None], 0)[0], up * np.take_along_axis(half, second[None], 0)[0]
    unrolled = (kind == BALL) | ((kind == CYLINDER) & (face == 0))
    u = np.where(unrolled, np.arctan2(point[1], point[0]) * half[0], u)
    v = np.where(unrolled, point[2] * half[2], v)
    # The grain of wood runs along the longer side.
    upright = np.array([m.pattern is Pattern.WOOD for m in scene.materials])[index] & (
        np.take_along_axis(half, second[None], 0)[0] > np.take_along_axis(half, first[None], 0)[0]
    )
    u, v = np.where(upright, v, u), np.where(upright, u, v)

    table = [*scene.materials, *scene.shell_materials]
    shell = kind == SHELL
    surface = np.where(shell, len(scene.materials) + np.where(normal[2] > 0.9, 1, np.where(normal[2] < -0.9, 2, 0)), index)
    pattern = np.array([int(m.pattern) for m in table])[surface]
    colours = np.array([(m.colour, m.second_colour) for m in table], np.float32) ** np.float32(2.2)
    numbers = np.array([(m.scale, m.gloss) for m in table], np.float32)
    seeds = np.random.default_rng(len(scene.materials)).random(len(table)).astype(np.float32)
    albedo = np.empty((3, index.size), np.float32)
    for kind_of_pattern in np.unique(pattern):
        pixels = np.flatnonzero(pattern == kind_of_pattern)
        row = surface[pixels]
        surfaces = Surface(u[pixels], v[pixels], across[pixels], up[pixels], pixel[pixels], numbers[row, 0], seeds[row])
        mix, factor = PATTERNS[Pattern(kind_of_pattern)](surfaces)
        first_colour, second_colour = np.moveaxis(colours[row], 1, 0)
        albedo[:, pixels] = ((first_colour * (1 - mix[:, None]) + second_colour * mix[:, None]) * factor[:, None]).T
    return albedo, numbers[surface, 1]


def _render_outdoors(sight: Float, rng: Generator) -> Float:
    """Radiance (3, P) in the directions `sight` (3, P): a bright sky with clouds above trees."""
    turn, brightness = rng.uniform(0, 1), rng.uniform(0.9, 1.8)
    azimuth, height = np.arctan2(sight[1], sight[0]) / (2 * np.pi), sight[2]
    clouds = np.clip(0.5 + 1.2 * noise(azimuth * 2 + turn, height * 0.8), 0, 1)
    blue, white = np.array([[0.42], [0.62], [0.95]], np.float32), np.array([[1.0], [1.0], [1.0]], np.float32)
    sky = (blue * (1 - clouds) + white * clouds) * (0.8 + 0.4 * np.clip(1 - 2 * height, 0, 1))
    trees = np.array([[0.16], [0.23], [0.14]], np.float32) * (1 + 0.6 * noise(azimuth * 8 + turn, height * 5))
    line = -0.02 + 0.09 * noise(azimuth * 1.5 + turn, np.zeros_like(azimuth))
    return (np.where(height < line, trees, sky) * brightness).astype(np.float32)
