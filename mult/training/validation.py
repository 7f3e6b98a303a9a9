"""The evaluation of a run's model while it trains: on the split `eval.split`, with a table, files and a gallery."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mult import draw
from mult.build import build_eval_batches, describe_selection
from mult.data.batches.transforms import EvalTransform
from mult.data.sample import collect_bad
from mult.errors import pluralize
from mult.evaluation import evaluate
from mult.evaluation.results import Results, compute_improvement
from mult.evaluation.tables import format_evaluation
from mult.files import read_json, write_arrays, write_json
from mult.runs.weights import identify_weights
from mult.runtime import distributed
from mult.runtime.signals import InterruptibleBatches, Signals
from mult.runtime.workers import image_workers
from mult.tasks import TASKS
from mult.training.experiment import Experiment
from mult.training.progress import Progress
from mult.training.state import TrainingState


def validate(experiment: Experiment, state: TrainingState, progress: Progress, signals: Signals) -> Results:
    """Evaluate the step that was saved last, write what the run keeps of it, and point `best` at it if it is.

    Each view is evaluated on one process, none twice. Raises StoppedError when a signal came.
    """
    config, views = experiment.config, experiment.eval_data
    batch_size = evaluate.batch_size_of_this_process(config.eval.batch_size or config.data.batch_size)
    data = config.data
    part = evaluate.views_of_this_process(views)
    batches = build_eval_batches(part, data.image_size, batch_size, data.workers, data.fit)
    max_batches = math.ceil(math.ceil(len(views) / distributed.world_size()) / batch_size)
    bad_messages: list[str] = []
    good_batches = collect_bad(InterruptibleBatches(batches, max_batches, signals), bad_messages)
    with _uncompiled(config.run.compile), image_workers(config.data.workers):
        evaluation = evaluate.evaluate(
            state.evaluated_model,
            good_batches,
            list(experiment.objectives),
            views,
            state.constants,
            state.device,
            state.precision,
            quick=config.eval.quick,
        )
    bad_counts = progress.list_bad_files(bad_messages)
    score = compute_improvement(evaluation.results)
    state.record_score(score)
    if distributed.is_main():
        _report(experiment, state, progress, evaluation, score, bad_counts)
    return evaluation.results


def _report(
    experiment: Experiment,
    state: TrainingState,
    progress: Progress,
    evaluation: evaluate.Evaluation,
    score: float | None,
    bad_counts: dict[str, int],
) -> None:
    """Write the evaluation's files, print its table, draw the gallery, and then, as a sign that all is done, log a line."""
    config, views, split = experiment.config, experiment.eval_data, experiment.config.eval.split
    path = _locate(state)
    write_arrays(path.with_suffix(".npz"), evaluation.columns)
    weights = identify_weights(state.checkpoints.folder / str(state.step))
    origin = {"fit": config.data.fit, "step": state.step, "weights": weights, "selected": describe_selection(config)}
    write_json(path, evaluation.as_json(config.data.dataset, split) | bad_counts | origin)
    skipped = "".join(f", {count} of them skipped: see bad_files.txt" for count in bad_counts.values() if count)
    tqdm.write(f"step {state.step}, {split} split, {pluralize(len(views), 'image')}{skipped}\n{format_evaluation(evaluation)}")
    if config.eval.images:
        indices = np.unique(np.linspace(0, len(views) - 1, config.eval.images).round().astype(int))
        with _uncompiled(config.run.compile):
            samples = evaluate.predict_samples(
                state.evaluated_model,
                [views[int(index)] for index in indices],
                EvalTransform(config.data.image_size, config.data.fit),
                state.device,
            )
        gallery = draw.draw_gallery(samples, {task: TASKS[task] for task in experiment.objectives}, views.classes)
        progress.save_image(state.step, "gallery", gallery)
    values = {
        f"{task}/{metric}": entry["value"]
        for task, entries in evaluation.results.items()
        for metric, entry in entries.items()
        if "/" not in metric  # entries of single classes are in the JSON alone
    }
    shares = {
        f"reference/{stride}/{task}": share
        for stride, of_task in state.evaluated_model.reference_shares().items()
        for task, share in of_task.items()
    }
    progress.log(state.step, split, values | shares | bad_counts | {"improvement": score})


def read_results(state: TrainingState) -> Results:
    """The results that an earlier process wrote of this step; none where its file is gone or of other weights."""
    path = _locate(state)
    file = read_json(path) if path.exists() else {}
    results: Results = file["tasks"] if file.get("step") == state.step else {}
    return results


def _locate(state: TrainingState) -> Path:
    config = state.run.config
    return state.run.folder / "eval" / f"{config.data.dataset}-{config.eval.split}.json"


def _uncompiled(is_compiled: bool) -> contextlib.AbstractContextManager[Any]:
    """Run compiled blocks uncompiled: torch would compile anew for the shape of the last batch and of the gallery's images."""
    return torch.compiler.set_stance("force_eager") if is_compiled else contextlib.nullcontext()
