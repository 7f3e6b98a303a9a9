"""Missing labels and batches."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from mult import TASKS
from mult.data.sample import Sample, collate_eval, collate_train, empty_target


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_label_counts_nowhere(task: str) -> None:
    target, valid = empty_target(TASKS[task], 5, 7)
    if TASKS[task].categorical:
        assert torch.equal(target, torch.full((5, 7), 255))
    else:
        assert torch.equal(target, torch.zeros(TASKS[task].channels or 0, 5, 7))
        assert target.dtype == torch.float32
    assert torch.equal(valid, torch.zeros(1, 5, 7, dtype=torch.bool))


def views(*sizes: tuple[int, int]) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    return [
        {
            "image": draw(3, 4, 6),
            "targets": {"depth_zbuffer": draw(1, *size), "segment_semantic": (draw(*size) * 17).long()},
            "valid": {"depth_zbuffer": draw(1, *size) > 0.5, "segment_semantic": draw(1, *size) > 0.5},
            "id": f"view {number}",
            "derived": (),
        }
        for number, size in enumerate(sizes)
    ]


def test_training_batches_are_stacked() -> None:
    samples = views((4, 6), (4, 6), (4, 6))
    batch = collate_train(samples)
    assert batch["id"] == ["view 0", "view 1", "view 2"]
    for position, sample in enumerate(samples):
        assert torch.equal(batch["image"][position], sample["image"])
        for task in sample["targets"]:
            assert torch.equal(batch["targets"][task][position], sample["targets"][task])
            assert torch.equal(batch["valid"][task][position], sample["valid"][task])


def test_evaluation_batches_keep_native_sizes() -> None:
    samples = views((8, 5), (4, 6))
    batch = collate_eval(samples)
    for image, sample in zip(batch["image"]["image"], samples, strict=True):
        assert torch.equal(image, sample["image"])
    assert batch["content"] == [(0, 0, 4, 6)] * 2
    for task in ("depth_zbuffer", "segment_semantic"):
        for position, sample in enumerate(samples):
            for maps, own in ((batch["targets"], sample["targets"]), (batch["valid"], sample["valid"])):
                assert maps[task][position].dtype == own[task].dtype
                assert torch.equal(maps[task][position], own[task])
        assert len(batch["targets"][task]) == len(batch["valid"][task]) == 2


def test_runs_of_one_size_are_stacked_in_order() -> None:
    sizes = [(4, 6), (4, 6), (8, 5), (4, 6), (4, 7), (4, 7)]
    samples = views(*sizes)
    for place, (sample, size) in enumerate(zip(samples, sizes, strict=True)):
        sample["image"] = torch.full((3, *size), float(place))
    runs = list(collate_eval(samples)["image"].stack_runs("image"))
    assert [list(run.shape) for run in runs] == [[2, 3, 4, 6], [1, 3, 8, 5], [1, 3, 4, 6], [2, 3, 4, 7]]
    for image, sample in zip([image for run in runs for image in run], samples, strict=True):
        assert torch.equal(image, sample["image"])


WORKERS_OF_FEW_FILES = """
import resource, sys
import torch
from mult.data.sample import collate_eval
from mult.runtime.loader import Loader
from mult.tasks import TASKS

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

class Views:
    def __len__(self):
        return 64 * 24

    def __getitem__(self, index):
        height, width = 4 + index % 13, 5 + index % 7
        targets = {}
        for task, description in TASKS.items():
            shape = (height, width) if description.categorical else (description.channels, height, width)
            targets[task] = torch.full(shape, index, dtype=torch.int64 if description.categorical else torch.float32)
        valid = {task: torch.ones(1, height, width, dtype=torch.bool) for task in TASKS}
        return {"image": torch.zeros(3, 8, 8), "targets": targets, "valid": valid, "id": str(index), "derived": ()}

seen = []
for batch in Loader(Views(), batch_size=64, num_workers=8, collate_fn=collate_eval):
    values = {task: [int(target.max()) for target in batch["targets"][task]] for task in TASKS}
    assert len(set(map(tuple, values.values()))) == 1
    seen += next(iter(values.values()))
assert seen == list(range(64 * 24))
"""


def test_an_evaluation_needs_few_open_files() -> None:
    """64 views of six tasks a batch and 8 workers, in a process that may have 256 files open."""
    ended = subprocess.run([sys.executable, "-c", WORKERS_OF_FEW_FILES], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_evaluation_batches_are_pinned_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's function for a batch of any kind; without a GPU no memory can be pinned, so a copy stands for it."""
    batch = collate_eval(views((8, 5), (4, 6)))
    before = {task: batch["targets"][task] for task in ("depth_zbuffer", "segment_semantic")}
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    pinned = pin_memory(batch)
    assert pinned["content"] == [(0, 0, 4, 6)] * 2
    assert pinned["id"] == ["view 0", "view 1"]
    for task, maps in before.items():
        for mine, theirs in zip(pinned["targets"][task], maps, strict=True):
            assert torch.equal(mine, theirs)
            assert mine.untyped_storage().data_ptr() != theirs.untyped_storage().data_ptr()
