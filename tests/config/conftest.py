"""A minimal config, as a file and as nested values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

MINIMAL = """
run: {name: trial}
data: {dataset: rooms, root: data/rooms, image_size: 96, batch_size: 4}
tasks: {normal: 1, reshading: 0.25}
optim: {lr: 1e-4, steps: 10}
"""


@pytest.fixture(scope="session")
def minimal_text() -> str:
    return MINIMAL


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file, given by its name and its text, into the test's folder; returns its path."""

    def call(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return call


@pytest.fixture
def minimal(write: Callable[[str, str], Path]) -> Path:
    return write("minimal.yaml", MINIMAL)


@pytest.fixture
def tree_with() -> Callable[[str, Any], dict[str, Any]]:
    """The minimal config as nested values, with one value changed: `tree_with("optim.lr", 1)`."""

    def call(dotted: str, value: Any) -> dict[str, Any]:
        tree: dict[str, Any] = yaml.safe_load(MINIMAL.replace("1e-4", "0.0001"))
        *parents, last = dotted.split(".")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
        return tree

    return call
