"""What the runs of a config cost: parameters, operations, time and memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mult.files import read_json
from mult.runs.checkpoint import load_checkpoint
from mult.runs.folder import read_log


def measure_cost(runs: Sequence[Path]) -> dict[str, Any]:
    """What runs of one config cost, as plain values; None where their logs or provenance do not say it.

    parameters: all of the model's. operations_per_image: of a forward pass at `image_size`, a multiplication and an addition
    being two; matrix products, convolutions and attention, as torch counts them. seconds_per_step: the mean over runs of the
    median, of steps of images_per_step images. peak_memory_mib: of the first process of a run, the largest of all runs; on the
    CPU that of the whole process. device, precision, processes: of the first run's start.
    """
    model, config = load_checkpoint(runs[0])
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *config.data.image_size))
    steps = [[line for line in read_log(run / "metrics.jsonl") if line["split"] == "train"] for run in runs]
    seconds = [statistics.median(line["seconds"] for line in of_run) for of_run in steps if of_run]
    path = runs[0] / "provenance.json"
    provenance = read_json(path) if path.exists() else {}
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "operations_per_image": counter.get_total_flops(),
        "image_size": list(config.data.image_size),
        "seconds_per_step": statistics.mean(seconds) if seconds else None,
        "images_per_step": config.data.batch_size * config.optim.accumulate,
        "peak_memory_mib": max(
            (line["peak_memory_mib"] for of_run in steps for line in of_run if "peak_memory_mib" in line), default=None
        ),
        "device": _name_device(provenance),
        "precision": provenance.get("precision"),
        "processes": provenance.get("processes"),
    }


def _name_device(provenance: dict[str, Any]) -> str | None:
    """The name of the GPU or the CPU that a run was started on; None for a run of the first version."""
    device, hardware = provenance.get("device"), provenance.get("hardware", {})
    if device == "cuda" and hardware.get("gpus"):
        return str(hardware["gpus"][0])
    return str(hardware["cpu"]) if device == "cpu" and hardware.get("cpu") else device
