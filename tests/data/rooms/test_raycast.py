"""The ray caster against marching along every ray with an implicit function written from the definition of each solid."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mult.data.rooms.raycast import BALL, BOX, CYLINDER, SHELL, PosedCamera, Solids, cast_rays, trace_shadows
from mult.data.rooms.render import look_at

Array = NDArray[np.float64]
Triple = tuple[float, float, float]
Body = tuple[int, Triple, Triple, float]
"""kind, centre, half extents, yaw."""

CAMERA = PosedCamera(
    position=np.array([0.3, -2.6, 1.5]),
    rotation=look_at(np.array([0.3, -2.6, 1.5]), np.array([0.1, 0.2, 0.9]), roll=0.13),
    intrinsics=(29.0, 26.0, 16.2, 11.1),
    size=(26, 34),
)
BODIES: list[Body] = [
    (BOX, (0.2, 0.3, 0.7), (0.6, 0.35, 0.5), 0.7),
    (CYLINDER, (-0.9, 0.1, 1.0), (0.3, 0.5, 0.45), -0.4),
    (BALL, (1.1, 0.4, 1.2), (0.5, 0.3, 0.4), 0.5),
    (BOX, (0.2, -0.4, 1.25), (0.9, 0.1, 0.02), 1.1),
    (BALL, (0.0, -4.0, 1.5), (0.5, 0.5, 0.5), 0.0),  # behind the camera
    (BOX, (1.2, -2.2, 1.5), (0.2, 1.0, 0.3), 0.1),  # beside it, through its plane
]


def solids_of(bodies: list[Body]) -> Solids:
    axes = [[[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]] for *_, yaw in bodies]
    kind, centre, half, _ = zip(*bodies, strict=True)
    return Solids(np.array(kind), np.array(centre, float), np.array(half, float), np.array(axes))


def implicit(body: Body, point: Array) -> Array:
    """Below 0 inside the body, above 0 outside; point (..., 3) in the world."""
    kind, centre, half, yaw = body
    x, y, z = np.moveaxis(point - np.array(centre), -1, 0)
    x, y = x * np.cos(yaw) + y * np.sin(yaw), y * np.cos(yaw) - x * np.sin(yaw)
    x, y, z = x / half[0], y / half[1], z / half[2]
    if kind == BOX:
        return np.maximum(np.maximum(abs(x), abs(y)), abs(z)) - 1
    if kind == CYLINDER:
        return np.maximum(np.sqrt(x**2 + y**2), abs(z)) - 1
    return np.sqrt(x**2 + y**2 + z**2) - 1


def rays(camera: PosedCamera) -> Array:
    """World directions (H, W, 3) that advance by 1 m along the optical axis."""
    fx, fy, cx, cy = camera.intrinsics
    row, column = np.mgrid[: camera.size[0], : camera.size[1]]
    seen = np.stack([(column - cx) / fx, (row - cy) / fy, np.ones(camera.size)], -1)
    return seen @ camera.rotation


def march(body: Body, camera: PosedCamera) -> Array:
    """The depth where each ray enters a body, inf where it does not, by steps of 4 mm and bisection."""
    way = rays(camera)
    steps = np.arange(0.004, 5, 0.004)
    inside = np.stack([implicit(body, camera.position + t * way) < 0 for t in steps])
    first = inside.argmax(0)
    outer, inner = steps[first] - 0.004, steps[first]
    for _ in range(45):
        middle = (outer + inner) / 2
        deep = implicit(body, camera.position + middle[..., None] * way) < 0
        outer, inner = np.where(deep, outer, middle), np.where(deep, middle, inner)
    return np.where(inside.any(0), inner, np.inf)


@pytest.fixture(scope="module")
def marched() -> Array:
    return np.stack([march(body, CAMERA) for body in BODIES])


def test_depth_and_solid_are_those_of_ray_marching(marched: Array) -> None:
    hits = cast_rays(solids_of(BODIES), CAMERA)
    depth = marched.min(0)
    # Marching steps over what a ray only grazes.
    same = np.isfinite(depth) == np.isfinite(hits.depth)
    assert same.mean() > 0.99
    both = np.isclose(depth, hits.depth, atol=0.05) & np.isfinite(depth)
    np.testing.assert_allclose(hits.depth[both], depth[both], atol=1e-9)
    np.testing.assert_array_equal(hits.index[both], marched.argmin(0)[both])
    assert set(np.unique(hits.index)) == {-1, 0, 1, 2, 3, 5}
    assert both.sum() > 0.98 * np.isfinite(depth).sum()


def test_normals_are_unit_gradients_towards_the_camera() -> None:
    hits = cast_rays(solids_of(BODIES), CAMERA)
    seen = hits.index >= 0
    np.testing.assert_allclose(np.linalg.norm(hits.normal, axis=0)[seen], 1, atol=1e-12)
    assert (hits.normal[:, ~seen] == 0).all()
    surface = CAMERA.position + hits.depth[..., None] * rays(CAMERA)
    for n, body in enumerate(BODIES):
        own = surface[hits.index == n]
        if len(own):
            shifts = 1e-6 * np.eye(3)
            slope = np.stack([implicit(body, own + s) - implicit(body, own - s) for s in shifts])
            expected = CAMERA.rotation @ (slope / np.linalg.norm(slope, axis=0))
            agree = np.abs(hits.normal[:, hits.index == n] - expected).max(0) < 1e-5
            assert agree.mean() > 0.99, body  # the difference quotient fails across an edge
    x, y = CAMERA.rays()
    facing = hits.normal[0] * x + hits.normal[1] * y[:, None] + hits.normal[2]
    assert (facing[seen] < 0).all()


def test_inside_of_a_room_is_the_nearest_of_six_planes() -> None:
    room = solids_of([(SHELL, (0.0, 0.0, 1.25), (2.0, 3.0, 1.25), 0.0)])
    hits = cast_rays(room, CAMERA)
    way = rays(CAMERA)
    for row, column in [(0, 0), (3, 30), (25, 2), (12, 17), (25, 33)]:
        d = way[row, column]
        exits = []
        for axis, (low, high) in enumerate([(-2, 2), (-3, 3), (0, 2.5)]):
            wall = high if d[axis] > 0 else low
            exits.append(((wall - CAMERA.position[axis]) / d[axis], axis, -np.sign(d[axis])))
        depth, axis, sign = min(exits)
        normal = CAMERA.rotation[:, axis] * sign
        assert hits.depth[row, column] == pytest.approx(depth, abs=1e-12)
        np.testing.assert_allclose(hits.normal[:, row, column], normal, atol=1e-12)
    assert hits.normal[1, 25, 17] < -0.8, "the floor's normal points up, which is -y"


def test_shadow_is_the_length_of_the_way_through_the_solids() -> None:
    bodies = [*BODIES[:3], (SHELL, (0.0, 0.0, 1.25), (4.0, 4.0, 1.25), 0.0)]
    light = np.array([0.5, 0.9, 2.4])
    points = np.random.default_rng(3).uniform((-2, -2, 0), (2, 2, 1.9), (900, 3))
    points = points[[min(implicit(body, p) for body in bodies[:3]) > 0 for p in points]]
    expected: Array = np.ones(len(points))
    samples = (np.arange(4000) + 0.5) / 4000
    for body in bodies[:3]:
        way = points[:, None] + samples[:, None] * (light - points)[:, None]
        length = (implicit(body, way) < 0).mean(1) * np.linalg.norm(points - light, axis=1)
        s = np.clip(length / min(0.25, 2 * min(body[2])), 0, 1)
        expected *= 1 - (3 * s**2 - 2 * s**3)
    assert 0.05 < (expected < 0.5).mean() < 0.9
    np.testing.assert_allclose(trace_shadows(solids_of(bodies), np.arange(3), light, points.T), expected, atol=0.02)
    single = trace_shadows(solids_of(bodies), np.arange(3), light, points.T.astype(np.float32))
    np.testing.assert_allclose(single, expected, atol=0.02)


def test_lit_side_of_a_solid_is_not_in_its_own_shadow() -> None:
    body = (BOX, (0.0, 0.0, 0.5), (0.5, 0.5, 0.5), 0.3)
    top = np.array([[0.1, 0.3, -0.4], [0.2, -0.3, 0.1], [1.0, 1.0, 1.0]])
    free = trace_shadows(solids_of([body]), np.arange(1), np.array([0.7, 0.2, 2.5]), top)
    np.testing.assert_allclose(free, 1, atol=1e-9)
