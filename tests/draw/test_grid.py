"""One grid, rendered four ways: columns line up, marks and notes where they belong, nothing unescaped, short rows filled up."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser

from mult.draw.grid import Cell, Grid, render_csv, render_html, render_markdown, render_text

EVIL = '<b>a|b</b>, "c"'
GRID = Grid(
    ["", "loss", "score ↑"],
    [
        ["one", "0.25", Cell("7", "better", note="5 to 9")],
        ["a longer name", Cell("12.5", "worse"), Cell("8", note="-")],
        ["third", EVIL],
    ],
)


class Cells(HTMLParser):
    """The rows of a table: of each cell the tag, its style and the texts in it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[tuple[str, str | None, list[str]]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append((tag, dict(attrs).get("style"), []))

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1][2].append(data)


def test_text_has_columns_as_wide_as_their_longest_cell() -> None:
    """The short row's last cell is longer than its column and does not widen it."""
    assert render_text(GRID).splitlines() == [
        "               loss    score ↑",
        "one            0.25    7 ▲",
        "a longer name  12.5 ▼  8",
        f"third          {EVIL}",
    ]


def test_markdown_has_as_many_cells_in_every_line() -> None:
    lines = render_markdown(GRID).splitlines()
    assert lines[:3] == ["|  | loss | score ↑ |", "| --- | --- | --- |", "| one | 0.25 | 7 ▲ |"]
    assert lines[4] == '| third | <b>a\\|b</b>, "c" |  |'
    assert {line.replace("\\|", "").count("|") for line in lines} == {4}


def test_csv_is_read_back() -> None:
    rows = list(csv.reader(io.StringIO(render_csv(GRID))))
    assert rows[0] == ["", "loss", "score ↑"]
    assert rows[3] == ["third", EVIL]


def test_html_has_heads_marks_notes_and_colours() -> None:
    text = render_html(GRID, "a < b", class_="matrix")
    assert '<table class="matrix"><caption>a &lt; b</caption>' in text
    assert 'aria-label="a &lt; b"' in text
    rows = Cells(text).rows
    assert [tag for tag, _, _ in rows[0]] == ["th", "th", "th"]
    assert [[tag for tag, _, _ in row] for row in rows[1:]] == [["th", "td", "td"]] * 2 + [["th", "td"]]
    assert [texts for _, _, texts in rows[1]] == [["one"], ["0.25"], ["7 ▲ better", " 5 to 9"]]
    assert [texts for _, _, texts in rows[2]][1:] == [["12.5 ▼ worse"], ["8", " -"]]
    assert rows[3][1][2] == [EVIL]
    assert text.count("<strong>") == 2
    assert text.count("<small>") == 2


def test_text_on_a_colour_is_black_or_white_by_its_lightness() -> None:
    grid = Grid(["", ""], [["dark", Cell("1", colour=(68, 1, 84))], ["light", Cell("2", colour=(253, 231, 37))]])
    styles = [row[1][1] for row in Cells(render_html(grid, "c")).rows[1:]]
    assert styles == ["background:rgb(68,1,84);color:#fff", "background:rgb(253,231,37);color:#000"]
