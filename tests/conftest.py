"""What every test shares: one thread a process, so that parallel tests do not fight and bits are always the same; no network;
a small tree of views in Taskonomy's layout, and a config that trains a very small network on it.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mult.training.experiment import build_experiment

# Read when torch and huggingface_hub are first imported, here and in the commands that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
import yaml

from mult.config import Config, load_config
from mult.data.taskonomy.write import write_view
from mult.runs.folder import Run
from mult.suite import run as suite
from mult.training.loop import train

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

VIEWS = {
    "alder": [(64, 64), (64, 64), (64, 64), (64, 64)],
    "birch": [(40, 48), (40, 48)],
    "cedar": [(64, 64), (40, 48), (64, 64)],
    "doum": [(48, 40), (48, 40)],
}
"""Building -> (height, width) of its views. Three to evaluate: two processes cannot share them evenly."""
SPLITS = "id,train,val,test\nalder,1,0,0\nbirch,1,0,0\ncedar,0,1,0\ndoum,0,0,1\n"
UNLABELLED = {
    ("alder", 1): {"depth_zbuffer"},
    ("alder", 3): {"normal", "edge_texture"},
    ("birch", 0): {"segment_semantic"},
    ("cedar", 1): {"normal"},
}
"""Labels that a view has no file of. doum has a file of segmentation in which every pixel is uncertain."""

CONFIG = """
run: {name: tiny, output: OUTPUT, device: cpu}
data: {dataset: taskonomy, root: ROOT, image_size: [48, 40], batch_size: 2, workers: 0}
model:
  reference: normal
  window_size: 4
  backbone_args: {embed_dim: 16, depths: [1, 1, 1, 1], num_heads: [1, 2, 4, 8], drop_path_rate: 0}  # timm's default: 0.1
tasks: {segment_semantic: 1, depth_zbuffer: 1, normal: 1, keypoints2d: 1, edge_texture: 1, reshading: 1}
optim: {lr: 1e-3, steps: 4, warmup: 2}
eval: {every: 2, images: 1}
"""


def write_tree(root: Path) -> None:
    """VIEWS with labels that follow from the picture and have no symmetry, and pixels without geometry."""
    for building, sizes in VIEWS.items():
        for point, (height, width) in enumerate(sizes):
            rng = np.random.default_rng([ord(building[0]), point])
            y, x = np.mgrid[0:height, 0:width] / max(height, width)
            tilt = rng.uniform(-1, 1, 2)
            depth_m = 2 + tilt[0] * x + 1.5 * y
            block = (x > rng.uniform(0.1, 0.5)) & (y > rng.uniform(0.1, 0.5)) & (y < 0.7)
            depth_m[block] = 1.2 + point / 10
            normal = np.stack([tilt[0] * block - 0.3 * x, 0.2 - y, -np.ones_like(x)])
            normal /= np.linalg.norm(normal, axis=0)
            classes = np.where(block, 2 + point, 0)
            classes[:3] = 255
            targets = {
                "segment_semantic": np.full_like(classes, 255) if building == "doum" else classes,
                "depth_zbuffer": depth_m[None],
                "normal": normal,
                "keypoints2d": (0.003 * x * block)[None],
                "edge_texture": (0.02 * np.abs(np.gradient(depth_m)[0]))[None].clip(0, 1),
                "reshading": (0.2 + 0.7 * x * y + 0.1 * block)[None],
            }
            image = np.stack([255 * x, 200 * block + 20, 255 * y * rng.uniform(0.5, 1)], axis=-1).astype(np.uint8)
            valid = np.ones((height, width), np.bool_)
            valid[-5:, -9 - point :] = False
            missing = UNLABELLED.get((building, point), set())
            labels = {task: target for task, target in targets.items() if task not in missing}
            camera = (width, width, width / 2, height / 2)
            write_view(root, building, point, 0, image=image, targets=labels, valid=valid, intrinsics=camera)
    (root / "splits.csv").write_text(SPLITS)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or leaves an index in the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tree_root(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Path:
    """The tree of VIEWS; not to be changed."""
    root = tmp_path_factory.mktemp("tree")
    write_tree(root)
    return root


@pytest.fixture
def own_tree(tmp_path: Path) -> Path:
    """A tree of VIEWS to spoil."""
    write_tree(tmp_path / "tree")
    return tmp_path / "tree"


@pytest.fixture(scope="session")
def config_file(tree_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML that trains a very small network on `tree_root` for 4 steps, evaluated every 2."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    content = yaml.safe_load(CONFIG.replace("ROOT", str(tree_root)).replace("OUTPUT", str(path.parent / "runs")))
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def configured(config_file: Path, tmp_path: Path) -> Callable[..., Config]:
    """Overrides -> the tiny config, writing into the test's own folder."""
    return lambda *overrides: load_config(config_file, [f"run.output={tmp_path}/runs", *overrides])


@pytest.fixture(scope="session")
def train_run() -> Callable[..., Path]:
    """`train_run(config, resume=False)` does what scripts/train.py does on one process -> the run's folder."""

    def call(config: Config, resume: bool = False) -> Path:
        experiment = build_experiment(config, resumes=Run(config).has_checkpoint())
        run = Run.open(config, resume)
        train(experiment, run, torch.device("cpu"))
        return run.folder

    return call


@pytest.fixture(scope="session")
def trained(config_file: Path, train_run: Callable[..., Path]) -> Path:
    """The folder of a whole run of the tiny config; not to be changed."""
    return train_run(load_config(config_file))


class Ended(NamedTuple):
    """How a script ended and what it said."""

    status: int
    out: str
    err: str


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run a script of scripts/ in this process: `script("train", "--config", path)`."""

    def call(name: str, *arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capsys.readouterr()
        status: object = 0
        try:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
        assert isinstance(status, int)
        return Ended(status, *capsys.readouterr())

    return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, script: Callable[..., Ended]) -> list[str]:
    """The commands that the suite ran, and of which run; they run in this process, which has torch already."""
    calls: list[str] = []

    def run(program: Sequence[str], command: str, *arguments: str) -> str | None:
        name = next((word.removeprefix("run.name=") for word in arguments if word.startswith("run.name=")), "")
        calls.append(f"{command} {name or Path(arguments[1]).name}")
        ended = script(command, *arguments)
        return f"{command} ended with status {ended.status}: {ended.err.splitlines()[-1]}" if ended.status else None

    monkeypatch.setattr(suite, "_call", run)
    return calls


@pytest.fixture(autouse=True)
def _default_torch() -> Iterator[None]:
    """Training sets these for its process; no other test shall see them."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
