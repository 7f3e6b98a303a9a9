"""What a step costs, counted on the CPU for steps whose costs are plain, and the table of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mult.benchmark.gpu import CASES, measure_cases
from mult.runtime.speed import measure_product_rate, measure_speed

CPU = torch.device("cpu")
KINDS = [f"Swin-T, {kind}" for kind in ("step", "step, one task", "step, six single models", "step, decoder fpn", "inference")]
TWO = ("normal", "reshading")
TINY = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}


def test_operations_kernels_and_waits_of_a_step_are_counted() -> None:
    left, right = torch.rand(3, 5), torch.rand(5, 7)
    calls = []

    def step() -> None:
        calls.append(float((left @ right).relu().sum()))

    speed = measure_speed(step, CPU, steps=4)
    assert speed.operations == 2 * 3 * 5 * 7
    assert speed.waits == 1
    assert speed.busy_seconds is None
    assert speed.peak_bytes is None
    assert speed.rate == pytest.approx(210 / speed.seconds)
    assert len(calls) == 3 + 4 + 2
    two = measure_speed(lambda: left.exp().sin(), CPU, steps=1)
    assert (two.kernels, two.waits, two.operations) == (2, 0, 0)


def test_the_rate_of_a_product_is_positive() -> None:
    assert measure_product_rate(CPU, torch.bfloat16, size=8) > 0


def test_the_table_of_a_gpu_has_a_row_for_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    """A case of each kind, with two tasks and a tiny backbone, on the CPU."""
    cases = [
        replace(
            each,
            batch=2,
            first_version="171.7 ms",
            tasks=tuple(task for task in TWO if task in each.tasks),
            arguments=small(each.arguments),
        )
        for each in CASES
        if each.name in KINDS
    ]
    measure_cases(cases, CPU, steps=1, size=32, product_size=16)
    lines = capsys.readouterr().out.splitlines()
    rows = {case.name: line.removeprefix(case.name).split() for case, line in zip(cases, lines[2:], strict=True)}
    assert list(rows) == KINDS
    for row in rows.values():
        assert row[-2:] == ["171.7", "ms"]
        assert row[6:8] == ["-", "-"]  # no GPU is busy, or has memory
        assert row[5] == "0"  # waits
    kernels = {name: int(row[4]) for name, row in rows.items()}
    assert kernels["Swin-T, step, one task"] < kernels["Swin-T, step"] < kernels["Swin-T, step, six single models"]
    assert kernels["Swin-T, inference"] < kernels["Swin-T, step"]


def small(arguments: dict[str, Any]) -> dict[str, Any]:
    return {**arguments, "backbone_args": TINY} | ({} if arguments.get("decoder") == "fpn" else {"window_size": 4})


@pytest.mark.parametrize("device", ["cuda:99", "cpu", "cuda:x"])
def test_a_device_that_is_no_gpu_is_refused(script: Callable[..., Any], device: str) -> None:
    ended = script("benchmark", "--device", device)
    assert ended.status == 2
    assert ended.err.count("error: ") == 1
    assert f"--device: got {device}; expected " in ended.err
