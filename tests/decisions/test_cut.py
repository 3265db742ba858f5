import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from natix_lib.decisions import Policy
from natix_lib.decisions.cut import tune_cut
from natix_lib.decisions.score import group_log_odds
from natix_lib.errors import CalibrationError


@pytest.mark.parametrize("seed", range(5))
def test_no_other_cut_has_a_better_mcc(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.random(150) < 0.3
    scores = (generator.normal(0, 1, 150) + truth).round(1)
    cut = tune_cut(scores, truth)
    assert cut.mcc == pytest.approx(matthews_corrcoef(truth, scores > cut.logodds))
    assert cut.mcc >= max(matthews_corrcoef(truth, scores > t) for t in scores) - 1e-12


def test_a_cut_lies_between_rows() -> None:
    assert tune_cut(np.array([-3.0, 1.0, 2.0]), np.array([False, False, True])).logodds == 1.5


@pytest.mark.parametrize("low", [0.3, -2e4, 3e4])
def test_the_emitted_score_rounds_to_the_cut_even_between_the_nearest_rows(low: float) -> None:
    high = max(low + 2e-12, np.nextafter(low, np.inf))
    logits = np.array([[0.0, low], [0.0, high]])
    cut = tune_cut(group_log_odds(logits, np.array([False, True])), np.array([False, True]))
    score = Policy(("a", "b"), ("b",), cut=cut.logodds).apply(logits).score
    assert (score > 0.5).tolist() == [False, True] and cut.mcc == 1.0


def test_rows_that_the_score_cannot_tell_apart_are_one() -> None:
    scores = np.array([0.3, np.nextafter(0.3, 1), 0.9, 0.2])
    cut = tune_cut(scores, np.array([False, True, True, False]))
    assert 0.2 < cut.logodds < 0.3 or 0.3 < cut.logodds < 0.9


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        ([0.0, 1.0], [True, True], "positive and negative labels, 2 of 2 are positive"),
        ([1.0, 1.0], [True, False], "scores that differ"),
    ],
)
def test_what_allows_no_cut_is_an_error(scores: list, truth: list, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        tune_cut(np.array(scores), np.array(truth))
