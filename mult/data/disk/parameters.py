"""The parameters that a dataset of ours was made with, in a JSON at its root: what is added later is made with the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mult.errors import UserError
from mult.files import write_atomically


class Parameter(NamedTuple):
    """A whole number: what it is by default, and what it may be."""

    default: int
    least: int
    most: int | None = None


def settle(
    root: Path, name: str, parameters: Mapping[str, Parameter], renderer: int, asked: Mapping[str, int | None]
) -> dict[str, int]:
    """The parameters of a root, from its file `name`; if it is new, those asked for, else the defaults, are written there.

    `renderer` is the version of what makes the data. Raises UserError for a value out of range, for others than the root
    has, and for a folder that holds something else.
    """
    path = root / name
    given = {key: value for key, value in asked.items() if value is not None}
    for key, value in given.items():
        _, least, most = parameters[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
            limits = f"from {least} on" if most is None else f"from {least} to {most}"
            raise UserError(f"{path.stem}: got {key} {value!r}; expected a whole number {limits}; change {key}")
    if not path.exists():
        if root.exists() and any(root.iterdir()):
            raise UserError(
                f"{root}: got files but no {name}; expected a new folder or one of {path.stem.capitalize()}; use another root"
            )
        chosen = {**{key: parameter.default for key, parameter in parameters.items()}, **given, "renderer": renderer}
        write_atomically(path, lambda file: file.write((json.dumps(chosen, indent=2) + "\n").encode()))
        return chosen
    held = _read(path, {*parameters, "renderer"})
    wanted = {**held, **given, "renderer": renderer}
    different = [key for key in wanted if held[key] != wanted[key]]
    if different:
        raise UserError(
            f"{root}: got {', '.join(f'{key} {wanted[key]}' for key in different)}; expected "
            f"{', '.join(f'{key} {held[key]}' for key in different)}, with which it was rendered ({name}); "
            "use those, or another root"
        )
    return wanted


def _read(path: Path, names: set[str]) -> dict[str, int]:
    try:
        held = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path}: got a file that is no JSON ({error}); expected the parameters of a rendering; use another root"
        ) from error
    if not isinstance(held, dict) or set(held) != names or not all(isinstance(value, int) for value in held.values()):
        raise UserError(f"{path}: got {held}; expected whole numbers for {', '.join(sorted(names))}; use another root")
    return held
