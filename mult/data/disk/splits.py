"""splits.csv: which building, or scene, of a dataset belongs to which split.

A line `id,train,val,test` and one a building, with a 1 under its split and 0 under the others. The columns may come in any
order and beside others, and the file may begin with a byte order mark, as spreadsheets write it.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mult.errors import UserError, suggest
from mult.files import hold_lock, write_text

_LISTS = Path(str(resources.files("mult.data"))) / "lists"
SPLITS = ("train", "val", "test")

Row = dict[str, str]


def published_list(name: str) -> Path:
    """A list of splits that comes with the package."""
    return _LISTS / f"{name}.csv"


def read_nyu_lists() -> dict[str, Any]:
    """NYU Depth v2's published splits and its maps of classes, with their names."""
    lists: dict[str, Any] = json.loads((_LISTS / "nyu.json").read_text(encoding="utf-8"))
    return lists


def check_split_name(split: str, names: Sequence[str] = SPLITS) -> None:
    """UserError for a name that is none of `names`."""
    if split not in names:
        remedy = suggest(split, names, "choose one of them")
        raise UserError(f"split: got {split!r}; expected one of {', '.join(names)}; {remedy}")


def read_splits(path: Path) -> dict[str, str]:
    """{building: its split}. Raises UserError, naming the file and the line, unless every building is in exactly one split."""
    return _split_of_each(path, _parse(path)[1])


def check_building(path: Path, building: str, split: str) -> None:
    """Raise UserError if `split` is none of SPLITS or the file, which may not exist yet, has the building in another one."""
    check_split_name(split)
    _require_split(path, read_splits(path) if path.exists() else {}, building, split)


def record_building(path: Path, building: str, split: str) -> None:
    """Add a building to the file, or make the file; other columns, and lines that other processes add meanwhile, stay.

    Raises UserError as `check_building` does.
    """
    check_split_name(split)
    with hold_lock(path.with_name(f".{path.name}.lock")):
        columns, rows = _parse(path) if path.exists() else (["id", *SPLITS], [])
        splits = _split_of_each(path, rows)
        _require_split(path, splits, building, split)
        if building not in splits:
            _write(path, columns, [*rows, _row(building, split)])


def write_splits(path: Path, splits: Mapping[str, str]) -> None:
    """Write the file of a new dataset: {building: its split}."""
    _write(path, ["id", *SPLITS], [_row(building, split) for building, split in splits.items()])


def _row(building: str, split: str) -> Row:
    return {"id": building, **{name: str(int(name == split)) for name in SPLITS}}


def _require_split(path: Path, splits: Mapping[str, str], building: str, split: str) -> None:
    if splits.get(building, split) != split:
        raise UserError(
            f"{path}: got building {building!r} for split {split!r}; expected {splits[building]!r}, in which it is there, as "
            "views of one building must not be in two splits; name another building"
        )


def _parse(path: Path) -> tuple[list[str], list[Row]]:
    """The names of the columns and the rows, in the order of the file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # whether or not there is a byte order mark
            columns, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: got no CSV in UTF-8 ({error}); expected id,train,val,test; save it as that") from error
    if not {"id", *SPLITS} <= set(columns) or len(set(columns)) < len(columns):
        raise UserError(f"{path}: got the columns {columns}; expected id,train,val,test; write them as the file's first line")
    for row in rows:
        if len(row) != len(columns):
            raise UserError(f"{path}: {','.join(row)}: got {len(row)} values; expected {len(columns)}; correct the line")
    return columns, [dict(zip(columns, row, strict=True)) for row in rows]


def _split_of_each(path: Path, rows: Sequence[Row]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for row in rows:
        building = row["id"]
        for name in SPLITS:
            if row[name] not in ("0", "1"):
                raise UserError(f"{path}: {building}: {name}: got {row[name]!r}; expected 0 or 1; correct the line")
        marked = [name for name in SPLITS if row[name] == "1"]
        if len(marked) != 1:
            raise UserError(
                f"{path}: {building}: got the splits {', '.join(marked) or '(none)'}; expected one; mark one of "
                f"{', '.join(SPLITS)} with 1, or remove the line"
            )
        splits[building] = marked[0]
    repeated = [building for building, count in Counter(row["id"] for row in rows).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: {repeated[0]}: got more than one line; expected one a building; remove the others")
    return splits


def _write(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
