"""Colour beside depth: what is an outline in the depth mostly is one in the image, if both are of one view and lie one way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from mult.data.disk.images import Array, Mask
from mult.data.prepare.verdict import Verdict
from mult.errors import pluralize

SIDE = 160
"""Pixels of the short side at which outlines are compared."""
MAX_BEND = 0.05
MIN_VIEWS = 5
MIN_SHARE, MIN_T = 0.75, 4.0
"""One arrangement is better than another if its outlines fit better in three quarters of the views, with a mean difference of
four standard errors. On rendered rooms and a rendered living room the right one is better in 97 to 100 % of the views, by 11 to
46 standard errors, the frames beside a frame of a film among them; differences by chance are beyond 4 in fewer than 1 in
10,000 datasets."""

TURNS: Mapping[str, Callable[[Array], Array]] = {
    "turned by 180 degrees": lambda image: image[::-1, ::-1],
    "mirrored left to right": lambda image: image[:, ::-1],
    "mirrored top to bottom": lambda image: image[::-1],
    "turned by 90 degrees anticlockwise": lambda image: np.rot90(image, -1),
    "turned by 90 degrees clockwise": lambda image: np.rot90(image),
    "transposed": lambda image: image.T,
    "transposed along the other diagonal": lambda image: image[::-1, ::-1].T,
}
"""{what was done to the image: what undoes it}; the last four only of square images, as others change their size."""
SHIFTS = (1, -1, 2, -2)


class Outlines(NamedTuple):
    """The outlines of a view in colour and in depth, both (h, w)."""

    colour: Array
    depth: Array


def find_outlines(image: Array, depth_m: Array, valid: Mask) -> Outlines:
    """Outlines of an image (3, H, W) in [0, 1] and of depth (H, W): gradients, and bends of inverse depth, 0 on planes."""
    height, width = depth_m.shape
    scale = SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    gray = np.asarray(Image.fromarray(image.mean(0).astype(np.float32)).resize(size, Image.Resampling.BOX), np.float64)
    coarse, is_there = (
        np.asarray(Image.fromarray(each).resize(size, Image.Resampling.NEAREST)) for each in (depth_m.astype(np.float32), valid)
    )
    is_there = is_there & (coarse > 0)
    inverse = np.divide(1.0, coarse, out=np.zeros(coarse.shape), where=is_there)
    bends = np.zeros(inverse.shape)
    for values, known, bend in ((inverse, is_there, bends), (inverse.T, is_there.T, bends.T)):
        middle = values[1:-1]
        second = np.abs(values[:-2] + values[2:] - 2 * middle) / np.maximum(middle, 1e-9)
        bend[1:-1] += np.where(known[:-2] & known[1:-1] & known[2:], second, 0)
    # The root, or a few strong outlines would be all that counts; blurred, as those of colour may lie a pixel beside.
    return Outlines(_blur(np.sqrt(np.hypot(*np.gradient(gray)))), _blur(np.sqrt(np.minimum(bends, MAX_BEND))))


def judge_turn(outlines: Sequence[Outlines]) -> Verdict:
    """Whether images lie as their depth does."""
    fits = {"as stored": [_correlate(*each) for each in outlines]}
    for name, undo in TURNS.items():
        turned = [(undo(colour), depth) for colour, depth in outlines]
        if all(colour.shape == depth.shape for colour, depth in turned):
            fits[name] = [_correlate(*each) for each in turned]
    return _judge("colour against depth", fits, "the image is {} against the depth; turn it back (EXIF orientation?)")


def judge_pairs(views: Mapping[int, tuple[str, Outlines]]) -> Verdict:
    """Whether the depth of a view is its own or that of a view beside it; `views`: {index: (building, outlines)}."""
    fits: dict[str, list[float]] = {"as stored": []}
    fits |= {f"{abs(shift)} {'after' if shift > 0 else 'before'}": [] for shift in SHIFTS}
    for index, (group, outlines) in views.items():
        fits["as stored"].append(_correlate(*outlines))
        for name, shift in zip(list(fits)[1:], SHIFTS, strict=True):
            other_group, other = views.get(index + shift, ("", None))
            is_comparable = other is not None and other_group == group and other.depth.shape == outlines.depth.shape
            fits[name].append(_correlate(outlines.colour, other.depth) if is_comparable and other else np.nan)
    return _judge(
        "pairs of colour and depth",
        fits,
        "the image of a view fits the depth of the view {} it: pairs are shifted; pair them anew",
    )


def _judge(subject: str, fits: Mapping[str, Sequence[float]], cause: str) -> Verdict:
    """Compare the first arrangement, as stored, with the others, by how well each fits in each view."""
    (_, stored), *others = ((name, np.array(values)) for name, values in fits.items())
    t_values, shares = {}, {}
    for name, values in others:
        difference = (values - stored)[np.isfinite(values)]
        if len(difference) >= MIN_VIEWS:
            spread = difference.std(ddof=1) / np.sqrt(len(difference))
            t_values[name], shares[name] = difference.mean() / max(spread, 1e-9), (difference > 0).mean()
    if not t_values:
        return Verdict(subject, "cannot tell", f"{pluralize(len(stored), 'view')} with depth; {MIN_VIEWS} are needed")
    best = max(t_values, key=lambda name: float(t_values[name]))
    numbers = f"outlines correlate at {stored.mean():.2f} as stored and at {np.nanmean(fits[best]):.2f} otherwise"
    if t_values[best] > MIN_T and shares[best] > MIN_SHARE:
        return Verdict(subject, "wrong", f"{cause.format(best)}; {numbers}")
    if t_values[best] < -MIN_T and shares[best] < 1 - MIN_SHARE:
        return Verdict(subject, "right", numbers)
    return Verdict(subject, "cannot tell", f"{numbers}, which is too little difference")


def _correlate(one: Array, other: Array) -> float:
    if not (one.std() and other.std()):
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _blur(values: Array) -> Array:
    """Means over 3 x 3 pixels."""
    height, width = values.shape
    padded = np.pad(values, 1, mode="edge")
    return np.mean([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
