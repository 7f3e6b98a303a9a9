"""The parameters that one of our own datasets was made with: a JSON file at its root, so that later additions use the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mult.errors import UserError
from mult.files import is_temporary, read_json, write_json


class Parameter(NamedTuple):
    """A whole number: its default and its limits, both of which it may have."""

    default: int
    minimum: int
    maximum: int | None = None


def resolve_parameters(
    root: Path, name: str, parameters: Mapping[str, Parameter], renderer: int, requested: Mapping[str, int | None]
) -> dict[str, int]:
    """The parameters in the file `name` of a root. For a new root it is written, with the requested ones or the defaults.

    `renderer` is the version of the code that makes the data. Raises UserError for a value out of range, for one that differs
    from the root's, and for a folder that holds other files.
    """
    path = root / name
    given = {key: value for key, value in requested.items() if value is not None}
    for key, value in given.items():
        _check_range(path.stem, key, value, parameters[key])
    if not path.exists():
        if root.exists() and not all(is_temporary(each) for each in root.iterdir()):
            raise UserError(
                f"{root}: got files but no {name}; expected a new folder or one of {path.stem.capitalize()}; use another root"
            )
        resolved = {**{key: parameter.default for key, parameter in parameters.items()}, **given, "renderer": renderer}
        write_json(path, resolved)
        return resolved
    stored = _read(path, {*parameters, "renderer"})
    if stored["renderer"] != renderer:
        raise UserError(
            f"{root}: got data of renderer {stored['renderer']} ({name}); expected renderer {renderer}, this version's, whose "
            "images and labels are others; use another root, which is rendered anew"
        )
    resolved = {**stored, **given}
    different = [key for key in resolved if stored[key] != resolved[key]]
    if different:
        raise UserError(
            f"{root}: got {', '.join(f'{key} {resolved[key]}' for key in different)}; expected "
            f"{', '.join(f'{key} {stored[key]}' for key in different)}, with which it was rendered ({name}); "
            "use those, or another root"
        )
    return resolved


def _check_range(where: str, key: str, value: int, parameter: Parameter) -> None:
    _, minimum, maximum = parameter
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < minimum or (maximum is not None and value > maximum):
        limits = f"from {minimum} on" if maximum is None else f"from {minimum} to {maximum}"
        raise UserError(f"{where}: got {key} {value!r}; expected a whole number {limits}; change {key}")


def _read(path: Path, names: set[str]) -> dict[str, int]:
    stored = read_json(path, "use another root")
    if set(stored) != names or not all(isinstance(value, int) for value in stored.values()):
        raise UserError(f"{path}: got {stored}; expected whole numbers for {', '.join(sorted(names))}; use another root")
    return stored
