"""A report with its images, which needs what the page itself does not: the data, and the models of the checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mult import report
from mult.build import build_dataset
from mult.config import DataConfig, load_config
from mult.data.batches.transforms import EvalTransform
from mult.errors import UserError
from mult.evaluation import evaluate
from mult.evaluation.compare import Comparison, Row, compare
from mult.evaluation.results import Evaluated, load_baseline, primary
from mult.files import write_text
from mult.report import Example, RunRecord, Shown
from mult.runs.checkpoint import load_checkpoint
from mult.tasks import TASKS


def write_report(
    folders: Sequence[Path],
    out: Path,
    device: torch.device,
    stem: str | None = None,
    data: DataConfig | None = None,
    most: int = 2,
    baselines: Sequence[Path] = (),
    note: str = "",
) -> str:
    """Write the page of one run or of several; returns a line that says what is in it.

    stem: the evaluation to look at closely, by default the first run's on its test split. data: where that evaluation's
    images are, by default as in the first run's config. most: how many best, median and worst images a task. baselines: JSONs
    of single-task runs, for delta_m; each serves the evaluations of its own name. note: a text above the results.
    """
    runs = [report.read_run(folder) for folder in folders]
    known = [name for name in runs[0].evaluations if all(name in run.evaluations for run in runs)]
    if stem is not None and stem not in known:
        raise UserError(f"--eval: got {stem!r}; expected an evaluation of every run: {', '.join(known) or 'there is none'}")
    stem = stem or report.default_evaluation(runs)
    examples: Sequence[Example] | str = "No images: the runs have no evaluation in common."
    if stem is not None:
        examples = collect_examples(runs, stem, data, device, most) if most else "No images: none were asked for."
    text = report.page(runs, stem, examples, _compared(runs, baselines), note)
    write_text(out, text)
    pictures = [picture for example in examples if isinstance(example, Example) for picture in example.pictures]
    return f"{out}: {len(text.encode()) / 1e6:.1f} MB with {len(pictures)} pictures"


def _compared(runs: Sequence[RunRecord], baselines: Sequence[Path]) -> dict[str, Comparison]:
    """By name, the evaluations that several runs have, or that have baselines; rows are named by the runs' folders."""
    comparisons = {}
    singles = [load_baseline(path) for path in baselines]
    stems = list(dict.fromkeys(stem for run in runs for stem in run.columns))
    for path in baselines:
        if path.stem not in stems:
            raise UserError(
                f"--baseline: got {path}; expected a JSON named as an evaluation of the runs: "
                f"{', '.join(stems) or 'there is none'}; evaluate the single-task run on the same data"
            )
    for stem in stems:
        against = [single for single in singles if single.name == stem]
        known = {single.path.resolve() for single in against}
        rows = []
        for run in (run for run in runs if stem in run.columns):
            path = run.folder / "eval" / f"{stem}.json"
            evaluated = Evaluated(run.name, path, run.evaluations[stem], run.columns[stem])
            rows.append(
                Row(str(run.folder), [evaluated], baselines=[against] if against and path.resolve() not in known else ())
            )
        if len(rows) > 1 or against:
            comparisons[stem] = compare(rows)
    return comparisons


@dataclass(frozen=True)
class Choice:
    """An image to show for a task, with what an `Example` says of it."""

    task: str
    index: int
    rank: str
    metric: str
    unit: str
    values: tuple[float, ...]


def collect_examples(
    runs: Sequence[RunRecord], stem: str, data: DataConfig | None, device: torch.device, most: int
) -> list[Example] | str:
    """The images that the first run's columns rank best, median and worst, predicted by every run; or why there are none.

    Raises UserError where the data are not those of the evaluation, and where the runs were evaluated on other images.
    """
    for run in runs:
        if stem not in run.columns:
            return f"No images: {run.name} has no eval/{stem}.npz, which says how good each is. Evaluate it again."
        if not np.array_equal(run.columns[stem]["id"], runs[0].columns[stem]["id"]):
            raise UserError(
                f"report: got evaluations {stem} of {runs[0].name} and {run.name} on different images; expected the same; "
                "evaluate both on one root and split"
            )
    choices = list(_choices(runs, stem, most))
    evaluation = runs[0].evaluations[stem]
    data = data or load_config(runs[0].folder / "config.yaml").data
    if data.dataset != evaluation["dataset"]:
        return f"No images: {stem} is not of the run's own dataset, {data.dataset}. Name its config with --config."
    views = build_dataset(data, list(dict.fromkeys(choice.task for choice in choices)), evaluation["split"])
    truths: dict[Choice, tuple[list[Shown], str]] = {}
    predicted: dict[Choice, list[Shown]] = {choice: [] for choice in choices}
    for number, run in enumerate(runs):
        model, config = load_checkpoint(_checkpoint(run, stem))
        for index in tqdm(sorted({choice.index for choice in choices}), desc=f"report: {run.name}", leave=False):
            sample = _view(views, index, str(runs[0].columns[stem]["id"][index]))
            (shown,) = evaluate.predictions(model.to(device), [sample], EvalTransform(config.data.image_size), device)
            for choice in (choice for choice in choices if choice.index == index):
                if number == 0:
                    truths[choice] = report.draw_truth(choice.task, sample)
                maps = shown["predictions"][choice.task]
                predicted[choice] += report.draw_prediction(choice.task, sample, maps, number)
    ids = runs[0].columns[stem]["id"]
    return [
        Example(
            task=choice.task,
            rank=choice.rank,
            id=str(ids[choice.index]),
            metric=choice.metric,
            unit=choice.unit,
            values=choice.values,
            scale=truths[choice][1],
            pictures=truths[choice][0] + predicted[choice],
        )
        for choice in choices
    ]


def _choices(runs: Sequence[RunRecord], stem: str, most: int) -> Iterator[Choice]:
    """Of every task that all runs were scored on."""
    for task in TASKS:
        entries = [run.evaluations[stem]["tasks"].get(task) for run in runs]
        if not all(entries):
            continue
        metric = primary(TASKS[task], entries[0])
        if any(of_run.get(metric, {}).get("value") is None for of_run in entries):
            continue
        values = np.stack([report.image_values(run.columns[stem], task, metric) for run in runs])
        entry = entries[0][metric]
        for rank, index in report.choose(values[0], entry["better"] == "higher", most):
            yield Choice(task, index, rank, metric, entry["unit"], tuple(values[:, index].tolist()))


def _checkpoint(run: RunRecord, stem: str) -> Path:
    """What was evaluated: training says at which step, eval.py takes the best."""
    of_step = run.folder / "checkpoints" / str(run.evaluations[stem].get("step", "best"))
    return of_step if of_step.exists() else run.folder


def _view(views: Any, index: int, name: str) -> Any:
    sample = views[index] if index < len(views) else None
    if sample is None or sample["id"] != name:
        raise UserError(
            f"report: got {sample and sample['id']} as view {index} of {views.root}; expected {name}, as in the evaluation; "
            "name the config it was made with by --config, or evaluate again"
        )
    return sample
