"""The suites of the two benchmarks, on toy trees: every member runs, and what two seeds are worth is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mult.data.prepare.toys import write_toys
from mult.suite import run_suite

SUITES = Path(__file__).resolve().parents[2] / "configs" / "suites"
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
@pytest.mark.parametrize(("name", "dataset"), [("nyud4", "nyu"), pytest.param("pascal5", "pascal", marks=pytest.mark.slow)])
def test_a_suite_on_a_toy_tree(tmp_path: Path, name: str, dataset: str) -> None:
    write_toys(tmp_path / "toys", dataset, train=3, val=2, size=(48, 64))
    overrides = [f"data.root={tmp_path / 'toys'}", *TINY]
    text, missing = run_suite(SUITES / f"{name}.yaml", tmp_path / "runs", overrides, seeds=[0])
    assert missing == 0
    rows = sorted((tmp_path / "runs" / name / "rows" / "test").glob("*.json"))
    refusal = "got 1 seeds (0); expected at least 3"
    assert f"{len(rows)} of {len(rows)} rows refused:" in text
    assert text.count(f": {refusal}\n") == len(rows)
    ours = json.loads((tmp_path / "runs" / name / "rows" / "test" / "mult.json").read_text())
    assert (ours["selected"], ours["early_looks"], ours["images"]) == (["last"], 0, 2)
    # One step may teach a single-task model nothing; the suite then says so and goes on.
    assert isinstance(ours["delta_m"], dict) or "missing: Δm: --baseline: segment_semantic: got a baseline of 0" in text
    markdown = (tmp_path / "runs" / name / "results.md").read_text()
    assert "### test: leaderboard" in markdown
    assert "as published, seen on github.com/yangyangxu0/DeMT: DeMT, Swin-T;" in markdown
