"""Packed: another dataset's views at the network's size, made by `scripts/pack.py`, several times as fast to read."""

from mult.data.packed.dataset import Packed as Packed
