"""A section as a JSON Schema, draft 2020-12, for editors: types, ranges, defaults, and every key's text.

It is looser than `load`, which also checks grammars and rules between keys, and stricter in one thing: a number must be
a number, where `load` also reads one out of a text.
"""

from typing import Any

from natix_lib.config.section import Section
from natix_lib.config.whole import Config
from natix_lib.files import JsonDict

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(section_class: type[Section] = Config, title: str = "natix config") -> JsonDict:
    """The JSON Schema of a section, by default of a config file."""
    document = section_class.model_json_schema()
    for section in (document, *document.get("$defs", {}).values()):
        for described in section["properties"].values():
            described.pop("title", None)  # the key's name again
            _into_the_description(described)
    return {"$schema": DIALECT, **document, "title": title}


def _into_the_description(described: dict[str, Any]) -> None:
    """Editors show a description and nothing that they do not know."""
    unit, source = described.pop("unit", ""), described.pop("source", "")
    if unit:
        described["description"] += f" Unit: {unit}."
    if source:
        described["description"] += f" Source of the default, {source}."
