"""A list of datasets as the data section."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mult.config import Config, load_config, to_yaml
from mult.errors import UserError

Write = Callable[[str, str], Path]


MIXTURE = """
run: {name: trial}
data:
  - {dataset: rooms, root: data/rooms, image_size: [64, 96], batch_size: 4, split: val, options: {views: 3}, weight: 2}
  - {root: data/mine}
  - {dataset: taskonomy, root: data/taskonomy, subset: full, split: train, weight: 0.5, max_depth_m: 8}
tasks: {normal: 1}
optim: {lr: 1.0e-4, steps: 10}
"""


def test_later_datasets_take_from_the_first_what_they_leave_out(write: Write) -> None:
    path = write("mixture.yaml", MIXTURE)
    first = load_config(path).data
    mine, taskonomy = first.mix
    assert (first.root, first.weight, first.options, first.image_size) == ("data/rooms", 2.0, {"views": 3}, (64, 96))
    assert mine == dataclasses.replace(first, root="data/mine", weight=1.0, options={}, mix=[])
    other: dict[str, Any] = {
        "dataset": "taskonomy",
        "root": "data/taskonomy",
        "subset": "full",
        "split": "train",
        "max_depth_m": 8.0,
    }
    assert taskonomy == dataclasses.replace(mine, **other, weight=0.5)
    changed = load_config(path, ["data.image_size=128", "data.split=test"]).data  # overrides reach all that did not say
    assert [part.image_size for part in (changed, *changed.mix)] == [(128, 128)] * 3
    assert [part.split for part in (changed, *changed.mix)] == ["test", "test", "train"]


def test_a_mixture_survives_writing_and_a_base(write: Write) -> None:
    path = write("mixture.yaml", MIXTURE)
    config = load_config(path)
    again = load_config(write("again.yaml", to_yaml(config)))
    assert again == config
    child = load_config(write("child.yaml", "base: mixture.yaml\ndata: {batch_size: 8}\n"))
    assert [part.batch_size for part in (child.data, *child.data.mix)] == [8, 8, 8]
    tree = yaml.safe_load(MIXTURE)
    assert Config.from_dict(tree) == config
    assert tree == yaml.safe_load(MIXTURE)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{root: data/mine}", "{weight: 2}", r"data\.mix\.0\.root: got nothing; expected a string; add this required key"),
        ("{root: data/mine}", "{root: a, wieght: 2}", r"data\.mix\.0: got unknown key 'wieght'; .*; did you mean 'weight'\?"),
        ("weight: 0.5", "weight: 0", r"data\.mix\.1\.weight: got 0 \(int\); expected a number above 0"),
        (
            "{root: data/mine}",
            "{root: a, batch_size: 8}",
            r"data\.mix\.0\.batch_size: got 8; expected 4, as the first .*; leave it out",
        ),
        (
            "{root: data/mine}",
            "{root: a, augment: false}",
            r"data\.mix\.0\.augment: got AugmentConfig\(crop=False, .*; leave it out",
        ),
        (
            "{root: data/mine}",
            "{root: a, mix: [{dataset: rooms, root: b, image_size: 64, batch_size: 1}]}",
            r"data\.mix\.0\.mix: got a mixture in a mixture; expected one list",
        ),
        ("{root: data/mine}", "data/mine", r"data: got \[.*'data/mine'.*\]; expected a mapping of dataset, root"),
    ],
)
def test_bad_mixture(write: Write, old: str, new: str, message: str) -> None:
    assert old in MIXTURE
    path = write("mixture.yaml", MIXTURE.replace(old, new))
    with pytest.raises(UserError, match=message):
        load_config(path)
