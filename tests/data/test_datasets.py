"""mult.data.DATASETS: the public classes, imported when they are first used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mult.data
from mult.data import NYU, CocoDoom, Packed, Pascal, Replica, Rooms, Taskonomy

PACKAGE = Path(mult.data.__file__).resolve().parents[1]


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_names_the_public_classes() -> None:
    table = {name: getattr(mult.data, class_name) for name, class_name in mult.data.DATASETS.items()}
    assert table == {
        "taskonomy": Taskonomy,
        "rooms": Rooms,
        "replica": Replica,
        "nyu": NYU,
        "pascal": Pascal,
        "cocodoom": CocoDoom,
        "packed": Packed,
    }
    for name, dataset_class in table.items():
        assert dataset_class.__module__ == f"mult.data.{name}.dataset"


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match=r"module 'mult\.data' has no attribute 'ImageNet'"):
        mult.data.ImageNet  # noqa: B018


def test_importing_the_package_imports_no_dataset() -> None:
    modules = run_python("import mult.data, sys; print(*sys.modules)", PACKAGE.parent).split()
    assert "mult.data" in modules
    assert not [name for name in modules if name.startswith("mult.data.")]
    modules = run_python("from mult.data import NYU; import sys; print(*sys.modules)", PACKAGE.parent).split()
    assert "mult.data.nyu.dataset" in modules
    assert not [name for name in modules if name.startswith(("mult.data.rooms", "mult.data.cocodoom"))]
