"""YAML as a person means it: PyYAML's safe loader, with what it takes silently made an error that names the line.

Two equal keys are an error, not the last one; so are tags, keys that are no text, and aliases that stand for more than
a config can hold. The plain scalars are those of YAML 1.2's core schema, not of 1.1: `no`, `on`, `2026-05-01`,
`010` and `1:30` are text, and a section that wants a number or a truth value reads it out of the text. Integers of more
than 18 digits stay text as well, so that a commit of digits alone is one.

Aliases were not refused altogether: they are what YAML has against writing a thing twice.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from natix_lib.errors import ConfigError

MAX_BYTES = 1 << 20  # the largest that we write, a compiled pipeline, has 60 kB
MAX_NODES = 20_000  # with every alias written out; a compiled pipeline has 4,000
MAX_DEPTH = 40  # a config has 4, a compiled pipeline 14; Python's stack ends at some 300

PLAIN = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]{0,17})", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
)
TAG = "tag:yaml.org,2002:"


def read_yaml(source: bytes | str, what: str) -> Any:
    """The one document of a YAML text; None when it is empty.

    Args:
        source: UTF-8, UTF-16 with its mark, or text.
        what: What it is, as an error begins.

    Raises:
        ConfigError: If it is no YAML, breaks a rule of this module, or holds several documents.
    """
    documents = read_yaml_documents(source, what)
    if len(documents) > 1:
        raise ConfigError(f"{what} must hold one YAML document, got {len(documents)}: take the lines --- out")
    return documents[0] if documents else None


def read_yaml_documents(source: bytes | str, what: str) -> list[Any]:
    """All documents of a YAML text; raises as `read_yaml`."""
    if len(source) > MAX_BYTES:
        raise ConfigError(f"{what} must have at most {MAX_BYTES} bytes, got {len(source)}")
    try:
        return list(_documents(source))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        breach = "is not taken" if isinstance(error, _Refused) else "is not YAML"
        raise ConfigError(f"{what} {breach}: {place}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # such as the escape \UFFFFFFFF
        raise ConfigError(f"{what} is not YAML: {error}") from error


def _documents(source: bytes | str) -> Iterator[Any]:
    loader: Any = _Loader(source)
    try:
        while loader.check_data():
            yield loader.get_data()
    finally:
        loader.dispose()


class _Refused(yaml.MarkedYAMLError):
    """A rule of this module is broken."""

    def __init__(self, place: Any, problem: str) -> None:
        super().__init__(problem=problem, problem_mark=place.start_mark)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the rules of this module."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # filled below; not those of YAML 1.1  # noqa: RUF012

    def __init__(self, source: bytes | str) -> None:
        super().__init__(source)
        self._open = 0
        self._extents: dict[yaml.Node, tuple[int, int]] = {}  # nodes and depth below a node, itself included

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        """Compose a node whose extent, aliases written out, is bounded."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise _Refused(event, f"the tag {event.tag} is not allowed: write the value alone")
        self._open += 1
        if self._open > MAX_DEPTH:
            raise _Refused(event, f"more than {MAX_DEPTH} levels are nested")
        node: Any = super().compose_node(parent, index)
        self._open -= 1
        if isinstance(event, yaml.AliasEvent):
            if node not in self._extents:
                raise _Refused(event, f"the alias *{event.anchor} stands inside of what it stands for")
            return node
        children: list[Any] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        extents = [self._extents[child] for child in children]
        nodes, depth = 1 + sum(count for count, _ in extents), 1 + max((deep for _, deep in extents), default=0)
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise _Refused(
                event, f"with its aliases written out it has more than {MAX_NODES} values or {MAX_DEPTH} levels"
            )
        self._extents[node] = (nodes, depth)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping whose keys are texts and differ."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag not in (f"{TAG}str", f"{TAG}merge"):
                shown = f"{key.value} " if isinstance(key, yaml.ScalarNode) else ""
                raise _Refused(key, f"the key {shown}must be a text: put it in quotes")
            line = key.start_mark.line + 1
            if key.value in lines:
                raise _Refused(key, f"the key {key.value} stands in line {lines[key.value]} and again in line {line}")
            lines[key.value] = line
        return node


for _name, _pattern, _first in PLAIN:
    _Loader.add_implicit_resolver(f"{TAG}{_name}", re.compile(f"(?:{_pattern})$"), _first)
