"""Which labels training images keep, and that nothing but their masks changes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mult.config import Config
from mult.data import Taskonomy
from mult.data.batches.partial_labels import Labels, PartialLabels, choose_tasks
from mult.training.experiment import build_experiment

SIX = ["segment_semantic", "depth_zbuffer", "normal", "keypoints2d", "edge_texture", "reshading"]


@pytest.mark.parametrize(("labels", "numbers"), [("one", {1}), ("random", {1, 2, 3, 4, 5})])
def test_every_number_and_every_task_is_drawn_alike(labels: Labels, numbers: set[int]) -> None:
    chosen = [choose_tasks(SIX, labels, 0, f"room_{i}/point_{i % 7}") for i in range(3000)]
    assert {len(tasks) for tasks in chosen} == numbers
    sizes = Counter(len(tasks) for tasks in chosen)
    assert all(abs(count - 3000 / len(numbers)) < 120 for count in sizes.values())  # five deviations
    counts = Counter(task for tasks in chosen for task in tasks)
    mean = 3000 * sum(numbers) / len(numbers) / 6
    assert all(abs(counts[task] - mean) < 150 for task in SIX)


def test_a_single_label_stays() -> None:
    assert choose_tasks(["normal"], "random", 5, "a") == {"normal"}
    assert choose_tasks([], "one", 5, "a") == set()


def test_the_choice_is_a_function_of_seed_and_id_in_every_process() -> None:
    ids = [f"cedar/point_{i}_view_0" for i in range(40)]
    here = [sorted(choose_tasks(SIX, "random", 7, name)) for name in ids]
    code = (
        "from mult.data.batches.partial_labels import choose_tasks\n"
        f"print([sorted(choose_tasks({SIX}, 'random', 7, name)) for name in {ids}])"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == repr(here)
    assert here != [sorted(choose_tasks(SIX, "random", 8, name)) for name in ids]
    assert len({tuple(tasks) for tasks in here}) > 10


@pytest.mark.parametrize("labels", ["one", "random"])
def test_only_masks_change(tree_root: Path, labels: Labels) -> None:
    reader = Taskonomy(tree_root)
    partial = PartialLabels(reader, labels, seed=1)
    assert len(partial) == len(reader)
    assert partial.classes == reader.classes  # as all that a Mixture asks for
    assert pickle.loads(pickle.dumps(partial)).labels == labels
    hidden = 0
    for i in range(len(reader)):
        sample, whole = partial[i], reader[i]
        assert sample["id"] == whole["id"]
        assert sample["image"].equal(whole["image"])
        assert all(sample["targets"][task].equal(target) for task, target in whole["targets"].items())
        has = [task for task, mask in whole["valid"].items() if mask.any()]
        kept = [task for task, mask in sample["valid"].items() if mask.any()]
        assert set(kept) < set(has)
        assert len(kept) == 1 or labels == "random"
        assert all(sample["valid"][task].equal(whole["valid"][task]) for task in kept)
        assert kept == [task for task, mask in partial[i]["valid"].items() if mask.any()]  # the same in the next epoch
        hidden += len(has) - len(kept)
    assert hidden > 0


def test_the_config_hides_labels_of_training_alone(configured: Callable[..., Config]) -> None:
    plain, one, other = (
        build_experiment(configured(*overrides)) for overrides in ([], ["data.labels=one"], ["data.labels=one", "run.seed=4"])
    )

    def labels(experiment: object, name: str) -> list[list[str]]:
        data = getattr(experiment, name)
        return [[task for task, mask in data[i]["valid"].items() if mask.any()] for i in range(len(data))]

    assert all(len(tasks) == 1 for tasks in labels(one, "train_data"))
    assert labels(one, "train_data") != labels(other, "train_data")
    assert sum(map(len, labels(plain, "train_data"))) > len(plain.train_data) * 4
    assert labels(one, "eval_data") == labels(plain, "eval_data")
    batches = [next(iter(experiment.batches(0, 0, 1))) for experiment in (plain, one)]
    assert batches[0]["id"] == batches[1]["id"]
    assert torch.equal(batches[0]["image"], batches[1]["image"])
