"""The acceptance rule: known answers, edges and refusals; test_guarantee.py holds the simulations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from natix_lib.decisions import certifiable_alpha, certify_selection, needed_independent, upper_risk_bound
from natix_lib.decisions.curve import rank
from natix_lib.decisions.selection import PROCEDURES
from natix_lib.errors import CalibrationError


def tied(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of 12 levels, and errors that are rarer where the score is higher."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 12, n) / 4.0
    return scores, generator.random(n) < 1.5 / (1 + np.exp(1.5 * scores))


def test_ltt_accepts_much_where_the_model_is_good() -> None:
    generator = np.random.default_rng(0)
    certificate = certify_selection(generator.normal(0, 1, 2000), generator.random(2000) < 0.02, 0.05, 0.1)
    assert certificate.certified and certificate.accepted == 2000 and certificate.threshold == -np.inf


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_the_certificate_counts_what_the_runtime_will_accept(procedure: str) -> None:
    scores, errors = tied(1500)
    certificate = certify_selection(scores, errors, 0.2, 0.1, procedure=procedure)
    assert (
        certificate.threshold is not None and 0 < (scores > certificate.threshold).sum() == certificate.accepted < 1500
    )
    assert errors[scores > certificate.threshold].sum() == certificate.errors > 0


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_what_is_certified_passes_the_exact_test_at_the_delta_spent(procedure: str) -> None:
    generator = np.random.default_rng(1)
    passed = 0
    for _ in range(100):
        scores = generator.normal(0, 2, 300).round(1)
        errors = generator.random(300) < generator.uniform(0.2, 0.9) / (1 + np.exp(scores))
        certificate = certify_selection(scores, errors, 0.15, 0.2, procedure=procedure)
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
    ("procedure", "least"),
    [
        ("ltt", 36),  # .9^35 = .0250 > .1/4 by a hair, four chains
        ("sgr", 81),  # .9^40 = .0148 > .1/7 >= .9^41: seven steps, of which the first tries 41 of 81 rows
        ("grid", 36),  # four thresholds
    ],
)
def test_delta_is_shared_among_the_tests(procedure: str, least: int) -> None:
    """Rows that are all right are certified as soon as (1 - alpha)^m is at most the share of delta, and not before."""
    grid = [-1.0, -2, -3, -4] if procedure == "grid" else None
    for n in (least - 1, least):
        certificate = certify_selection(np.arange(float(n)), np.zeros(n), 0.1, 0.1, procedure=procedure, grid=grid)
        assert certificate.certified == (n == least)


@pytest.mark.parametrize("procedure", PROCEDURES)
@settings(deadline=None, derandomize=True)
@given(st.floats(0.01, 0.9), st.floats(0.01, 0.95))
def test_what_is_said_to_be_needed_is_certified_without_an_error_and_one_less_is_not(
    procedure: str, alpha: float, delta: float
) -> None:
    def certified(n: int) -> bool:
        return certify_selection(np.arange(float(n)), np.zeros(n), alpha, delta, procedure=procedure).certified

    needed = needed_independent(alpha, delta, procedure)
    assert all(certified(needed + more) for more in range(9)) and certified(2 ** needed.bit_length())
    assert needed == 1 or not certified(needed - 1)


@pytest.mark.parametrize("procedure", PROCEDURES)
@settings(deadline=None, derandomize=True)
@given(st.integers(1, 5000), st.floats(0.01, 0.95))
def test_the_smallest_alpha_that_a_number_could_certify_needs_no_more_and_a_smaller_one_does(
    procedure: str, n: int, delta: float
) -> None:
    alpha = certifiable_alpha(n, delta, procedure)
    assert needed_independent(alpha, delta, procedure) <= n < needed_independent(alpha * 0.9999, delta, procedure)


def test_what_is_needed_has_known_answers() -> None:
    """ln(.1 / 4) / ln(.95) = 71.9; 1 - (.1 / 4)^(1 / 34) = .1028; and sets leave the smaller half unseen."""
    assert needed_independent(0.05, 0.1) == 72 and needed_independent(0.05, 0.1, spare_half=True) == 143
    assert certifiable_alpha(34, 0.1) == pytest.approx(1 - 0.025 ** (1 / 34), rel=2e-6)
    assert certifiable_alpha(68, 0.1, spare_half=True) == certifiable_alpha(34, 0.1)
    assert needed_independent(0.1, 0.1, "grid", [-1.0, -2, -3, -4]) == 36  # as four chains


def test_what_is_needed_of_no_image_or_by_no_procedure_is_refused() -> None:
    with pytest.raises(CalibrationError, match="n must be at least 1, got 0"):
        certifiable_alpha(0, 0.1)
    with pytest.raises(CalibrationError, match=r"alpha must be in \(0, 1\), got 1"):
        needed_independent(1, 0.1)
    with pytest.raises(CalibrationError, match="procedure must be one of ltt, sgr, grid, got 'hope'"):
        needed_independent(0.1, 0.1, "hope")


def test_the_fewest_that_can_be_certified_are_told_by_the_test_where_logarithms_miss_a_digit() -> None:
    for power in range(1, 40):  # delta = alpha^m exactly, and the logarithms give m or a hair more
        assert needed_independent(0.5, 0.5**power, "grid", [0.0]) == power
        assert needed_independent(0.75, 0.25**power, "grid", [0.0]) == power
        for alpha in (0.1, 0.3, 0.7):
            delta = (1 - alpha) ** power
            needed = needed_independent(alpha, delta, "grid", [0.0])
            assert binom.cdf(0, needed, alpha) <= delta * (1 + 1e-12) and abs(needed - power) <= 1


def test_the_bound_is_clopper_and_pearsons() -> None:
    assert upper_risk_bound(0, 30, 0.1) == pytest.approx(1 - 0.1 ** (1 / 30))
    assert upper_risk_bound(5, 5, 0.1) == 1.0
    assert upper_risk_bound(3, 50, 0.05) == pytest.approx(beta.ppf(0.95, 4, 47))
    assert binom.cdf(3, 50, upper_risk_bound(3, 50, 0.05)) == pytest.approx(0.05)


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_the_bound_of_a_certificate_is_at_the_delta_spent(procedure: str) -> None:
    certificate = certify_selection(*tied(1500), 0.2, 0.1, procedure=procedure)
    assert certificate.delta_spent < 0.1
    assert certificate.upper_bound == pytest.approx(
        beta.ppf(1 - certificate.delta_spent, certificate.errors + 1, certificate.accepted - certificate.errors)
    )


def test_too_few_rows_are_an_answer_with_its_reason() -> None:
    certificate = certify_selection(np.arange(40.0), np.zeros(40), 0.02, 0.05)
    assert (certificate.certified, certificate.threshold) == (False, None)
    assert certificate.reason == "needs at least 217 images at alpha 0.02, delta 0.05 (ltt), has 40"


def test_errors_at_the_top_are_an_answer_with_its_reason() -> None:
    errors = np.zeros(200)
    errors[-60:] = 1  # the most confident ones
    certificate = certify_selection(np.arange(200.0), errors, 0.1, 0.1)
    assert not certificate.certified and "of the 36 most confident images 36 are wrong" in certificate.reason


def test_the_grid_returns_a_threshold_of_its_own() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(0, 1, 2000)
    errors = generator.random(2000) < np.where(scores > 0.3, 0.01, 0.5)
    grid = [1.3, -0.7, 0.7, 0.4, 0.1]  # in no order
    certificate = certify_selection(scores, errors, 0.05, 0.1, procedure="grid", grid=grid)
    assert certificate.threshold == 0.4 and certificate.accepted == (scores > 0.4).sum()
    assert certificate.delta_spent == pytest.approx(0.1 / 5)


def test_grid_thresholds_between_the_same_two_rows_are_one_answer_and_the_lowest_is_given() -> None:
    certificate = certify_selection(
        np.arange(100.0), np.zeros(100), 0.1, 0.1, procedure="grid", grid=[49.8, 49.2, 49.0]
    )
    assert (certificate.threshold, certificate.accepted) == (49.0, 50)


def test_the_grid_certifies_behind_a_bad_top_where_a_chain_stops() -> None:
    scores, errors = np.arange(1000.0), np.zeros(1000)
    errors[-30:] = 1  # the most confident ones
    assert not certify_selection(scores[500:], errors[500:], 0.1, 0.1).certified
    certificate = certify_selection(scores[500:], errors[500:], 0.1, 0.1, procedure="grid", grid=[960.0, 900.0, 499.0])
    assert (certificate.threshold, certificate.accepted, certificate.errors) == (499.0, 500, 30)


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
        ({"procedure": "magic"}, "procedure must be one of ltt, sgr, grid, got 'magic'"),
        ({"procedure": "grid", "grid": []}, r"grid must hold thresholds, at least one and none NaN, got \[\]"),
        ({"procedure": "grid", "grid": [0.5, np.nan]}, r"grid must hold .* got \[0.5, nan\]"),
    ],
)
def test_arguments_that_break_a_rule_are_named(options: dict, message: str) -> None:
    values = {"scores": [3.0, 2, 1], "errors": [0, 0, 1], "alpha": 0.1, "delta": 0.1, **options}
    with pytest.raises(CalibrationError, match=message):
        certify_selection(**values)
