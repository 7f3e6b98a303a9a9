"""Class ids of one label space as those of another, such as a dataset's classes as those that a checkpoint was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mult.data.disk.encodings import CLASSES
from mult.data.disk.splits import read_nyu_lists
from mult.data.sample import Reader, Sample
from mult.errors import UserError
from mult.tasks import IGNORE, TASKS

LABEL_SPACES = ("taskonomy", "nyu13", "nyu40")


class ClassMapDataset(Dataset[Sample]):
    """A dataset with other class ids of one task; its other tasks and all other attributes are the reader's.

    `to` is a name of LABEL_SPACES or the class names in the order of their ids. `mapping` gives each of the task's classes a
    class of `to`, or None: its pixels become 255 (ignore). Several classes may become one. A task that the reader does not read
    needs no map. Raises UserError, under data.class_map, for a task without classes, for a class that `mapping` lacks and for
    names that are not of the reader or not of `to`.
    """

    def __init__(self, reader: Reader, task: str, to: str | Sequence[str], mapping: Mapping[str, str | None]) -> None:
        if task not in TASKS or not TASKS[task].categorical:
            tasks = ", ".join(name for name, record in TASKS.items() if record.categorical)
            raise UserError(f"data.class_map: got {task!r}; expected a task of classes ({tasks}), and under it to and classes")
        self.reader = reader
        where = f"data.class_map.{task}"
        names = read_label_space(to, f"{where}.to") if isinstance(to, str) else list(to)
        self.classes = {each: names if each == task else classes for each, classes in reader.classes.items()}
        self._tables = {
            each: _build_table(f"{where}.classes", classes, names, mapping)
            for each, classes in reader.classes.items()
            if each == task
        }

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, i: int) -> Sample:
        sample = self.reader[i]
        mapped: dict[str, Tensor] = {task: table[sample["targets"][task]] for task, table in self._tables.items()}
        targets = {task: mapped.get(task, target) for task, target in sample["targets"].items()}
        valid = {task: (mapped[task] != IGNORE)[None] if task in mapped else mask for task, mask in sample["valid"].items()}
        return {**sample, "targets": targets, "valid": valid}

    def __getattr__(self, name: str) -> Any:
        if name == "reader":  # pickle asks for attributes before it has set any: without this the next line has no end
            raise AttributeError(name)
        return getattr(self.reader, name)


def read_label_space(name: str, where: str) -> list[str]:
    """The class names of a label space, in the order of their ids; UserError for a name that is not in LABEL_SPACES."""
    if name not in LABEL_SPACES:
        raise UserError(f"{where}: got {name!r}; expected one of {', '.join(LABEL_SPACES)} or a list of names; name one")
    if name == "taskonomy":
        return list(CLASSES)
    lists = read_nyu_lists()
    return [str(each) for each in lists[f"classes{name.removeprefix('nyu')}"]]


def _build_table(where: str, classes: Sequence[str], names: Sequence[str], mapping: Mapping[str, str | None]) -> Tensor:
    """The new class id of each class id of the reader, and of 255."""
    for name, other in mapping.items():
        if name not in classes:
            raise UserError(
                f"{where}: got the class {name!r}; expected those of the dataset: {', '.join(classes)}; correct the name"
            )
        if other is not None and other not in names:
            raise UserError(
                f"{where}.{name}: got {other!r}; expected null (ignore) or one of {', '.join(names)}; correct the name"
            )
    missing = [name for name in classes if name and name not in mapping]  # NYU names the id 255, which no pixel has, ""
    if missing:
        raise UserError(
            f"{where}: got nothing for {', '.join(missing)}; expected every class of the dataset; map each to "
            "one of the new classes, or to null to ignore it"
        )
    table = np.full(max(IGNORE + 1, len(classes)), IGNORE, np.int64)
    for number, name in enumerate(classes):
        other = mapping.get(name)
        if other is not None:
            table[number] = names.index(other)
    return torch.from_numpy(table)
