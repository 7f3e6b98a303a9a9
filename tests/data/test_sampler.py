"""The order of training samples (architecture.md, "No randomness lives in a worker")."""

from __future__ import annotations

from collections import Counter

import pytest

from mult.data.sampler import Shuffled


def flat(batches: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return [key for batch in batches for key in batch]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_parts_of_all_ranks_are_the_batch_of_one_process(world: int) -> None:
    whole = list(Shuffled(length=10, batch_size=6, seed=3, start=2, stop=9))
    parts = [list(Shuffled(10, 6, 3, 2, 9, rank, world)) for rank in range(world)]
    assert [flat([part[step] for part in parts]) for step in range(7)] == whole
    assert {len(batch) for part in parts for batch in part} == {6 // world}


@pytest.mark.parametrize("start", [1, 4, 5, 12])  # 10 samples in batches of 4: an epoch ends inside batches and between them
def test_starting_late_goes_on_with_the_same_batches(start: int) -> None:
    whole = list(Shuffled(length=10, batch_size=4, seed=0, start=0, stop=13))
    late = Shuffled(length=10, batch_size=4, seed=0, start=start, stop=13)
    assert list(late) == whole[start:]
    assert len(late) == 13 - start


def test_every_sample_comes_once_an_epoch_and_epochs_differ() -> None:
    keys = flat(list(Shuffled(length=10, batch_size=4, seed=1, start=0, stop=15)))  # 60 keys: 6 epochs
    assert set(Counter(keys).values()) == {1}
    assert [epoch for epoch, _ in keys] == sorted(epoch for epoch, _ in keys)
    orders = [tuple(index for epoch, index in keys if epoch == number) for number in range(6)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(orders)) == 6


def test_a_batch_may_hold_more_than_an_epoch() -> None:
    (batch,) = Shuffled(length=3, batch_size=8, seed=0, start=0, stop=1)
    assert [epoch for epoch, _ in batch] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_seeds_give_other_orders_and_no_epoch_of_another_seed() -> None:
    orders = set()
    for seed in range(5):
        keys = flat(list(Shuffled(length=50, batch_size=50, seed=seed, start=0, stop=5)))
        orders |= {tuple(index for epoch, index in keys if epoch == number) for number in range(5)}
    assert len(orders) == 25


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    message = r"data\.batch_size: got 8 for 3 processes; expected a multiple of 3; .*all processes"
    with pytest.raises(ValueError, match=message):
        Shuffled(length=10, batch_size=8, seed=0, start=0, stop=1, rank=0, world=3)
