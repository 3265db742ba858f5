"""A config as YAML with a comment above every key; it loads again to the same config."""

import textwrap
from typing import Any

import yaml

from natix_lib.config.explain import WIDTH, Entry, entries
from natix_lib.config.whole import Config


def commented(config: Config, any_character: bool) -> str:
    """The config with every default filled in.

    Args:
        config: The config.
        any_character: Whether characters beyond ASCII are written as they are, not as escapes.
    """
    values = config.model_dump(mode="json")
    lines: list[str] = []
    for entry in entries():
        if "[]" in entry.path:  # its list is written whole
            continue
        *above, name = entry.path.split(".")
        indent = "  " * len(above)
        section: Any = values
        for part in above:
            section = section[part]
        lines += _comment(entry, indent)
        if entry.is_section:
            lines.append(f"{indent}{name}:")
            continue
        text = yaml.safe_dump({name: section[name]}, sort_keys=False, allow_unicode=any_character, width=float("inf"))
        lines += [f"{indent}{line}" for line in text.rstrip("\n").split("\n")]
    return "\n".join(lines) + "\n"


def _comment(entry: Entry, indent: str) -> list[str]:
    allowed = entry.allowed[:1].lower() + entry.allowed[1:]
    beside = ", ".join(part for part in (allowed, entry.unit) if part not in ("", "none", "text"))
    text = f"{entry.first_sentence.removesuffix('.')} ({beside})." if beside else entry.first_sentence
    prefix = f"{indent}# "
    return textwrap.wrap(text, WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False)
