"""mult.data.DATASETS: the public classes, imported when they are first used, and what a new dataset takes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mult.data
from mult.data import NYU, CocoDoom, Replica, Rooms, Taskonomy

PACKAGE = Path(mult.data.__file__).resolve().parents[1]

TOY = """
from __future__ import annotations

import torch
from torch.utils.data import Dataset

from mult.data.sample import Sample


class Toy(Dataset[Sample]):
    metric_depth = True
    classes: dict[str, list[str]] = {}
    underivable: dict[str, str] = {}

    def __init__(self, root: str, split: str = "train", tasks: tuple[str, ...] | None = None, *, length: int = 2) -> None:
        self.root, self.length = root, length
        self.labelled, self.available = frozenset({"depth_zbuffer"}), ("depth_zbuffer",)
        self.tasks = self.available if tasks is None else tuple(tasks)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Sample:
        labels = {task: torch.ones(1, 32, 32) for task in self.tasks}
        valid = {task: torch.ones(1, 32, 32, dtype=torch.bool) for task in self.tasks}
        return {"image": torch.rand(3, 32, 32), "targets": labels, "valid": valid, "id": str(i), "derived": ()}

    def name(self, i: int) -> str:
        return str(i)

    def group(self, i: int) -> str:
        return ""
"""

USE = """
import torch
from mult.config import Config
from mult.data import Toy
from mult.training.experiment import build_experiment

data = {"dataset": "toy", "root": ".", "image_size": 32, "batch_size": 2, "workers": 0, "options": {"length": 3}}
model = {"backbone_args": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}, "num_heads": 1}
experiment = build_experiment(
    Config.from_dict({
        "run": {"name": "toy"}, "data": data, "model": {**model, "reference": "depth_zbuffer"},
        "tasks": {"depth_zbuffer": 1}, "optim": {"lr": 1e-3, "steps": 1},
    })
)
(batch,) = experiment.batches(0, 0, 1)
output = experiment.model(batch["image"])["depth_zbuffer"]
loss = experiment.objectives["depth_zbuffer"].loss(output, batch["targets"]["depth_zbuffer"], batch["valid"]["depth_zbuffer"])
print(Toy.__name__, len(experiment.train_data), bool(torch.isfinite(loss)))
"""


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_names_the_public_classes() -> None:
    table = {name: getattr(mult.data, class_name) for name, class_name in mult.data.DATASETS.items()}
    assert table == {"taskonomy": Taskonomy, "rooms": Rooms, "replica": Replica, "nyu": NYU, "cocodoom": CocoDoom}
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


def test_a_new_dataset_is_a_folder_and_a_line(tmp_path: Path) -> None:
    copy = tmp_path / "mult"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    folder = copy / "data" / "toy"
    folder.mkdir()
    (folder / "__init__.py").write_text('from mult.data.toy.dataset import Toy\n\n__all__ = ["Toy"]\n')
    (folder / "dataset.py").write_text(TOY)
    table = copy / "data" / "__init__.py"
    text, count = re.subn(r"(?m)^DATASETS = \{$", 'DATASETS = {\n    "toy": "Toy",', table.read_text())
    assert count == 1
    table.write_text(text)
    assert run_python(USE, tmp_path).split() == ["Toy", "3", "True"]
