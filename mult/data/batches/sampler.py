"""The order of training samples: a function of the seed and the position alone, so that to resume needs only the position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from torch import Tensor
from torch.utils.data import Sampler

from mult.errors import UserError


class ShuffledBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) over one dataset, or over several that lie one after the other as in a `Mixture`.

    Every epoch of a dataset is a new permutation of all its samples; a batch may hold samples of two epochs. Of any number of
    first samples, each of K datasets has given weight / sum of weights, to within K / 2 samples (`dataset_at`).

    Yields this rank's equal part of the global batches start, start + 1, ..., stop - 1. The global batches do not depend on the
    number of ranks: concatenated in the order of ranks, the parts are the batch of a single process.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[float],
        batch_size: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size % world:
            raise UserError(
                f"data.batch_size: got {batch_size} for {world} processes; expected a multiple of {world}; "
                "it counts the samples of all processes together"
            )
        self.lengths, self.shares, self.seed = list(lengths), remaining_shares(weights), seed
        self.batch_size, self.local_batch_size = batch_size, batch_size // world
        self.start, self.stop, self.rank = start, stop, rank

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        orders = [(-1, torch.empty(0))] * len(self.lengths)  # of each dataset the current epoch and its permutation
        offsets = [sum(self.lengths[:source]) for source in range(len(self.lengths))]
        for batch in range(self.start, self.stop):
            indices = []
            first = batch * self.batch_size + self.rank * self.local_batch_size
            for position in range(first, first + self.local_batch_size):
                source, earlier = dataset_at(position, self.shares)
                epoch, place = divmod(earlier, self.lengths[source])
                if orders[source][0] != epoch:
                    orders[source] = epoch, self._permute(source, epoch)
                indices.append((epoch, offsets[source] + int(orders[source][1][place])))
            yield indices

    def _permute(self, source: int, epoch: int) -> Tensor:
        # Seeds of epochs must not coincide with those of another run's or dataset's: spread them by large primes.
        seed = self.seed * 2_147_483_659 + source * 1_000_000_000_039 + epoch
        return torch.randperm(self.lengths[source], generator=torch.Generator().manual_seed(seed % 2**63))


def remaining_shares(weights: Sequence[float]) -> list[Fraction]:
    """Each dataset's share of the samples that the datasets before it do not give: exact fractions, the last one is 1."""
    exact = [Fraction(str(weight)) for weight in weights]  # by their decimals: 0.1 is 1/10, not the nearest binary number
    return [weight / sum(exact[source:]) for source, weight in enumerate(exact)]


def dataset_at(position: int, shares: Sequence[Fraction]) -> tuple[int, int]:
    """Which dataset gives the sample at a position of the order, and how many samples it gives before.

    `shares` are `remaining_shares`. Of the first p samples, the first dataset gives its share of p, rounded to the nearest
    integer; the samples that it does not give are counted from 0 again and divided among the other datasets by the same rule.
    """
    for source, share in enumerate(shares):
        earlier, with_this = (_round_half_up(share * count) for count in (position, position + 1))
        if with_this > earlier:
            return source, earlier
        position -= earlier
    raise AssertionError("the last dataset's share is 1: it gives every sample that reaches it")


def _round_half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)
