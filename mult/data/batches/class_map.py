"""One label space as another: the classes of a dataset under the names and numbers of those a checkpoint knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mult.data.disk.encodings import CLASSES
from mult.data.disk.splits import published_list
from mult.data.sample import IGNORE, Reader, Sample
from mult.errors import UserError

SPACES = ("taskonomy", "nyu13", "nyu40")


class Mapped(Dataset[Sample]):
    """A dataset whose class ids are those of the classes `to`; `mapping` has a name of `to`, or None, for each of its own.

    None means ignore, and several of its classes may become one. Everything but the classes is as the reader has it. Raises
    UserError, under data.class_map, for a class of the reader that is not mapped and for names that nobody knows.
    """

    def __init__(self, reader: Reader, to: str | Sequence[str], mapping: Mapping[str, str | None]) -> None:
        self.reader = reader
        names = space(to) if isinstance(to, str) else list(to)
        self.classes = dict.fromkeys(reader.classes, names)
        self._tables = {task: _table(own, names, mapping) for task, own in reader.classes.items()}

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, i: int) -> Sample:
        sample = self.reader[i]
        mapped: dict[str, Tensor] = {task: table[sample["targets"][task]] for task, table in self._tables.items()}
        targets = {task: mapped.get(task, target) for task, target in sample["targets"].items()}
        valid = {task: (mapped[task] != IGNORE)[None] if task in mapped else mask for task, mask in sample["valid"].items()}
        return {**sample, "targets": targets, "valid": valid}

    def __getattr__(self, name: str) -> Any:
        if name == "reader":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.reader, name)


def space(name: str) -> list[str]:
    """The classes of a label space, in the order of their ids; UserError for one that is not of SPACES."""
    if name not in SPACES:
        raise UserError(f"data.class_map.to: got {name!r}; expected one of {', '.join(SPACES)} or a list of names; name one")
    if name == "taskonomy":
        return list(CLASSES)
    facts = json.loads(published_list("nyu", "json").read_text())
    return [str(each) for each in facts[f"classes{name.removeprefix('nyu')}"]]


def _table(own: Sequence[str], names: Sequence[str], mapping: Mapping[str, str | None]) -> Tensor:
    """The new class id of each old one."""
    for name, other in mapping.items():
        if name not in own:
            raise UserError(
                f"data.class_map.classes: got the class {name!r}; expected those of the dataset: {', '.join(own)}; "
                "correct the name"
            )
        if other is not None and other not in names:
            raise UserError(
                f"data.class_map.classes.{name}: got {other!r}; expected null (ignore) or one of {', '.join(names)}; "
                "correct the name"
            )
    gap = [name for name in own if name and name not in mapping]
    if gap:
        raise UserError(
            f"data.class_map.classes: got nothing for {', '.join(gap)}; expected every class of the dataset; map each to a "
            "class of data.class_map.to, or to null to ignore it"
        )
    table = np.full(IGNORE + 1 if len(own) <= IGNORE else len(own), IGNORE, np.int64)
    for number, name in enumerate(own):
        other = mapping.get(name)
        if other is not None:
            table[number] = names.index(other)
    return torch.from_numpy(table)
