"""What a photograph of a room shows beside its labels: blended edges, light between surfaces, the camera's settings, doors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mult.data.rooms.coverage import RAYS, blend_edges
from mult.data.rooms.dataset import _build_scene, _generator, render_missing
from mult.data.rooms.photograph import develop
from mult.data.rooms.raycast import BOX, CYLINDER, SHELL, Hits, PosedCamera, cast_rays
from mult.data.rooms.render import look_at, render_view
from mult.data.rooms.scene import Scene
from mult.data.rooms.shade import _compute_occlusion, compute_radiance
from mult.data.rooms.texture import Material
from mult.errors import UserError
from tests.data.rooms.test_raycast import BODIES, CAMERA, Body, solids_of

Array = NDArray[np.floating]
ROOM: Body = (SHELL, (0.0, 0.0, 1.5), (3.0, 3.5, 1.5), 0.0)


def paint(hits: Hits, bodies: list[Body]) -> NDArray[np.float32]:
    """A colour (3, H, W) for each flat face, by its solid and its normal, and for each curved one."""
    world = np.einsum("kc,khw->chw", CAMERA.rotation, hits.normal)
    colours = np.empty((3, *hits.index.shape), np.float32)
    for n, (kind, *_) in enumerate(bodies):
        cap = np.where(np.abs(world[2]) > 0.999, np.sign(world[2]), 0)
        flat = cap if kind == CYLINDER else 3 * world[0] + 5 * world[1] + world[2]
        colour = np.stack([np.full(hits.index.shape, n), flat if kind in (BOX, SHELL, CYLINDER) else 0 * flat, 0 * flat - n])
        colours[:, hits.index == n] = colour[:, hits.index == n]
    return colours


def test_an_edge_has_the_mean_of_what_four_rays_meet() -> None:
    bodies = [ROOM, *BODIES[:3]]
    solids = solids_of(bodies)
    fx, fy, cx, cy = 116.0, 104.0, 64.8, 44.4
    camera = replace(CAMERA, intrinsics=(fx, fy, cx, cy), size=(104, 136))
    single = paint(cast_rays(solids, camera), bodies)
    shifted = [replace(camera, intrinsics=(fx, fy, cx - right, cy - down)) for down, right in RAYS]
    met = np.stack([paint(cast_rays(solids, each), bodies) for each in shifted])
    expected = met.mean(0)
    blended = blend_edges(solids, camera, cast_rays(solids, camera), single)
    padded = np.pad(single, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = np.stack(
        [padded[:, 1:-1, 1:-1], padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]]
    )
    same = (np.abs(met[:, None] - around[None]) < 1e-4).all(axis=2)
    shown = same.any(axis=1).all(axis=0)  # all that the rays meet is shown next to it
    assert shown.mean() > 0.99
    np.testing.assert_allclose(blended[:, shown], expected[:, shown], atol=1e-4)
    changed = ~np.isclose(blended, single).all(0)
    assert 300 < changed.sum() < 2000
    assert (~np.isclose(expected, single, atol=1e-4).all(0))[changed].mean() > 0.95


def test_labels_are_those_of_single_rays_where_the_photograph_blends() -> None:
    view = render_view(_build_scene(0, 2), _generator(0, 2, 2, 0), 64)
    room = view.normal[:, view.instance == 0]
    assert room.shape[1] > 400
    # The room's own surfaces have three axes: a blend of two would be another direction.
    angles = np.abs(room.T.astype(np.float64) @ room.astype(np.float64))
    assert np.minimum(angles, np.abs(1 - angles)).max() < 1e-5


def test_colours_pass_between_surfaces() -> None:
    scene = _build_scene(0, 0)
    position = np.array([scene.size[0] / 2, scene.size[1] / 2, 1.2])
    camera = PosedCamera(
        position, look_at(position, position + np.array([0.3, 0.1, 1.0]), 0.0), (40.0, 40.0, 23.5, 23.5), (48, 48)
    )
    hits = cast_rays(scene.solids, camera)
    up = np.einsum("kc,khw->chw", camera.rotation, hits.normal)[2]
    ceiling = (hits.index == 0) & (up < -0.99)
    assert ceiling.mean() > 0.5
    ratios = []
    for colour in ((0.9, 0.1, 0.1), (0.1, 0.1, 0.9)):
        walls, _, over = scene.shell_materials
        painted = replace(scene, shell_materials=(walls, Material(colour), over))
        radiance = compute_radiance(painted, camera, hits, np.zeros(hits.index.shape, np.bool_), np.random.default_rng(0))
        ratios.append(radiance[0][ceiling].mean() / radiance[2][ceiling].mean())
    assert ratios[0] > 1.1 * ratios[1]


def test_light_is_less_in_a_corner_and_whole_on_a_plane_and_over_an_edge() -> None:
    y, x = np.mgrid[:80, :80] * 0.02 - 0.8
    floor = np.stack([x, y, np.zeros_like(x)])
    up = np.zeros_like(floor)
    up[2] = 1
    assert (_compute_occlusion(floor, up) == 0).all()
    # For x > 0 the surface rises at a right angle, or falls.
    for sign in (1, -1):
        point = np.stack([np.minimum(x, 0), y, sign * np.maximum(x, 0)])
        normal = np.where(x > 0, np.array([-sign, 0, 0])[:, None, None], up)
        taken = _compute_occlusion(point, normal).reshape(80, 80)
        if sign == 1:
            assert taken[30:50, 39:42].min() > 0.1
            assert taken[:, :15].max() == 0
        else:
            assert (taken == 0).all()


def test_exposure_and_white_balance_vary_and_brighter_stays_brighter() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1.1, 64, dtype=np.float32), (3, 64, 64))
    images = [develop(ramp, np.random.default_rng(seed)).astype(float) for seed in range(40)]
    means = np.array([image.mean((0, 1)) for image in images])
    assert 8 < means.mean(1).std() < 40
    warmth = means[:, 0] / means[:, 2]
    assert warmth.min() < 0.95
    assert warmth.max() > 1.05
    for image in images:
        columns = image.mean((0, 2))
        assert np.diff(columns[::4]).min() > -1
        assert columns[0] < 30
    again = develop(ramp, np.random.default_rng(3))
    np.testing.assert_array_equal(again, images[3])


def test_a_ray_through_doorways_ends_where_it_leaves_the_last_room() -> None:
    bodies: list[Body] = [
        (SHELL, (0.0, 0.0, 1.25), (2.0, 3.0, 1.25), 0.0),
        (SHELL, (0.4, 3.06, 1.0), (0.42, 0.06, 1.0), 0.0),  # the opening in the wall, and behind it a wider room
        (SHELL, (0.9, 4.12, 1.2), (1.5, 1.0, 1.2), 0.0),
    ]
    hits = cast_rays(solids_of(bodies), CAMERA)
    fx, fy, cx, cy = CAMERA.intrinsics
    row, column = np.mgrid[: CAMERA.size[0], : CAMERA.size[1]]
    way = np.stack([(column - cx) / fx, (row - cy) / fy, np.ones(CAMERA.size)], -1) @ CAMERA.rotation
    steps = np.arange(0.01, 9, 0.004)
    inside = np.zeros((len(steps), *CAMERA.size), np.bool_)
    for _, centre, half, _ in bodies:
        point = CAMERA.position + steps[:, None, None, None] * way - np.array(centre)
        inside |= (np.abs(point) <= np.array(half) + 1e-9).all(-1)
    leaves = steps[(~inside).argmax(0)]
    assert np.abs(leaves - hits.depth).max() < 0.0041
    assert set(np.unique(hits.index)) >= {0, 2}
    assert (hits.index == 2).sum() > 20


def open_doors() -> list[tuple[Scene, NDArray[np.intp]]]:
    scenes = [_build_scene(0, building) for building in range(24)]
    shells = [np.flatnonzero(scene.solids.kind == SHELL) for scene in scenes]
    return [(scene, shell) for scene, shell in zip(scenes, shells, strict=True) if len(shell) == 3]


def test_nothing_lies_across_an_open_door() -> None:
    doors = open_doors()
    assert 6 <= len(doors) <= 20
    for scene, (_, opening, _) in doors:
        half, axes = scene.solids.half[opening], scene.solids.axes[opening]
        grid = np.stack(np.meshgrid((-0.8, 0, 0.8), (-0.9, 0.9), (-0.97, 0, 0.9)), -1).reshape(-1, 3)
        places = scene.solids.centre[opening] + (half * grid) @ axes
        solid = scene.solids.kind != SHELL
        local = np.einsum("nij,npj->npi", scene.solids.axes, places - scene.solids.centre[:, None])
        covered = (np.abs(local) < scene.solids.half[:, None]).all(2) & solid[:, None]
        assert not covered.any()


@pytest.mark.parametrize("version", [1, 2])
def test_rooms_of_an_older_renderer_are_not_continued(version: int, tmp_path: Path) -> None:
    (tmp_path / "rooms.json").write_text(f'{{"buildings": 3, "views": 1, "size": 32, "seed": 0, "renderer": {version}}}')
    with pytest.raises(UserError, match=rf"got data of renderer {version} .*; expected renderer 3, this version's"):
        render_missing(tmp_path)
