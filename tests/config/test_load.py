"""config.py: what loads, what it loads to, and the message for everything that must not load."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mult.config import Config, TaskConfig, load_config, load_data_config, to_yaml
from mult.errors import UserError

MINIMAL = """
run: {name: trial}
data: {dataset: rooms, root: data/rooms, image_size: 96, batch_size: 4}
tasks: {normal: 1, reshading: 0.25}
optim: {lr: 1e-4, steps: 10}
"""

NESTED = {"depths": [2, 2], "a": {"b": 0.001}}


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    return write(tmp_path / "minimal.yaml", MINIMAL)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def tree_with(dotted: str, value: Any) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(MINIMAL.replace("1e-4", "0.0001"))
    *parents, last = dotted.split(".")
    node = tree
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    return tree


# --- What loads ---


def test_minimal_file_has_the_documented_defaults(minimal: Path) -> None:
    config = load_config(minimal)
    assert dataclasses.asdict(config) == {
        "run": {
            "name": "trial",
            "output": "runs",
            "seed": 0,
            "device": "auto",
            "precision": "fp32",
            "deterministic": True,
            "activation_checkpointing": False,
            "compile": False,
            "init": None,
            "checkpoint_every": 1000,
            "keep": 2,
            "tensorboard": False,
        },
        "data": {
            "dataset": "rooms",
            "root": "data/rooms",
            "split": "train",
            "subset": "tiny",
            "image_size": (96, 96),
            "batch_size": 4,
            "workers": 2,
            "augment": True,
            "jitter": 0.2,
            "max_depth_m": None,
            "options": {},
            "class_map": None,
            "on_bad_file": "error",
            "weight": 1.0,
            "mix": [],
        },
        "model": {
            "reference": None,
            "backbone": "swin_tiny_patch4_window7_224",
            "pretrained": False,
            "attention": "shared",
            "decoder": "paper",
            "window_size": 7,
            "num_heads": None,
            "drop_path": 0.0,
            "dropout": 0.0,
            "backbone_args": None,
        },
        "tasks": {"normal": {"weight": 1.0, "loss": None}, "reshading": {"weight": 0.25, "loss": None}},
        "optim": {
            "name": "adamw",
            "lr": 1e-4,
            "weight_decay": 0.05,
            "betas": (0.9, 0.999),
            "steps": 10,
            "warmup": 0,
            "schedule": "cosine",
            "power": 0.9,
            "encoder_lr": None,
            "layer_decay": 1.0,
            "freeze_encoder": False,
            "clip": 1.0,
            "accumulate": 1,
            "ema": None,
            "non_finite": "stop",
            "max_skipped": 10,
        },
        "balance": {"method": "fixed", "options": {}, "log_cosine_every": 0},
        "eval": {"every": 0, "split": "val", "batch_size": None, "images": 4},
    }


def test_config_is_frozen(minimal: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_config(minimal).optim.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "1E-4", "+1e-4", ".1e-3", "1.e-4", "0.0001", "10e-5"])
def test_floats_with_and_without_a_dot(minimal: Path, text: str) -> None:
    assert load_config(minimal, [f"optim.lr={text}"]).optim.lr == pytest.approx(1e-4, rel=1e-15)


def test_exponents_without_a_sign(minimal: Path) -> None:
    assert load_config(minimal, ["data.max_depth_m=1e1"]).data.max_depth_m == 10.0


def test_integer_becomes_a_float_where_a_float_is_due(minimal: Path) -> None:
    config = load_config(minimal, ["optim.clip=2", "tasks.normal=3"])
    assert type(config.optim.clip) is float
    assert type(config.tasks["normal"].weight) is float


def test_image_size_is_height_then_width(minimal: Path) -> None:
    assert load_config(minimal, ["data.image_size=[64, 96]"]).data.image_size == (64, 96)


def test_task_is_a_weight_or_a_section(minimal: Path) -> None:
    config = load_config(minimal, ["tasks={a: 2, b: {loss: l1}, c: {weight: 0, loss: l1}}"])
    a, b, c = TaskConfig(weight=2.0), TaskConfig(loss="l1"), TaskConfig(weight=0.0, loss="l1")
    assert config.tasks == {"a": a, "b": b, "c": c}


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("model.num_heads=[3, 6, 12, 24]", lambda c: c.model.num_heads, [3, 6, 12, 24]),
        ("model.num_heads=4", lambda c: c.model.num_heads, 4),
        ("model.pretrained=true", lambda c: c.model.pretrained, True),
        ("model.pretrained=swin.safetensors", lambda c: c.model.pretrained, "swin.safetensors"),
        ("optim.clip=null", lambda c: c.optim.clip, None),
        ("optim.clip=", lambda c: c.optim.clip, None),
        ("optim.ema=0", lambda c: c.optim.ema, 0.0),
        ("optim.betas=[0.8, 0.95]", lambda c: c.optim.betas, (0.8, 0.95)),
        ("run.name='007'", lambda c: c.run.name, "007"),
        ("run.name=a=b", lambda c: c.run.name, "a=b"),
        ("data.options.views=10", lambda c: c.data.options, {"views": 10}),
        ("model.backbone_args.embed_dim=48", lambda c: c.model.backbone_args, {"embed_dim": 48}),
        ("model.backbone_args={depths: [2, 2], a: {b: 1e-3}}", lambda c: c.model.backbone_args, NESTED),
        ("tasks.normal=0.5", lambda c: c.tasks["normal"], TaskConfig(weight=0.5)),
        ("tasks.normal.weight=0.5", lambda c: c.tasks["normal"], TaskConfig(weight=0.5)),
        ("tasks.depth_zbuffer.loss=l1", lambda c: c.tasks["depth_zbuffer"], TaskConfig(loss="l1")),
    ],
)
def test_overrides(minimal: Path, override: str, read: Any, expected: Any) -> None:
    value = read(load_config(minimal, [override]))
    assert value == expected
    assert type(value) is type(expected)


def test_overrides_leave_the_neighbours_alone(minimal: Path) -> None:
    base = load_config(minimal)
    config = load_config(minimal, ["data.options.views=10", "data.options.seed=3", "tasks.normal=0.5"])
    assert config.data == dataclasses.replace(base.data, options={"views": 10, "seed": 3})
    assert config.tasks == {"normal": TaskConfig(weight=0.5), "reshading": TaskConfig(weight=0.25)}
    assert (config.run, config.model, config.optim) == (base.run, base.model, base.optim)


def test_the_last_override_wins(minimal: Path) -> None:
    assert load_config(minimal, ["optim.steps=5", "optim.steps=7"]).optim.steps == 7


def test_new_weight_keeps_the_loss(minimal: Path) -> None:
    config = load_config(minimal, ["tasks.normal.loss=l1", "tasks.normal=0.5"])
    assert config.tasks["normal"] == TaskConfig(weight=0.5, loss="l1")


def test_mapping_as_an_override_replaces_what_was_there(minimal: Path) -> None:
    config = load_config(minimal, ["data.options={views: 10, seed: 3}", "data.options={size: 64}", "tasks={normal: 2}"])
    assert config.data.options == {"size": 64}
    assert list(config.tasks) == ["normal"]


def test_override_may_give_a_required_key(tmp_path: Path) -> None:
    path = write(tmp_path / "nameless.yaml", MINIMAL.replace("run: {name: trial}", ""))
    assert load_config(path, ["run.name=given"]).run.name == "given"


# --- base ---


def test_base_merges_key_by_key_and_replaces_tasks(tmp_path: Path, minimal: Path) -> None:
    write(
        tmp_path / "nested" / "child.yaml",
        "base: ../minimal.yaml\ndata: {options: {views: 10, seed: 1}, image_size: [64, 96]}\ntasks: {keypoints2d: 1}\n",
    )
    path = write(tmp_path / "grandchild.yaml", "base: nested/child.yaml\nrun: {seed: 5}\ndata: {options: {seed: 2}}\n")
    config = load_config(path)
    assert config.run.name == "trial"
    assert config.run.seed == 5
    assert config.data.options == {"views": 10, "seed": 2}
    assert config.data.image_size == (64, 96)
    assert config.tasks == {"keypoints2d": TaskConfig()}
    assert config.optim == load_config(minimal).optim


@pytest.mark.parametrize("files", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_cycle_is_an_error(tmp_path: Path, files: dict[str, str]) -> None:
    for name, base in files.items():
        write(tmp_path / f"{name}.yaml", f"base: {base}.yaml\n")
    with pytest.raises(UserError, match=r"base: got a cycle, .*a\.yaml -> .*; expected a chain with an end; remove"):
        load_config(tmp_path / "a.yaml")


def test_missing_base_names_who_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "child.yaml", "base: nowhere.yaml\n")
    with pytest.raises(UserError, match=r"child\.yaml: base: got .*nowhere\.yaml; expected a YAML file"):
        load_config(path)


def test_base_must_be_one_path(tmp_path: Path) -> None:
    path = write(tmp_path / "child.yaml", "base: [a.yaml, b.yaml]\n")
    with pytest.raises(UserError, match=r"child\.yaml: base: got \['a.yaml', 'b.yaml'\]; expected the path of one"):
        load_config(path)


def test_error_in_the_base_names_the_base(tmp_path: Path) -> None:
    write(tmp_path / "parent.yaml", "optim: {learning_rate: 1}\n")
    path = write(tmp_path / "child.yaml", "base: parent.yaml\n")
    with pytest.raises(UserError, match=r"parent\.yaml: optim: got unknown key 'learning_rate'"):
        load_config(path)


# --- Mixtures ---

MIXTURE = """
run: {name: trial}
data:
  - {dataset: rooms, root: data/rooms, image_size: [64, 96], batch_size: 4, split: val, options: {views: 3}, weight: 2}
  - {root: data/mine}
  - {dataset: taskonomy, root: data/taskonomy, subset: full, split: train, weight: 0.5, max_depth_m: 8}
tasks: {normal: 1}
optim: {lr: 1.0e-4, steps: 10}
"""


def test_later_datasets_take_from_the_first_what_they_leave_out(tmp_path: Path) -> None:
    path = write(tmp_path / "mixture.yaml", MIXTURE)
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


def test_a_mixture_survives_writing_and_a_base(tmp_path: Path) -> None:
    path = write(tmp_path / "mixture.yaml", MIXTURE)
    config = load_config(path)
    again = load_config(write(tmp_path / "again.yaml", to_yaml(config)))
    assert again == config
    child = load_config(write(tmp_path / "child.yaml", "base: mixture.yaml\ndata: {batch_size: 8}\n"))
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
        ("{root: data/mine}", "{root: a, augment: false}", r"data\.mix\.0\.augment: got False; expected True, as the first"),
        (
            "{root: data/mine}",
            "{root: a, mix: [{dataset: rooms, root: b, image_size: 64, batch_size: 1}]}",
            r"data\.mix\.0\.mix: got a mixture in a mixture; expected one list",
        ),
        ("{root: data/mine}", "data/mine", r"data: got \[.*'data/mine'.*\]; expected a mapping of dataset, root"),
    ],
)
def test_bad_mixture(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MIXTURE
    path = write(tmp_path / "mixture.yaml", MIXTURE.replace(old, new))
    with pytest.raises(UserError, match=message):
        load_config(path)


# --- to_yaml ---


def test_round_trip_is_equal(tmp_path: Path, minimal: Path) -> None:
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
    again = load_config(write(tmp_path / "again.yaml", to_yaml(config)))
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


def test_from_dict_takes_tuples_and_leaves_its_argument_alone() -> None:
    tree = tree_with("model.backbone_args", {"depths": (2, 2), "num_heads": (3, 6)})
    tree["data"]["image_size"] = (64, 96)
    before = copy.deepcopy(tree)
    config = Config.from_dict(tree)
    assert config.model.backbone_args == {"depths": [2, 2], "num_heads": [3, 6]}
    assert config.data.image_size == (64, 96)
    assert tree == before


# --- What must not load ---


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
        ("run.deterministic", 1, r"run\.deterministic: got 1 \(int\); expected true or false"),
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
        ("model.attention", "none", r"model\.attention: got 'none' \(str\); expected one of shared, independent, self"),
        ("model.decoder", "new", r"model\.decoder: got 'new' \(str\); expected one of paper, released"),
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
        ("eval.batch_size", 0, r"eval\.batch_size: got 0 \(int\); expected an integer of at least 1 or null"),
        ("eval.images", -1, r"eval\.images: got -1"),
    ],
)
def test_bad_value_or_key(dotted: str, value: Any, message: str) -> None:
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
def test_missing_required_key_is_named(dotted: str, expected: str) -> None:
    section, key = dotted.split(".")
    tree = tree_with("run.seed", 0)
    del tree[section][key]
    with pytest.raises(UserError, match=rf"config: {section}\.{key}: got nothing; expected {expected}.*; add this"):
        Config.from_dict(tree)


@pytest.mark.parametrize(("section", "key"), [("run", "run.name"), ("tasks", "tasks"), ("optim", "optim.lr")])
def test_missing_section_names_its_first_required_key(section: str, key: str) -> None:
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
        ("run: {name: 2026-13-45}\n", r"bad\.yaml: got bad YAML: month must be in"),
        ("run: {name: \x07}\n", r"bad\.yaml: got bad YAML: "),
        (MINIMAL + "evl: {every: 1}\n", r"bad\.yaml: got unknown key 'evl'; .*; did you mean 'eval'\?"),
        (
            MINIMAL.replace("lr: 1e-4", "lr: slow"),
            r"bad\.yaml: optim\.lr: got 'slow' \(str\); expected a number",
        ),
        (MINIMAL.replace("lr: 1e-4, ", ""), r"bad\.yaml: optim\.lr: got nothing; expected a number above 0; add this"),
    ],
)
def test_bad_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(write(tmp_path / "bad.yaml", text))
    assert "\n" not in str(caught.value)


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


# --- A data section alone ---


def test_data_section_alone_is_fed_as_usual_where_it_does_not_say(tmp_path: Path, minimal: Path) -> None:
    usual = dataclasses.replace(load_config(minimal).data, workers=5, subset="full", max_depth_m=3.0)
    alone = write(tmp_path / "alone.yaml", "data: {dataset: taskonomy, root: data/homes, batch_size: 3}")
    data = load_data_config(alone, usual)
    assert (data.dataset, data.root, data.batch_size) == ("taskonomy", "data/homes", 3)
    assert (data.image_size, data.workers) == ((96, 96), 5)
    assert (data.subset, data.max_depth_m) == ("tiny", None)  # what is read is never the other dataset's
    sized = write(tmp_path / "sized.yaml", "base: alone.yaml\ndata: {image_size: [64, 96]}")
    assert load_data_config(sized, usual) == dataclasses.replace(data, image_size=(64, 96))


def test_data_section_of_a_whole_config(minimal: Path) -> None:
    config = load_config(minimal)
    assert load_data_config(minimal, dataclasses.replace(config.data, root="elsewhere", batch_size=9)).root == "data/rooms"
    assert load_data_config(minimal, dataclasses.replace(config.data, batch_size=9)).batch_size == 4
    mixed = load_data_config(write(minimal.parent / "mixed.yaml", "data: [{dataset: rooms, root: a}, {root: b}]"), config.data)
    assert [(part.root, part.image_size) for part in (mixed, *mixed.mix)] == [("a", (96, 96)), ("b", (96, 96))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: {name: a}", r"data\.yaml: got run; expected a data section; say what to read"),
        ("data: {dataset: rooms}", r"data\.yaml: data: root: got nothing; expected a string; add this required key"),
        ("data: {dataset: rooms, root: a, wrokers: 1}", r"data\.yaml: data: got unknown key 'wrokers'; .*'workers'"),
        ("data: {dataset: rooms, root: a}\noptim: {lr: -1}", r"data\.yaml: optim\.lr: got -1"),
    ],
)
def test_bad_data_section(tmp_path: Path, minimal: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_data_config(write(tmp_path / "data.yaml", text), load_config(minimal).data)
