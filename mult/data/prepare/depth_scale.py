"""Whether a depth scale can be right, before a building is written with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from mult.data.disk.encodings import DEPTH_LIMITS_M
from mult.data.disk.images import Array
from mult.data.prepare.frames import read_frame
from mult.data.prepare.inspection import MEDIAN_M, OUTDOOR_MEDIAN_M
from mult.data.prepare.layouts import Layout
from mult.data.prepare.pairs import Frame
from mult.data.sample import BadFileError
from mult.errors import UserError

_FRAMES = 3
"""Frames that are read, evenly spaced: of one, most may be sky or a lens cap."""
_NEAREST_M = 0.02
"""Nearer depth has less than ten of the codes of Taskonomy's files, and no camera of rooms measures it."""
_COMMON = (1000, 1, 100, 10000, 5000, 512)
"""Units a metre of millimetres, metres, centimetres, tenths of a millimetre, TUM and Taskonomy."""


def require_plausible_scale(frames: Sequence[Frame], root: Path, layout: Layout) -> None:
    """Raise UserError where the scale of the layout puts most depth beyond what can be stored and the median beyond any scene.

    So a street with much depth beyond the farthest that can be stored is not refused. The message names the share of such
    pixels, over some of the frames, and a common scale under which the median would be that of a room. Frames with bad files
    are left to those who write them.
    """
    chosen = frames[:: max(1, len(frames) // _FRAMES)][:_FRAMES]
    measured = [depth_m for frame in chosen for depth_m in _read_depth(frame, root, layout)]
    depth_m = np.concatenate([*measured, np.zeros(0)])
    if not depth_m.size:
        return
    farthest_m, median_m = DEPTH_LIMITS_M[1], float(np.median(depth_m))
    share = float(((depth_m < _NEAREST_M) | (depth_m > farthest_m)).mean())
    if share <= 0.5 or OUTDOOR_MEDIAN_M[0] <= median_m <= OUTDOOR_MEDIAN_M[1]:
        return
    medians = {units: median_m * layout.depth_scale / units for units in _COMMON}
    of_rooms = [units for units in _COMMON if MEDIAN_M[0] <= medians[units] <= MEDIAN_M[1]]
    remedy = f"{of_rooms[0]} would make the median {medians[of_rooms[0]]:.2g} m" if of_rooms else "give their units a metre"
    raise UserError(
        f"--depth-scale: got {layout.depth_scale:g}, with which {share:.1%} of the depth in {len(measured)} of {len(frames)} "
        f"frames is outside {_NEAREST_M} to {farthest_m:.0f} m and the median is {median_m:.4g} m; expected what these files "
        f"have; {remedy}"
    )


def _read_depth(frame: Frame, root: Path, layout: Layout) -> Iterator[Array]:
    """The measured depth of a frame, none where a file is bad."""
    with suppress(BadFileError):
        pixels = read_frame(frame, root, layout)
        yield pixels.depth_m[pixels.measured]
