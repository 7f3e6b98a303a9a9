"""Partially labelled training images: of each image some tasks' labels are hidden, the same ones in every epoch.

As in W.-H. Li, X. Liu, H. Bilen, *Learning Multiple Dense Prediction Tasks from Partially Annotated Data*, CVPR 2022, whose
settings are one label an image and a random number of them.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from mult.data.sample import Reader, Sample

Labels = Literal["one", "random"]


class PartialLabels(Dataset[Sample]):
    """A dataset whose samples keep the labels of one task ("one") or of at least one and not of all ("random").

    Of the tasks of which a sample has a valid pixel, which ones it keeps is a function of `seed` and of its id. The masks of
    the others are False; nothing else changes. All other attributes are the reader's.
    """

    def __init__(self, reader: Reader, labels: Labels, seed: int) -> None:
        self.reader, self.labels, self.seed = reader, labels, seed

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, i: int) -> Sample:
        sample = self.reader[i]
        labelled = [task for task, mask in sample["valid"].items() if mask.any()]
        kept = choose_tasks(labelled, self.labels, self.seed, sample["id"])
        return {
            **sample,
            "valid": {task: mask if task in kept else torch.zeros_like(mask) for task, mask in sample["valid"].items()},
        }

    def __getattr__(self, name: str) -> Any:
        if name == "reader":  # pickle asks for attributes before it has set any: without this the next line has no end
            raise AttributeError(name)
        return getattr(self.reader, name)


def choose_tasks(labelled: list[str], labels: Labels, seed: int, sample_id: str) -> set[str]:
    """The tasks whose labels a sample keeps: one of `labelled`, or any number from one to all but one of them."""
    digest = hashlib.sha256(sample_id.encode()).digest()
    rng = np.random.default_rng(np.random.SeedSequence([seed, int.from_bytes(digest, "little")]))
    number = 1 if labels == "one" else int(rng.integers(1, max(len(labelled), 2)))
    return set(rng.permutation(labelled)[:number].tolist())
