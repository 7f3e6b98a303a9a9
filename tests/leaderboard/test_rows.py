"""Rows of a leaderboard: what they are made of, which are refused and why, and their table."""

from __future__ import annotations

import copy
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mult.config import Config
from mult.errors import UserError
from mult.evaluation.results import METRIC_VERSION, read_evaluation
from mult.leaderboard.check import find_refusals, read_row
from mult.leaderboard.rows import build_row
from mult.leaderboard.table import format_leaderboard, read_published
from mult.runs.checkpoint import load_checkpoint
from mult.runs.cost import measure_cost

Row = dict[str, Any]
PUBLISHED = Path(__file__).resolve().parents[2] / "configs" / "published"


@pytest.fixture
def runs(configured: Callable[..., Config], train_run: Callable[..., Path], script: Callable[..., Any]) -> list[Path]:
    """Three seeds of the tiny config, two steps each, evaluated on the test split."""
    few = ("tasks={normal: 1, reshading: 1}", "optim.steps=2", "eval.every=1", "eval.images=0")
    folders = [train_run(configured(*few, f"run.seed={seed}", f"run.name=tiny-{seed}")) for seed in (0, 1, 5)]
    for folder in folders:
        assert script("eval", "--ckpt", folder, "--split", "test").status == 0
    return folders


@pytest.fixture
def row() -> Row:
    """A row that nothing is wrong with."""
    entry = {
        "metric": "mean",
        "unit": "deg",
        "better": "lower",
        "value": 20.5,
        "deviation": 0.25,
        "of_seeds": [20.25, 20.5, 20.75],
    }
    return {
        "format_version": 1,
        "name": "ours",
        "dataset": "nyu",
        "split": "test",
        "corruption": None,
        "images": 654,
        "metric_version": METRIC_VERSION,
        "image_ids": "a1",
        "seeds": [0, 1, 2],
        "selected": ["last"],
        "selected_on": ["test"],
        "early_looks": 0,
        "differences": [],
        "tasks": {"normal": entry, "boundary": {"metric": "odsF", "value": None, "reason": "no valid pixel"}},
        "delta_m": {"value": -1.5, "deviation": 0.5, "interval": None},
        "cost": {
            "parameters": 31_250_000,
            "operations_per_image": 94_500_000_000,
            "seconds_per_step": 0.125,
            "peak_memory_mib": 3072.0,
            "device": "a GPU",
        },
        "runs": [{"weights": {"step": 9, "checksum": checksum, "commit": None}} for checksum in "abc"],
        "config": {},
    }


def test_a_row_of_three_runs(runs: list[Path], script: Callable[..., Any], tmp_path: Path) -> None:
    evaluations = [read_evaluation(run / "eval" / "taskonomy-test.json") for run in runs]
    row = build_row("tiny", evaluations)
    values = [evaluation.file["tasks"]["normal"]["mean"]["value"] for evaluation in evaluations]
    entry = row["tasks"]["normal"]
    assert entry["value"] == pytest.approx(statistics.mean(values))
    assert entry["deviation"] == pytest.approx(statistics.stdev(values))
    assert entry["of_seeds"] == values
    assert entry["interval"][0] < entry["value"] < entry["interval"][1]
    assert (row["seeds"], row["selected"], row["selected_on"]) == ([0, 1, 5], ["val"], ["val"])
    assert (row["dataset"], row["split"], row["images"], row["metric_version"]) == ("taskonomy", "test", 2, METRIC_VERSION)
    assert [run["weights"] for run in row["runs"]] == [evaluation.file["weights"] for evaluation in evaluations]
    logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]
    seconds = [statistics.median(line["seconds"] for line in log if line["split"] == "train") for log in logs]
    assert row["cost"]["seconds_per_step"] == pytest.approx(statistics.mean(seconds))
    assert row["cost"]["peak_memory_mib"] == max(line.get("peak_memory_mib", 0) for log in logs for line in log)
    assert row["cost"]["device"] == json.loads((runs[0] / "provenance.json").read_text())["hardware"]["cpu"]
    assert find_refusals(row) == []

    ended = script("compare", *runs, "--eval", "taskonomy-test", "--row", tmp_path / "rows" / "tiny.json")
    assert ended.status == 0, ended.err
    assert "refused" not in ended.out
    assert read_row(tmp_path / "rows" / "tiny.json") == json.loads(json.dumps(row))
    ended = script("compare", *runs[:2], "--eval", "taskonomy-test", "--row", tmp_path / "rows" / "two.json")
    assert "would be refused: got 2 seeds (0, 1); expected at least 3" in ended.out
    ended = script("compare", "--rows", tmp_path / "rows", "--out", tmp_path / "table")
    assert ended.status == 1
    assert "1 of 2 rows refused:" in ended.out
    assert "two: got 2 seeds" in ended.out
    assert f"{entry['value']:.4g} ± {entry['deviation']:.2g}" in (tmp_path / "table" / "leaderboard.md").read_text()
    assert script("compare", "--rows", tmp_path / "rows" / "tiny.json").status == 0


def test_looks_at_the_row_s_split_and_other_configs_are_found(
    runs: list[Path], configured: Callable[..., Config], train_run: Callable[..., Path]
) -> None:
    of_val = build_row("x", [read_evaluation(run / "eval" / "taskonomy-val.json") for run in runs])
    assert of_val["early_looks"] == 3  # of step 1, a run each
    refusals = find_refusals(of_val)
    assert any("selected on the split val, which the row is of" in why for why in refusals)
    assert any("got 3 evaluations on the split val before the last step" in why for why in refusals)
    few = ("tasks={normal: 1, reshading: 1}", "optim.steps=2", "eval.images=0", "optim.lr=2e-3", "run.seed=9")
    other = train_run(configured(*few, "run.name=other"))
    row = build_row("x", [read_evaluation(run / "eval" / "taskonomy-val.json") for run in (runs[0], other)])
    assert row["differences"] == ["eval.every", "optim.lr"]


class CountProducts(TorchDispatchMode):
    """Two operations for each multiplication of a matrix product, a convolution or attention, by the shapes alone."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name in ("mm", "bmm"):
            self.operations += 2 * args[0].numel() * args[1].shape[-1]
        elif name in ("addmm", "baddbmm"):
            self.operations += 2 * args[1].numel() * args[2].shape[-1]
        elif name == "convolution":
            self.operations += 2 * output.numel() * args[1][0].numel()
        elif name.startswith("_scaled_dot_product"):
            query, key, value = args[:3]
            self.operations += 2 * query.numel() * key.shape[-2] + 2 * query[..., 0].numel() * value.shape[-2] * value.shape[-1]
        return output


def test_operations_are_those_of_the_products(trained: Path) -> None:
    model, config = load_checkpoint(trained)
    with torch.no_grad(), CountProducts() as counted:
        model(torch.zeros(1, 3, *config.data.image_size))
    cost = measure_cost([trained])
    assert cost["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert cost["operations_per_image"] == counted.operations > 1e6
    assert cost["image_size"] == [48, 40]


REFUSED: dict[str, tuple[Row, str]] = {
    "seeds": ({"seeds": [0, 1, 1]}, "got 2 seeds (0, 1); expected at least 3"),
    "test": ({"selected": ["last", "test"]}, "got a checkpoint selected on test images; expected the last one"),
    "by hand": ({"selected": ["by hand"]}, "got a checkpoint selected by hand; expected the last one"),
    "unknown": ({"selected": ["None"]}, "got a checkpoint selected in an unknown way"),
    "own split": ({"selected": ["val"]}, "got a checkpoint selected on the split test, which the row is of"),
    "looks": ({"early_looks": 6}, "got 6 evaluations on the split test before the last step; expected none"),
    "version": (
        {"metric_version": METRIC_VERSION + 1},
        f"got metric version {METRIC_VERSION + 1}; expected {METRIC_VERSION}: evaluate again",
    ),
    "configs": ({"differences": ["optim.lr"]}, "got runs that differ in optim.lr; expected one config but for the seed"),
    "no weights": ({"runs": [{"weights": {"checksum": None}}]}, "got an evaluation that does not say of which weights it is"),
    "same weights": ({"runs": [{"weights": {"checksum": "a"}}] * 3}, "got the same weights twice; expected a run a seed"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_each_refusal_says_why(row: Row, change: Row, message: str) -> None:
    assert find_refusals(row) == []
    assert find_refusals(row | {"selected": ["val"], "selected_on": ["held_out"]}) == []
    (refusal,) = find_refusals(row | change)
    assert refusal.startswith(message)


def test_refused_rows_are_counted_and_not_in_the_table(row: Row) -> None:
    others = [row | {"name": name} | change for name, (change, _) in list(REFUSED.items())[:2]]
    text = format_leaderboard([row, *others], read_published(PUBLISHED / "nyud4.yaml"))
    table, _, rest = text.partition("2 of 3 rows refused:\n")
    assert rest.splitlines() == [f"{other['name']}: {find_refusals(other)[0]}" for other in others]
    lines = table.splitlines()
    assert lines[0] == f"nyu, test split, 654 images, metric version {METRIC_VERSION}"
    assert not any(line.startswith(("seeds ", "test ")) for line in lines)
    (ours,) = (line for line in lines if line.startswith("ours "))
    cells = [part.strip() for part in ours.split("  ") if part.strip()]
    assert cells == ["ours", "20.5 ± 0.25", "-", "-1.50 ± 0.5", "3", "last", "31.25", "94.5", "0.125", "3", "a GPU"]
    (theirs,) = (line for line in lines if line.startswith("PGT, Swin-T "))
    assert theirs.split()[2:6] == ["20.06", "0.7705", "-", "-"]  # as the columns: the row has no segmentation
    assert "as published" in theirs
    assert "as published, seen on github.com/innovator-zero/MTDP_Lib: PGT, Swin-T; TIT, Swin-T" in lines
    toys = format_leaderboard([row | {"images": 4}], read_published(PUBLISHED / "nyud4.yaml"))
    assert "Published rows are of 654 images of nyu: none stands beside these." in toys
    assert "PGT" not in toys
    assert "0 of 0 rows refused" in format_leaderboard([])


def test_rows_of_other_images_have_a_table_of_their_own(row: Row) -> None:
    text = format_leaderboard([row, row | {"name": "else", "image_ids": "b2", "images": 100}], markdown=True)
    assert sum(line.startswith("| ---") for line in text.splitlines()) == 2
    assert "100 images" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "got format_version 2; expected a row of format version 1; write it again"),
        ({"seeds": 3}, "got seeds 3"),
        ({"tasks": {"normals": {}}}, "got tasks.normals"),
        ({"tasks": {"normal": {"metric": "mean", "value": "20", "better": "lower"}}}, "got tasks.normal"),
        ({"runs": [{}]}, "got runs {}"),
    ],
)
def test_a_damaged_row_is_named(row: Row, tmp_path: Path, change: Row, message: str) -> None:
    path = tmp_path / "row.json"
    path.write_text(json.dumps(copy.deepcopy(row) | change))
    with pytest.raises(UserError, match=f"row.json: {message}"):
        read_row(path)


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.yaml")), ids=lambda path: path.stem)
def test_published_rows_name_their_page(path: Path) -> None:
    published = read_published(path)
    assert all(row.page.startswith("github.com/") for row in published.rows)
    shares = [value for row in published.rows for value in row.values.values() if value < 1]
    assert np.mean(shares) > 0.4  # not percent


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "dataset: nyu\nimages: 1\nrows: [{name: a, page: '', values: {}}]",
            "a: got no page; expected the one that the row was seen on",
        ),
        (
            "dataset: nyu\nimages: 1\nrows: [{name: a, page: b, values: {normals: 1}}]",
            "got 'normals'; .* did you mean 'normal'",
        ),
        ("dataset: nyu\nimages: 1", "rows: got nothing"),
    ],
)
def test_mistakes_in_published_rows(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "them.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_published(tmp_path / "them.yaml")
    with pytest.raises(UserError, match=r"none\.yaml; expected a YAML file"):
        read_published(tmp_path / "none.yaml")


def test_published_rows_have_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    published = read_published(Path("nyud4"))
    assert (published.dataset, published.images) == ("nyu", 654)


def test_runs_or_rows(script: Callable[..., Any]) -> None:
    for arguments in ([], ["run", "--rows", "row.json"]):
        ended = script("compare", *arguments)
        assert ended.status == 2
        assert "expected one or the other" in ended.err
