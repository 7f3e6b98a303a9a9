"""A config as YAML, and text that is no YAML."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mult.config import Config, load_config, to_yaml
from mult.config.yaml_text import MAX_DEPTH
from mult.errors import UserError

Write = Callable[[str, str], Path]
TreeWith = Callable[[str, Any], dict[str, Any]]


def test_round_trip_is_equal(write: Write, minimal: Path) -> None:
    config = load_config(
        minimal,
        [
            "run.name='1e5'",  # a string that YAML 1.2 would read as a float
            "run.output='off'",
            "data.root='~'",
            "data.split='ünïcode: #no comment'",
            "data.image_size=[64, 96]",
            "data.options={a: '1e-4', b: 1e-7, c: [1, [2.5, null]], d: {e: '', f: true, g: 'multi\\nline'}}",
            "model.num_heads=[3, 6, 12, 24]",
            "model.backbone_args={depths: [2, 2, 6, 2]}",
            "optim.lr=1e-5",
            "optim.weight_decay=1e+20",
            f"run.init={'long ' * 40}end",
            "tasks.normal.loss=l1",
        ],
    )
    again = load_config(write("again.yaml", to_yaml(config)))
    assert again == config
    assert to_yaml(again) == to_yaml(config)
    assert again.run.name == "1e5"
    assert f"init: {'long ' * 40}end\n" in to_yaml(config)
    assert again.data.image_size == (64, 96)
    assert Config.from_dict(dataclasses.asdict(config)) == config


def test_yaml_is_readable_and_complete(minimal: Path) -> None:
    text = to_yaml(load_config(minimal))
    assert "image_size: [96, 96]\n" in text
    assert "betas: [0.9, 0.999]\n" in text
    assert "!!" not in text
    assert "&" not in text
    sections = re.findall(r"^(\w+):", text, re.MULTILINE)
    assert sections == ["run", "data", "model", "tasks", "optim", "balance", "eval"]


def test_from_dict_takes_tuples_and_leaves_its_argument_alone(tree_with: TreeWith) -> None:
    tree = tree_with("model.backbone_args", {"depths": (2, 2), "num_heads": (3, 6)})
    tree["data"]["image_size"] = (64, 96)
    before = copy.deepcopy(tree)
    config = Config.from_dict(tree)
    assert config.model.backbone_args == {"depths": [2, 2], "num_heads": [3, 6]}
    assert config.data.image_size == (64, 96)
    assert tree == before


TYPES = {
    "010": 10,
    "08": 8,
    "-0": 0,
    "+7": 7,
    "0o17": 15,
    "0xfF": 255,
    "1_000": "1_000",
    "1:30": "1:30",
    "190:20:30": "190:20:30",
    "0b11": "0b11",
    "2026-05-01": "2026-05-01",
    "2026-05-01 10:00:00": "2026-05-01 10:00:00",
    "1e-4": 1e-4,
    "+12e03": 12000.0,
    "12.": 12.0,
    ".5": 0.5,
    "-2.5E+2": -250.0,
    "1:30.5": "1:30.5",
    "true": True,
    "FALSE": False,
    "yes": "yes",
    "off": "off",
    "~": None,
    "Null": None,
    "=": "=",
    "1.2.3": "1.2.3",
}
"""What YAML 1.2 (section 10.3.2) makes of a plain scalar; 1.1 reads 010 as 8, 1:30 as 90, yes as true, a date as a date."""


@pytest.mark.parametrize(("text", "expected"), TYPES.items())
def test_scalars_are_those_of_yaml_1_2(minimal: Path, write: Write, text: str, expected: Any) -> None:
    config = load_config(minimal, [f"data.options={{x: {text}}}"])
    value = config.data.options["x"]
    assert (value, type(value)) == (expected, type(expected))
    again = load_config(write("again.yaml", to_yaml(config))).data.options["x"]
    assert (again, type(again)) == (expected, type(expected))


@pytest.mark.parametrize("text", [text for text, value in TYPES.items() if isinstance(value, str)])
def test_text_is_written_so_that_yaml_1_1_reads_it_as_text_too(minimal: Path, text: str) -> None:
    written = to_yaml(load_config(minimal, [f"data.options={{x: '{text}'}}"]))
    assert yaml.safe_load(written)["data"]["options"]["x"] == text


def test_a_number_with_a_zero_in_front_and_a_date(minimal: Path) -> None:
    config = load_config(minimal, ["run.seed=010", "run.name=2026-05-01"])
    assert (config.run.seed, config.run.name) == (10, "2026-05-01")


def test_a_tilde_in_a_path_is_the_home_of_the_user(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/users/nadia")
    monkeypatch.setenv("USERPROFILE", "/users/nadia")
    paths = ["run.output=~/runs", "run.init=~/runs/a", "data.root=~/data", "model.pretrained=~/swin.pth", "run.name=a~b"]
    config = load_config(minimal, paths)
    assert (config.run.output, config.run.init) == ("/users/nadia/runs", "/users/nadia/runs/a")
    assert (config.data.root, config.model.pretrained) == ("/users/nadia/data", "/users/nadia/swin.pth")
    assert config.run.name == "a~b"
    assert load_config(minimal, ["model.pretrained=true"]).model.pretrained is True


# --- Damage ---


BOMB = "{x0: &x0 [1, 2], " + ", ".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12)) + "}"
"""Few values, and 9 to the power of 11 where each alias stands for its own."""
CHAIN = "{x0: &x0 [1], " + ", ".join(f"x{i}: &x{i} [[[[[*x{i - 1}]]]]]" for i in range(1, 300)) + "}"
"""Nowhere nested deep, and 1,500 deep where each alias stands for its own."""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "bad YAML: maximum recursion depth exceeded"),
        ("{a: " * 100_000, "bad YAML: maximum recursion depth exceeded"),
        ("- " * 100 + "x", "bad YAML in line 1: more than 100000 values, or nested more than 50 deep"),
        ('!!int ""', "bad YAML: .+; expected one document"),
        ("!!timestamp x", "bad YAML: .+; expected one document"),
        ("!!bool x", "bad YAML: .+; expected one document"),
        ("!!float x", "bad YAML: .+; expected one document"),
        ("? [a]\n: b", "bad YAML in line 1: found unhashable key"),
        ("*a", "bad YAML in line 1: found undefined alias 'a'"),
        ("&a [*a]", r"bad YAML in line 1: \*a stands for what contains it"),
        ("{a: &a {b: [*a]}}", r"bad YAML in line 1: \*a stands for what contains it"),
        (BOMB, "bad YAML in line 1: more than 100000 values, or nested"),
        (CHAIN, "bad YAML in line 1: more than 100000 values, or nested"),
    ],
)
def test_text_that_is_no_config_is_one_message(write: Write, minimal: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=rf"bad\.yaml: got {problem}") as caught:
        load_config(write("bad.yaml", text))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"override 'data\.options\.x="):
        load_config(minimal, [f"data.options.x={text}"])


def test_anchors_and_merge_keys_are_read(minimal: Path) -> None:
    values = "{a: &a {x: 1, y: [2]}, b: {<<: *a, x: 3}, c: [*a, *a]}"
    x, y = {"x": 1, "y": [2]}, {"x": 3, "y": [2]}
    assert load_config(minimal, [f"data.options={values}"]).data.options == {"a": x, "b": y, "c": [x, x]}


def test_a_value_as_deep_as_it_may_be_is_read_and_written(minimal: Path, write: Write) -> None:
    deep = "[" * (MAX_DEPTH - 4) + "]" * (MAX_DEPTH - 4)
    config = load_config(minimal, [f"data.options.x={deep}"])
    assert load_config(write("again.yaml", to_yaml(config))) == config


def test_a_damaged_file_loads_or_is_one_message(write: Write, minimal: Path) -> None:
    text = to_yaml(load_config(minimal, ["data.options={a: [1, 2.5, x], b: {c: null}}"])).encode()
    rng = np.random.default_rng(13)
    path, messages = write("damaged.yaml", ""), []
    for _ in range(300):
        changed = bytearray(text)
        start, length = int(rng.integers(len(changed))), int(rng.integers(1, 9))
        match rng.integers(3):
            case 0:
                changed[start] ^= 1 << int(rng.integers(8))
            case 1:
                changed[start : start + length] = rng.bytes(length)
            case _:
                del changed[start:]
        path.write_bytes(changed)
        try:
            load_config(path)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 150
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)
