"""The guarantee, proven by simulation on pools whose true risk is known."""

import numpy as np
import pytest
from scipy.stats import beta, binom

from natix_lib.decisions import certify_selection, upper_risk_bound
from natix_lib.decisions.selection import one_of_each_group
from natix_lib.errors import CalibrationError

POOL = 40_000
CELLS = {
    "balanced": lambda g: (g.normal(0, 1, POOL), 0.25),
    "ties": lambda g: (g.integers(0, 12, POOL) / 4.0, 0.25),
    "risk just above alpha": lambda g: (g.normal(0, 0.01, POOL), 0.105),
}


def pool(cell: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and errors; an error is rarer where the score is higher, except where risk does not depend on it."""
    generator = np.random.default_rng(7)
    scores, rate = CELLS[cell](generator)
    spread = 1 / (1 + np.exp(1.5 * scores))
    risk = np.clip(rate * spread / spread.mean(), 0, 1) if cell != "risk just above alpha" else np.full(POOL, rate)
    return scores, generator.random(POOL) < risk


def violations(trials: int, rule: object, cell: str, n: int, alpha: float) -> int:
    """In how many trials the rule, fitted on n rows, has a true risk above alpha."""
    scores, errors = pool(cell)
    order = np.argsort(-scores, kind="stable")
    above, wrong = -scores[order], np.cumsum(errors[order])
    count = 0
    for trial in range(trials):
        rows = np.random.default_rng(trial).integers(0, POOL, n)
        threshold = rule(scores[rows], errors[rows], alpha)
        if threshold is not None:
            accepted = int(np.searchsorted(above, -threshold, side="left"))
            count += bool(accepted) and wrong[accepted - 1] / accepted > alpha
    return count


def certified(procedure: str, delta: float) -> object:
    return lambda s, e, alpha: certify_selection(s, e, alpha, delta, procedure=procedure).threshold


def naive(scores: np.ndarray, errors: np.ndarray, alpha: float) -> float | None:
    """The most coverage whose empirical risk is at most alpha: what must fail."""
    order = np.argsort(-scores, kind="stable")
    good = np.flatnonzero(np.cumsum(errors[order]) / np.arange(1, len(order) + 1) <= alpha)
    return None if not len(good) else float(np.append(scores[order], -np.inf)[good[-1] + 1])


@pytest.mark.parametrize("procedure", ["ltt", "sgr"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("n", [100, 1000])
def test_the_promise_is_kept(procedure: str, cell: str, n: int) -> None:
    assert violations(200, certified(procedure, 0.1), cell, n, 0.1) <= binom.ppf(0.9999, 200, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("delta", [0.1, 0.05])
@pytest.mark.parametrize("n", [100, 300, 1000, 3000])
def test_the_promise_is_kept_in_2000_trials(cell: str, delta: float, n: int) -> None:
    assert violations(2000, certified("ltt", delta), cell, n, 0.1) <= binom.ppf(0.9999, 2000, delta)


def test_the_naive_rule_breaks_the_promise() -> None:
    assert violations(200, naive, "risk just above alpha", 1000, 0.1) > binom.ppf(0.9999, 200, 0.1)


def test_near_duplicates_void_the_guarantee_unless_groups_are_told() -> None:
    """Frames in groups of five: rows taken as independent break the promise, one row of each group keeps it."""
    scores, errors = pool("risk just above alpha")
    broken = kept = 0
    for trial in range(200):
        rows = np.random.default_rng(trial).integers(0, POOL, 300).repeat(5)
        groups = np.arange(300).repeat(5)
        broken += certify_selection(scores[rows], errors[rows], 0.1, 0.1).threshold is not None
        kept += certify_selection(scores[rows], errors[rows], 0.1, 0.1, groups).threshold is not None
    limit = binom.ppf(0.9999, 200, 0.1)
    assert kept <= limit < broken


def test_ltt_accepts_much_where_the_model_is_good() -> None:
    generator = np.random.default_rng(0)
    certificate = certify_selection(generator.normal(0, 1, 2000), generator.random(2000) < 0.02, 0.05, 0.1)
    assert certificate.certified and certificate.accepted == 2000 and certificate.threshold == -np.inf


def test_the_certificate_counts_what_the_runtime_will_accept() -> None:
    scores, errors = (values[:1500] for values in pool("ties"))
    found = certify_selection(scores, errors, 0.2, 0.1)
    assert found.threshold is not None and (scores > found.threshold).sum() == found.accepted
    assert errors[scores > found.threshold].sum() == found.errors
    assert found.upper_bound is not None and found.upper_bound <= 0.2


def test_the_bound_is_clopper_and_pearsons() -> None:
    assert upper_risk_bound(0, 30, 0.1) == pytest.approx(1 - 0.1 ** (1 / 30))
    assert upper_risk_bound(5, 5, 0.1) == 1.0
    assert upper_risk_bound(3, 50, 0.05) == pytest.approx(beta.ppf(0.95, 4, 47))
    assert binom.cdf(3, 50, upper_risk_bound(3, 50, 0.05)) == pytest.approx(0.05)


def test_too_few_rows_are_an_answer_with_its_reason() -> None:
    found = certify_selection(np.arange(40.0), np.zeros(40), 0.02, 0.05)
    assert (found.certified, found.threshold) == (False, None)
    assert found.reason == "needs at least 217 images at alpha 0.02, delta 0.05 (ltt), has 40"


def test_errors_at_the_top_are_an_answer_with_its_reason() -> None:
    errors = np.zeros(200)
    errors[-60:] = 1  # the most confident ones
    found = certify_selection(np.arange(200.0), errors, 0.1, 0.1)
    assert not found.certified and "of the 36 most confident images 36 are wrong" in found.reason


def test_one_row_of_each_group_is_drawn_by_the_seed() -> None:
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    drawn = [tuple(one_of_each_group(groups, seed)) for seed in range(20)]
    assert all(sorted(groups[list(rows)]) == ["a", "b", "c"] for rows in drawn)
    assert len(set(drawn)) > 1 and one_of_each_group(groups, 3).tolist() == list(drawn[3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"alpha must be in \(0, 1\), got 0"),
        ({"delta": 1.0}, r"delta must be in \(0, 1\), got 1"),
        ({"groups": [1, 2]}, "groups must have the length of the scores, 3"),
        ({"errors": [0, 1]}, "of one length"),
        ({"scores": [0, np.nan, 1]}, "scores must be finite, row 1 is not"),
        ({"procedure": "magic"}, "must be ltt or sgr, got 'magic'"),
    ],
)
def test_arguments_that_break_a_rule_are_named(options: dict, message: str) -> None:
    values = {"scores": [3.0, 2, 1], "errors": [0, 0, 1], "alpha": 0.1, "delta": 0.1, **options}
    with pytest.raises(CalibrationError, match=message):
        certify_selection(**values)
