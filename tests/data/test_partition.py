import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natix_lib.contracts import ROLES
from natix_lib.data.partition import assign
from natix_lib.errors import DataError

RATIOS = np.array([0.6, 0.1, 0.15, 0.15])
TRAIN, VAL_SELECT, VAL_CALIB, TEST = range(4)


def drives(groups: int, seed: int = 0, classes: int = 2) -> np.ndarray:
    """Image counts of groups of one class each, sizes 1 to 12."""
    generator = np.random.default_rng(seed)
    counts = np.zeros((groups, classes), dtype=np.int64)
    counts[np.arange(groups), np.arange(groups) % classes] = generator.integers(1, 13, groups)
    return counts


def roles_of(counts: np.ndarray, given: list | None = None, seed: int = 0, least: int = 1) -> np.ndarray:
    given_roles = np.full(len(counts), -1) if given is None else np.array(given)
    return assign(counts, RATIOS, given_roles, least, seed, [f"class {c}" for c in range(counts.shape[1])])


def shares(counts: np.ndarray, roles: np.ndarray) -> np.ndarray:
    """Share of each class in each role, (4, C)."""
    held = np.stack([counts[roles == role].sum(axis=0) for role in range(4)])
    return held / counts.sum(axis=0)


@pytest.mark.parametrize("classes", [2, 13])
def test_every_class_comes_close_to_the_ratios(classes: int) -> None:
    counts = drives(60 * classes, classes=classes)
    assert np.abs(shares(counts, roles_of(counts)) - RATIOS[:, None]).max() < 0.02


def test_a_city_sized_group_does_not_spoil_the_other_roles() -> None:
    counts = np.concatenate([np.array([[400, 0]]), drives(80)])
    found = shares(counts, roles_of(counts))
    assert (found[:, 1] > 0.5 * RATIOS).all() and (found[:, 0] > 0).all()


def test_the_seed_decides_and_nothing_else() -> None:
    counts = drives(50)
    assert np.array_equal(roles_of(counts, seed=1), roles_of(counts, seed=1))
    assert not np.array_equal(roles_of(counts, seed=1), roles_of(counts, seed=2))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=8, max_size=40), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_group_has_a_role_and_every_class_is_in_every_role_or_it_is_an_error(groups: list, seed: int) -> None:
    counts = np.array([pair if sum(pair) else (1, 0) for pair in groups], dtype=np.int64)
    try:
        roles = roles_of(counts, seed=seed)
    except DataError:
        return
    assert ((roles >= 0) & (roles < 4)).all()
    assert (shares(counts, roles) > 0).all()


def test_given_roles_are_kept_and_absent_ones_drawn_from_train() -> None:
    counts = drives(60)
    given_roles = [TRAIN] * 50 + [TEST] * 10
    roles = roles_of(counts, given_roles)
    assert (roles[50:] == TEST).all() and set(roles[:50]) == {TRAIN, VAL_SELECT, VAL_CALIB}
    train = counts[roles == TRAIN].sum() / counts[:50].sum()
    assert train == pytest.approx(0.6 / 0.85, abs=0.05)


def test_all_given_roles_are_kept_as_they_are() -> None:
    given_roles = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert roles_of(drives(10), given_roles).tolist() == given_roles


def test_groups_without_a_given_role_fill_what_is_absent() -> None:
    roles = roles_of(drives(40), [TEST] * 6 + [VAL_SELECT] * 6 + [-1] * 28)
    assert set(roles[12:]) == {TRAIN, VAL_CALIB}


@pytest.mark.parametrize(
    ("counts", "given_roles", "least", "message"),
    [
        ([[5, 0]] * 8 + [[0, 5]] * 2, None, 1, "class class 1 has 2 groups, 4 splits need at least one each"),
        ([[5, 5]] * 4, [0, 1, 2, 2], 1, "class class 0 has 1 groups, 2 splits need at least one each"),
        ([[5, 5]] * 4, [1, 1, 2, 3], 1, "split TRAIN holds no image"),
        ([[5, 5]] * 3 + [[0, 5]], [0, 1, 2, 3], 1, "split TEST holds one class only: class 1"),
        (
            [[5, 5]] * 3 + [[1, 5]],
            [0, 1, 2, 3],
            2,
            "split TEST holds 1 images of class class 0, split.min_per_class is 2",
        ),
    ],
)
def test_a_role_that_cannot_hold_every_class_is_named(
    counts: list, given_roles: list | None, least: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        roles_of(np.array(counts), given_roles, least=least)


def test_the_roles_are_numbered_as_the_contracts_say() -> None:
    assert ROLES == ("TRAIN", "VAL_SELECT", "VAL_CALIB", "TEST")
