"""Rooms: our own rendered indoor scenes, in Taskonomy's layout and encodings, read by the Taskonomy reader.

A building is one furnished room (homes.py), seen by cameras at sitting and standing height (render.py). Depth,
normals and classes come exactly from the ray caster, the other tasks from labels.py. What lies behind a window has no
geometry, and neither it nor what is too thin to tell (code 0 of data.md) has a class. Views are rendered on first use
and depend on nothing but (seed, building, view, size).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mult import labels
from mult.data.disk.encodings import ENCODINGS
from mult.data.disk.parameters import Parameter, settle
from mult.data.parallel import in_processes
from mult.data.rooms.kinds import KINDS
from mult.data.rooms.render import view as render
from mult.data.rooms.room import Scene
from mult.data.sample import IGNORE
from mult.data.taskonomy.dataset import Taskonomy
from mult.data.taskonomy.write import view_complete, write_view
from mult.errors import UserError
from mult.files import write_atomically

PARAMETERS = {
    "buildings": Parameter(40, least=3),
    "views": Parameter(40, least=1),
    "size": Parameter(256, least=32),
    "seed": Parameter(0, least=0),
}
RENDERER = 1
"""Goes up when the same parameters give other pictures, so that a root never holds views of two renderers."""


class Rooms(Taskonomy):
    """Map-style dataset of rendered rooms; what is missing under `root` is rendered first, by `workers` processes.

    Buildings are split about 80/10/10, with at least one in val and in test. Parameters left out are those of the root, or, for
    a new root, 40 buildings of 40 views of 256 x 256 pixels from seed 0. An interrupted rendering goes on where it stopped, and
    several processes may use one root at once. Raises UserError for a root rendered with other parameters.
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


def render_missing(root: str | Path, *, workers: int | None = None, **asked: int | None) -> int:
    """Render the views that `root` lacks (see `Rooms`) by `workers` processes; returns how many there were."""
    root = Path(root)
    if workers is not None and workers < 1:
        raise UserError(f"rooms: got workers {workers}; expected at least 1; leave it out for one a processor")
    chosen = settle(root, "rooms.json", PARAMETERS, RENDERER, asked)
    if not (root / "splits.csv").exists():
        write_atomically(root / "splits.csv", lambda file: file.write(_splits(chosen["buildings"]).encode()))
    missing = [
        (building, number)
        for building in range(chosen["buildings"])
        for number in range(chosen["views"])
        if not view_complete(root, _name(building), number, 0)
    ]
    if missing:
        _render_all(root, chosen, missing, min(workers or os.cpu_count() or 1, len(missing)))
    return len(missing)


def _name(building: int) -> str:
    return f"room_{building:03d}"


def _splits(buildings: int) -> str:
    """splits.csv: of every ten buildings the ninth is for val and the tenth for test, of fewer than ten the last two."""
    held_out = max(1, buildings // 10)
    test = {min(10 * i + 9, buildings - 1) for i in range(held_out)}
    val = {building - 1 for building in test}
    lines = [f"{_name(b)},{int(b not in test | val)},{int(b in val)},{int(b in test)}" for b in range(buildings)]
    return "\n".join(["id,train,val,test", *lines]) + "\n"


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@lru_cache(maxsize=4)
def _scene(seed: int, building: int) -> Scene:
    """The room of a building. Kinds come in shuffled rounds, so that every split soon has all of them."""
    round_, place = divmod(building, len(KINDS))
    kind = KINDS[_generator(seed, 0, round_).permutation(len(KINDS))[place]]
    return kind(_generator(seed, 1, building))


def render_view(root: Path, seed: int, size: int, building: int, number: int) -> None:
    """Render and write one view, whatever is there already."""
    seen = render(_scene(seed, building), _generator(seed, 2, building, number), size)
    classes = np.where(seen.code == 0, IGNORE, seen.code.astype(np.int64) - 1)
    write_view(
        root,
        _name(building),
        number,
        0,
        image=seen.image,
        targets={
            "segment_semantic": classes,
            "depth_zbuffer": seen.depth_m[None],
            "normal": seen.normal,
            "keypoints2d": labels.keypoints2d(seen.image),
            "edge_texture": labels.edge_texture(seen.image),
            "reshading": labels.reshading(seen.depth_m, seen.normal, seen.intrinsics, seen.valid),
        },
        valid=seen.valid,
        intrinsics=seen.intrinsics,
    )


def _render_all(root: Path, chosen: dict[str, int], missing: list[tuple[int, int]], workers: int) -> None:
    """Render views with a progress bar, in this process if there is one worker."""
    work = partial(_render_one, root, chosen["seed"], chosen["size"])
    # Consecutive views mostly share their building, which a worker then furnishes once.
    done = in_processes(work, missing, workers, chunk=4)
    for _ in tqdm(done, desc=f"rendering {root.name}", total=len(missing), unit="view"):
        pass


def _render_one(root: Path, seed: int, size: int, view: tuple[int, int]) -> None:
    render_view(root, seed, size, *view)
