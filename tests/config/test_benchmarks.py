"""The configs of NYUD-v2 and PASCAL-Context against the benchmarks' protocols, written down here once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from mult.config import Config, load_config
from mult.data.nyu import NYU
from mult.data.pascal import Pascal
from mult.suite import read_suite

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WEIGHTS = {
    "nyud4": {"segment_semantic": 1, "depth_zbuffer": 1, "normal": 10, "boundary": 50},
    "pascal5": {"segment_semantic": 1, "human_parts": 2, "saliency": 5, "normal": 10, "boundary": 50},
}
SIZES = {"nyud4": (448, 576), "pascal5": (512, 512)}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_config_is_the_protocol(name: str) -> None:
    config = load_config(name)
    assert {task: entry.weight for task, entry in config.tasks.items()} == WEIGHTS[name]
    assert config.tasks["boundary"].positive_weight == 0.95
    data, optim = config.data, config.optim
    assert (data.image_size, data.fit, data.batch_size) == (SIZES[name], "pad", 8)
    assert (data.augment.scale, data.augment.crop, data.augment.flip) == ((0.5, 2.0), True, True)
    assert data.augment.colours == "photometric"
    assert (optim.steps, optim.accumulate, optim.lr, optim.weight_decay) == (40_000, 1, 2e-5, 1e-6)
    assert (optim.schedule, optim.power) == ("poly", 0.9)
    assert (data.split, data.labels, data.hold_out) == ("train", "all", 0)
    assert (config.eval.split, config.eval.select, config.eval.every, config.eval.quick) == ("test", "last", 0, False)


def test_nyud_has_forty_classes_the_folder_s_normals_and_l1_of_depth() -> None:
    config = load_config("nyud4")
    assert config.data.options == {"space": 40, "normals": "file"}
    assert config.tasks["depth_zbuffer"].loss == "l1"


def test_lines_are_matched_within_the_benchmark_s_distance() -> None:
    assert NYU.metric_arguments["boundary"] == {"max_distance": 0.011}
    assert Pascal.metric_arguments["boundary"] == {"max_distance": 0.0075}


def recipe(config: Config) -> tuple[object, ...]:
    return config.data, config.optim, config.eval, config.model.backbone, config.model.pretrained


@pytest.mark.parametrize("name", WEIGHTS)
def test_members_of_a_suite_differ_in_decoders_and_tasks_alone(name: str) -> None:
    (suite, _), base = read_suite(CONFIGS / "suites" / f"{name}.yaml"), load_config(name)
    members = {member: load_config(name, overrides) for member, overrides in suite.members.items()}
    assert len(suite.seeds) == 3
    assert {recipe(config) == recipe(base) for config in members.values()} == {True}
    singles = [members.pop(member) for member in suite.baselines]
    assert all(config.tasks == base.tasks for config in members.values())
    assert {task: entry for config in singles for task, entry in config.tasks.items()} == base.tasks
    assert all(len(config.tasks) == 1 for config in singles)
