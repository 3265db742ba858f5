"""A key of the config beside its default: what it means, its unit, and where the default comes from.

A key without a default is a plain `Field(description=...)`. A section is described by its docstring, a range by its
type's constraints; neither is written here.

Texts in strings under the keys, pydantic's `use_attribute_docstrings`, read as well, but were rejected: pydantic takes
them from the source file, and where there is none, as in a wheel of compiled files, every description is None without
an error. Comments were what natix had: nobody sees them at run time.
"""

from typing import Annotated, TypeVar

from pydantic import Field
from pydantic.fields import FieldInfo

SOURCES = ("paper", "library", "measured", "convention", "choice")  # what the source of a default begins with

T = TypeVar("T")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]


def default(value: T, meaning: str, *, unit: str = "", source: str) -> T:
    """A key that has a default.

    Args:
        value: Its value where the config is silent.
        meaning: What it does, in sentences; the first one can stand alone.
        unit: What a number counts or measures, "none" for a pure number; "" for what is no number.
        source: Where the default comes from, one of SOURCES, a colon and the reason or reference, without a full stop.

    Returns:
        The field, with the type of `value`, as pydantic's own `Field` pretends.
    """
    field: T = Field(value, description=meaning, json_schema_extra={"unit": unit, "source": source})
    return field


def unit_of(field: FieldInfo) -> str:
    """The unit of a key; "" for what is no number."""
    return _written(field, "unit")


def source_of(field: FieldInfo) -> str:
    """The source of a key's default; "" where it has none."""
    return _written(field, "source")


def _written(field: FieldInfo, name: str) -> str:
    return str(field.json_schema_extra.get(name, "")) if isinstance(field.json_schema_extra, dict) else ""
