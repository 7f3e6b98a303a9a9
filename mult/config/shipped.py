"""The YAML files that come with mult, found by name: the config `rooms6` is configs/rooms6.yaml."""

from __future__ import annotations

from pathlib import Path

from mult.errors import UserError, suggest

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDER = next((folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()), _PACKAGE)
"""In an installed package configs/ lies inside it, in a checkout beside it."""
_FOLDERS = {"config": _FOLDER, "suite": _FOLDER / "suites", "published": _FOLDER / "published"}
"""Kind of a file -> where those that come with mult are; "published" are others' rows for the table of `mult compare`."""


def find_config(name: str | Path, kind: str = "config") -> Path:
    """The file at the path `name` or, where there is none, the file that comes with mult under that name.

    kind: a key of _FOLDERS. Raises UserError where there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(_FOLDERS[kind].glob("*.yaml"))}
    if str(name) in shipped:
        return shipped[str(name)]
    expected, remedy = "a YAML file", "no such file, check the path"
    if path.is_dir():
        remedy = "it is a folder: give a file in it"
    elif path.name == str(name) and not path.suffix:
        expected, remedy = f"a YAML file, or a name among {', '.join(shipped)}", suggest(str(name), shipped, remedy)
    elif path.stem in shipped:
        remedy += f", or give the name {path.stem}, which comes with mult"
    raise UserError(f"{kind}: got {name}; expected {expected}; {remedy}")
