"""Frames of the real Doom engine with Freedoom's free maps, in CocoDoom's layout (extra `doom`: ViZDoom, with both inside).

The engine gives the picture, which object each pixel shows, and depth in 8 bits: too coarse for normals, but enough to
check another. It also gives the map as it stands, from which `doommap.py` finds the depth of floors, ceilings and walls
exactly; sprites stand upright at their object's depth. Where the two disagree (a grating, a sky that hides a wall) a
pixel has no depth, and a view where they disagree widely is taken elsewhere. Depth is thus in CocoDoom's own
unit, 1/64 of the map's, with 65535 for sky and for what is beyond 1,023 units.

Cameras stand at random places of a map, at the player's height, people and things as the map has them at its start. A
map's frames depend on nothing but (seed, map, views). Maps are split as CocoDoom's are.
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
from tqdm import tqdm

from mult.data.cocodoom import doom_map as doommap
from mult.data.cocodoom.annotations import runs_of_mask
from mult.data.cocodoom.dataset import FLAT, NO_DEPTH, SKY, UNITS_PER_MAP_UNIT, WALL
from mult.data.cocodoom.doom_map import Camera, Map, Real
from mult.data.disk.images import Mask, write_png
from mult.data.disk.parameters import Parameter, settle
from mult.data.parallel import in_processes
from mult.errors import UserError
from mult.files import write_atomically
from mult.labels import Intrinsics

PARAMETERS = {"maps": Parameter(16, 4, 32), "views": Parameter(24, 1), "seed": Parameter(0, 0)}
RENDERER = 1
"""Goes up when the same parameters give other frames."""
SPLIT_OF_MAP = ("train", "train", "val", "test")
"""Of maps 1, 2, 3, 4, and so on."""
SIZE = (200, 320)
INTRINSICS: Intrinsics = (400 / 3, 160.0, 160.0, 99.0)
"""The engine's at this size, where pixels are 1.2 times as high as wide; the centre is where its edges fall in the picture."""

HEADROOM = 56  # of the player
CLEARANCE = 64  # the median depth of a view must be larger: no noses at walls
AGREEMENT = 0.9  # the part of a view's surfaces whose depth the engine must confirm
TRIES = 100  # places for each view of a map

# The engine's 8-bit depth d of a surface at z: z = 5.46 + 7.16 (d + a fraction), by its sources and as measured.
_ENGINE_NEAR, _ENGINE_STEP = 5.46, 7.16
_ENGINE_SKY = 106
_LABEL_WALL, _LABEL_FLAT = 0, 1


def render_missing(root: str | Path, *, workers: int | None = None, **asked: int | None) -> int:
    """Render the maps that `root` lacks, by `workers` processes, and write the JSON of the splits; how many there were.

    `asked` are the PARAMETERS; those left out are the root's or, for a new one, the defaults. An interrupted call goes on
    when it is repeated. Raises UserError for a root rendered with other parameters, and without ViZDoom.
    """
    root = Path(root)
    if workers is not None and workers < 1:
        raise UserError(f"doom: got workers {workers}; expected at least 1; leave it out for one a processor")
    engine_version = _vizdoom().__version__
    chosen = settle(root, "doom.json", PARAMETERS, RENDERER, asked)
    numbers = range(1, chosen["maps"] + 1)
    missing = [number for number in numbers if not _record(root, number).exists()]
    work = partial(render_map, root, chosen["seed"], chosen["views"])
    workers = min(workers or os.cpu_count() or 1, len(missing))
    for _ in tqdm(in_processes(work, missing, workers), desc=f"rendering {root.name}", total=len(missing), unit="map"):
        pass
    _write_splits(root, numbers, f"ViZDoom {engine_version}")
    return len(missing)


def render_map(root: Path, seed: int, views: int, number: int) -> None:
    """Render and write the frames of one map and, last, the record that says they are there."""
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    images, annotations, names = [], [], {}
    with _engine(number, seed) as game:
        for tic in range(1, views + 1):
            state, depth, codes = _view(game, generator, number)
            identity = 10**9 + 10**7 * number + tic
            folder, name = _folder(root, number), f"{tic:06d}.png"
            write_png(folder / "depth" / name, depth)
            write_png(folder / "objects" / name, np.stack([codes >> shift & 255 for shift in (0, 8, 16)], 2).astype(np.uint8))
            _write_palette_png(folder / "rgb" / name, state.screen_buffer)
            path = f"run1/map{number:02d}/rgb/{name}"
            images.append({"id": identity, "width": SIZE[1], "height": SIZE[0], "file_name": path})
            for label in state.labels:
                mask = codes == _object_code(label)
                if mask.any():
                    names[label.object_name] = label.object_category
                    annotations.append(_annotation(identity, _object_code(label), label.object_name, mask))
    record = {"images": images, "annotations": annotations, "names": names}
    _write_json(_record(root, number), record)


def _view(game: Any, generator: np.random.Generator, number: int) -> tuple[Any, NDArray[np.uint16], NDArray[np.uint32]]:
    """The engine's state in the next view of a map that is worth having, its depth and its objects, both coded."""
    level = _map_of(game.get_state())
    points = level.lines.reshape(-1, 2)
    for _ in range(TRIES):
        x, y = generator.uniform(points.min(0), points.max(0)).round()
        turn = float(generator.uniform(0, 360))
        sector = level.sector_at(x, y)
        if sector is None or level.ceilings[sector] - level.floors[sector] < HEADROOM:
            continue
        game.send_game_command(f"warp {x:.0f} {y:.0f}")
        game.make_action([turn])
        game.make_action([0], 10)  # until the view is at rest
        state = game.get_state()
        at_x, at_y, at_z, angle_deg = map(float, state.game_variables)
        camera = Camera(at_x, at_y, at_z, angle_deg, INTRINSICS, SIZE)
        level = _map_of(state)
        sector = level.sector_at(camera.x, camera.y)
        if sector is None or abs(camera.x - x) > 1 or abs(camera.y - y) > 1:
            continue  # it was not let in there
        if not level.floors[sector] < camera.z < level.ceilings[sector]:
            continue  # something moves, or is not as it seems
        exact, kind = level.see(camera, sector)
        depth, codes, confirmed = _coded(state, camera, exact, kind)
        if confirmed >= AGREEMENT and np.median(exact) > CLEARANCE:
            return state, depth, codes
    raise UserError(
        f"doom: map{number:02d}: got no view worth having at {TRIES} places; expected one; use another seed, or fewer views"
    )


def _coded(
    state: Any, camera: Camera, exact: Real, kind: NDArray[np.uint8]
) -> tuple[NDArray[np.uint16], NDArray[np.uint32], float]:
    """CocoDoom's depth and objects of a view, and the part of its surfaces whose depth the engine confirms."""
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
    # A sky is a ceiling that the engine does not draw as one, or hides the wall behind it.
    drawn_as_sky = (labels == _LABEL_WALL) & (engine == _ENGINE_SKY)
    sky = drawn_as_sky & ((kind == doommap.CEILING) | ((kind == doommap.WALL) & ~agrees))
    codes[sky] = SKY
    code = np.rint(np.where(np.isfinite(depth), depth, np.inf) * UNITS_PER_MAP_UNIT)
    known = agrees & ~sky & (code >= 1) & (code < NO_DEPTH)
    solid = surface & ~sky
    confirmed = float(agrees[solid].mean()) if solid.any() else 0.0
    return np.where(known, code, NO_DEPTH).astype(np.uint16), codes, confirmed


def _object_code(label: Any) -> int:
    return int(label.object_id) + 1


def _map_of(state: Any) -> Map:
    return Map.from_sectors(
        (
            sector.floor_height,
            sector.ceiling_height,
            [(line.x1, line.y1, line.x2, line.y2, line.is_blocking) for line in sector.lines],
        )
        for sector in state.sectors
    )


@contextmanager
def _engine(number: int, seed: int) -> Iterator[Any]:
    """A game at the start of a map, where nobody moves and nothing harms the player."""
    vizdoom = _vizdoom()
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
    for what in ("hud", "weapon", "crosshair", "messages", "screen_flashes"):
        getattr(game, f"set_render_{what}")(False)
    game.set_available_buttons([vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
    names = ("CAMERA_POSITION_X", "CAMERA_POSITION_Y", "CAMERA_POSITION_Z", "CAMERA_ANGLE")
    game.set_available_game_variables([getattr(vizdoom.GameVariable, name) for name in names])
    game.set_episode_timeout(0)
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the engine writes its settings where it is started
        try:
            game.init()
        finally:
            os.chdir(home)
        try:
            for cheat in ("god", "notarget", "freeze", "cl_showsecretmessage 0"):
                game.send_game_command(cheat)
            game.make_action([0], 5)
            yield game
        finally:
            game.close()


def _vizdoom() -> Any:
    try:
        import vizdoom
    except ImportError as error:
        raise UserError('make_doom needs ViZDoom; install it with: pip install -e ".[doom]"') from error
    return vizdoom


# --- Files ---


def _folder(root: Path, number: int) -> Path:
    return root / "run1" / f"map{number:02d}"


def _record(root: Path, number: int) -> Path:
    return _folder(root, number) / "frames.json"


def _write_palette_png(path: Path, image: NDArray[np.uint8]) -> None:
    """As CocoDoom's are, and as the engine itself draws: at most 256 colours."""
    packed = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, indices = np.unique(packed, return_inverse=True)
    picture = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8)).convert("P")
    picture.putpalette(bytes(colours.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]))
    write_atomically(path, lambda file: picture.save(file, format="PNG"))


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, lambda file: file.write(json.dumps(content).encode()))


def _annotation(image: int, code: int, name: str, mask: Mask) -> dict[str, Any]:
    """COCO's; `name` stands for the category until all are known."""
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
    """The JSON of every split, of the records of its maps; all have the same categories."""
    records = {number: json.loads(_record(root, number).read_text()) for number in numbers}
    kinds = dict(sorted(pair for record in records.values() for pair in record["names"].items()))
    places = {name: place for place, name in enumerate(kinds, start=1)}
    categories = [{"id": places[name], "name": name, "supercategory": kinds[name]} for name in kinds]
    info = {
        "description": f"{maker} with Freedoom (BSD 3-clause), in CocoDoom's layout; not CocoDoom",
        "intrinsics": list(INTRINSICS),
    }
    for split in dict.fromkeys(SPLIT_OF_MAP):
        mine = [record for number, record in records.items() if SPLIT_OF_MAP[(number - 1) % len(SPLIT_OF_MAP)] == split]
        content = {
            "info": info,
            "images": [image for record in mine for image in record["images"]],
            "annotations": [
                {**annotation, "category_id": places[annotation["category_id"]]}
                for record in mine
                for annotation in record["annotations"]
            ],
            "categories": categories,
        }
        _write_json(root / f"map-full-{split}.json", content)
