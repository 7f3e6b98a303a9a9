"""Extending the library by README's own steps: on a copy of the package, a toy of each kind trains a step.

Each test asserts which files it touched and how many lines it changed in those that were there.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mult.config import load_config

ROOT = Path(__file__).resolve().parents[2]

TASK = """
        Task(
            name="brightness",
            channels=1,
            unit="of full scale",
            resize="area",
            flip="mirror",
            **_affine(0.5, 0.25),
            loss=losses.l1,
            metric=lambda classes: metrics.Regression(),
            primary="l1",
            colours=draw.Scalar("gray", low=0.0, high=1.0),
        ),
"""

DATASET = '''
"""Random colours, their depth and, where the task is known, their brightness."""

import torch
from torch.utils.data import Dataset

from mult.data.sample import Camera, Sample
from mult.tasks import TASKS


class Toy(Dataset[Sample]):
    metric_depth = True
    metric_arguments: dict[str, dict[str, float]] = {}
    benchmark_splits: frozenset[str] = frozenset()
    border = 0
    underivable: dict[str, str] = {}

    def __init__(self, root, split="train", tasks=(), *, views: int = 4):
        self.root, self.views, self.classes = root, views, {}
        self.available = tuple(task for task in ("depth_zbuffer", "brightness") if task in TASKS)
        self.labelled = frozenset(self.available)
        self.tasks = tuple(tasks)

    def __len__(self):
        return self.views

    def __getitem__(self, i):
        image = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(i))
        labels = {"depth_zbuffer": 1 + image[:1], "brightness": image.mean(0, keepdim=True)}
        targets = {task: labels[task] for task in self.tasks}
        valid = {task: torch.ones(1, 40, 48, dtype=torch.bool) for task in self.tasks}
        return {"image": image, "targets": targets, "valid": valid, "id": self.name(i), "derived": ()}

    def name(self, i):
        return f"view{i}"

    def group(self, i):
        return ""

    def native(self, i):
        return self.labelled

    def camera(self, i):
        return Camera((40.0, 40.0, 23.5, 19.5), (40, 48))
'''

METRIC = '''
"""The mean of the signed error."""

from mult.metrics.accumulator import sum_per_image, zeros
from mult.metrics.regression import Regression


class Bias(Regression):
    """The mean of prediction - target, beside the metrics of Regression."""

    METRICS = {**Regression.METRICS, "bias": (None, "lower")}
    NEEDS = {**Regression.NEEDS, "bias": ("signed", "pixels")}

    def __init__(self):
        super().__init__()
        self.sums |= zeros((), ("signed",))

    @staticmethod
    def fit_constants(values):
        return Regression.fit_constants(values) | {"bias": values.mean(0)}

    def _measure(self, prediction, target, valid):
        signed = (prediction - target).where(valid, 0.0)
        return super()._measure(prediction, target, valid) | {"signed": lambda: sum_per_image(signed) / signed.shape[1]}
'''

METHOD = '''
"""Weights that halve every step."""

from dataclasses import dataclass

from mult.training.balance.weighted_sum import WeightedSum


@dataclass(frozen=True, kw_only=True)
class FadingOptions:
    factor: float = 0.5


class Fading(WeightedSum):
    def __init__(self, setup, options):
        super().__init__(setup)
        self.factor, self.step = options.factor, 0

    def learn(self, losses, scaler):
        self.step += 1

    def weights(self):
        return {task: weight * self.factor**self.step for task, weight in self.task_weights.items()}
'''


class Copy:
    """A copy of the package, to which a test adds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT / "mult", root / "mult", ignore=shutil.ignore_patterns("__pycache__"))

    def add(self, path: str, text: str) -> None:
        """A new file."""
        assert not (self.root / path).exists()
        (self.root / path).parent.mkdir(exist_ok=True)
        (self.root / path).write_text(text.lstrip())

    def insert(self, path: str, before: str, text: str) -> None:
        """Text before the only place where `before` stands."""
        content = (self.root / path).read_text()
        assert content.count(before) == 1, (path, before)
        (self.root / path).write_text(content.replace(before, text + before))

    def touched(self) -> dict[str, int]:
        """The files that are new, or differ from the package's, and how many lines were added to or taken from the latter."""
        found = {}
        for path in sorted((self.root / "mult").rglob("*.py")):
            name = str(path.relative_to(self.root))
            before = (ROOT / name).read_text().splitlines() if (ROOT / name).exists() else None
            if before is None:
                found[name] = 0
            elif changed := [line for line in difflib.ndiff(before, path.read_text().splitlines()) if line[0] in "+-"]:
                found[name] = len(changed)
        return found

    def run(self, code: str, *arguments: object) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def train(self, config_file: Path, *overrides: str) -> dict[str, object]:
        """Train a step; the line of the log, and the evaluation's tasks as "tasks"."""
        settings = [
            f"run.output={self.root}/runs",
            "run.name=toy",
            "optim.steps=1",
            "optim.warmup=1",
            "eval.images=0",
            *overrides,
        ]
        self.run(TRAIN, config_file, *settings)
        folder = self.root / "runs" / "toy"
        line: dict[str, object] = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
        (evaluation,) = (folder / "eval").glob("*.json")
        return line | {"tasks": json.loads(evaluation.read_text())["tasks"]}


TRAIN = """
import sys
import torch
from mult.config import load_config
from mult.runs.folder import Run
from mult.training.experiment import build_experiment
from mult.training.loop import train

config = load_config(sys.argv[1], sys.argv[2:])
train(build_experiment(config), Run.open(config, resume=False), torch.device("cpu"))
"""
TOY_DATA = "data={dataset: toy, root: ., image_size: [32, 40], batch_size: 2, workers: 0, options: {views: 3}}"


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "copy")


def add_dataset(copy: Copy) -> None:
    copy.add("mult/data/toy/__init__.py", "from mult.data.toy.dataset import Toy as Toy\n")
    copy.add("mult/data/toy/dataset.py", DATASET)
    copy.insert("mult/data/__init__.py", '    "rooms": "Rooms",\n', '    "toy": "Toy",\n')


def test_a_dataset_is_a_folder_and_a_line(copy: Copy, config_file: Path) -> None:
    add_dataset(copy)
    assert copy.touched() == {
        "mult/data/__init__.py": 1,
        "mult/data/toy/__init__.py": 0,
        "mult/data/toy/dataset.py": 0,
    }
    line = copy.train(config_file, TOY_DATA, "tasks={depth_zbuffer: 1}", "model.reference=depth_zbuffer")
    assert isinstance(line["depth_zbuffer/loss"], float)


def test_a_task_is_a_record_and_the_readers_that_label_it(copy: Copy, config_file: Path) -> None:
    add_dataset(copy)
    readers = copy.touched()
    copy.insert("mult/tasks.py", '        Task(\n            name="reshading",', TASK.lstrip("\n"))
    assert copy.touched().keys() - readers.keys() == {"mult/tasks.py"}
    line = copy.train(config_file, TOY_DATA, "tasks={depth_zbuffer: 1, brightness: 1}", "model.reference=brightness")
    assert isinstance(line["brightness/loss"], float)
    tasks = line["tasks"]
    assert isinstance(tasks, dict)
    assert tasks["brightness"]["l1"]["unit"] == "of full scale"


def test_an_attention_variant_is_a_value_and_a_branch(copy: Copy, config_file: Path) -> None:
    path = "mult/models/decoder.py"
    copy.insert(path, '"shared", "independent", "self", "none"]', '"last", ')
    copy.insert(
        path,
        "        second: Source =",
        '        shared = [list(tasks)[-1]] if attention == "last" else shared\n',
    )
    assert copy.touched() == {path: 3}
    line = copy.train(config_file, "model.attention=last")
    assert isinstance(line["normal/loss"], float)


def test_a_metric_is_a_file(copy: Copy, config_file: Path) -> None:
    copy.add("mult/metrics/bias.py", METRIC)
    assert copy.touched() == {"mult/metrics/bias.py": 0}
    use = "import dataclasses\nfrom mult.metrics.bias import Bias\nfrom mult.tasks import TASKS\n"
    use += "TASKS['reshading'] = dataclasses.replace(TASKS['reshading'], metric=lambda classes: Bias())\n"
    settings = [f"run.output={copy.root}/runs", "run.name=toy", "optim.steps=1", "optim.warmup=1", "eval.images=0"]
    copy.run(use + TRAIN, config_file, *settings)
    (evaluation,) = (copy.root / "runs" / "toy" / "eval").glob("*.json")
    entry = json.loads(evaluation.read_text())["tasks"]["reshading"]["bias"]
    assert abs(entry["value"]) <= 1
    assert entry["interval"][0] < entry["value"] < entry["interval"][1]


def test_a_balance_method_is_a_file_and_its_entry(copy: Copy, config_file: Path) -> None:
    path = "mult/training/balance/choose.py"
    copy.add("mult/training/balance/fading.py", METHOD)
    copy.insert(
        path, "from mult.training.balance.fixed import", "from mult.training.balance.fading import Fading, FadingOptions\n"
    )
    copy.insert(path, '    "uncertainty": (', '    "fading": (Fading, FadingOptions),\n')
    assert copy.touched() == {path: 2, "mult/training/balance/fading.py": 0}  # the entry and its import
    line = copy.train(config_file, "balance.method=fading", "balance.options.factor=0.25")
    weights = load_config(config_file).tasks
    assert line["weight/normal"] == weights["normal"].weight


def test_readme_names_the_files_that_these_tests_touch() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Extending it") :]
    rows = {
        "A dataset": ["mult/data/", "mult/data/__init__.py"],
        "A task": ["mult/tasks.py"],
        "An attention variant": ["mult/models/decoder.py"],
        "A metric": ["mult/metrics/"],
        "A balance method": ["mult/training/balance/", "mult/training/balance/choose.py"],
    }
    for row, paths in rows.items():
        found = re.search(rf"\*\*{row}\*\*(.*?)(?=\n- |\n\n)", section, re.DOTALL)
        assert found, row
        assert set(paths) <= set(re.findall(r"`([\w/.]+)`", found[1])), row
