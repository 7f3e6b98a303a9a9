"""Render frames with the Doom engine and Freedoom's free maps, in CocoDoom's layout (extra `doom`: ViZDoom has both).

The engine gives the image, the object at each pixel, and depth in 8 bits: too coarse for normals, enough to check exact depth.
It also gives the map in its present state, from which doom_map.py computes the exact depth of floors, ceilings and walls;
sprites stand upright at their object's depth. A pixel at which the two depths disagree (a grating, a sky that hides a wall) is
invalid, and a view in which many disagree is replaced by another. Depth is in CocoDoom's unit, 1/64 of the map's, with 65535
for sky and beyond 1,023 units of the map.

Cameras are at random places of a map, at the height of the player's eyes; characters and objects are where the map has them at
its start. A map's frames are a function of (seed, map, views) alone. Maps are split as CocoDoom's are.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mult.data.cocodoom import doom_map
from mult.data.cocodoom.annotations import runs_of_mask
from mult.data.cocodoom.dataset import FLAT, NO_DEPTH, SKY, UNITS_PER_MAP_UNIT, WALL
from mult.data.disk.images import Mask, write_png
from mult.data.disk.parameters import Parameter, resolve_parameters
from mult.data.parallel import map_with_progress
from mult.errors import UserError
from mult.files import read_json, write_file, write_text
from mult.labels import Intrinsics

PARAMETERS = {"maps": Parameter(16, 4, 32), "views": Parameter(24, 1), "seed": Parameter(0, 0)}
RENDERER = 1
"""Version of the renderer: increases when the same parameters give other frames."""
SPLIT_OF_MAP = ("train", "train", "val", "test")
"""The splits of maps 1, 2, 3, 4; map 5 is in that of map 1, and so on."""
SIZE = (200, 320)
INTRINSICS: Intrinsics = (400 / 3, 160.0, 160.0, 99.0)
"""The engine's at this size, where pixels are 1.2 times as high as wide; the centre as measured, by edges in its images."""

PLAYER_HEIGHT = 56
"""Units of the map between floor and ceiling that a camera needs."""
MIN_MEDIAN_DEPTH = 64
"""A view whose median depth is smaller shows little but a wall, and is replaced by another."""
MIN_AGREEMENT = 0.9
"""The part of a view's floors, ceilings and walls at which the engine's depth must agree with ours."""
MAX_PLACES = 100
"""The random places that are tried for a view."""

# The engine's 8-bit depth d of a surface at distance z, from its sources and as measured: z = 5.46 + 7.16 (d + a fraction).
_ENGINE_NEAR, _ENGINE_STEP = 5.46, 7.16
_ENGINE_SKY = 106
_LABEL_WALL, _LABEL_FLAT = 0, 1


def render_missing(root: str | Path, *, workers: int | None = None, **requested: int | None) -> int:
    """Render the maps that `root` lacks in `workers` processes, and write the JSON of the splits; returns their number.

    `requested` are PARAMETERS; those left out are the root's or, for a new root, the defaults. An interrupted call is continued
    when it is repeated. Raises UserError for a root rendered with other parameters, and without ViZDoom.
    """
    root = Path(root)
    if workers is not None and workers < 1:
        raise UserError(f"doom: got workers {workers}; expected at least 1; leave it out for one a processor")
    engine_version = _import_vizdoom().__version__
    parameters = resolve_parameters(root, "doom.json", PARAMETERS, RENDERER, requested)
    numbers = range(1, parameters["maps"] + 1)
    missing = [number for number in numbers if not _record_path(root, number).exists()]
    render = partial(render_map, root, parameters["seed"], parameters["views"])
    for _ in map_with_progress(render, missing, workers, f"rendering {root.name}", "map"):
        pass
    _write_splits(root, numbers, f"ViZDoom {engine_version}")
    return len(missing)


def render_map(root: Path, seed: int, views: int, number: int) -> None:
    """Render and write the frames of one map and, last, the record of its annotations, which marks the map as complete."""
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    images, annotations, names = [], [], {}
    with _start_engine(number, seed) as game:
        for tic in range(1, views + 1):
            state, depth, codes = _find_view(game, generator, number)
            identity = 10**9 + 10**7 * number + tic
            folder, name = _map_folder(root, number), f"{tic:06d}.png"
            write_png(folder / "depth" / name, depth)
            write_png(folder / "objects" / name, np.stack([codes >> shift & 255 for shift in (0, 8, 16)], 2).astype(np.uint8))
            _write_palette_png(folder / "rgb" / name, state.screen_buffer)
            path = f"run1/map{number:02d}/rgb/{name}"
            images.append({"id": identity, "width": SIZE[1], "height": SIZE[0], "file_name": path})
            for label in state.labels:
                mask = codes == _object_code(label)
                if mask.any():
                    names[label.object_name] = label.object_category
                    annotations.append(_build_annotation(identity, _object_code(label), label.object_name, mask))
    record = {"images": images, "annotations": annotations, "names": names}
    _write_json(_record_path(root, number), record)


def _find_view(game: Any, generator: np.random.Generator, number: int) -> tuple[Any, NDArray[np.uint16], NDArray[np.uint32]]:
    """The next random view of a map with enough depth and agreement: the engine's state, and CocoDoom's depth and objects."""
    level = _read_map(game.get_state())
    points = level.lines.reshape(-1, 2)
    for _ in range(MAX_PLACES):
        x, y = generator.uniform(points.min(0), points.max(0)).round()
        turn = float(generator.uniform(0, 360))
        sector = level.sector_at(x, y)
        if sector is None or level.ceilings[sector] - level.floors[sector] < PLAYER_HEIGHT:
            continue
        game.send_game_command(f"warp {x:.0f} {y:.0f}")
        game.make_action([turn])
        game.make_action([0], 10)  # tics, after which the view is at rest
        state = game.get_state()
        at_x, at_y, at_z, angle_deg = map(float, state.game_variables)
        camera = doom_map.UprightCamera(at_x, at_y, at_z, angle_deg, INTRINSICS, SIZE)
        level = _read_map(state)
        sector = level.sector_at(camera.x, camera.y)
        if sector is None or abs(camera.x - x) > 1 or abs(camera.y - y) > 1:
            continue  # the engine did not let the player go there
        if not level.floors[sector] < camera.z < level.ceilings[sector]:
            continue  # such as on a lift that moves
        exact, kind = level.trace(camera, sector)
        depth, codes, agreement = _encode_view(state, camera, exact, kind)
        if agreement >= MIN_AGREEMENT and np.median(exact) > MIN_MEDIAN_DEPTH:
            return state, depth, codes
    raise UserError(
        f"doom: map{number:02d}: got no usable view at {MAX_PLACES} places; expected one; use another seed, or fewer views"
    )


def _encode_view(
    state: Any, camera: doom_map.UprightCamera, exact: doom_map.Floats, kind: NDArray[np.uint8]
) -> tuple[NDArray[np.uint16], NDArray[np.uint32], float]:
    """CocoDoom's depth and objects of a view, and the part of its surfaces at which the engine's depth agrees."""
    engine, labels = state.depth_buffer, state.labels_buffer
    depth = exact.copy()
    codes = np.where(labels == _LABEL_WALL, WALL, FLAT).astype(np.uint32)
    surface = labels <= _LABEL_FLAT
    angle = np.radians(camera.angle_deg)
    for label in state.labels:
        mask = labels == label.value
        ahead = (label.object_position_x - camera.x) * np.cos(angle) + (label.object_position_y - camera.y) * np.sin(angle)
        depth[mask], codes[mask] = ahead, _object_code(label)
    expected = np.clip((depth - _ENGINE_NEAR) / _ENGINE_STEP, 0, 255)
    agrees = np.abs(expected - engine) < 2 + 0.06 * expected
    # The engine labels sky as wall. It is drawn in place of a ceiling, or of a wall behind it, whose depth is then another.
    drawn_as_sky = (labels == _LABEL_WALL) & (engine == _ENGINE_SKY)
    sky = drawn_as_sky & ((kind == doom_map.CEILING) | ((kind == doom_map.WALL) & ~agrees))
    codes[sky] = SKY
    code = np.rint(np.where(np.isfinite(depth), depth, np.inf) * UNITS_PER_MAP_UNIT)
    valid = agrees & ~sky & (code >= 1) & (code < NO_DEPTH)
    solid = surface & ~sky
    agreement = float(agrees[solid].mean()) if solid.any() else 0.0
    return np.where(valid, code, NO_DEPTH).astype(np.uint16), codes, agreement


def _object_code(label: Any) -> int:
    return int(label.object_id) + 1


def _read_map(state: Any) -> doom_map.DoomMap:
    return doom_map.DoomMap.from_sectors(
        (
            sector.floor_height,
            sector.ceiling_height,
            [(line.x1, line.y1, line.x2, line.y2, line.is_blocking) for line in sector.lines],
        )
        for sector in state.sectors
    )


@contextmanager
def _start_engine(number: int, seed: int) -> Iterator[Any]:
    """A game at the start of a map, with cheats: characters stand still, and the player takes no harm."""
    vizdoom = _import_vizdoom()
    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(Path(vizdoom.__file__).parent / "freedoom2.wad"))
    game.set_doom_map(f"map{number:02d}")
    game.set_doom_skill(3)
    game.set_seed(seed)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X200)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    for switch in ("depth_buffer_enabled", "labels_buffer_enabled", "sectors_info_enabled"):
        getattr(game, f"set_{switch}")(True)
    for switch in ("window_visible", "sound_enabled"):
        getattr(game, f"set_{switch}")(False)
    for element in ("hud", "weapon", "crosshair", "messages", "screen_flashes"):
        getattr(game, f"set_render_{element}")(False)
    game.set_available_buttons([vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
    names = ("CAMERA_POSITION_X", "CAMERA_POSITION_Y", "CAMERA_POSITION_Z", "CAMERA_ANGLE")
    game.set_available_game_variables([getattr(vizdoom.GameVariable, name) for name in names])
    game.set_episode_timeout(0)
    working_directory = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the engine writes its settings into the working directory
        try:
            game.init()
        finally:
            os.chdir(working_directory)
        try:
            for cheat in ("god", "notarget", "freeze", "cl_showsecretmessage 0"):
                game.send_game_command(cheat)
            game.make_action([0], 5)
            yield game
        finally:
            game.close()


def _import_vizdoom() -> Any:
    try:
        import vizdoom
    except ImportError as error:
        raise UserError('make_doom needs ViZDoom; install it with: pip install "mult-dense[doom]"') from error
    return vizdoom


# --- Files ---


def _map_folder(root: Path, number: int) -> Path:
    return root / "run1" / f"map{number:02d}"


def _record_path(root: Path, number: int) -> Path:
    return _map_folder(root, number) / "frames.json"


def _write_palette_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image of at most 256 colours, which is all that the engine draws, with a palette as CocoDoom's have."""
    packed = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, indices = np.unique(packed, return_inverse=True)
    picture = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8)).convert("P")
    picture.putpalette(bytes(colours.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]))
    write_file(path, lambda file: picture.save(file, format="PNG"))


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content))


def _build_annotation(image: int, code: int, name: str, mask: Mask) -> dict[str, Any]:
    """COCO's annotation of one object; `name` in place of the category's id, which depends on the names of all maps."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "id": image * 10**6 + code,
        "image_id": image,
        "category_id": name,
        "segmentation": {"counts": runs_of_mask(mask), "size": list(mask.shape)},
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "iscrowd": 0,
    }


def _write_splits(root: Path, numbers: range, maker: str) -> None:
    """Write the JSON of every split from the records of its maps; the categories are those of all maps."""
    records = {number: read_json(_record_path(root, number), "delete it: its map is rendered again") for number in numbers}
    kinds = dict(sorted(pair for record in records.values() for pair in record["names"].items()))
    places = {name: place for place, name in enumerate(kinds, start=1)}
    categories = [{"id": places[name], "name": name, "supercategory": kinds[name]} for name in kinds]
    info = {
        "description": f"{maker} with Freedoom (BSD 3-clause), in CocoDoom's layout; not CocoDoom",
        "intrinsics": list(INTRINSICS),
    }
    for split in dict.fromkeys(SPLIT_OF_MAP):
        own = [record for number, record in records.items() if SPLIT_OF_MAP[(number - 1) % len(SPLIT_OF_MAP)] == split]
        content = {
            "info": info,
            "images": [image for record in own for image in record["images"]],
            "annotations": [
                {**annotation, "category_id": places[annotation["category_id"]]}
                for record in own
                for annotation in record["annotations"]
            ],
            "categories": categories,
        }
        _write_json(root / f"map-full-{split}.json", content)
