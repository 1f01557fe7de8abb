"""YAML text to a plain tree in which every value knows the line it came from.

A strict subset of YAML 1.2: ``1e-4`` is a number, ``no`` is text, a key stands once in a mapping, tags that
make objects are refused, and anchors cannot be nested into a bomb.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from detector.errors import ConfigError, one_line, quote

KeyPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 40
MAX_ALIASED_NODES = 100


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a file and line, or the command line."""

    source: str
    line: int | None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Tree:
    """A parsed document.

    Attributes:
        value: dicts, lists and scalars.
        origins: where each value, addressed by its keys, was written.
    """

    value: Any
    origins: dict[KeyPath, Origin]


_RESOLVERS = [
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
]


_PATTERNS = {tag: re.compile(rf"^(?:{pattern})$") for tag, pattern, _ in _RESOLVERS}


class _TooLargeError(yaml.MarkedYAMLError):
    """There are too many nodes, or they are nested too deeply."""


class _Loader(yaml.SafeLoader):
    """Stops as soon as there is too much, and does not wait for the end of the document."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012, as the base class has it

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = self._aliased = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node with all within it, those of aliases counted each time."""
        event, before = self.peek_event(), self._count  # type: ignore[no-untyped-call]
        self._depth += 1
        self._count += 1
        self._refuse_excess(event.start_mark)
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            # Only what is complete has a size: an alias inside itself has none.
            size = self._sizes.get(id(node), MAX_NODES)
            self._count += size
            self._aliased += size
            self._refuse_excess(event.start_mark)
        else:
            self._sizes[id(node)] = self._count - before
        self._depth -= 1
        return node

    def _refuse_excess(self, mark: Any) -> None:
        if self._count > MAX_NODES or self._depth > MAX_DEPTH + 1 or self._aliased > MAX_ALIASED_NODES:
            raise _TooLargeError(problem="too large or too deeply nested (an alias inside itself?)", problem_mark=mark)


class Dumper(yaml.SafeDumper):
    """Writes YAML that this module reads back as the same values."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012, as the base class has it

    def ignore_aliases(self, data: Any) -> bool:
        """Writes equal values out again; nothing refers to anything."""
        return True


def _write_text(dumper: Dumper, text: str) -> yaml.Node:
    # PyYAML loses some of what cannot be seen, such as U+0085, unless it is quoted.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


Dumper.add_representer(str, _write_text)


for _tag, _pattern, _first in _RESOLVERS:
    for _class in (_Loader, Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


def parse_yaml(text: str, source: str, first_line: int | None = 1) -> Tree:
    """Parses one YAML document.

    Args:
        text: the document.
        source: the name for messages.
        first_line: number of the first line, or None where lines mean nothing (the command line).

    Raises:
        ConfigError: it is not valid YAML, a key is there twice, a tag is not plain data, or it is too large.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_BYTES} bytes; this is no configuration")
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None or first_line is None else first_line + mark.line
        what = "" if isinstance(error, _TooLargeError) else "not valid YAML: "
        raise ConfigError(f"{Origin(source, line)}: {what}{one_line(error.problem or error.context)}") from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise ConfigError(f"{source}: not valid YAML: {quote(str(error).splitlines()[0], 120)}") from None
    walk = _Walk(source, first_line)
    value = None if root is None else walk.value_of(root, ())
    return Tree(value, walk.origins)


class _Walk:
    """Turns nodes into values, noting origins and refusing what is not plain data."""

    def __init__(self, source: str, first_line: int | None) -> None:
        self.source = source
        self.first_line = first_line
        self.origins: dict[KeyPath, Origin] = {}

    def origin(self, node: yaml.Node) -> Origin:
        line = None if self.first_line is None else self.first_line + node.start_mark.line
        return Origin(self.source, line)

    def value_of(self, node: yaml.Node, path: KeyPath) -> Any:
        self.origins[path] = self.origin(node)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value_of(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise ConfigError(f"{self.origin(node)}: the tag {quote(node.tag)} is not allowed; write plain values")

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{self.origin(key_node)}: a key must be a word")
            key = key_node.value
            place = (*path, key)
            if key in result:
                raise ConfigError(
                    f"{self.origin(key_node)}: the key {quote(key)} is given twice "
                    f"(first at {self.origins[place]}); remove one"
                )
            result[key] = self.value_of(value_node, place)
            self.origins[place] = self.origin(key_node)
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if node.tag in _PATTERNS and not _PATTERNS[node.tag].match(node.value):
            raise ConfigError(f"{self.origin(node)}: {quote(node.value)} is no {kind}")
        if kind == "str":
            return node.value
        if kind == "null":
            return None
        if kind == "bool":
            return node.value.lower() == "true"
        try:
            if kind == "int":
                return int(node.value)
            if kind == "float":
                return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise ConfigError(f"{self.origin(node)}: not a number: {quote(node.value)}") from None
        raise ConfigError(f"{self.origin(node)}: the tag {quote(node.tag)} is not allowed; write plain values")
