"""The trivial baseline: for each metric the constant prediction that is best for it, learnt on training pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from mult.evaluation.evaluate import Samples
from mult.metrics import Constant
from mult.runtime import distributed
from mult.tasks import TASKS


def learn_constants(
    views: Samples, tasks: Sequence[str], seed: int, max_views: int = 256, max_pixels: int = 4096
) -> dict[str, dict[str, Any]]:
    """{task: {metric: constant}} that is best on a sample of training pixels, as plain values for JSON.

    The sample: views at equal distances, at most `max_views`, and of each view at most `max_pixels` valid pixels a task.
    """
    generator = np.random.default_rng(seed)
    values: dict[str, list[Any]] = {task: [] for task in tasks}
    indices = np.unique(np.linspace(0, len(views) - 1, min(max_views, len(views))).round().astype(int))
    for index in tqdm(indices, desc="trivial baseline", leave=False, disable=not distributed.is_main()):
        sample = views[int(index)]
        for task in tasks:
            places = np.flatnonzero(sample["valid"][task].numpy())
            if len(places) > max_pixels:
                places = generator.choice(places, max_pixels, replace=False)
            target = sample["targets"][task].numpy()
            values[task].append(
                target.reshape(-1)[places] if target.ndim == 2 else target.reshape(len(target), -1)[:, places].T
            )
    constants: dict[str, dict[str, Any]] = {}
    for task in tasks:
        pixels = np.concatenate(values[task])
        if len(pixels):
            best = TASKS[task].metric(["?"] if TASKS[task].categorical else None).fit_constants(pixels)
            constants[task] = {metric: _to_plain(value) for metric, value in best.items()}
    return constants


def _to_plain(constant: Constant) -> int | list[float]:
    return constant if isinstance(constant, int) else [float(value) for value in constant]
