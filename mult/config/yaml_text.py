"""YAML text becomes nested plain values, and a dataclass becomes YAML text.

Three things differ from plain PyYAML: what is no text is by YAML 1.2's core schema (`1e-4` is a number, `010` is 10; `1:30`,
`2026-05-01`, `1_000` and `yes` are text), a key given twice is an error, and so are values beyond MAX_DEPTH and MAX_VALUES.
"""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from mult.errors import UserError

MAX_DEPTH, MAX_VALUES = 50, 100_000
"""How deep values may be nested and how many there may be, with every alias (`*name`) counted as all that it stands for: far
more than any config has, and few enough to go through."""


_CORE_SCHEMA = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),  # of YAML 1.1, which PyYAML's loader still joins
}
"""Type -> (what is of it, the characters that it begins with), in the order of trial: YAML 1.2, section 10.3.2."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the types of _CORE_SCHEMA, no key given twice, and the limits above."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._extents: dict[yaml.Node, tuple[int, int]] = {}  # (values, depth) of what is read

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        node: Any = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent) and node not in self._extents:
            raise _error(f"*{event.anchor} stands for what contains it", event.start_mark)
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        values = 1 + sum(self._extents[child][0] for child in children)
        depth = 1 + max((self._extents[child][1] for child in children), default=0)
        if values > MAX_VALUES or depth > MAX_DEPTH:
            raise _error(f"more than {MAX_VALUES} values, or nested more than {MAX_DEPTH} deep", event.start_mark)
        self._extents[node] = values, depth
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise _error(f"key {key.value!r} given twice", key.start_mark)
                keys.add(key.value)
        return node


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes text that YAML 1.1 or 1.2 takes for something else and writes a list in one line."""


def _parse_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _parse_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


_PREFIX = "tag:yaml.org,2002:"
for _side in (_Loader, _Dumper):
    for _type, (_pattern, _first) in _CORE_SCHEMA.items():
        _side.add_implicit_resolver(_PREFIX + _type, re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor(f"{_PREFIX}int", _parse_int)
_Loader.add_constructor(f"{_PREFIX}float", _parse_float)
for _sequence in (list, tuple):
    _Dumper.add_representer(
        _sequence,
        lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True),
    )


def read_yaml(path: Path) -> Any:
    """The plain values in a YAML file. Raises UserError, naming the file, if it is not one YAML document in UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: got no text ({error}); expected YAML in UTF-8; save it as such") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """The plain values that one YAML document stands for; raises UserError, with the line, if the text is not one."""
    try:
        return _Loader(text).get_single_data()
    except Exception as error:  # a damaged tag ends in any: `!!int ""` in IndexError, `!!timestamp x` in AttributeError, ...
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{source}: got bad YAML{line}: {problem}; expected one document; correct the text") from None


def to_yaml(record: Any) -> str:
    """The YAML of a dataclass such as a Config, with every field; reading the text gives an equal one."""
    tree = dataclasses.asdict(record)
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)
