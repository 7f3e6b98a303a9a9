"""The order of training samples: a function of (seed, position) alone, so that resuming needs only the position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from torch import Tensor
from torch.utils.data import Sampler

from mult.errors import UserError


class Shuffled(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) over one dataset, or over several that lie one after the other as in a `Mixture`.

    Every epoch of a dataset is a new permutation of all its samples, batches running across epochs' ends. The datasets take
    turns so that after any number of samples each of K has given its share of them, weight / sum of weights, to within K / 2
    samples (`turn`). Yields this rank's equal part of the global batches start, start + 1, ..., stop - 1, whatever the number
    of ranks that share them: concatenated in the order of ranks, the parts are the batch that one process would see.
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
        self.lengths, self.shares, self.seed = list(lengths), shares(weights), seed
        self.batch_size, self.part = batch_size, batch_size // world
        self.start, self.stop, self.rank = start, stop, rank

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        orders = [(-1, torch.empty(0))] * len(self.lengths)
        offsets = [sum(self.lengths[:source]) for source in range(len(self.lengths))]
        for batch in range(self.start, self.stop):
            indices = []
            first = batch * self.batch_size + self.rank * self.part
            for position in range(first, first + self.part):
                source, taken = turn(position, self.shares)
                epoch, place = divmod(taken, self.lengths[source])
                if orders[source][0] != epoch:
                    orders[source] = epoch, self._order(source, epoch)
                indices.append((epoch, offsets[source] + int(orders[source][1][place])))
            yield indices

    def _order(self, source: int, epoch: int) -> Tensor:
        # Seeds of epochs must not coincide with those of another run's or dataset's: spread them by large primes.
        seed = self.seed * 2_147_483_659 + source * 1_000_000_000_039 + epoch
        return torch.randperm(self.lengths[source], generator=torch.Generator().manual_seed(seed % 2**63))


def shares(weights: Sequence[float]) -> list[Fraction]:
    """Of the samples that the datasets before it leave over, the part that goes to each: exact, the last one's is 1."""
    exact = [Fraction(str(weight)) for weight in weights]  # as they were written: 0.1 is a tenth
    return [weight / sum(exact[source:]) for source, weight in enumerate(exact)]


def turn(position: int, shares: Sequence[Fraction]) -> tuple[int, int]:
    """Whose turn it is at a position, and how many turns that dataset has had before.

    Of p samples the first dataset gives share * p, rounded; what is left over is counted anew and shared among the others.
    """
    for source, share in enumerate(shares):
        taken, after = (_rounded(share * count) for count in (position, position + 1))
        if after > taken:
            return source, taken
        position -= taken
    raise AssertionError("the last dataset takes all that is left over")


def _rounded(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)
