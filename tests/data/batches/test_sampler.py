"""The order of training samples: a function of the seed and the position, whatever the ranks and the start."""

from __future__ import annotations

from collections import Counter

import pytest

from mult.data.batches.sampler import ShuffledBatches, dataset_at, remaining_shares
from mult.errors import UserError


def shuffled(length: int, batch_size: int, seed: int, start: int, stop: int, **ranks: int) -> ShuffledBatches:
    return ShuffledBatches([length], [1.0], batch_size, seed, start, stop, **ranks)


def flat(batches: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return [key for batch in batches for key in batch]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_parts_of_all_ranks_are_the_batch_of_one_process(world: int) -> None:
    batches = list(shuffled(10, batch_size=6, seed=3, start=2, stop=9))
    parts = [list(shuffled(10, 6, 3, 2, 9, rank=rank, world=world)) for rank in range(world)]
    assert [flat([part[step] for part in parts]) for step in range(7)] == batches
    assert {len(batch) for part in parts for batch in part} == {6 // world}


@pytest.mark.parametrize("start", [1, 4, 5, 12])  # 10 samples in batches of 4: an epoch ends inside batches and between them
def test_starting_late_goes_on_with_the_same_batches(start: int) -> None:
    batches = list(shuffled(10, batch_size=4, seed=0, start=0, stop=13))
    late = shuffled(10, batch_size=4, seed=0, start=start, stop=13)
    assert list(late) == batches[start:]
    assert len(late) == 13 - start


def test_every_sample_comes_once_an_epoch_and_epochs_differ() -> None:
    keys = flat(list(shuffled(10, batch_size=4, seed=1, start=0, stop=15)))  # 60 keys: 6 epochs
    assert set(Counter(keys).values()) == {1}
    assert [epoch for epoch, _ in keys] == sorted(epoch for epoch, _ in keys)
    orders = [tuple(index for epoch, index in keys if epoch == number) for number in range(6)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(orders)) == 6


def test_a_batch_may_hold_more_than_an_epoch() -> None:
    (batch,) = shuffled(3, batch_size=8, seed=0, start=0, stop=1)
    assert [epoch for epoch, _ in batch] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_seeds_give_other_orders_and_no_epoch_of_another_seed() -> None:
    orders = set()
    for seed in range(5):
        keys = flat(list(shuffled(50, batch_size=50, seed=seed, start=0, stop=5)))
        orders |= {tuple(index for epoch, index in keys if epoch == number) for number in range(5)}
    assert len(orders) == 25


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    message = r"data\.batch_size: got 8 for 3 processes; expected a multiple of 3; .*all processes"
    with pytest.raises(UserError, match=message):
        shuffled(10, batch_size=8, seed=0, start=0, stop=1, rank=0, world=3)


# --- Several datasets ---


@pytest.mark.parametrize("weights", [[1, 1], [3, 1], [0.1, 0.7, 0.2], [5, 1, 1, 1, 2], [0.25], [1e-3, 1]])
def test_turns_keep_the_proportions_at_every_position(weights: list[float]) -> None:
    taken = [0] * len(weights)
    for position in range(3000):
        source, before = dataset_at(position, remaining_shares(weights))
        assert before == taken[source]  # a function of the position alone knows what came before it
        taken[source] += 1
        ideal = [weight / sum(weights) * (position + 1) for weight in weights]
        assert max(abs(one - other) for one, other in zip(taken, ideal, strict=True)) <= len(weights) / 2 + 1e-9


def test_turns_alternate_and_do_not_drift() -> None:
    assert [dataset_at(position, remaining_shares([3, 1]))[0] for position in range(8)] == [0, 0, 1, 0, 0, 0, 1, 0]
    far = 10**15  # where a float would have lost the fraction
    source, before = dataset_at(far, remaining_shares([0.1, 0.2]))
    assert before == (far // 3, far - far // 3)[source]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_mixture_visits_each_dataset_epoch_by_epoch(world: int) -> None:
    lengths, weights = [5, 7], [1.0, 3.0]
    parts = [list(ShuffledBatches(lengths, weights, 4, 9, 0, 21, rank, world)) for rank in range(world)]
    keys = flat([part[step] for step in range(21) for part in parts])
    assert keys == flat(list(ShuffledBatches(lengths, weights, 4, 9, 0, 21)))
    small, large = ([key for key in keys if (key[1] >= 5) == is_large] for is_large in (False, True))
    assert (len(small), len(large)) == (21, 63)
    for taken, members in ((small, range(5)), (large, range(5, 12))):
        for epoch in range(len(taken) // len(members)):
            keys_of_epoch = taken[epoch * len(members) : (epoch + 1) * len(members)]
            assert sorted(keys_of_epoch) == [(epoch, index) for index in members]
    late = ShuffledBatches(lengths, weights, 4, 9, 13, 21)
    assert flat(list(late)) == keys[13 * 4 :]


def test_datasets_of_one_length_are_shuffled_differently() -> None:
    keys = flat(list(ShuffledBatches([30, 30], [1, 1], 60, 0, 0, 1)))
    first, second = ([index % 30 for _, index in keys if index // 30 == source] for source in (0, 1))
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second
