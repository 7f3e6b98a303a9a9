"""HTML that cannot forget to escape: `tag` escapes every text that it is given, except what another `tag` made."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

VOID = {"img", "input", "meta", "br"}


class Html(str):
    """Text that is HTML already."""


def tag(name: str, /, *content: str, **attributes: str | bool | None) -> Html:
    """An element. In attributes' names `_` stands for `-`, and one at the end is dropped (class_); None leaves one out."""
    said = []
    for key, value in attributes.items():
        if value is not None and value is not False:
            key = key.rstrip("_").replace("_", "-")
            said.append(f" {key}" if value is True else f' {key}="{escape(value)}"')
    opened = f"<{name}{''.join(said)}>"
    return Html(opened if name in VOID else f"{opened}{join(*content)}</{name}>")


def join(*content: str) -> Html:
    """Texts and elements, one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in content))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, class_: str | None = None) -> Html:
    """A table whose first column names the rows; cells are texts or whole `td`s."""
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(cell if cell.startswith("<td") else tag("td", cell) for cell in row[1:]))
        for row in rows
    ]
    whole = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body), class_=class_)
    return tag("div", whole, class_="wide", tabindex="0", role="group", aria_label=caption)
