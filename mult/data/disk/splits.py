"""TODOC"""

from __future__ import annotations

import csv
import io
from importlib import resources
from pathlib import Path

from mult.errors import UserError
from mult.files import write_atomically

SPLITS = ("train", "val", "test")


def published_list(name: str, suffix: str = "csv") -> Path:
    """A list of splits that comes with the package."""
    return Path(str(resources.files("mult.data"))) / "lists" / f"{name}.{suffix}"


def read_splits(path: Path) -> dict[str, set[str]]:
    """building -> the splits it is in."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # with a byte order mark, as spreadsheets write, or without
            reader = csv.DictReader(file)
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: got no CSV in UTF-8 ({error}); expected id,train,val,test; save it as that") from error
    if not {"id", *SPLITS} <= set(reader.fieldnames or ()):
        raise UserError(
            f"{path}: got the columns {reader.fieldnames}; expected id,train,val,test; write them as the file's first line"
        )
    for row in rows:
        for split in SPLITS:
            if row[split] not in ("0", "1"):
                raise UserError(f"{path}: {row['id']}: {split}: got {row[split]!r}; expected 0 or 1; correct the line")
    return {row["id"]: {split for split in SPLITS if row[split] == "1"} for row in rows}


def _read_splits(path: Path) -> list[list[str]]:
    """The rows below the header of a splits.csv; none where there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if header != ["id", *SPLITS]:
        raise UserError(f"{path}: got the columns {header}; expected id,{','.join(SPLITS)}; repair or remove the file")
    return rows


def _check_split(path: Path, building: str, split: str) -> None:
    if split not in SPLITS:
        raise UserError(f"split: got {split!r}; expected one of {SPLITS}; choose one of them")
    for name, *flags in _read_splits(path):
        if name == building and flags != _flags(split):
            raise UserError(
                f"{path}: got building {building!r} for split {split!r}; expected the split it has there, as its views would "
                "be in two; name another building"
            )


def _record_split(path: Path, building: str, split: str) -> None:
    rows = [row for row in _read_splits(path) if row[0] != building]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["id", *SPLITS], *rows, [building, *_flags(split)]])
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def _flags(split: str) -> list[str]:
    return [str(int(name == split)) for name in SPLITS]
