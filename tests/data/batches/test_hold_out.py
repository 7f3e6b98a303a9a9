"""Which views are held out of a training split."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from mult.data.batches.hold_out import PartOfSplit
from mult.data.sample import Reader
from mult.errors import UserError


@dataclass
class Names:
    """A reader whose samples are their own names; `scenes` gives each its scene."""

    names: list[str]
    scenes: dict[str, str] = field(default_factory=dict)
    root: str = "somewhere"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> str:
        return self.names[i]

    def name(self, i: int) -> str:
        return self.names[i]

    def group(self, i: int) -> str:
        return self.scenes.get(self.names[i], "")

    def native(self, i: int) -> frozenset[str]:
        return frozenset({self.names[i]})

    def camera(self, i: int) -> str:
        return f"camera of {self.names[i]}"


def part_of(reader: Names, share: float, held_out: bool) -> Any:
    return PartOfSplit(cast(Reader, reader), share, held_out)


def split(reader: Names, share: float) -> tuple[list[str], list[str]]:
    """The names that are trained on, and those that are held out."""
    trained, held_out = (part_of(reader, share, is_held_out) for is_held_out in (False, True))
    return [trained[i] for i in range(len(trained))], [held_out[i] for i in range(len(held_out))]


def test_every_view_is_in_one_part_in_the_order_of_the_dataset() -> None:
    names = [f"view {i}" for i in range(200)]
    trained, held_out = split(Names(names), 0.1)
    assert len(held_out) == 20
    assert sorted(trained + held_out, key=names.index) == names
    assert trained == sorted(trained, key=names.index)
    assert held_out != names[:20]
    assert held_out != names[-20:]


def test_the_order_of_the_files_does_not_matter_and_more_views_move_few() -> None:
    names = [f"view {i}" for i in range(200)]
    assert set(split(Names(names[::-1]), 0.25)[1]) == set(split(Names(names), 0.25)[1])
    before, after = (set(split(Names(some), 0.25)[1]) for some in (names, [*names, "another"]))
    assert len(before ^ after) <= 1


def test_scenes_are_held_out_whole() -> None:
    names = [f"view {i}" for i in range(100)]
    scenes = {name: f"scene {i // 7}" for i, name in enumerate(names)}
    trained, held_out = split(Names(names, scenes), 0.3)
    assert {scenes[name] for name in trained}.isdisjoint({scenes[name] for name in held_out})
    assert 30 <= len(held_out) < 37


def test_everything_of_a_view_is_that_view_s() -> None:
    reader = Names([f"view {i}" for i in range(9)], {f"view {i}": f"scene {i}" for i in range(9)})
    part = pickle.loads(pickle.dumps(part_of(reader, 0.4, True)))  # as a worker of the loader gets it
    for i in range(len(part)):
        name = part[i]
        assert (part.name(i), part.native(i), part.camera(i)) == (name, {name}, f"camera of {name}")
        assert part.group(i) == name.replace("view", "scene")
    assert part[-1] == part[len(part) - 1]
    assert part.root == "somewhere"
    with pytest.raises(IndexError):
        part[len(part)]


@pytest.mark.parametrize(("names", "share"), [(["one"], 0.1), (["one", "two"], 0.9), ([], 0.5)])
def test_an_empty_part_is_refused(names: list[str], share: float) -> None:
    with pytest.raises(UserError, match=r"data\.hold_out: got .* of somewhere; expected some to hold out and some to train on"):
        part_of(Names(names), share, True)
