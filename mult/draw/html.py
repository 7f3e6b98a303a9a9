"""HTML as text: `tag` escapes every text that it is given, except what another `tag` returned."""

from __future__ import annotations

from html import escape

VOID = {"img", "input", "meta", "br"}
"""Elements without a content and an end tag."""


class Html(str):
    """Text that is HTML already."""


def tag(name: str, /, *content: str, **attributes: str | bool | None) -> Html:
    """An element. In attributes' names `_` stands for `-`, and one at the end is dropped (class_); None leaves one out."""
    words = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            key = key.rstrip("_").replace("_", "-")
            words.append(key if value is True else f'{key}="{escape(value)}"')
    start = f"<{' '.join(words)}>"
    return Html(start if name in VOID else f"{start}{join(*content)}</{name}>")


def join(*content: str) -> Html:
    """Texts and elements, one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in content))
