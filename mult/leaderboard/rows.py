"""A row: what the runs of one config, a seed each, score on one evaluation, what they cost, and where all of it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mult.config import Config, load_config
from mult.errors import UserError
from mult.evaluation import bootstrap
from mult.evaluation.gain import measure_delta_m
from mult.evaluation.results import SavedEvaluation, require_comparable, select_primary
from mult.files import read_json
from mult.leaderboard.check import FORMAT_VERSION
from mult.runs.cost import measure_cost
from mult.runs.folder import find_differences, read_log
from mult.tasks import TASKS

FREE_KEYS = ("run.name", "run.output", "run.seed", "run.init", "run.device", "data.root", "data.workers")
"""Keys of the config in which the runs of a row may differ."""


def build_row(
    name: str, evaluations: Sequence[SavedEvaluation], baselines: Sequence[Sequence[SavedEvaluation]] = ()
) -> dict[str, Any]:
    """The row of runs that were evaluated on the same images, as README.md describes it; baselines: of each seed, for delta m.

    An evaluation lies in its run's `eval/`. Raises UserError where it does not, or has no arrays beside it, and for evaluations
    of different images. Whether the row can be compared with others is for `check.find_refusals` to say.
    """
    first = evaluations[0]
    for evaluation in evaluations:
        if not evaluation.columns:
            raise UserError(f"row: got {evaluation.path} and no .npz beside it; expected both files; evaluate again")
        require_comparable(first, evaluation)
    runs = [_find_run(evaluation.path) for evaluation in evaluations]
    configs = [load_config(run / "config.yaml") for run in runs]
    delta_m = measure_delta_m(evaluations, baselines) if baselines else None
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        **first.comparability,
        "image_ids": hashlib.sha256("\n".join(first.columns["id"].tolist()).encode()).hexdigest(),
        "seeds": [config.run.seed for config in configs],
        "selected": sorted({str(evaluation.file.get("selected")) for evaluation in evaluations}),
        "selected_on": sorted({config.eval.split for config in configs}),
        "early_looks": _count_early_looks(runs, first.file["split"]),
        "differences": sorted({key for config in configs[1:] for key in _find_differences(configs[0], config)}),
        "tasks": _summarise_tasks(evaluations),
        "delta_m": None
        if delta_m is None
        else {"value": delta_m.mean, "deviation": delta_m.deviation, "interval": delta_m.interval and list(delta_m.interval)},
        "cost": measure_cost(runs),
        "runs": [_describe_run(run, evaluation) for run, evaluation in zip(runs, evaluations, strict=True)],
        "config": dataclasses.asdict(configs[0]),
    }


def _find_run(path: Path) -> Path:
    run = path.resolve().parents[1]
    if not (run / "config.yaml").is_file():
        raise UserError(f"row: got {path}; expected an evaluation in the folder eval/ of its run; give the run's own file")
    return run


def _find_differences(one: Config, other: Config) -> list[str]:
    return [key for key in find_differences(one, other) if key not in FREE_KEYS]


def _count_early_looks(runs: Sequence[Path], split: str) -> int:
    """How often training evaluated on the row's own split before its last step, in all runs."""
    count = 0
    for run in runs:
        steps = [line["step"] for line in read_log(run / "metrics.jsonl") if line["split"] == split]
        last = load_config(run / "config.yaml").optim.steps
        count += sum(step < last for step in steps)
    return count


def _summarise_tasks(evaluations: Sequence[SavedEvaluation]) -> dict[str, Any]:
    """{task: its primary metric over seeds, with the interval of the mean over images}; or the reason why it has none."""
    units = bootstrap.assign_units(evaluations[0].columns["group"])
    tasks: dict[str, Any] = {}
    for task, entries in evaluations[0].tasks.items():
        metric = select_primary(TASKS[task], entries)
        of_seeds = [evaluation.tasks.get(task, {}).get(metric, {}) for evaluation in evaluations]
        values = [entry["value"] for entry in of_seeds if entry.get("value") is not None]
        if len(values) < len(of_seeds):
            reason = next((entry["reason"] for entry in of_seeds if "reason" in entry), "not evaluated")
            tasks[task] = {"metric": metric, "value": None, "reason": reason}
            continue
        samples = np.mean([evaluation.resample(task, units)[metric] for evaluation in evaluations], axis=0)
        interval = bootstrap.estimate_interval(samples, units.number)
        tasks[task] = {
            "metric": metric,
            **{key: entries[metric][key] for key in ("unit", "better", "trivial", "pixels", "images")},
            "value": float(np.mean(values)),
            "deviation": bootstrap.estimate_deviation(values),
            "of_seeds": values,
            "quick": any(entry.get("quick", False) for entry in of_seeds),
            "interval": interval and list(interval),
        }
    return tasks


def _describe_run(run: Path, evaluation: SavedEvaluation) -> dict[str, Any]:
    path = run / "provenance.json"
    provenance = read_json(path) if path.exists() else {}
    facts = {key: provenance.get(key) for key in ("time", "command", "commit", "versions", "hardware")}
    return {"name": run.name, "weights": dict(evaluation.weights), **facts}
