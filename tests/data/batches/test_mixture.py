"""Several datasets as one: which sample comes from where, what a dataset does not label, and label spaces that differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from mult.data.batches.mixture import Mixture, merge_label_spaces
from mult.data.sample import Camera, Sample
from mult.errors import UserError


@dataclass
class Depths:
    """A reader of samples (1 x 2 pixels) whose depth says which they are."""

    offset: int
    length: int
    tasks: tuple[str, ...] = ("depth_zbuffer",)
    classes: dict[str, list[str]] = field(default_factory=dict)
    metric_depth: bool = True
    metric_arguments: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    root: Path = Path()
    labelled: frozenset[str] = frozenset({"depth_zbuffer"})
    available: tuple[str, ...] = ("depth_zbuffer",)
    underivable: Mapping[str, str] = field(default_factory=dict)
    benchmark_splits: frozenset[str] = frozenset()
    border: int = 0

    def native(self, i: int, /) -> frozenset[str]:
        return self.labelled

    def camera(self, i: int, /) -> Camera:
        return Camera((1, 1, 0.5, 0), (1, 2))

    def group(self, i: int, /) -> str:
        return f"{self.offset}:{i}"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int, /) -> Sample:
        if not 0 <= i < self.length:
            raise IndexError(i)
        depth = torch.tensor([[[self.offset + i, 0.5]]])
        return {
            "image": torch.full((3, 1, 2), 0.25),
            "targets": {"depth_zbuffer": depth},
            "valid": {"depth_zbuffer": torch.tensor([[[True, False]]])},
            "id": self.name(i),
            "derived": (),
        }

    def name(self, i: int, /) -> str:
        return f"{self.offset}/{i}"


def test_samples_come_in_the_order_of_their_datasets() -> None:
    views = Mixture([Depths(100, 2), Depths(200, 1), Depths(300, 3)], ["depth_zbuffer"], {})
    assert (len(views), views.lengths) == (6, [2, 1, 3])
    assert [float(views[i]["targets"]["depth_zbuffer"][0, 0, 0]) for i in range(6)] == [100, 101, 200, 300, 301, 302]
    assert [views[i]["id"] for i in (1, 2, 5)] == ["100/1", "200/0", "300/2"]
    for outside in (-1, 6):
        with pytest.raises(IndexError, match=f"sample {outside} of 6"):
            views[outside]


def test_a_label_that_a_dataset_lacks_is_valid_nowhere() -> None:
    sample = Mixture([Depths(7, 1)], ["segment_semantic", "depth_zbuffer", "normal"], {})[0]
    assert list(sample["targets"]) == list(sample["valid"]) == ["segment_semantic", "depth_zbuffer", "normal"]
    assert sample["targets"]["segment_semantic"].tolist() == [[255, 255]]
    assert sample["targets"]["normal"].shape == (3, 1, 2)
    assert {task: valid.tolist() for task, valid in sample["valid"].items()} == {
        "segment_semantic": [[[False, False]]],
        "depth_zbuffer": [[[True, False]]],
        "normal": [[[False, False]]],
    }
    assert sample["targets"]["depth_zbuffer"][0, 0, 0] == 7


def test_label_spaces_must_agree() -> None:
    bed, same = ({"segment_semantic": ["bed", "sofa"]} for _ in range(2))
    assert merge_label_spaces([Depths(0, 1), Depths(0, 1, classes=bed), Depths(0, 1, classes=same)], ["a", "b", "c"]) == bed
    other = {"segment_semantic": ["sofa", "bed", "chair", "tv", "book"]}
    message = (
        r"data: got two label spaces of segment_semantic: mine \(x\) has 2 classes \(bed, sofa\), nyu \(y\) has 5 classes "
        r"\(sofa, bed, chair, tv, \.\.\.\); expected one; map the classes of one to the other's with data\.class_map"
    )
    with pytest.raises(UserError, match=message):
        merge_label_spaces([Depths(0, 1, classes=bed), Depths(0, 1, classes=other)], ["mine (x)", "nyu (y)"])
    reordered = {"segment_semantic": ["sofa", "bed"]}  # the same names under other ids would be learnt wrongly
    with pytest.raises(UserError, match="two label spaces"):
        merge_label_spaces([Depths(0, 1, classes=bed), Depths(0, 1, classes=reordered)], ["a", "b"])


def test_metres_do_not_mix_with_relative_depth() -> None:
    readers = [Depths(0, 1), Depths(0, 1, metric_depth=False)]
    message = (
        r"data: got two units of depth: rooms \(a\) has metres, cocodoom \(b\) has depth of no known scale; "
        r"expected one; give the latter its scale in data\.options, or train without it"
    )
    with pytest.raises(UserError, match=message):
        merge_label_spaces(readers, ["rooms (a)", "cocodoom (b)"])
    readers[1].tasks = ("normal",)
    assert merge_label_spaces(readers, ["rooms (a)", "cocodoom (b)"]) == {}
