import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from natix_lib.decisions import log_odds
from natix_lib.decisions.score import check_labels, check_logits, group_log_odds, softmax
from natix_lib.errors import CalibrationError


def test_log_odds_are_those_of_the_largest_probability() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (200, 5))
    top = softmax(logits).max(axis=1)
    assert np.allclose(log_odds(logits), np.log(top / (1 - top)))


def test_confident_rows_keep_their_order_where_softmax_has_lost_it() -> None:
    logits = np.array([[0, 40.0], [0, 50.0], [0, 3e4]])
    assert (softmax(logits).max(axis=1) == 1.0).all()
    assert np.allclose(log_odds(logits), [40, 50, 3e4])


def test_a_constant_added_to_a_row_changes_nothing() -> None:
    logits = np.random.default_rng(1).normal(0, 1, (50, 3))
    assert np.allclose(log_odds(logits), log_odds(logits + np.arange(50)[:, None]))


def test_the_log_odds_of_a_group_of_classes_are_those_of_its_probability() -> None:
    logits = np.random.default_rng(2).normal(0, 1, (50, 4))
    members = np.array([False, True, False, True])
    p = softmax(logits)[:, members].sum(axis=1)
    assert np.allclose(group_log_odds(logits, members), np.log(p / (1 - p)))


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros(3), r"shape \(n, C\) with C at least 2, got \(3,\)"),
        (np.zeros((3, 1)), r"got \(3, 1\)"),
        (np.zeros((0, 2)), "the split is empty"),
        ([[0, 1], [np.nan, 0], [0, np.inf]], "2 of 3 rows are not: 1, 2"),
    ],
)
def test_logits_that_break_a_rule_are_named(logits: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        check_logits(logits)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"length of the logits, 3, got shape \(2,\)"),
        ([0, 1, 2], r"labels must be in 0..1, row 2 has 2"),
        ([0.0, 1.0, 1.0], "labels must be whole numbers, got float64"),
    ],
)
def test_labels_that_break_a_rule_are_named(labels: list, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        check_labels(labels, 3, 2)


def test_decisions_need_neither_torch_nor_sklearn_nor_pandas() -> None:
    code = "import sys, natix_lib.decisions; print([m for m in ('torch', 'sklearn', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
