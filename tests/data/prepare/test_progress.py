"""The reports of an interrupted check: which views are read again, and that a long listing is not held in memory."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest

from mult.data.prepare.progress import Problem, Progress, ViewReport

INDICES = [3 * number + number % 2 for number in range(2030)]
"""Of views drawn at random: ascending, with gaps; in blocks of 100 the last block has 30."""


@pytest.fixture(autouse=True)
def blocks_of_100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mult.data.prepare.progress.BLOCK", 100)


def report(index: int) -> ViewReport:
    return ViewReport(index, {"normal": (index % 2 == 0, index / 8192)}, [], [Problem("constant", f"{index}")], index / 4)


def in_any_order(indices: Sequence[int]) -> Iterator[ViewReport]:
    """As from several processes: a few neighbouring blocks at a time, their views mixed."""
    for start in range(0, len(indices), 250):
        mixed = list(indices[start : start + 250])
        random.Random(start).shuffle(mixed)
        yield from map(report, mixed)


def interrupt(folder: Path, views: int) -> None:
    assert len(list(islice(Progress(folder, ["train"], INDICES).reports(in_any_order), views))) == views


def resume(folder: Path) -> tuple[list[ViewReport], list[int]]:
    """All reports, and the views that were read for them."""
    read: list[int] = []

    def remember(indices: Sequence[int]) -> Iterable[ViewReport]:
        read.extend(indices)
        return in_any_order(indices)

    return sorted(Progress(folder, ["train"], INDICES).reports(remember), key=lambda view: view.index), read


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    interrupt(tmp_path, 1001)  # ten blocks, and a view of the next ones
    views, read = resume(tmp_path)
    assert views == [report(index) for index in INDICES]
    assert read == INDICES[1000:]
    assert resume(tmp_path) == (views, [])


def test_a_damaged_block_is_read_again(tmp_path: Path) -> None:
    interrupt(tmp_path, 2030)
    files = sorted(tmp_path.rglob("views-*.json"))
    assert len(files) == 21
    files[4].write_text("{")
    content = json.loads(files[20].read_text())
    content["views"].pop()
    files[20].write_text(json.dumps(content))
    views, read = resume(tmp_path)
    assert views == [report(index) for index in INDICES]
    assert read == INDICES[400:500] + INDICES[2000:]


def test_reports_are_not_held(tmp_path: Path) -> None:
    """Of those that are kept one block at a time, of the new ones the blocks that are not complete."""
    interrupt(tmp_path, 1001)
    counts = []
    for number, _ in enumerate(Progress(tmp_path, ["train"], INDICES).reports(in_any_order)):
        if number % 290 == 0:
            counts.append(sum(type(each) is ViewReport for each in gc.get_objects()))
    assert len(counts) == 7
    assert max(counts) <= 310
