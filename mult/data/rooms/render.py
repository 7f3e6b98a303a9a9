"""A view of a furnished room: the pose of the camera, exact labels, and the photograph.

Depth, normals and classes are those of one ray through each pixel's centre. Where the photograph blends the colours of two
surfaces, at their common edge (coverage.py), the labels are of the surface in the middle of the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mult.data.rooms.coverage import blend_edges
from mult.data.rooms.parts import BACKGROUND, UNCERTAIN
from mult.data.rooms.photograph import develop
from mult.data.rooms.raycast import SHELL, PosedCamera, Solids, cast_rays, find_nearest
from mult.data.rooms.scene import Scene
from mult.data.rooms.shade import compute_radiance
from mult.data.rooms.texture import Pattern

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
    radiance = compute_radiance(scene, camera, hits, glass, rng)
    return RenderedView(
        image=develop(blend_edges(scene.solids, camera, hits, radiance), rng),
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
        roll = np.radians(rng.normal(0, 12 if rng.random() < 0.2 else 3))
        half_fov = np.radians(rng.uniform(20, 50))
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
    in_room = (solids.half[0] - local[0]).min()  # the first solid is the room's shell
    outside = (local - solids.half).max(1)[solids.kind != SHELL]
    return bool(in_room > CLEARANCE_M and (outside > CLEARANCE_M).all())


def _score_camera(scene: Scene, probe: PosedCamera) -> float:
    """1 or more if three objects and at most 70 % bare walls, floor and ceiling are in view, and nothing close to the lens."""
    index, depth = find_nearest(scene.solids, probe)
    code, count = scene.class_code[index], np.bincount(scene.object[index].ravel())
    objects = len(np.unique(scene.object[index][code > BACKGROUND]))
    bare = count[0] / index.size
    near = (depth < 0.5).mean()
    window = (code == UNCERTAIN).mean()
    return float(min(objects / 3, 1) * min(0.3 / max(bare - 0.4, 0.1), 1) * (near < 0.05) * (window < 0.4))
