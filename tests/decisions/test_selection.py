"""The acceptance rule: known answers, edges and refusals; test_guarantee.py holds the simulations."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from natix_lib.decisions import (
    best_start,
    certifiable_alpha,
    certify_selection,
    needed_independent,
    upper_risk_bound,
)
from natix_lib.decisions.binomial import is_certified
from natix_lib.decisions.curve import rank
from natix_lib.errors import CalibrationError

STARTS = pytest.mark.parametrize("start", [None, 0.4])


def tied(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of 12 levels, and errors that are rarer where the score is higher."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 12, n) / 4.0
    return scores, generator.random(n) < 1.5 / (1 + np.exp(1.5 * scores))


def test_it_accepts_much_where_the_model_is_good() -> None:
    generator = np.random.default_rng(0)
    certificate = certify_selection(generator.normal(0, 1, 2000), generator.random(2000) < 0.02, 0.05, 0.1)
    assert certificate.certified and certificate.accepted == 2000 and certificate.threshold == -np.inf


@STARTS
def test_the_certificate_counts_what_the_runtime_will_accept(start: float | None) -> None:
    scores, errors = tied(1500)
    certificate = certify_selection(scores, errors, 0.2, 0.1, start=start)
    assert (
        certificate.threshold is not None and 0 < (scores > certificate.threshold).sum() == certificate.accepted < 1500
    )
    assert errors[scores > certificate.threshold].sum() == certificate.errors > 0


@STARTS
def test_what_is_certified_passes_the_exact_test_at_the_delta_spent(start: float | None) -> None:
    generator = np.random.default_rng(1)
    passed = 0
    for _ in range(100):
        scores = generator.normal(0, 2, 300).round(1)
        errors = generator.random(300) < generator.uniform(0.2, 0.9) / (1 + np.exp(scores))
        certificate = certify_selection(scores, errors, 0.15, 0.2, start=start)
        passed += certificate.certified
        if certificate.certified:
            assert binom.cdf(certificate.errors, certificate.accepted, 0.15) <= certificate.delta_spent
            assert certificate.upper_bound is not None and certificate.upper_bound <= 0.15
    assert 10 < passed < 100


def test_errors_are_counted_and_not_found_from_a_rounded_rate() -> None:
    """49 * (1 / 49) is below 1: of the 200 x 200 rates hundreds lose an error that way."""
    for wrong in range(1, 201):
        errors = np.arange(200) < wrong  # the most confident ones
        ranking = rank(-np.arange(200.0), errors)
        assert ranking.errors.tolist() == np.minimum(np.arange(1, 201), wrong).tolist()


@pytest.mark.parametrize(
    ("start", "least"),
    [
        (None, 22),  # .9^21 = .109 > .1 >= .9^22
        (0.7, 23),  # .9^22 = .0985 > .095 >= .9^23: a chain has all of delta but a twentieth
    ],
)
def test_rows_that_are_all_right_are_certified_from_the_number_on_that_a_test_lets_pass(
    start: float | None, least: int
) -> None:
    for n in (least - 1, least):
        certificate = certify_selection(np.arange(float(n)), np.zeros(n), 0.1, 0.1, start=start)
        assert certificate.certified == (n == least)


@pytest.mark.parametrize("start", [None, 0.01, 0.6, 1.0])
@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.floats(0.01, 0.9), st.floats(0.01, 0.95))
def test_what_is_said_to_be_needed_is_certified_without_an_error_and_one_less_is_not(
    start: float | None, alpha: float, delta: float
) -> None:
    def certified(n: int) -> bool:
        return certify_selection(np.arange(float(n)), np.zeros(n), alpha, delta, start=start).certified

    needed = needed_independent(alpha, delta, start is not None)
    assert all(certified(needed + more) for more in range(9)) and certified(2 ** needed.bit_length())
    assert needed == 1 or not certified(needed - 1)


@pytest.mark.parametrize("has_start", [False, True])
@settings(deadline=None, derandomize=True)
@given(st.integers(1, 5000), st.floats(0.01, 0.95))
def test_the_smallest_alpha_that_a_number_could_certify_needs_no_more_and_a_smaller_one_does(
    has_start: bool, n: int, delta: float
) -> None:
    alpha = certifiable_alpha(n, delta, has_start)
    assert needed_independent(alpha, delta, has_start) <= n < needed_independent(alpha * 0.9999, delta, has_start)


def test_what_is_needed_has_known_answers() -> None:
    """ln(.1) / ln(.95) = 44.9, ln(.095) / ln(.95) = 45.9; 1 - .1^(1 / 34) = .0655; sets leave half unseen."""
    assert needed_independent(0.05, 0.1) == 45 and needed_independent(0.05, 0.1, spare_half=True) == 89
    assert needed_independent(0.05, 0.1, has_start=True) == 46
    assert certifiable_alpha(34, 0.1) == pytest.approx(1 - 0.1 ** (1 / 34), rel=2e-6)
    assert certifiable_alpha(68, 0.1, spare_half=True) == certifiable_alpha(34, 0.1)


def test_what_is_needed_of_no_image_is_refused() -> None:
    with pytest.raises(CalibrationError, match="n must be at least 1, got 0"):
        certifiable_alpha(0, 0.1)
    with pytest.raises(CalibrationError, match=r"alpha must be in \(0, 1\), got 1"):
        needed_independent(1, 0.1)


def test_the_fewest_that_can_be_certified_are_told_by_the_test_where_logarithms_miss_a_digit() -> None:
    for power in range(1, 40):  # delta = alpha^m exactly, and the logarithms give m or a hair more
        assert needed_independent(0.5, 0.5**power) == power
        assert needed_independent(0.75, 0.25**power) == power
        for alpha in (0.1, 0.3, 0.7):
            delta = (1 - alpha) ** power
            needed = needed_independent(alpha, delta)
            assert binom.cdf(0, needed, alpha) <= delta * (1 + 1e-12) and abs(needed - power) <= 1


def test_the_bound_is_clopper_and_pearsons() -> None:
    assert upper_risk_bound(0, 30, 0.1) == pytest.approx(1 - 0.1 ** (1 / 30))
    assert upper_risk_bound(5, 5, 0.1) == 1.0
    assert upper_risk_bound(3, 50, 0.05) == pytest.approx(beta.ppf(0.95, 4, 47))
    assert binom.cdf(3, 50, upper_risk_bound(3, 50, 0.05)) == pytest.approx(0.05)


@STARTS
def test_the_bound_of_a_certificate_is_at_the_delta_spent(start: float | None) -> None:
    certificate = certify_selection(*tied(1500), 0.2, 0.1, start=start)
    assert certificate.delta_spent < 0.1
    assert certificate.upper_bound == pytest.approx(
        beta.ppf(1 - certificate.delta_spent, certificate.errors + 1, certificate.accepted - certificate.errors)
    )


def test_too_few_rows_are_an_answer_with_its_reason() -> None:
    certificate = certify_selection(np.arange(40.0), np.zeros(40), 0.02, 0.05)
    assert (certificate.certified, certificate.threshold) == (False, None)
    assert certificate.reason == "needs at least 149 images at alpha 0.02, delta 0.05, has 40"


@STARTS
def test_errors_at_the_top_are_an_answer_with_its_reason(start: float | None) -> None:
    errors = np.zeros(100)
    errors[-60:] = 1  # the most confident ones
    certificate = certify_selection(np.arange(100.0), errors, 0.1, 0.1, start=start)
    match = re.fullmatch(
        r"no threshold is certified at alpha 0\.1, delta 0\.1: "
        r"of the (\d+) most confident images (\d+) are wrong, and 0 may be",
        certificate.reason,
    )
    assert match and not certificate.certified and match[1] == match[2]
    rows = int(match[1])  # the fewest that the test lets pass
    assert is_certified(0, rows, 0.1, certificate.delta_spent)
    assert not is_certified(0, rows - 1, 0.1, certificate.delta_spent)


def test_the_band_certifies_behind_a_bad_top_where_a_chain_stops() -> None:
    scores, errors = -np.arange(500.0), np.zeros(500)
    errors[:20] = 1
    certificate = certify_selection(scores, errors, 0.1, 0.1, start=0.05)
    assert (certificate.threshold, certificate.accepted, certificate.errors) == (-np.inf, 500, 20)


def test_a_chain_starts_where_other_rows_let_it_pass_and_reach_far() -> None:
    scores = -np.arange(1000.0)
    right = np.arange(1000) >= 800
    start = best_start(scores, right, 0.05, 0.1, 500)
    assert start <= 0.8 and certify_selection(scores[::2], right[::2], 0.05, 0.1, start=start).accepted > 400
    behind = (np.arange(1000) > 100) & (np.arange(1000) < 125)  # 24 errors, which many rows outweigh
    assert best_start(scores, behind, 0.05, 0.1, 1000) > 0.5
    assert (
        best_start(scores, np.arange(1000) < 300, 0.05, 0.1, 500) > 0.9
    )  # nothing passes, and the end is the least bad
    assert best_start(scores, np.zeros(1000), 0.05, 0.1, 10) == 1.0  # too few for any start


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"alpha must be in \(0, 1\), got 0"),
        ({"delta": 1.0}, r"delta must be in \(0, 1\), got 1"),
        ({"groups": [1, 2]}, "groups must have the length of the scores, 3"),
        ({"errors": [0, 1]}, "errors must have 3 rows as what it goes with, got 2"),
        ({"scores": [0, np.nan, 1]}, "scores must be finite, row 1 is not"),
        ({"errors": [0, 0.5, 1]}, "errors must be 0 or 1, row 1 is not: 0.5"),
        ({"errors": [0, 2, 1]}, "errors must be 0 or 1, row 1 is not"),
        ({"start": 0.0}, r"start must be in \(0, 1\], got 0"),
        ({"start": 1.5}, r"start must be in \(0, 1\], got 1.5"),
    ],
)
def test_arguments_that_break_a_rule_are_named(options: dict, message: str) -> None:
    values = {"scores": [3.0, 2, 1], "errors": [0, 0, 1], "alpha": 0.1, "delta": 0.1, **options}
    with pytest.raises(CalibrationError, match=message):
        certify_selection(**values)
