"""`make docs`: docs/config.md, the page of all keys, written from what stands beside them."""

import sys

from natix_lib.config.explain import Entry, entries
from natix_lib.files import write_bytes

HEAD = """\
# The keys of the config

Written by `make docs` from `natix_lib/config/`. A config needs the keys that are required here and may hold any other.
`natix config --explain KEY` prints what stands here, `natix config --config FILE` a config with every default, and
`natix config --schema` a JSON Schema for editors. On a command line every key is `--set section.key=value`, the value
in YAML. Numbers are finite; whole numbers have at most 2^53.
"""
COLUMNS = "| key | default | allowed | unit | meaning | source of the default |\n|---|---|---|---|---|---|\n"


def page() -> str:
    """The page, in Markdown: a heading and a table for each section; the sections inside of it are rows."""
    parts = [HEAD]
    for entry in entries():
        if "." in entry.path:
            parts.append(_row(entry))
        else:
            parts.append(f"\n## {entry.path}\n{entry.meaning}\n\n{COLUMNS}")
    return "".join(parts)


def _row(entry: Entry) -> str:
    default = f"`{entry.default}`" if entry.default else "" if entry.is_section else "required"
    cells = (f"`{entry.path}`", default, entry.allowed, entry.unit, entry.meaning, entry.source)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    write_bytes(sys.argv[1], page().encode())
