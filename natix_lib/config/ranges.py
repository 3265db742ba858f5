"""What a key may be, in words, read off its type: the constraints stand there and nowhere else."""

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

NUMBERS = {int: "whole number", float: "number"}


def allowed(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """What values a type takes: `whole number > 0`, `number 0 to 1`, `one of a, b`.

    Args:
        annotation: The type, as pydantic's `FieldInfo.annotation` or written in a class.
        metadata: What stood beside it in `Annotated`.

    Returns:
        A few words. A text with a grammar is what the grammar's docstring says that it is.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return allowed(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, types.UnionType):
        return " or ".join("null" if one is type(None) else allowed(one) for one in arguments)
    if origin is Literal:
        values = [str(value) or '""' for value in arguments]
        return f"one of {', '.join(values)}" if len(values) > 1 else f"{values[0]} only"
    if origin is list:
        return f"list, each: {allowed(arguments[0])}"
    if origin is dict:
        return f"mapping; keys: {allowed(arguments[0])}; values: {allowed(arguments[1])}"
    if origin is tuple:
        return f"list of {len(arguments)}: {'; '.join(allowed(one) for one in arguments)}"
    if annotation is bool:
        return "true or false"
    if annotation in NUMBERS:
        return f"{NUMBERS[annotation]} {_bounds(metadata)}".rstrip()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section with the keys below"
    return _grammar(metadata)


def _bounds(metadata: Iterable[Any]) -> str:
    bounds: dict[type, Any] = {}
    for part in metadata:
        for bound in part.metadata if isinstance(part, FieldInfo) else (part,):
            bounds[type(bound)] = bound
    least, most = bounds.get(annotated_types.Ge), bounds.get(annotated_types.Le)
    if least and most:
        return f"{least.ge:g} to {most.le:g}"
    above, below = bounds.get(annotated_types.Gt), bounds.get(annotated_types.Lt)
    lower = f"> {above.gt:g}" if above else f">= {least.ge:g}" if least else ""
    upper = f"< {below.lt:g}" if below else f"<= {most.le:g}" if most else ""
    return " and ".join(filter(None, (lower, upper)))


def _grammar(metadata: Iterable[Any]) -> str:
    for part in metadata:
        if isinstance(part, AfterValidator) and part.func.__doc__:
            return part.func.__doc__.partition("\n")[0].removesuffix(".")
    return "text"
