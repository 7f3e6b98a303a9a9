"""Files and overrides become trees, trees merge: the layers that a config is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mult.config import schema
from mult.errors import UserError

Tree = dict[str, Any]
"""Nested dicts of plain values: a config, or a part of one, before it is made of dataclasses."""


def load_file(cls: type, path: Path, chain: tuple[Path, ...] = ()) -> Tree:
    """The tree of a file, a part of `cls`, merged over those it derives from; `chain` holds the files that led here."""
    if path.resolve() in (seen.resolve() for seen in chain):
        links = " -> ".join(map(str, (*chain, path)))
        raise UserError(f"{chain[-1]}: base: got a cycle, {links}; expected a chain with an end; remove one link")
    if not path.is_file():
        asked_by = f"{chain[-1]}: base" if chain else "config"
        remedy = "it is a folder: give a file in it" if path.is_dir() else "no such file, check the path"
        raise UserError(f"{asked_by}: got {path}; expected a YAML file; {remedy}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: got no text ({error}); expected YAML in UTF-8; save it as such") from None
    content = schema.parse_yaml(text, str(path))
    if not isinstance(content, dict):
        got = "an empty file" if content is None else f"a {type(content).__name__} at the top level"
        raise UserError(f"{path}: got {got}; expected a mapping of {schema.keys(cls)}; see configs/ for examples")
    base = content.pop("base", None)
    tree: Tree = schema.read(cls, content, str(path), partial=True)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{path}: base: got {base!r}; expected the path of one YAML file; give a string")
    parent = load_file(cls, path.parent / base, (*chain, path))
    if "tasks" in tree:
        parent.pop("tasks", None)
    return _merge(parent, tree)


def apply_override(cls: type, tree: Tree, override: str) -> Tree:
    """A tree and what `section.key=value` changes in it."""
    source = f"override {override!r}"
    dotted, equals, text = override.partition("=")
    path = dotted.strip().split(".")
    if not equals or not all(path):
        raise UserError(f"{source}: got no dotted key and '='; expected section.key=value; write e.g. optim.lr=1e-4")
    value = schema.parse_yaml(text, source)
    layer = value
    for key in reversed(path):
        layer = {key: layer}
    layer = schema.read(cls, layer, source, partial=True)
    return _merge(tree, layer, depth=len(path) if isinstance(value, dict) else None)


def _merge(old: Any, new: Any, depth: int | None = None) -> Any:
    """`new` over `old`: mappings key by key, for `depth` levels (None: all), anything else replaced."""
    if depth == 0 or not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    below = None if depth is None else depth - 1
    return {**old, **{key: _merge(old.get(key), value, below) for key, value in new.items()}}
