"""Rooms: furnished rooms that we render, in Taskonomy's layout and encodings, read by the Taskonomy reader.

A building is one room (kinds.py), seen by cameras at sitting and standing height (render.py). Depth, normals and classes are
exact at the pixels' centres, from the ray caster, where the photograph blends colours at edges; the other labels are computed
from the photograph and the depth (labels.py). Pixels that show a window's glass have no geometry; neither they nor objects too
thin to be labelled have a class. A view is rendered on first use and is a function of (seed, building, view, size) alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from mult import labels
from mult.data.disk.encodings import ENCODINGS
from mult.data.disk.parameters import Parameter, resolve_parameters
from mult.data.disk.splits import write_splits
from mult.data.parallel import map_with_progress
from mult.data.rooms.kinds import ROOM_KINDS
from mult.data.rooms.render import RenderedView, render_view
from mult.data.rooms.scene import Scene
from mult.data.taskonomy.dataset import Taskonomy
from mult.data.taskonomy.write import is_view_complete, write_view
from mult.errors import UserError
from mult.tasks import IGNORE

PARAMETERS = {
    "buildings": Parameter(40, minimum=3),
    "views": Parameter(40, minimum=1),
    "size": Parameter(256, minimum=32),
    "seed": Parameter(0, minimum=0),
}
RENDERER = 3
"""Version of the renderer: increases when the same parameters give other images, so that no root holds views of two."""


class Rooms(Taskonomy):
    """Map-style dataset of rendered rooms; views that `root` lacks are rendered first, by `workers` processes.

    Buildings are split about 80/10/10, with at least one in val and in test. Parameters left out are the root's or, for a new
    root, the defaults of PARAMETERS. An interrupted rendering is continued, and several processes may use one root at once.
    Raises UserError for a root rendered with other parameters.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        tasks: Iterable[str] = tuple(ENCODINGS),
        *,
        buildings: int | None = None,
        views: int | None = None,
        size: int | None = None,
        seed: int | None = None,
        workers: int | None = None,
    ) -> None:
        render_missing(root, buildings=buildings, views=views, size=size, seed=seed, workers=workers)
        super().__init__(root, split=split, tasks=tasks)


def render_missing(root: str | Path, *, workers: int | None = None, **requested: int | None) -> int:
    """Render the views that `root` lacks (see `Rooms`) in `workers` processes; returns their number."""
    root = Path(root)
    if workers is not None and workers < 1:
        raise UserError(f"rooms: got workers {workers}; expected at least 1; leave it out for one a processor")
    parameters = resolve_parameters(root, "rooms.json", PARAMETERS, RENDERER, requested)
    if not (root / "splits.csv").exists():
        write_splits(root / "splits.csv", _assign_splits(parameters["buildings"]))
    missing = [
        (building, number)
        for building in range(parameters["buildings"])
        for number in range(parameters["views"])
        if not is_view_complete(root, _name(building), number, 0)
    ]
    write = partial(_render_to_disk, root, parameters["seed"], parameters["size"])
    # A chunk of consecutive views mostly has one building, which its worker builds once.
    for _ in map_with_progress(write, missing, workers, f"rendering {root.name}", "view", chunk=4):
        pass
    return len(missing)


def _name(building: int) -> str:
    return f"room_{building:03d}"


def _assign_splits(buildings: int) -> dict[str, str]:
    """{building: split}: of every ten buildings the ninth is for val and the tenth for test, of fewer than ten the last two."""
    held_out = max(1, buildings // 10)
    test = {min(10 * i + 9, buildings - 1) for i in range(held_out)}
    val = {building - 1 for building in test}
    return {_name(b): "test" if b in test else "val" if b in val else "train" for b in range(buildings)}


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@lru_cache(maxsize=4)
def _build_scene(seed: int, building: int) -> Scene:
    """The room of a building. Of every six consecutive buildings each is of another kind, so that all splits have all kinds."""
    group, place = divmod(building, len(ROOM_KINDS))
    build = ROOM_KINDS[_generator(seed, 0, group).permutation(len(ROOM_KINDS))[place]]
    return build(_generator(seed, 1, building))


def render(seed: int, size: int, building: int, number: int) -> RenderedView:
    """A view of a building, `size` pixels square: a function of its arguments alone."""
    return render_view(_build_scene(seed, building), _generator(seed, 2, building, number), size)


def _render_to_disk(root: Path, seed: int, size: int, key: tuple[int, int]) -> None:
    """Render and write the view (building, number), in place of files that are there."""
    building, number = key
    view = render(seed, size, building, number)
    classes = np.where(view.class_code == 0, IGNORE, view.class_code.astype(np.int64) - 1)
    write_view(
        root,
        _name(building),
        number,
        0,
        image=view.image,
        targets={
            "segment_semantic": classes,
            "depth_zbuffer": view.depth_m[None],
            "normal": view.normal,
            "keypoints2d": labels.keypoints2d(view.image),
            "edge_texture": labels.edge_texture(view.image),
            "reshading": labels.reshading(view.depth_m, view.normal, view.intrinsics, view.valid),
        },
        valid=view.valid,
        intrinsics=view.intrinsics,
    )
