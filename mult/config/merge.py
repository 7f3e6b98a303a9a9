"""The merging of a YAML file over its base file, and of overrides over both, as nested dicts of plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mult.config import schema
from mult.config.yaml_text import parse_yaml, read_yaml
from mult.errors import UserError

Tree = dict[str, Any]
"""Nested dicts of plain values: a config, or a part of one, before it becomes dataclasses."""


def load_file(cls: type, path: Path, descendants: tuple[Path, ...] = ()) -> Tree:
    """The values of a YAML file, which may be a part of `cls`, merged over those of its base.

    descendants: the files that derive from this one, from the one that the user named on, which is there. Raises UserError for
    a missing base and for anything that is wrong in a file.
    """
    if path.resolve() in (descendant.resolve() for descendant in descendants):
        links = " -> ".join(map(str, (*descendants, path)))
        raise UserError(f"{descendants[-1]}: base: got a cycle, {links}; expected a chain with an end; remove one link")
    if not path.is_file():
        remedy = "it is a folder: give a file in it" if path.is_dir() else "no such file, check the path"
        raise UserError(f"{descendants[-1]}: base: got {path}; expected a YAML file; {remedy}")
    content = read_yaml(path)
    if not isinstance(content, dict):
        got = "an empty file" if content is None else f"a {type(content).__name__} at the top level"
        raise UserError(f"{path}: got {got}; expected a mapping of {schema.keys(cls)}; see configs/ for examples")
    base = content.pop("base", None)
    tree: Tree = schema.read(cls, content, str(path), partial=True)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{path}: base: got {base!r}; expected the path of one YAML file; give a string")
    parent = load_file(cls, path.parent / Path(base).expanduser(), (*descendants, path))
    if "tasks" in tree:
        parent.pop("tasks", None)
    return _merge(parent, tree)


def apply_override(cls: type, tree: Tree, override: str) -> Tree:
    """`tree` with the value that `section.key=value` gives; raises UserError for anything that is wrong in the override."""
    source = f"override {override!r}"
    dotted, equals, text = override.partition("=")
    path = dotted.strip().split(".")
    if not equals or not all(path):
        raise UserError(f"{source}: got no dotted key and '='; expected section.key=value; write e.g. optim.lr=1e-4")
    value = parse_yaml(text, source)
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
