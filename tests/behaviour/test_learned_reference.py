"""A training whose reference is learned: its log, its report, its pictures of attention, and what goes on from it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mult import Predictor
from mult.config import Config, load_config
from mult.data.disk.encodings import ENCODINGS
from mult.draw import TokenAttention, draw_attention_page
from mult.runs.checkpoint import load_checkpoint
from mult.share import load_to_share
from tests.run_files import Configured, TrainRun, find_differences, read_lines, read_state, read_weights

LEARNED = ("model.reference=learned", "optim.name=muon", "optim.lr=0.1", "optim.ema=0.5")


@pytest.fixture(scope="module")
def run(config_file: Path, train_run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 4 steps, at a rate at which the gates move far."""
    return train_run(load_config(config_file, [f"run.output={tmp_path_factory.mktemp('learned')}", *LEARNED]))


def shares_of(line: dict[str, Any]) -> dict[int, dict[str, float]]:
    shares: dict[int, dict[str, float]] = {}
    for name, value in line.items():
        if name.startswith("reference/"):
            _, stride, task = name.split("/")
            shares.setdefault(int(stride), {})[task] = value
    return shares


def test_every_evaluation_logs_the_shares_of_the_model_that_it_evaluates(run: Path, trained: Path) -> None:
    lines = read_lines(run, "val")
    assert [line["step"] for line in lines] == [2, 4]
    model = load_checkpoint(run / "checkpoints" / "last")[0]
    shares = shares_of(lines[-1])
    assert list(shares) == [32, 16, 8, 4]
    assert shares == model.reference_shares()
    assert all(sum(of_task.values()) == pytest.approx(1) for of_task in shares.values())
    moved = [abs(share - 1 / 6) for of_task in shares.values() for share in of_task.values()]
    assert min(moved) > 1e-5
    assert max(moved) > 0.01
    assert shares_of(lines[0]) != shares
    assert not any(shares_of(line) for line in (*read_lines(run, "train"), *read_lines(trained, "val")))


def test_a_resumed_run_has_the_same_bits(run: Path, configured: Configured, train_run: TrainRun) -> None:
    half = (*LEARNED, "optim.schedule=constant")
    whole = train_run(configured("run.name=whole", *half))
    folder = train_run(configured("run.name=parts", *half, "optim.steps=2"))
    train_run(configured("run.name=parts", *half), resume=True)
    assert find_differences(read_weights(folder), read_weights(whole)) == []
    assert read_lines(folder, "val")[-1] == read_lines(whole, "val")[-1]
    gates = sum("gate" in name for name in read_weights(whole))
    assert gates == 4
    groups = read_state(whole)["optimizer"]["param_groups"]
    assert sum(len(group["params"]) for group in groups) == len(list(load_checkpoint(whole)[0].parameters()))


def test_a_plain_run_starts_from_the_leader(run: Path, configured: Configured, train_run: TrainRun) -> None:
    other = load_checkpoint(run)[0]
    pruned = other.prune_to_leader()
    leader = pruned.arguments["reference"]
    config = configured(
        f"run.init={run}", f"model.reference={leader}", "optim.steps=1", "optim.warmup=0", "optim.lr=1e-12", "eval.images=0"
    )
    started = load_checkpoint(train_run(config) / "checkpoints" / "last")[0]
    assert started.arguments == pruned.arguments
    for name, weight in pruned.state_dict().items():
        assert torch.allclose(started.state_dict()[name], weight, rtol=0, atol=1e-9), name


def test_a_pruned_model_is_evaluated_and_predicts_beside_the_config(
    run: Path, script: Callable[..., Any], tmp_path: Path
) -> None:
    pruned = load_checkpoint(run)[0].prune_to_leader()
    pruned.save_pretrained(tmp_path / "pruned")
    for name in ("config.yaml", "trivial.json"):
        shutil.copy(run / "checkpoints" / "best" / name, tmp_path / "pruned")
    results = []
    for folder in (run, tmp_path / "pruned"):
        out = tmp_path / f"{folder.name}.json"
        ended = script("eval", "--ckpt", folder, "--split", "val", "--out", out)
        assert ended.status == 0, ended.err
        results.append(json.loads(out.read_text())["tasks"]["normal"]["mean"]["value"])
    assert results[0] != results[1]
    assert results[1] == pytest.approx(results[0], rel=0.5)


def test_a_pruned_model_keeps_its_origin_without_the_scores(run: Path) -> None:
    shared = load_to_share(run)
    assert shared.origin["evaluations"]
    pruned = shared.prune_to_leader()
    assert pruned.origin == shared.origin | {"evaluations": []}
    assert load_checkpoint(run)[0].prune_to_leader().origin == {}


def test_the_report_has_a_table_of_the_shares(run: Path, trained: Path, script: Callable[..., Any], tmp_path: Path) -> None:
    ended = script("report", run, trained, "--out", tmp_path / "page.html", "--images", "0")
    assert ended.status == 0, ended.err
    text = (tmp_path / "page.html").read_text()
    caption = f"<caption>{run.name}: percent of each task&#x27;s map in the one that all use, by stage; step 4"
    assert text.count("percent of each task&#x27;s map") == 2  # in the caption and for screen readers
    body = text[text.index(caption) : text.index("</table>", text.index(caption))]
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]
    assert rows[0] == ["stage", *ENCODINGS, "leader"]
    shares = shares_of(read_lines(run, "val")[-1])
    means = {task: float(np.mean([shares[stride][task] for stride in shares])) for task in ENCODINGS}
    for row, name, of_task in zip(
        rows[1:], [*(f"H/{stride}" for stride in shares), "mean"], [*shares.values(), means], strict=True
    ):
        leader = max(of_task, key=of_task.__getitem__)
        assert row == [name, *(f"{100 * of_task[task]:.1f}" for task in ENCODINGS), leader]
    script("report", trained, "--out", tmp_path / "plain.html", "--images", "0")
    assert "Reference</h2>" in text
    assert "Reference</h2>" not in (tmp_path / "plain.html").read_text()


def test_pictures_of_attention_name_the_leaders(run: Path, script: Callable[..., Any], tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    ended = script("predict", "--ckpt", run, tmp_path / "x.png", "--out", tmp_path / "out", "--attention", "--heads", "1,0")
    assert ended.status == 0, ended.err
    assert [path.name for path in (tmp_path / "out").glob("*attention*")] == ["x_attention_learned.png"]
    predictor = Predictor.from_checkpoint(run)
    shares, stages = predictor.model.reference_shares(), []
    for attention in predictor.attention(Image.fromarray(pixels)):
        leader = max(shares[attention.stride], key=shares[attention.stride].__getitem__)
        note = f"{leader.replace('_', ' ')}, {100 * shares[attention.stride][leader]:.0f} %"
        covered = (48 / attention.stride, 64 / attention.stride)
        place = min(int(covered[0] / 2), attention.windows.size[0] - 1), min(int(covered[1] / 2), attention.windows.size[1] - 1)
        weights, visible = (value.numpy() for value in attention.select(*place))
        stages.append(TokenAttention(attention.stride, weights, visible, place, covered, note))
    means = {task: float(np.mean([of_task[task] for of_task in shares.values()])) for task in ENCODINGS}
    leader = max(means, key=means.__getitem__)
    title = "What the point at 0.5, 0.5 attends to: a mix of all tasks' maps, led by "
    title += f"{leader.replace('_', ' ')}, {100 * means[leader]:.0f} %"
    expected = draw_attention_page(pixels.transpose(2, 0, 1) / np.float32(255), title, stages, [1, 0])
    with Image.open(tmp_path / "out" / "x_attention_learned.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(expected))


def test_balance_methods_share_the_query_and_key_of_all_tasks(configured: Callable[..., Config], train_run: TrainRun) -> None:
    folder = train_run(configured("model.reference=learned", "balance.method=gradnorm", "optim.steps=2", "eval.every=0"))
    assert [line["step"] for line in read_lines(folder, "train")] == [1, 2]
