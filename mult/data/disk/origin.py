"""What labels were made from: a record beside them, with which later calls are compared, so that no tree mixes two kinds.

`<root>/labels/<building>.json` for the views of an annotated building, `<root>/derived/labels.json` for derived labels, {task:
record}. A record holds `made_from`, the source, camera, depth scale and kind as they were given and the version of the formulas
(mult/labels.py), and what was measured of the depth (of derived labels in the last call that wrote some): its noise, the share
of its pixels that have a normal, and by how many degrees the noise alone tilts normals of planes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mult.errors import UserError
from mult.labels import VERSION

Record = dict[str, Any]


def describe_origin(options: Mapping[str, Any]) -> Record:
    """Options, in the types of JSON, and the version of the formulas."""
    described: Record = json.loads(json.dumps({**options, "formulas": VERSION}))
    return described


def require_same_origin(where: str, stored: Mapping[str, Any] | None, given: Mapping[str, Any]) -> None:
    """UserError, saying what differs, unless labels that are there (None: without a record) were made from what is given."""
    if stored is None:
        raise UserError(
            f"{where}: got labels without a record of what they were made from, as earlier versions wrote them; expected "
            "labels of these options; write them anew with --again, or to another place"
        )
    different = [key for key in {**stored, **given} if stored.get(key) != given.get(key)]
    if different:
        raise UserError(
            f"{where}: got {', '.join(f'{key} {given.get(key)!r}' for key in different)}; expected "
            f"{', '.join(f'{key} {stored.get(key)!r}' for key in different)}, of which the labels there were made; write them "
            "anew with --again, or use those"
        )


def building_record(root: Path, building: str) -> Path:
    """The record of an annotated building."""
    return root / "labels" / f"{building}.json"


def derived_record(root: Path) -> Path:
    """The records of a root's derived labels."""
    return root / "derived" / "labels.json"
