"""Trees in Taskonomy's four layouts, written with plain Pillow: as mult/data/README.md describes them, not by the library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

LAYOUTS: dict[str, Callable[[Path, str, str], Path]] = {
    "flat": lambda root, task, building: root / task,
    "original": lambda root, task, building: root / f"{building}_{task}" / task,
    "by task": lambda root, task, building: root / task / building,
    "omnitools": lambda root, task, building: root / task / "taskonomy" / building,
}


class Tree:
    """Writes the files of views into one layout; a flat tree's root bears its building's name."""

    def __init__(self, layout: str, folder: Path, building: str = "hanson") -> None:
        self.layout, self.building = layout, building
        self.root = folder / building if layout == "flat" else folder / "tree"

    def path(self, task: str, name: str, building: str | None = None) -> Path:
        path = LAYOUTS[self.layout](self.root, task, building or self.building) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, task: str, ending: str, pixels: Any, point: int = 3, view: int = 14, building: str | None = None) -> Path:
        path = self.path(task, f"point_{point}_view_{view}_domain_{ending}", building)
        if ending.endswith(".json"):
            path.write_text(json.dumps(pixels))
        else:
            Image.fromarray(np.asarray(pixels)).save(path)
        return path

    def touch(self, task: str, point: int = 3, view: int = 14, building: str | None = None) -> Path:
        """An rgb-like file without content: enough for the index, which reads no file."""
        path = self.path(task, f"point_{point}_view_{view}_domain_{task}.png", building)
        path.touch()
        return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or leaves an index in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(params=LAYOUTS)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    """An empty tree in each of the layouts."""
    return Tree(request.param, tmp_path)


@pytest.fixture
def by_task(tmp_path: Path) -> Tree:
    """An empty tree, `<task>/<building>/point_...`."""
    return Tree("by task", tmp_path)
