import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from natix_lib.errors import ContractError
from natix_lib.training.checkpoint import packed, read_tensors, tensors_bytes, unpacked

Parts = tuple[nn.Linear, torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]


def test_a_state_comes_back_with_its_kinds_and_to_the_last_bit() -> None:
    state: dict[str, Any] = {
        "floats": [0.1, math.pi * 1e-300, math.inf, 2**-1074],
        "nested": {0: ({"a": torch.tensor(3.0, dtype=torch.bfloat16)}, None), "0": True},
        "empty": [(), {}, []],
        "random": torch.get_rng_state(),
    }
    tensors: dict[str, Tensor] = {}
    again = unpacked(json.loads(json.dumps(packed(state, tensors))), tensors)
    assert torch.equal(again["random"], state["random"])
    assert again["nested"][0][0]["a"].dtype == torch.bfloat16 and list(again["nested"]) == [0, "0"]
    assert (again["floats"], again["empty"], type(again["nested"][0])) == (state["floats"], state["empty"], tuple)


def test_what_no_checkpoint_holds_is_named() -> None:
    with pytest.raises(TypeError, match=r"state.a.1 is a object"):
        packed({"a": [1, object()]}, {})


def test_an_optimiser_goes_on_from_its_packed_state_as_if_it_had_not_stopped() -> None:
    def steps(of: Parts, numbers: range) -> None:
        layer, optimizer, schedule = of
        for number in numbers:
            optimizer.zero_grad()
            layer(torch.full((2, 3), float(number))).square().sum().backward()
            optimizer.step()
            schedule.step()

    def begun() -> Parts:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        groups: list[dict[str, Any]] = [{"params": [layer.weight]}, {"params": [layer.bias], "lr": 0.3}]
        optimizer = torch.optim.AdamW(groups, lr=0.1)
        return layer, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    whole = begun()
    steps(whole, range(6))
    stopped = begun()
    tensors: dict[str, Tensor] = {}
    steps(stopped, range(3))
    document = packed([part.state_dict() for part in stopped], tensors)
    tensors = {name: value.clone() for name, value in tensors.items()}
    continued = begun()
    for part, state in zip(continued, unpacked(json.loads(json.dumps(document)), tensors), strict=True):
        part.load_state_dict(state)  # type: ignore[attr-defined]
    steps(continued, range(3, 6))
    assert torch.equal(continued[0].weight, whole[0].weight) and torch.equal(continued[0].bias, whole[0].bias)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "was changed after it was written"),
        (lambda content: content.replace(b'"x"', b'"y"'), "was changed after it was written"),
        (lambda content: content[:-9], "cannot be read"),
        (lambda _: b"", "cannot be read"),
        (lambda _: tensors_bytes("other", {}, {}), "is no thing, its artifact is other"),
    ],
    ids=["a bit", "the header", "cut off", "empty", "another kind"],
)
def test_a_file_that_is_not_as_written_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], told: str) -> None:
    content = tensors_bytes("thing", {"a": torch.rand(3, 2), "b": torch.tensor(1)}, {"number": "x"})
    place = tmp_path / "step-00000001.safetensors"
    place.write_bytes(content)
    tensors, header = read_tensors("thing", str(place))
    assert header == {"number": "x"} and sorted(tensors) == ["a", "b"]
    place.write_bytes(damage(content))
    with pytest.raises(ContractError, match=rf"step-00000001.safetensors {told}"):
        read_tensors("thing", str(place))
