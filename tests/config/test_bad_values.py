"""The message for every value and key that must not load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mult.config import Config, load_config
from mult.errors import UserError

Write = Callable[[str, str], Path]
TreeWith = Callable[[str, Any], dict[str, Any]]


@pytest.mark.parametrize(
    ("dotted", "value", "message"),
    [
        ("optm", {}, r"config: got unknown key 'optm'; expected one of run, data, .*; did you mean 'optim'\?"),
        (
            "optim.warmpu",
            1,
            r"config: optim: got unknown key 'warmpu'; expected one of .*; did you mean 'warmup'\?",
        ),
        ("tasks.normal", {"wieght": 1}, r"tasks\.normal: got unknown key 'wieght'; .*; did you mean 'weight'\?"),
        ("eval.zzz", 1, r"config: eval: got unknown key 'zzz'; expected one of every, .*; remove it"),
        ("base", "x.yaml", r"config: got unknown key 'base'"),
        ("run", None, r"config: run: got None; expected a mapping of name, output, "),
        ("optim", [1], r"config: optim: got \[1\]; expected a mapping of name, lr, .*; give keys or leave it out"),
        (
            "run.name",
            2024,
            r"config: run\.name: got 2024 \(int\); expected a relative folder .*; change the value",
        ),
        ("run.name", "", r"run\.name: got '' \(str\); expected a relative folder name"),
        ("run.name", "../up", r"run\.name: got '\.\./up'"),
        ("run.name", "/abs", r"run\.name: got '/abs'"),
        ("run.output", None, r"run\.output: got None \(NoneType\); expected a string"),
        ("run.seed", -1, r"run\.seed: got -1 \(int\); expected an integer of at least 0"),
        ("run.seed", True, r"run\.seed: got True \(bool\); expected an integer of at least 0"),
        ("run.deterministic", 1, r"run\.deterministic: got 1 \(int\); expected auto or true or false"),
        ("run.precision", "fp8", r"run\.precision: got 'fp8' \(str\); expected one of auto, fp32, bf16, fp16"),
        ("run.precision", ["fp32"], r"run\.precision: got \['fp32'\] \(list\); expected one of auto, fp32"),
        ("run.init", 3, r"run\.init: got 3 \(int\); expected a string or null"),
        ("data.dataset", 3, r"data\.dataset: got 3 \(int\); expected a string"),
        (
            "data.image_size",
            31,
            r"data\.image_size: got 31 \(int\); expected one number of pixels or \[height",
        ),
        ("data.image_size", [64, 16], r"data\.image_size: got \[64, 16\]"),
        ("data.image_size", [64], r"data\.image_size: got \[64\]"),
        ("data.image_size", [64, 64, 3], r"data\.image_size: got \[64, 64, 3\]"),
        ("data.image_size", True, r"data\.image_size: got True"),
        ("data.image_size", 96.0, r"data\.image_size: got 96\.0"),
        ("data.image_size", [64, 64.5], r"data\.image_size: got \[64, 64\.5\]"),
        ("data.batch_size", 0, r"data\.batch_size: got 0 \(int\); expected an integer of at least 1"),
        ("data.batch_size", 2.0, r"data\.batch_size: got 2\.0 \(float\); expected an integer"),
        ("data.batch_size", "4", r"data\.batch_size: got '4' \(str\); expected an integer"),
        ("data.workers", -1, r"data\.workers: got -1"),
        ("data.max_depth_m", 0, r"data\.max_depth_m: got 0 \(int\); expected a number above 0 or null"),
        ("data.options", [1], r"data\.options: got \[1\] \(list\); expected a mapping with names as keys"),
        ("data.options", {1: 2}, r"data\.options: got \{1: 2\} \(dict\); expected a mapping with names as keys"),
        ("data.options", {"a": {1: 2}}, r"data\.options\.a: got \{1: 2\} \(dict\); expected plain YAML"),
        ("data.options", {"a": Path("x")}, r"data\.options\.a: got .*Path\('x'\).*; expected plain YAML"),
        ("model.pretrained", 1, r"model\.pretrained: got 1 \(int\); expected true or false or a string"),
        ("model.attention", 1, r"model\.attention: got 1 \(int\); expected a string"),
        ("model.decoder", None, r"model\.decoder: got None \(NoneType\); expected a string"),
        ("model.window_size", 0, r"model\.window_size: got 0"),
        (
            "model.num_heads",
            [3, "6"],
            r"model\.num_heads: got \[3, '6'\] \(list\); expected an integer .* or a list",
        ),
        ("model.num_heads", [3, 0], r"model\.num_heads: got \[3, 0\]"),
        ("model.drop_path", 1.0, r"model\.drop_path: got 1\.0 \(float\); expected a number in \[0, 1\)"),
        ("model.dropout", -0.1, r"model\.dropout: got -0\.1"),
        ("model.backbone_args", "big", r"model\.backbone_args: got 'big' \(str\); expected a mapping .* or null"),
        ("tasks", {}, r"config: tasks: got \{\} \(dict\); expected at least one task and its weight"),
        ("tasks", None, r"config: tasks: got None \(NoneType\); expected at least one task"),
        ("tasks", ["normal"], r"config: tasks: got \['normal'\] \(list\); expected at least one task"),
        ("tasks.normal", -1, r"tasks\.normal\.weight: got -1 \(int\); expected a number of at least 0"),
        ("tasks.normal", None, r"tasks\.normal\.weight: got None"),
        ("tasks.normal", "l1", r"tasks\.normal\.weight: got 'l1' \(str\)"),
        ("tasks.normal", {"loss": 1}, r"tasks\.normal\.loss: got 1 \(int\); expected a string or null"),
        ("optim.warmup", 1_000_001, r"config: optim\.warmup: got 1000001 of \d+ steps; expected at most all of them; lower it"),
        ("optim.name", "sgd", r"optim\.name: got 'sgd' \(str\); expected one of adamw, muon"),
        ("optim.lr", 0, r"optim\.lr: got 0 \(int\); expected a number above 0"),
        ("optim.lr", "fast", r"optim\.lr: got 'fast' \(str\); expected a number above 0"),
        ("optim.lr", True, r"optim\.lr: got True \(bool\)"),
        ("optim.lr", float("nan"), r"optim\.lr: got nan \(float\)"),
        ("optim.lr", float("inf"), r"optim\.lr: got inf \(float\)"),
        ("optim.weight_decay", -1, r"optim\.weight_decay: got -1"),
        (
            "optim.betas",
            [0.9, 1.0],
            r"optim\.betas: got \[0\.9, 1\.0\] \(list\); expected \[a number in \[0, 1\), a",
        ),
        ("optim.betas", 0.9, r"optim\.betas: got 0\.9"),
        ("optim.steps", 0, r"optim\.steps: got 0"),
        ("optim.warmup", -1, r"optim\.warmup: got -1"),
        ("optim.schedule", "step", r"optim\.schedule: got 'step' \(str\); expected one of cosine, constant, poly, onecycle"),
        ("optim.power", 0, r"optim\.power: got 0"),
        ("optim.encoder_lr", 0, r"optim\.encoder_lr: got 0"),
        ("optim.layer_decay", 1.1, r"optim\.layer_decay: got 1\.1 \(float\); expected a number in \(0, 1\]"),
        ("balance.log_cosine_every", -1, r"balance\.log_cosine_every: got -1"),
        ("optim.clip", 0, r"optim\.clip: got 0 \(int\); expected a number above 0 or null"),
        ("optim.accumulate", 0, r"optim\.accumulate: got 0"),
        ("optim.ema", 1.0, r"optim\.ema: got 1\.0 \(float\); expected a number in \[0, 1\) or null"),
        ("eval.every", -1, r"eval\.every: got -1"),
        ("eval.select", "best", r"eval\.select: got 'best' \(str\); expected one of last, val"),
        ("data.augment", 1, r"data: got unknown key|data\.augment: got 1; expected a mapping of crop, flip, scale, colours"),
        (
            "data.augment.scale",
            [2, 1],
            r"data\.augment\.scale: got \[2, 1\] \(list\); expected \[smallest, largest\], two numbers",
        ),
        ("data.augment.scale", [0, 1], r"data\.augment\.scale: got \[0, 1\]"),
        (
            "data.augment.colours",
            "hue",
            r"data\.augment\.colours: got 'hue' \(str\); expected one of jitter, photometric, none",
        ),
        ("data.fit", "crop", r"data\.fit: got 'crop' \(str\); expected one of short_side, stretch, pad"),
        ("data.hold_out", 1, r"data\.hold_out: got 1 \(int\); expected a number in \[0, 1\)"),
        ("eval.batch_size", 0, r"eval\.batch_size: got 0 \(int\); expected an integer of at least 1 or null"),
        ("eval.images", -1, r"eval\.images: got -1"),
    ],
)
def test_bad_value_or_key(tree_with: TreeWith, dotted: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Config.from_dict(tree_with(dotted, value))


@pytest.mark.parametrize(
    ("dotted", "expected"),
    [
        ("run.name", "a relative folder name"),
        ("data.dataset", "a string"),
        ("data.root", "a string"),
        ("data.image_size", "one number of pixels"),
        ("data.batch_size", "an integer of at least 1"),
        ("optim.lr", "a number above 0"),
        ("optim.steps", "an integer of at least 1"),
    ],
)
def test_missing_required_key_is_named(tree_with: TreeWith, dotted: str, expected: str) -> None:
    section, key = dotted.split(".")
    tree = tree_with("run.seed", 0)
    del tree[section][key]
    with pytest.raises(UserError, match=rf"config: {section}\.{key}: got nothing; expected {expected}.*; add this"):
        Config.from_dict(tree)


@pytest.mark.parametrize(("section", "key"), [("run", "run.name"), ("tasks", "tasks"), ("optim", "optim.lr")])
def test_missing_section_names_its_first_required_key(tree_with: TreeWith, section: str, key: str) -> None:
    tree = tree_with("run.seed", 0)
    del tree[section]
    with pytest.raises(UserError, match=rf"config: {key}: got nothing; .*; add this required key"):
        Config.from_dict(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"bad\.yaml: got an empty file; expected a mapping of run, data, model"),
        ("# only a comment\n", r"bad\.yaml: got an empty file"),
        ("- run\n- data\n", r"bad\.yaml: got a list at the top level; expected a mapping of run, data"),
        ("just words\n", r"bad\.yaml: got a str at the top level"),
        (
            "run: {name: x\ndata: {}\n",
            r"bad\.yaml: got bad YAML in line 2: .*; expected one document; correct",
        ),
        ("run:\n  name: x\n\tseed: 1\n", r"bad\.yaml: got bad YAML in line 3: "),
        ("run: {name: a}\n---\nrun: {name: b}\n", r"bad\.yaml: got bad YAML in line 2: "),
        ("run:\n  name: a\n  seed: 1\n  name: b\n", r"bad\.yaml: got bad YAML in line 4: key 'name' given twice"),
        (
            "run: {name: a}\noptim: {lr: 1}\nrun: {seed: 1}\n",
            r"bad\.yaml: got bad YAML in line 3: key 'run' given",
        ),
        (
            "run: !!python/object/apply:os.getcwd []\n",
            r"bad\.yaml: got bad YAML in line 1: could not determine",
        ),
        ("run: {name: !!timestamp 2026-13-45}\n", r"bad\.yaml: got bad YAML: month must be in"),
        ("run: {name: \x07}\n", r"bad\.yaml: got bad YAML: "),
    ],
)
def test_bad_file(write: Write, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(write("bad.yaml", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("optim:", "evl: {every: 1}\noptim:", r"bad\.yaml: got unknown key 'evl'; .*; did you mean 'eval'\?"),
        ("lr: 1e-4", "lr: slow", r"bad\.yaml: optim\.lr: got 'slow' \(str\); expected a number"),
        ("lr: 1e-4, ", "", r"bad\.yaml: optim\.lr: got nothing; expected a number above 0; add this"),
    ],
)
def test_bad_line_of_a_whole_file(write: Write, minimal_text: str, old: str, new: str, message: str) -> None:
    assert old in minimal_text
    with pytest.raises(UserError, match=message):
        load_config(write("bad.yaml", minimal_text.replace(old, new)))


def test_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"run: \xff\xfe")
    with pytest.raises(UserError, match=r"bad\.yaml: got no text \(.*\); expected YAML in UTF-8; save it as such"):
        load_config(path)


@pytest.mark.parametrize(
    ("name", "remedy"), [("none.yaml", "no such file, check the path"), (".", "it is a folder: give a file in it")]
)
def test_missing_file(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(UserError, match=rf"config: got .*; expected a YAML file; {remedy}"):
        load_config(tmp_path / name)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr", r"override 'optim\.lr': got no dotted key and '='; expected section\.key=value; write"),
        ("=3", r"override '=3': got no dotted key"),
        ("optim..lr=3", r"got no dotted key"),
        ("optim.Lr=3", r"override 'optim\.Lr=3': optim: got unknown key 'Lr'; .*; did you mean 'lr'\?"),
        ("otpim.lr=3", r"override 'otpim\.lr=3': got unknown key 'otpim'; .*; did you mean 'optim'\?"),
        ("lr=3", r"override 'lr=3': got unknown key 'lr'"),
        ("optim.lr=-1", r"override 'optim\.lr=-1': optim\.lr: got -1 \(int\); expected a number above 0"),
        ("optim.lr=[", r"override 'optim\.lr=\[': got bad YAML"),
        ("optim=3", r"override 'optim=3': optim: got 3; expected a mapping"),
        ("optim.lr.x=3", r"optim\.lr: got \{'x': 3\} \(dict\); expected a number above 0"),
        ("tasks.normal.wait=3", r"tasks\.normal: got unknown key 'wait'"),
        ("base=other.yaml", r"got unknown key 'base'"),
        ("data.options={a: 1, a: 2}", r"got bad YAML in line 1: key 'a' given twice"),
    ],
)
def test_bad_override(minimal: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(minimal, [override])
