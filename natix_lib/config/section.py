"""A strict config section, and how its mistakes are said: all at once, each with the nearest known key."""

import difflib
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from natix_lib.errors import ConfigError
from natix_lib.grammar import CONTROL

LARGEST_INTEGER = 2**53  # KFP hands numbers on as doubles, which hold integers up to here
MAX_MISTAKES = 8  # that are named; a person mends these and asks again


class Section(BaseModel):
    """A strict section: unknown keys are errors, values are finite and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `epochs: true`, which pydantic reads as 1."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        names = get_origin(wanted) is Literal and all(isinstance(one, str) for one in get_args(wanted))
        if isinstance(value, bool) and wanted is not bool and not names:  # of names, those that are allowed are told
            raise PydanticCustomError("truth_value", "input should not be true or false")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _no_number_that_changes_on_its_way(cls, value: object) -> object:
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise PydanticCustomError("too_large", f"input should be at most {LARGEST_INTEGER}")
        return value


S = TypeVar("S", bound=Section)


def parse(model: type[S], values: Mapping[str, Any]) -> S:
    """Validate `values` as `model`, reporting every mistake.

    Raises:
        ConfigError: One line with all mistakes, each as `key: rule, got value`.
    """
    if mistake := next(_control_characters(values), None):
        raise ConfigError(f"config: {mistake}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # unknown keys first: one that is mistyped is the reason why another is missing
        errors = sorted(error.errors(), key=lambda details: details["type"] != "extra_forbidden")
        mistakes = [_explain(model, details) for details in errors]
        count = f"{len(mistakes)} mistakes: " if len(mistakes) > 1 else ""
        if len(mistakes) > MAX_MISTAKES:
            mistakes[MAX_MISTAKES:] = [f"and {len(mistakes) - MAX_MISTAKES} more"]
        raise ConfigError(f"config: {count}{'; '.join(mistakes)}") from error


def shown(value: object) -> str:
    """`repr(value)`, shortened to some 100 characters."""
    return _short.repr(value)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 100
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write an integer of more than 4,300 digits."""
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"an integer of {x.bit_length()} bits"


_short = _Short()


def _control_characters(value: object, path: str = "", depth: int = 0) -> Iterator[str]:
    """Texts with control characters, as mistakes: they break logs, file names and the lines of our messages."""
    if isinstance(value, str):
        if match := CONTROL.search(value):
            yield f"{path} must not contain the character {match[0]!a}, got {shown(value)}"
    elif depth < 8:  # deeper than any section
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from _control_characters(key, f"{path or 'a'} key", depth + 1)
                yield from _control_characters(inner, f"{path}.{key}" if path else str(key), depth + 1)
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                yield from _control_characters(inner, f"{path}.{index}", depth + 1)


def _explain(model: type[Section], details: Any) -> str:
    """One mistake in one clause."""
    path = ".".join(str(part) for part in details["loc"] if part != "[key]")
    if details["type"] == "extra_forbidden":
        known = _known_keys(model, details["loc"][:-1])
        near = difflib.get_close_matches(str(details["loc"][-1])[:100], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"{path} is not a known key, {hint}"
    if path == "export.policy" and details["type"] in ("missing", "literal_error", "truth_value"):
        got = "" if details["type"] == "missing" else f", got {shown(details['input'])}"
        return f"export.policy must name the one policy that ships, sweep or calibrate{got}"
    if details["type"] == "missing":
        return f"{path} is required"
    got = f", got {shown(details['input'])}"
    if details["type"] == "model_type":
        return f"{path or 'it'} must be a section with keys below it{got}"
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "value_error":
        return f"{path} {message}{got}" if message.startswith("must ") else str(message)
    hint = (
        " (put it in quotes)" if details["type"] == "string_type" and isinstance(details["input"], (int, float)) else ""
    )
    return f"{path}: {message[0].lower()}{message[1:]}{got}{hint}"


def _known_keys(model: type[Section], location: Iterable[str | int]) -> list[str]:
    """The keys of the section at `location`, through lists and optional sections."""
    section: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        inner = (field.annotation, *get_args(field.annotation)) if field else ()
        section = next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if section is None:
            return []
    return list(section.model_fields)
