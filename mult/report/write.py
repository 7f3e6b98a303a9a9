"""A report with its images, which needs what the page itself does not: the data, and the models of the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mult.build import build_dataset
from mult.config import DataConfig, load_config
from mult.data.batches.transforms import EvalTransform
from mult.errors import UserError, pluralize
from mult.evaluation.compare import Comparison, Row, compare
from mult.evaluation.evaluate import predict_samples
from mult.evaluation.results import read_evaluation
from mult.files import write_text
from mult.report.examples import GalleryEntry, Picture, RankedView, draw_prediction, draw_truth, rank_views
from mult.report.page import render_page
from mult.report.read import RunRecord, choose_evaluation, read_run
from mult.runs.checkpoint import load_checkpoint
from mult.runs.weights import identify_weights


def write_report(
    folders: Sequence[Path],
    out: Path,
    device: torch.device,
    stem: str | None = None,
    data: DataConfig | None = None,
    limit: int = 2,
    baselines: Sequence[Path] = (),
    note: str = "",
) -> str:
    """Write the page of one run or of several; returns a line that says what is in it.

    stem: the evaluation to look at closely, by default the first run's on its test split. data: where that evaluation's
    images are, by default as in the first run's config. limit: how many best, median and worst images a task. baselines: JSONs
    of single-task runs, for delta_m; each serves the evaluations of its own name. note: a text above the results.
    """
    runs = [read_run(folder) for folder in folders]
    common = [name for name in runs[0].evaluations if all(name in run.evaluations for run in runs)]
    if stem is not None and stem not in common:
        raise UserError(f"--eval: got {stem!r}; expected an evaluation of every run: {', '.join(common) or 'there is none'}")
    stem = stem or choose_evaluation(runs)
    entries: Sequence[GalleryEntry] | str = "No images: the runs have no evaluation in common."
    if stem is not None:
        entries = draw_entries(runs, stem, data, device, limit) if limit else "No images: none were asked for."
    text = render_page(runs, stem, entries, _compare_evaluations(runs, baselines), note)
    write_text(out, text)
    number = sum(len(entry.pictures) for entry in entries if isinstance(entry, GalleryEntry))
    return f"{out}: {len(text.encode()) / 1e6:.1f} MB with {pluralize(number, 'picture')}"


def _compare_evaluations(runs: Sequence[RunRecord], baselines: Sequence[Path]) -> dict[str, Comparison]:
    """By stem, the evaluations that several runs have, or that have baselines; rows are named by the runs' folders."""
    with_columns = [{stem: one for stem, one in run.evaluations.items() if one.columns} for run in runs]
    stems = list(dict.fromkeys(stem for evaluations in with_columns for stem in evaluations))
    singles = [read_evaluation(path) for path in baselines]
    for path in baselines:
        if path.stem not in stems:
            raise UserError(
                f"--baseline: got {path}; expected a JSON named as an evaluation of the runs: "
                f"{', '.join(stems) or 'there is none'}; evaluate the single-task run on the same data"
            )
    comparisons = {}
    for stem in stems:
        own_singles = [single for single in singles if single.path.stem == stem]
        paths = {single.path.resolve() for single in own_singles}
        rows = []
        for run, evaluations in zip(runs, with_columns, strict=True):
            if stem in evaluations:
                is_baseline = evaluations[stem].path.resolve() in paths
                own = [own_singles] if own_singles and not is_baseline else []
                rows.append(Row(str(run.folder), [evaluations[stem]], baselines=own))
        if len(rows) > 1 or own_singles:
            comparisons[stem] = compare(rows)
    return comparisons


def draw_entries(
    runs: Sequence[RunRecord], stem: str, data: DataConfig | None, device: torch.device, limit: int
) -> list[GalleryEntry] | str:
    """The images that the first run's columns rank best, median and worst, predicted by every run; or why there are none.

    Raises UserError where the data are not those of the evaluation, and where the runs were evaluated on other images.
    """
    evaluations = [run.evaluations[stem] for run in runs]
    for run, evaluation in zip(runs, evaluations, strict=True):
        if not evaluation.columns:
            return f"No images: {run.name} has no eval/{stem}.npz, which says how good each is. Evaluate it again."
        if not np.array_equal(evaluation.columns["id"], evaluations[0].columns["id"]):
            raise UserError(
                f"report: got evaluations {stem} of {runs[0].name} and {run.name} on different images; expected the same; "
                "evaluate both on one root and split"
            )
    data = data or load_config(runs[0].folder / "config.yaml").data
    if data.dataset != evaluations[0].file["dataset"]:
        return f"No images: {stem} is not of the run's own dataset, {data.dataset}. Name its config with --config."
    checkpoints: list[Path] = []
    for run in runs:
        found = _find_checkpoint(run, stem)
        if isinstance(found, str):
            return found
        checkpoints.append(found)
    ranked = list(rank_views(evaluations, limit))
    views = build_dataset(data, list(dict.fromkeys(view.task for view in ranked)), evaluations[0].file["split"])
    pictures: dict[RankedView, list[Picture]] = {}
    scales: dict[RankedView, str] = {}
    for number, (run, checkpoint) in enumerate(zip(runs, checkpoints, strict=True)):
        model, config = load_checkpoint(checkpoint)
        of_index = {view.index: [other for other in ranked if other.index == view.index] for view in ranked}
        for index in tqdm(sorted(of_index), desc=f"report: {run.name}", leave=False):
            sample = _read_view(views, index, of_index[index][0].id)
            transform = EvalTransform(config.data.image_size, config.data.fit)
            (prediction,) = predict_samples(model.to(device), [sample], transform, device)
            for view in of_index[index]:
                if number == 0:
                    pictures[view], scales[view] = draw_truth(view.task, sample)
                pictures[view] += draw_prediction(view.task, sample, prediction["predictions"][view.task], number)
    return [GalleryEntry(view, scales[view], pictures[view]) for view in ranked]


def _find_checkpoint(run: RunRecord, stem: str) -> Path | str:
    """The checkpoint that was evaluated, or why no picture can be drawn of it: another one's would not show these numbers."""
    weights = run.evaluations[stem].weights
    step, checksum, file = weights["step"], weights["checksum"], f"{run.name}'s eval/{stem}.json"
    if step is None:
        return f"No images: {file} does not say of which checkpoint it is. Evaluate it again."
    folder = run.folder / "checkpoints" / str(step)
    if not folder.is_dir():
        return f"No images: {file} is of step {step}, whose checkpoint is gone. Evaluate again."
    if checksum not in (None, identify_weights(folder)["checksum"]):
        return f"No images: {file} is of other weights than the checkpoint of step {step}. Evaluate it again."
    return folder


def _read_view(views: Any, index: int, name: str) -> Any:
    sample = views[index] if index < len(views) else None
    if sample is None or sample["id"] != name:
        raise UserError(
            f"report: got {sample and sample['id']} as view {index} of {views.root}; expected {name}, as in the evaluation; "
            "name the config it was made with by --config, or evaluate again"
        )
    return sample
