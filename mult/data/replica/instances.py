"""From instance ids to classes: Habitat's "semantic" images hold each pixel's object, a JSON beside them each object's class.

The JSON is Replica's `info_semantic.json`: `classes`, a list of {"id", "name"}, and `objects`, a list of {"id", "class_id"}. An
object whose class id is 0 or less has no class.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mult.data.disk.images import GRAY, Array, Mask, read_pixels
from mult.data.sample import BadFileError
from mult.errors import UserError
from mult.tasks import IGNORE

_UNKNOWN = -1


@dataclass(frozen=True)
class Instances:
    """The names of the classes, and for each instance id below `len(table)` its class id, 255 (none) or -1 (no such object)."""

    path: Path
    names: list[str]
    table: Array

    @classmethod
    def load(cls, path: Path) -> Instances:
        """Read a class map; UserError for one that is damaged or lacks the name of a class that objects have."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            names = {int(entry["id"]): str(entry["name"]) for entry in content["classes"]}
            objects = {int(entry["id"]): int(entry["class_id"]) for entry in content["objects"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{path}: got no class map ({error!r:.300}); expected JSON with classes [{{id, name}}] and objects "
                "[{id, class_id}], as Replica's info_semantic.json; correct data.options.class_map"
            ) from error
        classes = {identity: number for number, identity in enumerate(sorted(names))}
        nameless = sorted({identity for identity in objects.values() if identity > 0} - set(names))
        if nameless:
            raise UserError(
                f"{path}: got objects of the classes {nameless[:8]}, which have no name; expected all of them in classes; "
                "add them"
            )
        if len(names) >= IGNORE or min(objects, default=0) < 0:
            raise UserError(
                f"{path}: got {len(names)} classes and instance ids from {min(objects, default=0)} on; expected fewer than "
                f"{IGNORE} and from 0 on; correct the class map"
            )
        table = np.full(max(objects, default=0) + 1, _UNKNOWN, np.int64)
        for identity, category in objects.items():
            table[identity] = classes.get(category, IGNORE)
        if table[0] == _UNKNOWN:
            table[0] = IGNORE  # pixels without an object
        return cls(path, [names[identity] for identity in sorted(names)], table)

    def read(self, path: Path, size: tuple[int, int]) -> tuple[Array, Mask]:
        """An image of instance ids as class ids (H, W) and a mask of those with a class; BadFileError for an unknown id."""
        pixels: Any = read_pixels(path, GRAY, size)
        unknown = [int(i) for i in np.unique(pixels) if i >= len(self.table) or self.table[i] == _UNKNOWN]
        if unknown:
            raise BadFileError(
                f"{path}: got the instance ids {unknown[:8]}; expected those of {self.path.name}; "
                f"complete {self.path}, or give the map of this scene",
                "range",
            )
        target = self.table[pixels]
        return target, target != IGNORE
