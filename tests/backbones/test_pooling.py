from typing import get_args

import pytest
import torch

from natix_lib.backbones.pooling import PLAIN, TokenPooling, columns, side_by_side
from natix_lib.documents import Pooling

TOKENS = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(0))


def test_every_pooling_that_can_be_named_is_there_and_no_other() -> None:
    assert (*PLAIN, "attentive") == get_args(Pooling)


def test_a_pooling_has_no_weights_but_the_attentive_one_a_query() -> None:
    assert not TokenPooling(4, ["cls", "mean", "max", "std"]).state_dict()
    assert {name: value.tolist() for name, value in TokenPooling(4, ["attentive"]).state_dict().items()} == {
        "query": [0.0] * 4
    }


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ([["std", "cls"]], ("std", "cls")),
        ([["std", "cls"], ["std", "cls"]], ("std", "cls")),
        ([["std", "cls"], ["mean", "cls"]], ("cls", "mean", "std")),
    ],
)
def test_several_poolings_are_computed_once_and_a_single_one_as_it_is_named(
    tried: list[list[Pooling]], expected: tuple[Pooling, ...]
) -> None:
    assert side_by_side(tried) == expected


def test_the_columns_of_a_pooling_are_what_it_gives_alone() -> None:
    among = side_by_side([["std", "cls"], ["mean"], ["max"]])
    together = TokenPooling(4, among)(TOKENS, 3)
    for names in (["std", "cls"], ["mean"], ["max"]):
        assert torch.equal(together[:, columns(names, among, 4)], TokenPooling(4, names)(TOKENS, 3))


def test_equal_patches_have_no_deviation_and_give_no_gradient_that_is_not_a_number() -> None:
    tokens = TOKENS[:, :1].expand(3, 9, 4).clone().requires_grad_()
    pooled = TokenPooling(4, ["std"])(tokens, 1)
    pooled.sum().backward()
    assert tokens.grad is not None and torch.isfinite(tokens.grad).all() and pooled.abs().max() < 1e-6
