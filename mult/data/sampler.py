"""The order of training samples: a function of (seed, position) alone, so that resuming needs only the position."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class Shuffled(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index): every epoch a new permutation of all samples, batches running across epochs' ends.

    Yields this rank's equal part of the global batches start, start + 1, ..., stop - 1, whatever the number of ranks that
    share them: concatenated in the order of ranks, the parts are the batch that one process would see.
    """

    def __init__(self, length: int, batch_size: int, seed: int, start: int, stop: int, rank: int = 0, world: int = 1) -> None:
        if batch_size % world:
            raise ValueError(
                f"data.batch_size: got {batch_size} for {world} processes; expected a multiple of {world}; "
                "it counts the samples of all processes together"
            )
        self.length, self.seed = length, seed
        self.batch_size, self.part = batch_size, batch_size // world
        self.start, self.stop, self.rank = start, stop, rank

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, torch.empty(0)
        for batch in range(self.start, self.stop):
            indices = []
            first = batch * self.batch_size + self.rank * self.part
            for position in range(first, first + self.part):
                if position // self.length != epoch:
                    epoch = position // self.length
                    # Seeds of epochs must not coincide with those of another run's: spread them by a large prime.
                    generator = torch.Generator().manual_seed((self.seed * 2_147_483_659 + epoch) % 2**63)
                    order = torch.randperm(self.length, generator=generator)
                indices.append((epoch, int(order[position % self.length])))
            yield indices
