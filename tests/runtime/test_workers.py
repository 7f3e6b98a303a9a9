"""Images in processes: equal results in the order of the images, and no process left."""

from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest
import torch

from mult.metrics import Boundary
from mult.runtime.workers import image_workers, map_images


def describe(number: int, text: str) -> tuple[int, str, int]:
    if number < 0:
        raise ValueError(f"number {number}")
    return number**2, text, os.getpid()


def test_results_come_in_order_from_other_processes() -> None:
    rows = list(range(9)), "abcdefghi"
    serial = map_images(describe, *rows)
    assert {process for *_, process in serial} == {os.getpid()}
    with image_workers(2):
        parallel = map_images(describe, *rows)
        assert [row[:2] for row in parallel] == [row[:2] for row in serial]
        assert os.getpid() not in {process for *_, process in parallel}
        with pytest.raises(ValueError, match="number -1"):
            map_images(describe, [3, -1], "ab")
        with image_workers(1):
            assert map_images(describe, [2], "x") == [(4, "x", os.getpid())]
    assert not multiprocessing.active_children()
    assert map_images(describe, *rows) == serial


def test_odsf_in_processes_is_equal_to_the_bit() -> None:
    generator = np.random.default_rng(2)
    probability = torch.from_numpy(generator.uniform(size=(5, 1, 24, 31)).astype(np.float32))
    truth = torch.from_numpy(generator.uniform(size=(5, 1, 24, 31)) > 0.85).float()
    valid = torch.ones(5, 1, 24, 31, dtype=torch.bool)
    valid[1, :, :, 20:] = False
    serial, parallel = Boundary(0.02, thresholds=9), Boundary(0.02, thresholds=9)
    expected = serial.update(probability, truth, valid)
    with image_workers(2):
        found = parallel.update(probability, truth, valid)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert parallel.compute() == serial.compute()
    assert serial.compute()["odsF"] is not None
