"""A run's files: damage is named; which images are the best, median and worst."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mult import report
from mult.errors import UserError
from mult.report.examples import rank_values

WriteRun = Callable[..., Path]


@pytest.mark.parametrize(
    ("values", "higher", "limit", "expected"),
    [
        ([3, 1, 2, np.nan, 5, 4, 0], False, 1, [("best", 6), ("median", 2), ("worst", 4)]),
        (
            [3, 1, 2, np.nan, 5, 4, 0],
            True,
            2,
            [("best", 4), ("best", 5), ("median", 0), ("median", 2), ("worst", 1), ("worst", 6)],
        ),
        ([1, 1, 1], False, 2, [("best", 0), ("median", 1), ("worst", 2)]),
        ([2, 7], False, 2, [("best", 0), ("worst", 1)]),
        ([7], True, 2, [("best", 0)]),
        ([np.nan], True, 2, []),
    ],
)
def test_best_median_and_worst(values: list[float], higher: bool, limit: int, expected: list[tuple[str, int]]) -> None:
    assert rank_values(np.array(values, float), higher, limit) == expected


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "config.yaml").unlink(),
            r"report: got .*; expected the folder of a run, with config\.yaml; give",
        ),
        (lambda folder: (folder / "eval" / "rooms-val.json").write_text("{"), r"rooms-val\.json: cannot be read as JSON"),
        (
            lambda folder: (folder / "eval" / "x.json").write_text("[]"),
            r"x\.json: cannot be read as JSON \(a list at the top level\)",
        ),
        (
            lambda folder: (folder / "metrics.jsonl").write_text("no\n"),
            r"metrics\.jsonl, line 1: got b'no.*; expected an object with step and split; remove the line",
        ),
        (lambda folder: (folder / "eval" / "rooms-val.npz").write_text("x"), r"rooms-val\.npz: cannot be read as arrays"),
    ],
)
def test_what_cannot_be_read_is_named(write_run: WriteRun, tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    folder = write_run(tmp_path / "run")
    damage(folder)
    with pytest.raises(UserError, match=message):
        report.read_run(folder)
