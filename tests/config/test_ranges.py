from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, PositiveInt

from natix_lib.config import Config
from natix_lib.config.explain import entries
from natix_lib.config.key import Fraction, OpenFraction
from natix_lib.config.ranges import allowed
from natix_lib.grammar import LabelKey, LabelValue, Memory


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (PositiveInt, "whole number > 0"),
        (Fraction, "number 0 to 1"),
        (OpenFraction, "number > 0 and < 1"),
        (Annotated[float, Field(ge=0, lt=1)], "number >= 0 and < 1"),
        (Annotated[float, Field(gt=0, le=8760)], "number > 0 and <= 8760"),
        (Annotated[int, Field(ge=-1, le=16)], "whole number -1 to 16"),
        (int, "whole number"),
        (bool, "true or false"),
        (Literal["", "a"], 'one of "", a'),
        (Literal["max"], "max only"),
        (PositiveInt | None, "whole number > 0 or null"),
        (list[OpenFraction], "list, each: number > 0 and < 1"),
        (tuple[Fraction, Fraction], "list of 2: number 0 to 1; number 0 to 1"),
        (Memory, "Bytes of memory, such as 16Gi"),
        (str, "text"),
        (
            dict[LabelKey, LabelValue],
            "mapping; keys: Key of a Kubernetes label or taint: a name, or `prefix/name`; "
            "values: Value of a Kubernetes label or taint; may be empty",
        ),
    ],
)
def test_a_type_is_said_in_words(annotation: object, words: str) -> None:
    assert allowed(annotation) == words

    class Holder(BaseModel):
        key: annotation  # type: ignore[valid-type]

    field = Holder.model_fields["key"]  # pydantic takes Annotated apart
    assert allowed(field.annotation, field.metadata) == words


def test_the_words_hold() -> None:
    """A number beside the bound that is told is refused, the bound itself is taken or not, as told."""
    told = {entry.path: entry.allowed for entry in entries()}
    assert told["scrc.alpha"] == "number > 0 and < 1" and told["hardware.retries"] == "whole number 0 to 10"
    bare = {"data": {"data_root": "a"}, "model": {"backbone_id": "a/b"}, "export": {"policy": "sweep"}}
    for section, key, value, fits in (
        ("scrc", "alpha", 0, False), ("scrc", "alpha", 1e-9, True), ("scrc", "alpha", 1, False),
        ("hardware", "retries", 10, True), ("hardware", "retries", 11, False), ("hardware", "retries", 0, True),
    ):  # fmt: skip
        try:
            Config.model_validate({**bare, section: {key: value}})
            taken = True
        except ValueError:
            taken = False
        assert taken is fits, (section, key, value)
