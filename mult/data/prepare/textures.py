"""Stored edges and keypoints beside those of the image, of which they are functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mult.data.disk.derived import FROM_COLOUR
from mult.data.disk.images import Array
from mult.data.prepare.verdict import Verdict
from mult.labels import EDGE_SIGMA, STANDARD_SIDE, edge_texture

STRIDE = 8
SIGMAS = (0.5, 1.0, 2.0, 4.0, 6.0)
"""The Gaussians of other published edges, those of Omnidata's components among them."""
MIN_CORRELATION = 0.9
"""The same formula and image, but for rounding and a resize: .99 and more; an image beside it in a film: .3 to .7."""
MAX_RATIO = 1.25


class Textures(NamedTuple):
    """A task's stored label and the computed ones, every STRIDE-th pixel, (N,): {what it was computed with: values}."""

    stored: Array
    computed: dict[str, Array]


def measure_textures(task: str, stored: Array, image: Array) -> Textures:
    """A stored label (1, H, W) of a task of FROM_COLOUR beside those of an image uint8 (H, W, 3)."""
    step = slice(None, None, STRIDE)
    computed = {"": FROM_COLOUR[task](image)}
    fits = _fit(stored[0, step, step], computed[""][0, step, step])
    if FROM_COLOUR[task] is edge_texture and not _is_right(*fits):
        own_scale = EDGE_SIGMA * STANDARD_SIDE / min(image.shape[:2])
        for sigma in (*SIGMAS, own_scale):
            name = f"a Gaussian of {sigma:.3g} pixels at {STANDARD_SIDE}"
            computed[name] = edge_texture(image, sigma)
    coarse = {name: values[0, step, step].ravel() for name, values in computed.items()}
    return Textures(stored[0, step, step].ravel(), coarse)


def judge_textures(task: str, views: Sequence[Textures]) -> Verdict:
    """Whether stored values are those that the images give, up to rounding: by correlation and by the ratio of the means."""
    stored = np.concatenate([view.stored for view in views])
    fits = {
        name: _fit(stored, np.concatenate([view.computed[name] for view in views]))
        for name in views[0].computed
        if all(name in view.computed for view in views)
    }
    correlation, ratio = fits.pop("")
    numbers = f"correlation {correlation:.3f}, mean {ratio:.3g} times that of the image's"
    if _is_right(correlation, ratio):
        return Verdict(task, "right", f"agrees with the image: {numbers}")
    best = max(fits, key=lambda name: fits[name][0], default="")
    if best and fits[best][0] > max(MIN_CORRELATION, correlation):
        text = (
            f"made with {best}, where Taskonomy has {EDGE_SIGMA:g} ({numbers}; with that {fits[best][0]:.3f}): its values are "
            "not comparable with others'; remove the files and let mult annotate --dataset derive the label, or train it alone"
        )
        return Verdict(task, "wrong", text, blocks=False)
    return Verdict(task, "wrong", f"disagrees: {numbers}; was it made from another image?")


def _is_right(correlation: float, ratio: float) -> bool:
    return correlation > MIN_CORRELATION and 1 / MAX_RATIO < ratio < MAX_RATIO


def _fit(stored: Array, computed: Array) -> tuple[float, float]:
    correlation = float(np.corrcoef(stored.ravel(), computed.ravel())[0, 1]) if stored.std() and computed.std() else 0.0
    return correlation, float(stored.mean() / computed.mean()) if computed.mean() else np.inf
