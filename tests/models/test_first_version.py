"""Weights of the first version, in which every task had modules of its own, in this version's model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mult.errors import UserError
from mult.models import MulT

TINY: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
TASKS = {"depth_zbuffer": 1, "normal": 3, "reshading": 1}
VARIANTS = [
    ("shared", "paper"),
    ("independent", "paper"),
    ("self", "paper"),
    ("shared", "released"),
    ("independent", "released"),
]


def model_of(attention: str, decoder: str, tasks: dict[str, int] = TASKS) -> MulT:
    torch.manual_seed(6)
    model = MulT(tasks, "normal", attention=attention, decoder=decoder, backbone_args=TINY)  # type: ignore[arg-type]
    for parameter in model.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def in_modules_of_their_own(weights: dict[str, Tensor], tasks: list[str]) -> dict[str, Tensor]:
    """A state dict as the first version named it."""
    old = {}
    for name, weight in weights.items():
        owners = [task for task in tasks if task == "normal"] if len(weight) == 1 and ".query_key." in name else tasks
        block = re.fullmatch(r"(decoder\.stages\.\d\.blocks\.\d)\.(.*)", name)
        upsample = re.fullmatch(r"(decoder\.upsamples\.\d)\.(.*)", name)
        for index, task in enumerate(owners):
            if block:
                old[f"{block[1]}.streams.{task}.{block[2]}"] = weight[index].clone()
            elif upsample:
                old[f"{upsample[1]}.{task}.{upsample[2]}"] = weight[index].clone()
            else:
                old[name] = weight
    return old


def as_the_first_version_saved(model: MulT, folder: Path) -> Path:
    model.save_pretrained(folder)
    old = in_modules_of_their_own(load_file(folder / "model.safetensors"), model.tasks)
    if model.arguments["decoder"] == "released":  # in block 1 the reference made its value with its query and key
        for name in [name for name in old if "blocks.1.streams.normal.value." in name]:
            query_key = name.replace("value", "query_key.linear")
            old[query_key] = torch.cat([old[query_key], old.pop(name)])
    save_file(old, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"format_version": 1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("tasks", [TASKS, {"normal": 3}], ids=["three tasks", "one"])
@pytest.mark.parametrize(("attention", "decoder"), VARIANTS)
def test_every_weight_is_where_it_was(attention: str, decoder: str, tasks: dict[str, int], tmp_path: Path) -> None:
    model = model_of(attention, decoder, tasks)
    loaded = MulT.from_pretrained(as_the_first_version_saved(model, tmp_path / "old"))
    assert list(loaded.state_dict()) == list(model.state_dict())
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    loaded.save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["format_version"] == 2
    images = torch.rand(1, 3, 50, 70)
    again = MulT.from_pretrained(tmp_path / "new")
    with torch.no_grad():
        assert all(torch.equal(again(images)[task], output) for task, output in loaded(images).items())


def test_names_of_the_first_version() -> None:
    """Some of them as they stood in a checkpoint."""
    old = in_modules_of_their_own(dict(model_of("shared", "paper").state_dict()), list(TASKS))
    shapes = {
        "decoder.stages.0.blocks.0.streams.depth_zbuffer.query_key.linear.weight": (384, 128),
        "decoder.stages.0.blocks.1.streams.normal.query_key.norm.weight": (128,),
        "decoder.stages.3.blocks.1.streams.normal.query_key.position_bias.table": (169, 1),
        "decoder.stages.3.blocks.1.streams.reshading.value.weight": (16, 16),
        "decoder.stages.2.blocks.0.streams.reshading.mlp.fc2.bias": (32,),
        "decoder.upsamples.1.normal.reduction.weight": (32, 64),
        "decoder.heads.normal.linear.weight": (3, 16),
    }
    assert {name: tuple(old[name].shape) for name in shapes} == shapes
    assert "decoder.stages.0.blocks.1.streams.reshading.query_key.linear.weight" not in old


@pytest.mark.parametrize("change", ["lacks", "has more"])
def test_refuses_weights_of_another_architecture(change: str, tmp_path: Path) -> None:
    folder = as_the_first_version_saved(model_of("shared", "paper"), tmp_path / "old")
    weights, name = load_file(folder / "model.safetensors"), "decoder.stages.1.blocks.1.streams.normal.proj.weight"
    if change == "lacks":
        del weights[name]
    else:
        weights[name.replace("normal", "edge_texture")] = weights[name].clone()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(
        UserError, match=r"(?s)model.safetensors: not the weights of the model in config.json .*streams\..*proj"
    ):
        MulT.from_pretrained(folder)


def test_a_run_of_the_first_version_starts_one_of_other_tasks(tmp_path: Path) -> None:
    given = model_of("shared", "paper")
    old = MulT.from_pretrained(as_the_first_version_saved(given, tmp_path / "old"))
    torch.manual_seed(7)
    model = MulT({"normal": 3, "edge_texture": 1, "depth_zbuffer": 1}, "normal", backbone_args=TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.start_from(old) == {"edge_texture": "not in the model to start from"}
    mlp = "decoder.stages.1.blocks.0.mlp.fc1.weight"
    ours, theirs = model.state_dict()[mlp], given.state_dict()[mlp]
    assert torch.equal(ours[0], theirs[1]), "normal"
    assert torch.equal(ours[1], before[mlp][1]), "edge_texture keeps its own"
    assert torch.equal(ours[2], theirs[0]), "depth_zbuffer"
    shared = "decoder.stages.1.blocks.1.query_key.linear.weight"
    assert torch.equal(model.state_dict()[shared], given.state_dict()[shared])
