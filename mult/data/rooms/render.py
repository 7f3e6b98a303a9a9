"""A view of a furnished room: the pose of the camera, the light on the surfaces, and the image.

The light is an ambient term, darker in the room's corners and around objects on the floor, and lamps and the window, both with
shadows. Geometry and classes are exact; the colours are not physical.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mult.data.rooms.parts import BACKGROUND, UNCERTAIN
from mult.data.rooms.raycast import (
    BALL,
    CYLINDER,
    SHELL,
    Hits,
    PosedCamera,
    Solids,
    cast_rays,
    face_axes,
    find_nearest,
    trace_shadows,
)
from mult.data.rooms.scene import Scene
from mult.data.rooms.texture import PATTERNS, Pattern, Surface, noise

Float = NDArray[np.float32]

CAMERA_HEIGHTS_M = ((1.05, 1.3), (1.45, 1.8))
"""Of a sitting and of a standing person."""
PROBE_SIZE = 24
"""Pixels on a side of the small view by which a camera is scored."""
CLEARANCE_M = 0.3
"""No solid is nearer to a camera than this."""


@dataclass(frozen=True)
class RenderedView:
    """image (H, W, 3) sRGB; depth_m (H, W) along z; normal (3, H, W) in the camera frame; class_code (H, W) of parts.py;
    instance (H, W): pixels of one object have the same number, 0 is the shell of the room.

    Where valid (H, W) is False, on a window's glass, there is no geometry, and depth and normal mean nothing.
    """

    image: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    normal: NDArray[np.float32]
    class_code: NDArray[np.uint8]
    instance: NDArray[np.int32]
    valid: NDArray[np.bool_]
    intrinsics: tuple[float, float, float, float]


def render_view(scene: Scene, rng: Generator, size: int) -> RenderedView:
    """One square view of `size` pixels; all random numbers come from `rng`."""
    camera = choose_camera(scene, rng, size)
    hits = cast_rays(scene.solids, camera)
    glass: NDArray[np.bool_] = np.array([material.pattern is Pattern.SKY for material in scene.materials])[hits.index]
    image = shade_image(scene, camera, hits, glass, rng)
    return RenderedView(
        image=image,
        depth_m=hits.depth.astype(np.float32),
        normal=hits.normal.astype(np.float32),
        class_code=scene.class_code[hits.index],
        instance=scene.object[hits.index],
        valid=~glass,
        intrinsics=camera.intrinsics,
    )


def look_at(position: NDArray[np.float64], target: NDArray[np.float64], roll: float) -> NDArray[np.float64]:
    """The rotation (3, 3), axes as rows, of a camera at `position` that looks at `target`; `roll` is about the optical axis."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cosine, sine = np.cos(roll), np.sin(roll)
    return np.array([cosine * right + sine * down, cosine * down - sine * right, forward])


def choose_camera(scene: Scene, rng: Generator, size: int) -> PosedCamera:
    """The first of up to 40 random cameras with a clear position that scores at least 1; else the one that scores highest.

    Each looks at an object of a class drawn uniformly from those in the room, so that rare and small classes are in view too.
    """
    solids, code = scene.solids, scene.class_code
    classes = np.unique(code[code > BACKGROUND])
    candidates: list[tuple[float, PosedCamera]] = []
    for _ in range(1000):
        target = solids.centre[rng.choice(np.flatnonzero(code == rng.choice(classes)))] + rng.normal(0, (0.3, 0.3, 0.2))
        height_m = rng.uniform(*CAMERA_HEIGHTS_M[int(rng.integers(len(CAMERA_HEIGHTS_M)))])
        reach_m = rng.uniform(0.8, 2.2) if rng.random() < 0.35 else rng.uniform(1.6, 6.0)
        offset = rng.uniform(CLEARANCE_M, scene.size[:2] - CLEARANCE_M) - target[:2]
        away_m = float(np.hypot(*offset))
        offset *= min(reach_m / away_m, 1)
        away_m = min(reach_m, away_m)
        pitch = np.clip(np.arctan2(target[2] - height_m, away_m), -0.65, 0.3) + np.radians(rng.normal(0, 4))
        roll, half_fov = np.radians(rng.normal(0, 3)), np.radians(rng.uniform(23, 42))
        position = np.array([*(target[:2] + offset), height_m])
        if away_m < 0.5 or not _is_clear(solids, position):
            continue
        rotation = look_at(position, np.array([*target[:2], height_m + np.tan(pitch) * away_m]), roll)
        probe = PosedCamera(position, rotation, _intrinsics(PROBE_SIZE, half_fov), (PROBE_SIZE, PROBE_SIZE))
        score = _score_camera(scene, probe)
        candidates.append((score, PosedCamera(position, rotation, _intrinsics(size, half_fov), (size, size))))
        if score >= 1 or len(candidates) == 40:
            break
    assert candidates, "every room has a free place to stand"
    return max(candidates, key=lambda pair: pair[0])[1]


def _intrinsics(size: int, half_fov: float) -> tuple[float, float, float, float]:
    focal = size / 2 / float(np.tan(half_fov))
    return focal, focal, (size - 1) / 2, (size - 1) / 2


def _is_clear(solids: Solids, position: NDArray[np.float64]) -> bool:
    local = np.abs(np.einsum("nij,nj->ni", solids.axes, position - solids.centre))
    gap = np.where((solids.kind == SHELL)[:, None], solids.half - local, local - solids.half)
    outside = np.where(solids.kind == SHELL, gap.min(1), gap.max(1))
    return bool((outside > CLEARANCE_M).all())


def _score_camera(scene: Scene, probe: PosedCamera) -> float:
    """1 or more if three objects and at most 70 % bare walls, floor and ceiling are in view, and nothing close to the lens."""
    index, depth = find_nearest(scene.solids, probe)
    code, count = scene.class_code[index], np.bincount(scene.object[index].ravel())
    objects = len(np.unique(scene.object[index][code > BACKGROUND]))
    bare = count[0] / index.size
    near = (depth < 0.5).mean()
    window = (code == UNCERTAIN).mean()
    return float(min(objects / 3, 1) * min(0.3 / max(bare - 0.4, 0.1), 1) * (near < 0.05) * (window < 0.4))


def shade_image(scene: Scene, camera: PosedCamera, hits: Hits, glass: NDArray[np.bool_], rng: Generator) -> NDArray[np.uint8]:
    """The image, sRGB uint8 (H, W, 3)."""
    x, y = camera.rays()
    ray = np.stack([*np.broadcast_arrays(x, y[:, None]), np.ones(camera.size)]).reshape(3, -1)
    offset_m = _rotate(camera.rotation.T, ray * hits.depth.ravel())
    point = (offset_m + camera.position[:, None]).astype(np.float32)
    to_camera = (-offset_m / np.sqrt((offset_m * offset_m).sum(0))).astype(np.float32)
    normal = _rotate(camera.rotation.T, hits.normal.reshape(3, -1)).astype(np.float32)
    facing = np.clip((to_camera * normal).sum(0), 0, 1)
    pixel = hits.depth.ravel() / camera.intrinsics[0] / np.maximum(facing, 0.15)
    albedo, gloss = _compute_albedo(scene, hits, normal, pixel.astype(np.float32))

    light = _compute_ambient(scene, point, normal)
    shine = np.zeros_like(light)
    for position, colour, direction in _light_sources(scene, rng):
        offset = position.astype(np.float32)[:, None] - point
        square = (offset * offset).sum(0)
        unit = offset / np.sqrt(square)
        cosine = np.maximum((unit * normal).sum(0), 0)
        falloff = 1 / (square + 1.2)
        if direction is not None:
            falloff *= np.clip(-(unit * direction.astype(np.float32)[:, None]).sum(0), 0.05, 1)
        lit_side = np.flatnonzero(cosine > 0)
        visibility = np.zeros_like(cosine)
        visibility[lit_side] = trace_shadows(scene.solids, _find_shadow_casters(scene), position, point[:, lit_side])
        light += colour * (cosine * falloff * visibility)
        halfway = unit + to_camera
        halfway /= np.sqrt((halfway * halfway).sum(0))
        shine += colour * (np.maximum((halfway * normal).sum(0), 0) ** 40 * visibility * gloss * falloff * 1.5)
    # At a grazing angle a glossy surface mirrors the bright room.
    radiance = albedo * light + shine + 0.4 * gloss * (1 - facing) ** 4

    through = glass.ravel()
    exposure = 0.3 * rng.uniform(0.8, 1.25) / np.exp(np.log(radiance.mean(0)[~through] + 0.02).mean())
    radiance *= exposure * (1 + rng.normal(0, 0.03, (3, 1)).astype(np.float32))
    radiance[:, through] = _render_outdoors(-to_camera[:, through], rng)
    image = _blur(radiance.reshape(3, *camera.size))
    image = (image * 1.3 / (1 + 0.5 * image)) ** np.float32(1 / 2.2)
    image += rng.normal(0, 1, image.shape).astype(np.float32) * np.float32(rng.uniform(0.003, 0.012))
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def _rotate(rotation: NDArray[np.float64], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """rotation @ vectors without BLAS, whose rounding may depend on the number of threads."""
    return np.stack([row[0] * vectors[0] + row[1] * vectors[1] + row[2] * vectors[2] for row in rotation])


def _light_sources(scene: Scene, rng: Generator) -> Iterator[tuple[NDArray[np.float64], Float, NDArray[np.float64] | None]]:
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


def _compute_ambient(scene: Scene, point: Float, normal: Float) -> Float:
    """Light from all directions (3, P): less where walls meet, and on the floor under and around objects."""
    light = 0.5 + 0.1 * normal[2]
    for axis in range(3):
        for sign, distance in ((1, point[axis]), (-1, scene.size[axis].astype(np.float32) - point[axis])):
            light *= 1 - 0.4 * (1 - sign * normal[axis]) / 2 * np.exp(-np.maximum(distance, 0) / 0.3)
    floor = np.flatnonzero((point[2] < 0.03) & (normal[2] > 0.9))
    x, y = point[:2, floor]
    openness = np.ones_like(x)
    for x0, y0, x1, y1 in np.array(scene.footprints, np.float32).reshape(-1, 4):
        gap = np.hypot(np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(y0 - y, y - y1), 0))
        openness *= 1 - 0.5 * np.exp(-gap / 0.12)
    light[floor] *= openness
    return light * np.array([[0.42], [0.43], [0.45]], np.float32)


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


def _blur(image: Float) -> Float:
    """A lens's blur: the kernel (1, 6, 1) / 8 along both axes."""
    padded = np.pad(image, ((0, 0), (1, 1), (0, 0)), mode="edge")
    image = 0.75 * image + 0.125 * (padded[:, :-2] + padded[:, 2:])
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1)), mode="edge")
    return 0.75 * image + 0.125 * (padded[:, :, :-2] + padded[:, :, 2:])
