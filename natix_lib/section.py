"""A strict config section, and how its mistakes are said: all at once, each with the nearest known key."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from natix_lib.errors import ConfigError


class Section(BaseModel):
    """A strict section: unknown keys are errors, values are finite and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


S = TypeVar("S", bound=Section)


def parse(model: type[S], values: Mapping[str, Any]) -> S:
    """Validate `values` as `model`, reporting every mistake.

    Raises:
        ConfigError: One line with all mistakes, each as `key: rule, got value`.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = [_explain(model, item) for item in error.errors()]
        count = f"{len(mistakes)} mistakes: " if len(mistakes) > 1 else ""
        raise ConfigError(f"config: {count}{'; '.join(mistakes)}") from error


def _explain(model: type[Section], item: Any) -> str:
    """One mistake in one clause."""
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _known_keys(model, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]}?" if near else f", known keys: {', '.join(known)}"
        return f"{path} is not a known key{hint}"
    if path == "export.policy" and item["type"] in ("missing", "literal_error"):
        got = "" if item["type"] == "missing" else f", got {item['input']!r}"
        return f"export.policy must name the one policy that ships, sweep or calibrate{got}"
    if item["type"] == "missing":
        return f"{path} is required"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return str(message)
    return f"{path}: {message[0].lower()}{message[1:]}, got {item['input']!r}"


def _known_keys(model: type[Section], location: Iterable[str | int]) -> list[str]:
    fields = model.model_fields
    for part in location:
        annotation = fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        fields = annotation.model_fields
    return list(fields)
