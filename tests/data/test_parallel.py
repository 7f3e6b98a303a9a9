"""Work in processes: every item once, only a few ahead, an error of one ends all."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from mult.data.parallel import map_in_processes, map_with_progress


def square(number: int) -> tuple[int, int]:
    if number == 400:
        raise ValueError("400 is too much")
    return number**2, os.getpid()


@pytest.mark.parametrize(("workers", "chunk"), [(1, 8), (2, 1), (2, 8)])
def test_every_item_is_done_once(workers: int, chunk: int) -> None:
    done = list(map_in_processes(square, range(37), workers, chunk))
    assert sorted(value for value, _ in done) == [number**2 for number in range(37)]
    assert (os.getpid() in {process for _, process in done}) == (workers == 1)


def test_items_are_taken_as_they_are_needed() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            yield 3
            taken += 1

    results = map_in_processes(square, endless(), workers=2, chunk=4)
    assert next(results)[0] == 9
    assert taken <= 3 * 4 * 2 * 4
    results.close()  # type: ignore[attr-defined]


def test_an_error_ends_the_work() -> None:
    with pytest.raises(ValueError, match=r"^400 is too much$"):
        list(map_in_processes(square, iter(lambda: 400, None), workers=2))


@pytest.mark.parametrize(("number", "in_this_process"), [(4, True), (5, False)])
def test_one_chunk_is_done_in_this_process(number: int, in_this_process: bool) -> None:
    done = list(map_with_progress(square, range(number), 2, "squares", "number", chunk=4))
    assert sorted(value for value, _ in done) == [each**2 for each in range(number)]
    assert ({process for _, process in done} == {os.getpid()}) == in_this_process
