"""Missing labels and batches."""

from __future__ import annotations

import pytest
import torch

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
    assert torch.equal(batch["image"], torch.stack([sample["image"] for sample in samples]))
    for task in ("depth_zbuffer", "segment_semantic"):
        for position, sample in enumerate(samples):
            assert batch["targets"][task][position] is sample["targets"][task]
            assert batch["valid"][task][position] is sample["valid"][task]
