"""Tables: one grid of cells, rendered as text for a terminal, as Markdown, as CSV and as HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from mult.draw.html import Html, tag

MARKS = {"better": "▲", "worse": "▼"}


@dataclass(frozen=True)
class Cell:
    """A text and its look. mark: "better", "worse" or "", shown as an arrow behind the text.

    Only HTML shows a note, in small letters below the text, and a colour, (R, G, B) in 0 to 255, behind it.
    """

    text: str
    mark: str = ""
    note: str = ""
    colour: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Grid:
    """The heads of the columns and the rows; a str is a cell without a mark. A row that lacks values may be shorter."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]


def render_text(grid: Grid) -> str:
    """Columns as wide as their longest text, for a terminal; the last cell of a short row may be longer than its column."""
    lines = _to_texts(grid)
    full = [line for line in lines if len(line) == len(grid.heads)]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=False)).rstrip() for line in lines)


def render_markdown(grid: Grid) -> str:
    """A GitHub table; short rows are filled up with empty cells."""
    heads, *rows = [[text.replace("|", "\\|") for text in line] for line in _to_texts(grid)]
    filled = [row + [""] * (len(heads) - len(row)) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, ["---"] * len(heads), *filled))


def render_csv(grid: Grid) -> str:
    """A line of heads and a line a row."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(_to_texts(grid))
    return file.getvalue()


def render_html(grid: Grid, caption: str, class_: str | None = None) -> Html:
    """A table with the first cell of each row as its head, in a box that scrolls where the page is too narrow for it."""
    head = tag("tr", *(tag("th", text, scope="col") for text in grid.heads))
    body = [tag("tr", tag("th", _to_text(first), scope="row"), *map(_render_cell, rest)) for first, *rest in grid.rows]
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body), class_=class_)
    return tag("div", table, class_="wide", tabindex="0", role="group", aria_label=caption)


def _to_texts(grid: Grid) -> list[list[str]]:
    return [list(map(_to_text, row)) for row in (grid.heads, *grid.rows)]


def _to_text(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell.text} {MARKS[cell.mark]}" if cell.mark else cell.text


def _render_cell(cell: str | Cell) -> Html:
    if isinstance(cell, str):
        return tag("td", cell)
    text = tag("strong", f"{_to_text(cell)} {cell.mark}") if cell.mark else cell.text
    note = tag("small", f" {cell.note}") if cell.note else Html("")
    return tag("td", text, note, style=_choose_style(cell.colour))


def _choose_style(colour: tuple[int, int, int] | None) -> str | None:
    """The background, and black or white for the text, whichever is easier to read on it."""
    if colour is None:
        return None
    red, green, blue = colour
    ink = "#000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 110 else "#fff"
    return f"background:rgb({red},{green},{blue});color:{ink}"
