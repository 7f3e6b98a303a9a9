"""From a furnished room to a view: where the camera stands, what light falls on what it sees, and the picture it takes.

Light is an ambient term darkened in the room's corners and around whatever stands on the floor, soft lamps under the
ceiling and the window, both with shadows. Geometry and codes are exact; only the colours are made up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mult.data.rooms.parts import BACKGROUND, UNCERTAIN
from mult.data.rooms.raycast import BALL, CYLINDER, SHELL, Camera, Hits, Solids, cast, faces, lit, visible
from mult.data.rooms.room import Scene
from mult.data.rooms.texture import PATTERNS, Pattern, Surface, noise

Float = NDArray[np.float32]

CAMERA_HEIGHTS_M = ((1.05, 1.3), (1.45, 1.8))
"""Sitting and standing."""
PROBE = 24
"""Pixels on a side of the small view that judges a camera."""
CLEAR_M = 0.3
"""No camera is nearer to a thing than this, nor sees one nearer."""


@dataclass(frozen=True)
class View:
    """image (H, W, 3) sRGB; depth_m (H, W) along z; normal (3, H, W) in the camera frame; code (H, W) of data.md.

    Where valid (H, W) is False, there is no geometry, and depth and normal mean nothing.
    """

    image: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    normal: NDArray[np.float32]
    code: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    intrinsics: tuple[float, float, float, float]


def view(scene: Scene, rng: Generator, size: int) -> View:
    """One square view of `size` pixels; everything random about it comes from `rng`."""
    camera = choose_camera(scene, rng, size)
    hits = cast(scene.solids, camera)
    glass: NDArray[np.bool_] = np.array([material.pattern is Pattern.SKY for material in scene.materials])[hits.index]
    image = shade(scene, camera, hits, glass, rng)
    return View(
        image=image,
        depth_m=hits.depth.astype(np.float32),
        normal=hits.normal.astype(np.float32),
        code=scene.code[hits.index],
        valid=~glass,
        intrinsics=camera.intrinsics,
    )


def look(position: NDArray[np.float64], target: NDArray[np.float64], roll: float) -> NDArray[np.float64]:
    """The rotation (3, 3), axes as rows, of a camera that looks at a target, turned by `roll` about the line of sight."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cosine, sine = np.cos(roll), np.sin(roll)
    return np.array([cosine * right + sine * down, cosine * down - sine * right, forward])


def choose_camera(scene: Scene, rng: Generator, size: int) -> Camera:
    """The first of 40 random cameras clear of everything that sees enough; failing that the best of them.

    Each looks at a thing of a class drawn uniformly from those in the room, so that rare and small classes are seen as well.
    """
    solids, code = scene.solids, scene.code
    things = np.unique(code[code > BACKGROUND])
    judged: list[tuple[float, Camera]] = []
    for _ in range(1000):
        target = solids.centre[rng.choice(np.flatnonzero(code == rng.choice(things)))] + rng.normal(0, (0.3, 0.3, 0.2))
        height_m = rng.uniform(*CAMERA_HEIGHTS_M[int(rng.integers(len(CAMERA_HEIGHTS_M)))])
        reach_m = rng.uniform(0.8, 2.2) if rng.random() < 0.35 else rng.uniform(1.6, 6.0)
        offset = rng.uniform(CLEAR_M, scene.size[:2] - CLEAR_M) - target[:2]
        away_m = float(np.hypot(*offset))
        offset *= min(reach_m / away_m, 1)
        away_m = min(reach_m, away_m)
        pitch = np.clip(np.arctan2(target[2] - height_m, away_m), -0.65, 0.3) + np.radians(rng.normal(0, 4))
        roll, half_fov = np.radians(rng.normal(0, 3)), np.radians(rng.uniform(23, 42))
        position = np.array([*(target[:2] + offset), height_m])
        if away_m < 0.5 or not _is_clear(solids, position):
            continue
        rotation = look(position, np.array([*target[:2], height_m + np.tan(pitch) * away_m]), roll)
        merit = _merit(scene, Camera(position, rotation, _intrinsics(PROBE, half_fov), (PROBE, PROBE)))
        judged.append((merit, Camera(position, rotation, _intrinsics(size, half_fov), (size, size))))
        if merit >= 1 or len(judged) == 40:
            break
    assert judged, "every room has a free place to stand"
    return max(judged, key=lambda pair: pair[0])[1]


def _intrinsics(size: int, half_fov: float) -> tuple[float, float, float, float]:
    focal = size / 2 / float(np.tan(half_fov))
    return focal, focal, (size - 1) / 2, (size - 1) / 2


def _is_clear(solids: Solids, position: NDArray[np.float64]) -> bool:
    local = np.abs(np.einsum("nij,nj->ni", solids.axes, position - solids.centre))
    gap = np.where((solids.kind == SHELL)[:, None], solids.half - local, local - solids.half)
    outside = np.where(solids.kind == SHELL, gap.min(1), gap.max(1))
    return bool((outside > CLEAR_M).all())


def _merit(scene: Scene, probe: Camera) -> float:
    """1 or more for a camera to take: three things in sight, at most 70 % bare building, nothing in front of the lens."""
    index, depth = visible(scene.solids, probe)
    code, count = scene.code[index], np.bincount(scene.object[index].ravel())
    things = len(np.unique(scene.object[index][code > BACKGROUND]))
    bare = count[0] / index.size
    near = (depth < 0.5).mean()
    window = (code == UNCERTAIN).mean()
    return float(min(things / 3, 1) * min(0.3 / max(bare - 0.4, 0.1), 1) * (near < 0.05) * (window < 0.4))


def shade(scene: Scene, camera: Camera, hits: Hits, glass: NDArray[np.bool_], rng: Generator) -> NDArray[np.uint8]:
    """The picture, sRGB uint8 (H, W, 3)."""
    x, y = camera.rays()
    ray = np.stack([*np.broadcast_arrays(x, y[:, None]), np.ones(camera.size)]).reshape(3, -1)
    way = _turn(camera.rotation.T, ray * hits.depth.ravel())
    point = (way + camera.position[:, None]).astype(np.float32)
    towards = (-way / np.sqrt((way * way).sum(0))).astype(np.float32)
    normal = _turn(camera.rotation.T, hits.normal.reshape(3, -1)).astype(np.float32)
    facing = np.clip((towards * normal).sum(0), 0, 1)
    pixel = hits.depth.ravel() / camera.intrinsics[0] / np.maximum(facing, 0.15)
    albedo, gloss = _albedo(scene, hits, normal, pixel.astype(np.float32))

    light = _ambient(scene, point, normal)
    shine = np.zeros_like(light)
    for position, colour, direction in _sources(scene, rng):
        offset = position.astype(np.float32)[:, None] - point
        square = (offset * offset).sum(0)
        unit = offset / np.sqrt(square)
        cosine = np.maximum((unit * normal).sum(0), 0)
        fall = 1 / (square + 1.2)
        if direction is not None:
            fall *= np.clip(-(unit * direction.astype(np.float32)[:, None]).sum(0), 0.05, 1)
        lit_side = np.flatnonzero(cosine > 0)
        free = np.zeros_like(cosine)
        free[lit_side] = lit(scene.solids, _casters(scene), position, point[:, lit_side])
        light += colour * (cosine * fall * free)
        halfway = unit + towards
        halfway /= np.sqrt((halfway * halfway).sum(0))
        shine += colour * (np.maximum((halfway * normal).sum(0), 0) ** 40 * free * gloss * fall * 1.5)
    # At a grazing angle a glossy surface mirrors the bright room.
    radiance = albedo * light + shine + 0.4 * gloss * (1 - facing) ** 4

    through = glass.ravel()
    exposure = 0.3 * rng.uniform(0.8, 1.25) / np.exp(np.log(radiance.mean(0)[~through] + 0.02).mean())
    radiance *= exposure * (1 + rng.normal(0, 0.03, (3, 1)).astype(np.float32))
    radiance[:, through] = _outdoors(-towards[:, through], rng)
    picture = _soften(radiance.reshape(3, *camera.size))
    picture = (picture * 1.3 / (1 + 0.5 * picture)) ** np.float32(1 / 2.2)
    picture += rng.normal(0, 1, picture.shape).astype(np.float32) * np.float32(rng.uniform(0.003, 0.012))
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def _turn(rotation: NDArray[np.float64], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """rotation @ vectors, without BLAS: its bits may depend on the number of threads."""
    return np.stack([row[0] * vectors[0] + row[1] * vectors[1] + row[2] * vectors[2] for row in rotation])


def _sources(scene: Scene, rng: Generator) -> Iterator[tuple[NDArray[np.float64], Float, NDArray[np.float64] | None]]:
    """(position, colour (3, 1), direction or None) of every lamp and of the window."""
    lamp, window = rng.uniform(0.8, 2.4) / len(scene.lamps) ** 0.7, rng.uniform(1.5, 5.0)
    for position in scene.lamps:
        yield position, (lamp * np.array([[1.0], [0.92], [0.8]])).astype(np.float32), None
    middle, inwards = scene.window
    yield middle, (window * np.array([[0.9], [0.97], [1.08]])).astype(np.float32), inwards


def _casters(scene: Scene) -> NDArray[np.intp]:
    """The solids that cast shadows: not the shell, not what lies flat on it and not what is too small to see."""
    thin, middling, long = np.sort(scene.solids.half, axis=1).T
    return np.flatnonzero((scene.solids.kind != SHELL) & (thin > 0.006) & (middling > 0.018) & (long > 0.06))


def _ambient(scene: Scene, point: Float, normal: Float) -> Float:
    """Light from everywhere (3, P): less where walls meet, and on the floor around and under what stands there."""
    light = 0.5 + 0.1 * normal[2]
    for axis in range(3):
        for sign, distance in ((1, point[axis]), (-1, scene.size[axis].astype(np.float32) - point[axis])):
            light *= 1 - 0.4 * (1 - sign * normal[axis]) / 2 * np.exp(-np.maximum(distance, 0) / 0.3)
    floor = np.flatnonzero((point[2] < 0.03) & (normal[2] > 0.9))
    x, y = point[:2, floor]
    open_sky = np.ones_like(x)
    for x0, y0, x1, y1 in np.array(scene.footprints, np.float32).reshape(-1, 4):
        gap = np.hypot(np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(y0 - y, y - y1), 0))
        open_sky *= 1 - 0.5 * np.exp(-gap / 0.12)
    light[floor] *= open_sky
    return light * np.array([[0.42], [0.43], [0.45]], np.float32)


def _albedo(scene: Scene, hits: Hits, normal: Float, pixel: Float) -> tuple[Float, Float]:
    """Linear colour (3, P) and gloss (P,) of what every pixel sees; `pixel` (P,) is its width on the surface in metres."""
    index, solids = hits.index.ravel(), scene.solids
    point = hits.point.reshape(3, -1).astype(np.float32)
    kind, half = solids.kind[index], solids.half[index].T.astype(np.float32)
    face = faces(kind, point)
    # The face's two axes: the upright one last. A round side unrolls to (arc, height).
    first, second = np.array([1, 0, 0])[face], np.array([2, 2, 1])[face]
    across, up = np.take_along_axis(point, first[None], 0)[0], np.take_along_axis(point, second[None], 0)[0]
    u, v = across * np.take_along_axis(half, first[None], 0)[0], up * np.take_along_axis(half, second[None], 0)[0]
    unrolled = (kind == BALL) | ((kind == CYLINDER) & (face == 0))
    u = np.where(unrolled, np.arctan2(point[1], point[0]) * half[0], u)
    v = np.where(unrolled, point[2] * half[2], v)
    # Grain runs along the longer side.
    upright = np.array([m.pattern is Pattern.WOOD for m in scene.materials])[index] & (
        np.take_along_axis(half, second[None], 0)[0] > np.take_along_axis(half, first[None], 0)[0]
    )
    u, v = np.where(upright, v, u), np.where(upright, u, v)

    table = [*scene.materials, *scene.shell_materials]
    shell = kind == SHELL
    surface = np.where(shell, len(scene.materials) + np.where(normal[2] > 0.9, 1, np.where(normal[2] < -0.9, 2, 0)), index)
    pattern = np.array([int(m.pattern) for m in table])[surface]
    colours = np.array([(m.colour, m.second) for m in table], np.float32) ** np.float32(2.2)
    numbers = np.array([(m.scale, m.gloss) for m in table], np.float32)
    seeds = np.random.default_rng(len(scene.materials)).random(len(table)).astype(np.float32)
    albedo = np.empty((3, index.size), np.float32)
    for kind_of_pattern in np.unique(pattern):
        some = np.flatnonzero(pattern == kind_of_pattern)
        which = surface[some]
        surfaces = Surface(u[some], v[some], across[some], up[some], pixel[some], numbers[which, 0], seeds[which])
        mix, factor = PATTERNS[Pattern(kind_of_pattern)](surfaces)
        first_colour, second_colour = np.moveaxis(colours[which], 1, 0)
        albedo[:, some] = ((first_colour * (1 - mix[:, None]) + second_colour * mix[:, None]) * factor[:, None]).T
    return albedo, numbers[surface, 1]


def _outdoors(sight: Float, rng: Generator) -> Float:
    """Radiance (3, P) along directions: a bright sky with clouds over trees."""
    turn, bright = rng.uniform(0, 1), rng.uniform(0.9, 1.8)
    azimuth, height = np.arctan2(sight[1], sight[0]) / (2 * np.pi), sight[2]
    clouds = np.clip(0.5 + 1.2 * noise(azimuth * 2 + turn, height * 0.8), 0, 1)
    blue, white = np.array([[0.42], [0.62], [0.95]], np.float32), np.array([[1.0], [1.0], [1.0]], np.float32)
    sky = (blue * (1 - clouds) + white * clouds) * (0.8 + 0.4 * np.clip(1 - 2 * height, 0, 1))
    trees = np.array([[0.16], [0.23], [0.14]], np.float32) * (1 + 0.6 * noise(azimuth * 8 + turn, height * 5))
    line = -0.02 + 0.09 * noise(azimuth * 1.5 + turn, np.zeros_like(azimuth))
    return (np.where(height < line, trees, sky) * bright).astype(np.float32)


def _soften(picture: Float) -> Float:
    """A lens: every pixel takes a little of its neighbours, (1, 6, 1) / 8 along both axes."""
    padded = np.pad(picture, ((0, 0), (1, 1), (0, 0)), mode="edge")
    picture = 0.75 * picture + 0.125 * (padded[:, :-2] + padded[:, 2:])
    padded = np.pad(picture, ((0, 0), (0, 0), (1, 1)), mode="edge")
    return 0.75 * picture + 0.125 * (padded[:, :, :-2] + padded[:, :, 2:])
