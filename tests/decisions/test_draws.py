"""What is drawn is drawn by the data: no seed, no order of the rows and no name of a group changes it."""

import inspect

import numpy as np
import pytest
from scipy.stats import binom

from natix_lib.decisions import certify_selection, fit_prediction_sets
from natix_lib.decisions.draws import first_half, independent_rows
from natix_lib.errors import CalibrationError
from tests.decisions.test_properties import same

LOGITS = np.random.default_rng(0).normal(0, 1, (300, 3))
LABELS = np.random.default_rng(1).integers(0, 3, 300)
GROUPS = np.random.default_rng(2).integers(0, 60, 300)


def test_one_row_of_each_group_is_drawn() -> None:
    rows, unit = independent_rows(GROUPS, LOGITS, LABELS)
    assert unit == "group" and sorted(GROUPS[rows].tolist()) == sorted(set(GROUPS.tolist()))
    assert independent_rows(None, LOGITS) == (slice(None), "image")


def test_neither_the_order_of_rows_nor_the_names_of_groups_change_what_is_drawn() -> None:
    generator = np.random.default_rng(3)
    rows, half = independent_rows(GROUPS, LOGITS, LABELS)[0], first_half(GROUPS, LOGITS, LABELS)
    order = generator.permutation(300)
    names = np.array([f"drive {number}" for number in generator.permutation(60)])
    for groups in (GROUPS, names[GROUPS]):
        moved, _ = independent_rows(groups[order], LOGITS[order], LABELS[order])
        assert set(order[moved].tolist()) == set(np.arange(300)[rows].tolist())
        assert (first_half(groups[order], LOGITS[order], LABELS[order]) == half[order]).all()


@pytest.mark.parametrize("levels", [1, 3])
def test_where_many_rows_are_alike_the_content_drawn_is_the_same_in_any_order(levels: int) -> None:
    generator = np.random.default_rng(4)
    scores, wrong = generator.integers(0, levels, 400) / 2, generator.random(400) < 0.3
    groups, order = np.arange(400) // 4, generator.permutation(400)
    one = certify_selection(scores, wrong, 0.45, 0.2, groups)
    assert same(one, certify_selection(scores[order], wrong[order], 0.45, 0.2, groups[order]))


def test_the_draw_does_not_prefer_right_rows_to_wrong_ones_where_all_groups_hold_the_same() -> None:
    """100 groups of one right and one wrong row of one score; a hash of rows alone draws all right or all wrong."""
    for score in range(40):
        wrong = np.tile([0, 1], 100)
        rows, _ = independent_rows(np.arange(200) // 2, np.full(200, float(score)), wrong)
        assert binom.cdf(wrong[rows].sum(), 100, 0.5) > 1e-4 < binom.sf(wrong[rows].sum() - 1, 100, 0.5)


def test_every_row_of_a_group_is_drawn_as_often_as_another() -> None:
    """Of nine rows that are alike and one that is not, the one is drawn in a tenth of the groups."""
    content = np.tile([0.0] * 9 + [1.0], 2000)
    rows, _ = independent_rows(np.arange(20_000) // 10, content)
    assert abs(content[rows].mean() - 0.1) < 0.03


def test_the_first_half_holds_half_of_the_groups_whole() -> None:
    half = first_half(GROUPS, LOGITS, LABELS)
    inside = [set(half[group == GROUPS].tolist()) for group in range(60)]
    assert all(len(values) == 1 for values in inside) and sum(values == {True} for values in inside) == 30
    assert first_half(None, LOGITS).sum() == 150


def test_there_is_no_seed_to_turn() -> None:
    for function in (certify_selection, fit_prediction_sets, first_half, independent_rows):
        assert "seed" not in inspect.signature(function).parameters


def test_minus_zero_is_zero() -> None:
    zeros = np.zeros(50)
    assert same(
        independent_rows(np.arange(50) // 5, zeros, LABELS[:50]),
        independent_rows(np.arange(50) // 5, -zeros, LABELS[:50]),
    )


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r"groups must have the length of the scores, 300, got shape \(299,\)"):
        independent_rows(GROUPS[1:], LOGITS)


@pytest.mark.parametrize("trials", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_certificates_on_drawn_rows_are_false_no_more_often_than_promised(trials: int) -> None:
    """Groups of 1 to 9 rows of few scores whose risk, of an image of each group, is just above alpha."""
    alpha, delta, false = 0.1, 0.1, 0
    for trial in range(trials):
        generator = np.random.default_rng(trial)
        groups = np.repeat(np.arange(300), generator.integers(1, 10, 300))
        scores = generator.integers(0, 3, len(groups)).astype(float)
        wrong = generator.random(len(groups)) < np.where(generator.random(300) < 0.5, 0.01, 0.21)[groups]
        false += certify_selection(scores, wrong, alpha, delta, groups).certified
    assert false <= binom.ppf(0.9999, trials, delta)
