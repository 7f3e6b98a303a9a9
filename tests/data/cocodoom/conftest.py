from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.cocodoom.archive import TREE, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A full archive's training run of two images."""
    write(tmp_path / "doom", TREE)
    return tmp_path / "doom"
