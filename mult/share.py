"""A model that can be handed over: it carries what a stranger must know to use it and to judge it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mult.config import Config
from mult.data import LICENCES
from mult.evaluation.results import read_results, select_primary
from mult.models import MulT
from mult.runs.checkpoint import compute_checksum, find_checkpoint, load_checkpoint
from mult.runs.weights import find_run, identify_weights
from mult.tasks import TASKS


def load_to_share(path: str | Path) -> MulT:
    """The model of a checkpoint, or of a run's best one, with its `origin`, which `save_pretrained` writes.

    The evaluations are those in the run's eval/ of these very weights, on images that nothing was done to. Raises UserError
    where a file cannot be read.
    """
    checkpoint = find_checkpoint(path)
    model, config = load_checkpoint(checkpoint)
    model.origin = _describe_origin(model, config, checkpoint)
    return model


def _describe_origin(model: MulT, config: Config, checkpoint: Path) -> dict[str, Any]:
    weights = identify_weights(checkpoint)
    return {
        "image_size": list(config.data.image_size),  # (height, width)
        "fit": config.data.fit,
        "units": {task: TASKS[task].unit for task in model.tasks},
        "data": [
            {
                "dataset": part.dataset,
                "split": part.split,
                "max_depth_m": part.max_depth_m,
                "licence": LICENCES[part.dataset],
            }
            for part in (config.data, *config.data.mix)
        ],
        "starts_from_weights": bool(config.model.pretrained or config.run.init),
        "config_sha256": compute_checksum(checkpoint / "config.yaml"),
        "weights": weights,
        "evaluations": _collect_evaluations(find_run(checkpoint) / "eval", weights["checksum"]),
    }


def _collect_evaluations(folder: Path, checksum: str) -> list[dict[str, Any]]:
    """The primary metrics, where they have a value, of each evaluation in a folder that is of these weights."""
    evaluations = []
    for path in sorted(folder.glob("*.json")):
        file = read_results(path)
        if file.get("corruption") or (file.get("weights") or {}).get("checksum") != checksum:
            continue
        scores = []
        for task, entries in file["tasks"].items():
            metric = select_primary(TASKS[task], entries)
            entry = entries[metric]
            if entry["value"] is not None:
                kept = {key: entry.get(key) for key in ("value", "unit", "better", "interval", "trivial")}
                scores.append({"task": task, "metric": metric, **kept})
        about = {key: file.get(key) for key in ("dataset", "split", "images", "metric_version", "selected")}
        evaluations.append({**about, "over": file.get("interval_over"), "scores": scores})
    return evaluations
