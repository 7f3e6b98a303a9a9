"""The suites of the two benchmarks, on toy trees: every member runs, and rows of too few seeds are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mult.data.prepare.toys import write_toys
from mult.suite import run_suite

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = [
    "data.image_size=[64, 64]",
    "data.batch_size=2",
    "data.workers=0",
    "run.precision=fp32",
    "model.pretrained=false",
    "model.backbone_args={embed_dim: 16, depths: [1, 1, 1, 1], num_heads: [1, 2, 4, 8]}",
    "optim.steps=1",
    "optim.warmup=0",
    "eval.images=0",
]


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(("name", "dataset", "seeds"), [("nyud4", "nyu", [0, 1]), ("pascal5", "pascal", [0])])
def test_a_suite_on_a_toy_tree(tmp_path: Path, name: str, dataset: str, seeds: list[int]) -> None:
    write_toys(tmp_path / "toys", dataset, train=3, val=2, size=(48, 64))
    overrides = [f"data.root={tmp_path / 'toys'}", *TINY]
    text, missing = run_suite(CONFIGS / "suites" / f"{name}.yaml", tmp_path / "runs", overrides, seeds=seeds)
    assert missing == 0
    rows = sorted((tmp_path / "runs" / name / "rows" / "test").glob("*.json"))
    refusal = f"got {len(seeds)} seeds ({', '.join(map(str, seeds))}); expected at least 3"
    assert {"mult", "skip", "independent", "fpn"} < {row.stem for row in rows}
    assert f"{len(rows)} of {len(rows)} rows refused:" in text
    assert text.count(f": {refusal}\n") == len(rows)
    ours = json.loads((tmp_path / "runs" / name / "rows" / "test" / "mult.json").read_text())
    assert (ours["selected"], ours["early_looks"], ours["images"]) == (["last"], 0, 2)
    # One step may teach a single-task model nothing; the suite then says so and goes on.
    assert isinstance(ours["delta_m"], dict) or "missing: Δm: --baseline: segment_semantic: got a baseline of 0" in text
    markdown = (tmp_path / "runs" / name / "results.md").read_text()
    assert "### test: leaderboard" in markdown
    assert "as published, seen on github.com/yangyangxu0/DeMT: DeMT, Swin-T;" in markdown


@pytest.mark.parametrize(("name", "dataset"), [("nyud4", "nyu"), ("pascal5", "pascal")])
def test_a_smoke_config_runs_on_the_tree_that_its_head_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[..., Any], name: str, dataset: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = CONFIGS / f"{name}_smoke.yaml"
    root = config.read_text().split("--out ")[1].split()[0]
    assert script("make_toys", "--benchmark", dataset, "--out", root, "--train", 4, "--val", 2).status == 0
    ended = script("train", "--config", config, "optim.steps=2", "eval.images=0")
    assert ended.status == 0, ended.err
    assert "step 2, test split, 2 images" in ended.out
