"""What the keys of the config mean, in words: all of them, or one; read off the sections, where it stands once.

A list of sections has its keys below `[]`: `hardware.tolerations[].key`.
"""

import difflib
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, get_args

import yaml
from pydantic_core import PydanticUndefined

from natix_lib.config.key import source_of, unit_of
from natix_lib.config.ranges import allowed
from natix_lib.config.section import Section, shown
from natix_lib.config.whole import Config
from natix_lib.errors import ConfigError

WIDTH = 100  # columns of what is printed


@dataclass(frozen=True)
class Entry:
    """A key, or a section, as it is explained.

    Attributes:
        path: The key, written as `section.key`.
        meaning: What it does, in sentences.
        allowed: What values it takes; "" for a section.
        unit: What a number counts or measures; "" for what is no number.
        default: Its default as YAML in one line; "" where it must be given, and for a section.
        source: Where the default comes from; "" where there is none.
        is_section: Whether it holds keys and no value.
    """

    path: str
    meaning: str
    allowed: str = ""
    unit: str = ""
    default: str = ""
    source: str = ""
    is_section: bool = False

    @property
    def first_sentence(self) -> str:
        """The sentence of the meaning that can stand alone."""
        return re.split(r"(?<=\.)\s", self.meaning, maxsplit=1)[0]

    @property
    def assignment(self) -> str:
        """`section.key=default`, as `--set` takes it."""
        return f"{self.path}={self.default}" if self.default else f"{self.path} (required)"


def entries(section: type[Section] = Config, path: str = "") -> Iterator[Entry]:
    """The sections and keys below a section, in their order, each section before its keys."""
    for name, field in section.model_fields.items():
        here = f"{path}.{name}" if path else name
        if inner := section_of(field.annotation):
            yield Entry(here, meaning_of(inner), is_section=True)
            yield from entries(inner, here)
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        yield Entry(
            here,
            field.description or "",
            allowed(field.annotation, field.metadata),
            unit_of(field),
            "" if default is PydanticUndefined else flow(default),
            source_of(field),
        )
        for one in get_args(field.annotation):
            if element := section_of(one):
                yield from entries(element, f"{here}[]")


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a type is, or may be where it may be none; None for a value."""
    kind = annotation
    if isinstance(annotation, UnionType):
        kind = next(one for one in get_args(annotation) if one is not NoneType)
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def meaning_of(section: type[Section]) -> str:
    """A section's docstring as one paragraph; "" under `python -OO`, which drops docstrings."""
    return " ".join(inspect.cleandoc(section.__doc__ or "").split())


def flow(value: Any, any_character: bool = False) -> str:
    """A value as YAML in one line; without `any_character` what is beyond ASCII becomes escapes."""
    if isinstance(value, (list, tuple)):
        value = [one.model_dump(exclude_defaults=True) if isinstance(one, Section) else one for one in value]
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=any_character
    )
    return text.removesuffix("...\n").strip()


def overview(below: str = "") -> str:
    """All keys, or those below a section, one a line with its default and its first sentence."""
    listed = [entry for entry in entries() if not entry.is_section and entry.path.startswith(below)]
    width = min(max(len(entry.assignment) for entry in listed), 50)
    return "\n".join(f"{entry.assignment:<{width}}  {entry.first_sentence}" for entry in listed)


def explanation(path: str) -> str:
    """Everything that is known of a key; of a section, what it is and its keys.

    Raises:
        ConfigError: If there is no such key, naming the nearest ones.
    """
    known = {entry.path.replace("[]", ""): entry for entry in entries()}
    entry = known.get(path.replace("[]", ""))
    if entry is None:
        raise ConfigError(f"{shown(path)} is not a known key, {_hint(path, list(known))}")
    lines = [entry.path, *_paragraph(entry.meaning)]
    if not entry.is_section:
        lines += _paragraph(f"allowed: {entry.allowed}")
        lines += _paragraph(f"unit: {entry.unit}") if entry.unit else []
        lines += _paragraph(f"default: {entry.default}; {entry.source}" if entry.default else "required: no default")
    below = f"{entry.path}." if entry.is_section else f"{entry.path}[]."
    if any(one.path.startswith(below) for one in known.values()):
        lines += ["", overview(below)]
    return "\n".join(lines)


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _hint(path: str, known: list[str]) -> str:
    last = path.rpartition(".")[2]
    near = [one for one in known if last and one.rpartition(".")[2] == last]
    near = near or difflib.get_close_matches(path[:100], known, n=1, cutoff=0.6)
    if not near:  # a key alone, mistyped
        ends = {one.rpartition(".")[2]: one for one in known}
        near = [ends[end] for end in difflib.get_close_matches(last[:100], ends, n=1, cutoff=0.6)]
    return f"did you mean {' or '.join(near)}?" if near else "natix config --explain lists all keys"
