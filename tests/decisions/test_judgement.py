import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import beta
from sklearn.metrics import brier_score_loss, log_loss

from natix_lib.decisions.curve import rank
from natix_lib.decisions.judgement import bounded_curve, change_intervals, judge_probabilities, nll_around


def rows(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    labels = np.arange(n) % 2
    return generator.normal(size=(n, 2)) + np.eye(2)[labels], labels


def judged(logits: np.ndarray, labels: np.ndarray):
    p = softmax(logits, axis=1)
    return judge_probabilities(p, -np.log(p[np.arange(len(labels)), labels]), logits.argmax(1), labels, 50)


def test_figures_are_those_of_scikit_learn() -> None:
    logits, labels = rows()
    judgement, p = judged(logits, labels), softmax(logits, axis=1)
    assert judgement.nll.mean() == pytest.approx(log_loss(labels, p))
    assert judgement.brier.mean() == pytest.approx(2 * brier_score_loss(labels, p[:, 1]))  # over both classes


def test_the_interval_of_a_change_holds_its_mean_and_is_wider_when_groups_go_together() -> None:
    logits, labels = rows()
    before, after = judged(logits, labels), judged(logits / 1.5, labels)
    change = (after.nll - before.nll).mean()
    alone, _ = change_intervals(before, after, None, 500)
    order = np.argsort(after.nll - before.nll)
    groups = np.empty(len(labels), dtype=np.int64)
    groups[order] = np.arange(len(labels)) // 20  # each of rows that change alike
    together, _ = change_intervals(before, after, groups, 500)
    assert alone is not None and together is not None and alone[0] < change < alone[1]
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_each_bound_of_the_curve_is_clopper_pearsons() -> None:
    logits, labels = rows()
    ranking = rank(np.abs(logits[:, 0] - logits[:, 1]), logits.argmax(1) != labels)
    curve = bounded_curve(ranking, 0.1, 37)
    accepted = (curve.coverage * 400).round()
    errors = (curve.risk * accepted).round()
    assert 37 in accepted and curve.coverage[-1] == 1
    np.testing.assert_allclose(curve.bound, beta.ppf(0.9, errors + 1, accepted - errors), rtol=1e-6)


def test_the_plotted_temperatures_hold_one_and_the_fitted_one() -> None:
    logits, labels = rows()
    temperatures, nll = nll_around(logits, labels, 1.7)
    assert 1.0 in temperatures and np.isclose(temperatures, 1.7).any() and (np.diff(temperatures) > 0).all()
    assert nll[temperatures == 1.0] == pytest.approx(log_loss(labels, softmax(logits, axis=1)))
