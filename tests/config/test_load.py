"""What loads, and what it loads to: defaults, overrides, base files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mult.config import TaskConfig, load_config, load_data_config
from mult.errors import UserError

Write = Callable[[str, str], Path]

NESTED = {"depths": [2, 2], "a": {"b": 0.001}}


def test_minimal_file_has_the_documented_defaults(minimal: Path) -> None:
    config = load_config(minimal)
    assert dataclasses.asdict(config) == {
        "run": {
            "name": "trial",
            "output": "runs",
            "seed": 0,
            "device": "auto",
            "precision": "fp32",
            "deterministic": "auto",
            "activation_checkpointing": False,
            "compile": False,
            "init": None,
            "checkpoint_every": 1000,
            "keep": 2,
            "log": [],
            "tensorboard": False,
        },
        "data": {
            "dataset": "rooms",
            "root": "data/rooms",
            "split": "train",
            "hold_out": 0.0,
            "subset": "tiny",
            "image_size": (96, 96),
            "fit": "short_side",
            "batch_size": 4,
            "workers": 2,
            "augment": {"crop": True, "flip": True, "scale": (1.0, 1.25), "colours": "jitter"},
            "jitter": 0.2,
            "max_depth_m": None,
            "options": {},
            "class_map": None,
            "on_bad_file": "error",
            "labels": "all",
            "weight": 1.0,
            "mix": [],
        },
        "model": {
            "reference": None,
            "backbone": "swin_tiny_patch4_window7_224",
            "pretrained": False,
            "attention": "shared",
            "decoder": "paper",
            "skip": "none",
            "window_size": 7,
            "num_heads": None,
            "drop_path": 0.0,
            "dropout": 0.0,
            "backbone_args": None,
        },
        "tasks": {
            "normal": {"weight": 1.0, "loss": None, "positive_weight": None},
            "reshading": {"weight": 0.25, "loss": None, "positive_weight": None},
        },
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
        "eval": {"every": 0, "split": "val", "select": "val", "batch_size": None, "quick": False, "images": 4},
    }


def test_augment_is_all_or_nothing_or_values(minimal: Path, write: Write) -> None:
    def augment(*overrides: str) -> dict[str, Any]:
        return dataclasses.asdict(load_config(minimal, overrides).data.augment)

    default, nothing = augment(), {"crop": False, "flip": False, "scale": (1.0, 1.0), "colours": "none"}
    assert augment("data.augment=true") == default
    assert augment("data.augment=false") == nothing
    assert augment("data.augment.scale=[0.5, 2]") == {**default, "scale": (0.5, 2.0)}
    assert augment("data.augment=false", "data.augment.flip=true") == {**nothing, "flip": True}
    assert augment("data.augment=false", "data.augment=true") == default
    write("base.yaml", minimal.read_text() + "eval: {every: 1}\n")
    text = "base: base.yaml\ndata: {augment: false}"
    assert dataclasses.asdict(load_config(write("child.yaml", text)).data.augment) == nothing


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


def test_override_may_give_a_required_key(write: Write, minimal_text: str) -> None:
    path = write("nameless.yaml", minimal_text.replace("run: {name: trial}", ""))
    assert load_config(path, ["run.name=given"]).run.name == "given"


# --- base ---


def test_base_merges_key_by_key_and_replaces_tasks(write: Write, minimal: Path) -> None:
    write(
        "nested/child.yaml",
        "base: ../minimal.yaml\ndata: {options: {views: 10, seed: 1}, image_size: [64, 96]}\ntasks: {keypoints2d: 1}\n",
    )
    path = write("grandchild.yaml", "base: nested/child.yaml\nrun: {seed: 5}\ndata: {options: {seed: 2}}\n")
    config = load_config(path)
    assert config.run.name == "trial"
    assert config.run.seed == 5
    assert config.data.options == {"views": 10, "seed": 2}
    assert config.data.image_size == (64, 96)
    assert config.tasks == {"keypoints2d": TaskConfig()}
    assert config.optim == load_config(minimal).optim


@pytest.mark.parametrize("files", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_cycle_is_an_error(write: Write, tmp_path: Path, files: dict[str, str]) -> None:
    for name, base in files.items():
        write(f"{name}.yaml", f"base: {base}.yaml\n")
    with pytest.raises(UserError, match=r"base: got a cycle, .*a\.yaml -> .*; expected a chain with an end; remove"):
        load_config(tmp_path / "a.yaml")


def test_missing_base_names_the_file_that_derives_from_it(write: Write) -> None:
    path = write("child.yaml", "base: nowhere.yaml\n")
    with pytest.raises(UserError, match=r"child\.yaml: base: got .*nowhere\.yaml; expected a YAML file"):
        load_config(path)


def test_base_must_be_one_path(write: Write) -> None:
    path = write("child.yaml", "base: [a.yaml, b.yaml]\n")
    with pytest.raises(UserError, match=r"child\.yaml: base: got \['a.yaml', 'b.yaml'\]; expected the path of one"):
        load_config(path)


def test_error_in_the_base_names_the_base(write: Write) -> None:
    write("parent.yaml", "optim: {learning_rate: 1}\n")
    path = write("child.yaml", "base: parent.yaml\n")
    with pytest.raises(UserError, match=r"parent\.yaml: optim: got unknown key 'learning_rate'"):
        load_config(path)


# --- A data section alone ---


def test_a_data_section_alone_takes_what_the_network_needs_from_the_defaults(write: Write, minimal: Path) -> None:
    defaults = dataclasses.replace(load_config(minimal).data, workers=5, subset="full", max_depth_m=3.0)
    alone = write("alone.yaml", "data: {dataset: taskonomy, root: data/homes, batch_size: 3}")
    data = load_data_config(alone, defaults)
    assert (data.dataset, data.root, data.batch_size) == ("taskonomy", "data/homes", 3)
    assert (data.image_size, data.workers) == ((96, 96), 5)
    assert (data.subset, data.max_depth_m) == ("tiny", None)  # these never come from another dataset's section
    sized = write("sized.yaml", "base: alone.yaml\ndata: {image_size: [64, 96]}")
    assert load_data_config(sized, defaults) == dataclasses.replace(data, image_size=(64, 96))


def test_data_section_of_a_whole_config(write: Write, minimal: Path) -> None:
    config = load_config(minimal)
    assert load_data_config(minimal, dataclasses.replace(config.data, root="elsewhere", batch_size=9)).root == "data/rooms"
    assert load_data_config(minimal, dataclasses.replace(config.data, batch_size=9)).batch_size == 4
    mixed = load_data_config(write("mixed.yaml", "data: [{dataset: rooms, root: a}, {root: b}]"), config.data)
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
def test_bad_data_section(write: Write, minimal: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_data_config(write("data.yaml", text), load_config(minimal).data)
