from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import softmax

from natix_lib.backbones.pooling import PLAIN, TokenPooling, columns, side_by_side
from natix_lib.documents import Pooling

TOKENS = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(0))
Numbers = np.ndarray

# Of CLS tokens (n, D) and patch tokens (n, P, D): written anew.
EXPECTED: dict[Pooling, Callable[[Numbers, Numbers], Numbers]] = {
    "cls": lambda cls, patches: cls,
    "mean": lambda cls, patches: patches.sum(axis=1) / patches.shape[1],
    "max": lambda cls, patches: np.sort(patches, axis=1)[:, -1],
    "std": lambda cls, patches: np.sqrt(np.var(patches, axis=1)),
}


def weighed(tokens: Numbers, query: Numbers) -> tuple[Numbers, Numbers]:
    """Weights (n, T) of tokens (n, T, D) by a query (D,), and the weighted means (n, D)."""
    centred = tokens - tokens.mean(axis=2, keepdims=True)
    keys = centred / np.sqrt(np.square(centred).mean(axis=2, keepdims=True) + 1e-5)
    weights = softmax(keys @ query / np.sqrt(len(query)), axis=1)
    return weights, np.einsum("nt,ntd->nd", weights, tokens)


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
    each: list[list[Pooling]] = [["std", "cls"], ["mean"], ["max"]]
    for names in each:
        assert torch.equal(together[:, columns(names, among, 4)], TokenPooling(4, names)(TOKENS, 3))


def test_equal_patches_have_no_deviation_and_give_no_gradient_that_is_not_a_number() -> None:
    tokens = TOKENS[:, :1].expand(3, 9, 4).clone().requires_grad_()
    pooled = TokenPooling(4, ["std"])(tokens, 1)
    pooled.sum().backward()
    assert tokens.grad is not None and torch.isfinite(tokens.grad).all() and pooled.abs().max() < 1e-6


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_pooling_is_what_numpy_makes_of_the_tokens_without_registers(name: Pooling) -> None:
    tokens = TOKENS.double().numpy()
    assert np.allclose(TokenPooling(4, [name])(TOKENS, 3), EXPECTED[name](tokens[:, 0], tokens[:, 3:]), atol=1e-6)


def test_a_query_weighs_the_class_token_and_the_patches_and_no_register() -> None:
    pooling, query = TokenPooling(4, ["attentive"]), torch.tensor([2.0, -1.0, 0.5, 3.0])
    assert pooling.query is not None
    with torch.no_grad():
        pooling.query.copy_(query)
        features = pooling(10 * TOKENS, 3)
    _, expected = weighed(np.delete(10 * TOKENS.double().numpy(), [1, 2], axis=1), query.double().numpy())
    assert np.allclose(features, expected, atol=1e-4)
