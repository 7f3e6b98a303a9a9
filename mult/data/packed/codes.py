"""How the numbers of an image or a label are stored: in the smallest type that gives them back.

The values of a view at its files' own size come back with the same bits. Those of a view that was resized may be rounded where
resizing interpolated them, by no more than half a unit of CODES; what is resized to the nearest pixel is never rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mult.tasks import Task

Array = NDArray[Any]


@dataclass(frozen=True)
class Code:
    """Numbers of `dtype` in the place of values. `decode` makes float32, or int64 of class ids, in new memory."""

    dtype: np.dtype[Any]
    encode: Callable[[Array], Array]
    decode: Callable[[Array], Array]


def _scaled(dtype: str, units: int) -> Code:
    """Values of [0, highest code / units]; decoded by the division that the datasets' readers use, so to the same bits."""
    return Code(
        np.dtype(dtype),
        lambda values: np.rint(values.astype(np.float64) * units),
        lambda codes: np.divide(codes, np.float32(units), dtype=np.float32),
    )


def _classes(dtype: str) -> Code:
    return Code(np.dtype(dtype), lambda values: values, lambda codes: codes.astype(np.int64))


def _decode_directions(codes: Array) -> Array:
    values = codes.astype(np.float32)
    length = np.sqrt(np.einsum("chw,chw->hw", values, values))
    values /= np.maximum(length, 1)  # no code is as short as 1, except the zero vector of an invalid pixel
    return values


IMAGE, FRACTION, DIRECTION = 1, 2, 7
CODES: dict[int, Code] = {
    IMAGE: _scaled("u1", 255),
    FRACTION: _scaled("<u2", 65535),
    3: _scaled("<u2", 512),  # Taskonomy's depth
    4: Code(np.dtype("<f4"), lambda values: values, lambda codes: codes.astype(np.float32)),
    5: _classes("u1"),
    6: _classes("<u2"),
    DIRECTION: Code(np.dtype("<i2"), lambda values: np.rint(values.astype(np.float64) * 32767), _decode_directions),
}
"""The number of a code in a pack's index -> the code. A number keeps its meaning; 0 is a map without valid pixels."""
_EXACT = {"class": (5, 6), "number": (IMAGE, FRACTION, 3, 4)}
_ROUNDED = {"area": FRACTION, "normals": DIRECTION}
"""Task.resize -> the code of values that resizing interpolated."""


def choose_code(values: Array, task: Task | None, resized: bool) -> int:
    """The number of the code for the target of a task, or for an image (None), which was interpolated if it was `resized`."""
    if resized:
        rounded = IMAGE if task is None else _ROUNDED.get(task.resize)
        if rounded is not None and _fits(values, CODES[rounded]):
            return rounded
    kind = "class" if task is not None and task.categorical else "number"
    return next(number for number in _EXACT[kind] if _is_exact(values, CODES[number]))


def encode(values: Array, number: int) -> Array:
    """The numbers to store, of the code's dtype."""
    code = CODES[number]
    return code.encode(values).astype(code.dtype)


def _fits(values: Array, code: Code) -> bool:
    """Whether the type can hold the values' codes."""
    if code.dtype.kind == "f":
        return True
    codes = code.encode(values)
    limits = np.iinfo(code.dtype)
    return bool(limits.min <= codes.min() and codes.max() <= limits.max)


def _is_exact(values: Array, code: Code) -> bool:
    return _fits(values, code) and code.decode(code.encode(values).astype(code.dtype)).tobytes() == values.tobytes()
