"""Nested plain values become frozen dataclasses, checked against their type hints.

Nothing here depends on which keys there are: sections.py has them. The type hints may be str, int, float, bool, None, Any
(plain values), Literal of strings, unions, lists, tuples of fixed length, dicts with string keys, dataclasses, and each of
these Annotated with a `Rule`. A bool is not an int, an int is accepted as a float, and a float must be finite.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from mult.errors import UserError, suggest


@dataclass(frozen=True)
class Rule:
    """A condition on a value beyond its type, in words and as a test; `expand` turns a short form into the full one."""

    expected: str
    holds: Callable[[Any], bool] = lambda value: True
    expand: Callable[[Any], Any] = lambda value: value


class _MismatchError(Exception):
    """A value does not fit its type hint. `_read_key` makes it a UserError, with the key."""


def read(cls: type, value: Any, source: str, *, partial: bool = False) -> Any:
    """Make the dataclass `cls` of nested plain values: check them, expand short forms, and turn integers into due floats.

    `source` says in messages where the values come from. With `partial` no key is required, and dataclasses stay dicts of the
    keys that are there, so that files and overrides can be checked one by one before they are merged.

    Raises UserError, with the dotted key, for an unknown or missing key, a wrong type or a value out of range.
    """
    return _read_section(cls, value, source, "", partial)


def read_value(hint: Any, value: Any, source: str, key: str) -> Any:
    """One value checked against a type hint; raises UserError as `read` does."""
    return _read_key(hint, value, source, key, partial=False)


def _read_section(cls: type, value: Any, source: str, key: str, partial: bool) -> Any:
    where = f"{source}: {key}" if key else source
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: got {value!r}; expected a mapping of {keys(cls)}; give keys or leave it out")
    hints = typing.get_type_hints(cls, include_extras=True)
    for name in value:
        if name not in hints:
            expected = f"one of {keys(cls)}" if hints else "none"
            remedy = suggest(str(name), hints, "remove it")
            raise UserError(f"{where}: got unknown key {name!r}; expected {expected}; {remedy}")
    prefix = f"{key}." if key else ""
    content = {name: _read_key(hints[name], item, source, prefix + name, partial) for name, item in value.items()}
    if partial:
        return content
    for item in dataclasses.fields(cls):
        if item.name in content:
            continue
        if dataclasses.is_dataclass(hints[item.name]):
            content[item.name] = _read_section(hints[item.name], {}, source, prefix + item.name, partial=False)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            expected = _describe(hints[item.name])
            raise UserError(f"{source}: {prefix}{item.name}: got nothing; expected {expected}; add this required key")
    return cls(**content)


def _read_key(hint: Any, value: Any, source: str, key: str, partial: bool) -> Any:
    try:
        return _read_value(hint, value, source, key, partial)
    except _MismatchError:
        got = f"{value!r} ({type(value).__name__})"
        raise UserError(f"{source}: {key}: got {got}; expected {_describe(hint)}; change the value") from None


def _read_value(hint: Any, value: Any, source: str, key: str, partial: bool) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _read_section(hint, value, source, key, partial)
    if origin is Annotated:
        inner, rule = arguments
        value = _read_value(inner, rule.expand(value), source, key, partial)
        _require(rule.holds(value))
        return value
    if origin in (typing.Union, types.UnionType):
        # Dataclasses last: an error in one of their keys is raised at once, and would hide that another member fits.
        for member in sorted(arguments, key=dataclasses.is_dataclass):
            try:
                return _read_value(member, value, source, key, partial)
            except _MismatchError:
                continue
        raise _MismatchError
    if origin is Literal:
        _require(isinstance(value, str) and value in arguments)
        return value
    if origin in (list, tuple):
        _require(isinstance(value, list | tuple) and (origin is list or len(value) == len(arguments)))
        hints = arguments * len(value) if origin is list else arguments
        items = enumerate(zip(hints, value, strict=True))
        return origin(_read_value(each, item, source, f"{key}.{place}", partial) for place, (each, item) in items)
    if origin is dict:
        _require(isinstance(value, Mapping) and all(isinstance(name, str) for name in value))
        return {name: _read_key(arguments[1], item, source, f"{key}.{name}", partial) for name, item in value.items()}
    if hint is Any:
        return _plain(value)
    if hint is float and type(value) is int:
        return float(value)
    _require(type(value) is hint and (hint is not float or math.isfinite(value)))
    return value


def _plain(value: Any) -> Any:
    """A value under the hint Any: scalars, lists, mappings with string keys; tuples become lists."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        _require(all(isinstance(name, str) for name in value))
        return {name: _plain(item) for name, item in value.items()}
    _require(value is None or type(value) in (bool, int, float, str))
    return value


def _require(holds: bool) -> None:
    if not holds:
        raise _MismatchError


def keys(cls: type) -> str:
    """The names of a dataclass's fields, for messages."""
    return ", ".join(item.name for item in dataclasses.fields(cls))


def _describe(hint: Any) -> str:
    """A type hint in the words of an error message."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        rule: Rule = arguments[1]
        return rule.expected
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(arguments)
    if origin is list:
        return f"a list, each entry {_describe(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_describe, arguments))}]"
    if origin is dict:
        return "a mapping with names as keys"
    words = {str: "a string", int: "an integer", float: "a number", bool: "true or false", types.NoneType: "null"}
    return words.get(hint, "plain YAML: strings, numbers, true, false, null, lists or mappings of them")
