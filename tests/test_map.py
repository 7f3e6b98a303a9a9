"""mult/README.md, the map of the house, against the tree: every file and room is where it says, and none is left out."""

from __future__ import annotations

import re
from pathlib import Path

MULT = Path(__file__).resolve().parents[1] / "mult"
MAP = (MULT / "README.md").read_text(encoding="utf-8")


def test_every_file_on_the_map_is_there() -> None:
    paths = set(re.findall(r"`([\w/]+\.py)`", MAP))
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (MULT / path).is_file() and not (MULT.parent / path).is_file()] == []


def test_every_name_on_the_map_is_in_the_code() -> None:
    names = set(re.findall(r"`(?:\w+\.)?([A-Za-z_]+)`", MAP))
    sources = [*MULT.rglob("*.py"), Path(__file__).with_name("test_rules.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert len(names) > 15
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", source)] == []


def test_every_room_is_on_the_map() -> None:
    rooms = {path.name for path in MULT.glob("*.py")} | {path.parent.name + "/" for path in MULT.glob("*/__init__.py")}
    assert [room for room in sorted(rooms - {"__init__.py"}) if f"`{room}`" not in MAP] == []
