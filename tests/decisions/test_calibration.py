import numpy as np
import pytest

from natix_lib.decisions import needed_independent
from natix_lib.decisions.calibration import Rows, Terms, calibrate
from natix_lib.errors import CalibrationError


def rows(n: int, strength: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 2) and labels (n,) of a model that is right more often where it is more confident."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return generator.normal(size=(n, 2)) + strength * np.eye(2)[labels], labels


def test_the_rule_keeps_to_alpha_on_the_rows_that_it_counts() -> None:
    logits, labels = rows(2000, 2.0)
    result = calibrate(Rows(logits, labels), Terms(0.05, 0.1))
    confidence = np.abs(logits[:, 0] - logits[:, 1])
    accepted = confidence > result.threshold
    wrong = logits.argmax(1) != labels
    assert result.mode == "threshold" and result.certificate.accepted == accepted.sum()
    bound = result.certificate.upper_bound
    assert bound is not None and wrong[accepted].mean() <= bound <= 0.05 < wrong.mean()


def test_half_of_the_groups_is_spared_whole_when_asked() -> None:
    logits, labels = rows(1200, 2.0)
    groups = np.repeat(np.arange(400), 3)
    result = calibrate(Rows(logits, labels, groups), Terms(0.15, 0.1, spare_half=True))
    assert not set(groups[result.seen]) & set(groups[~result.seen])
    assert 0.4 < result.seen.mean() < 0.6 and result.seen[result.tested].all()
    assert len(set(groups[result.tested])) == len(result.tested) == result.certificate.n
    assert calibrate(Rows(logits, labels, groups), Terms(0.15, 0.1)).seen.all()


@pytest.mark.parametrize(("on_infeasible", "mode"), [("empirical", "threshold"), ("abstain", "abstain_all")])
def test_what_follows_when_nothing_is_certified_is_what_was_asked(on_infeasible: str, mode: str) -> None:
    logits, labels = rows(40, 2.0)
    result = calibrate(Rows(logits, labels), Terms(0.05, 0.1, on_infeasible=on_infeasible))
    assert (result.mode, result.certificate.certified) == (mode, False)
    with pytest.raises(CalibrationError, match="zero coverage: needs at least .*, a larger alpha, or on_infeasible"):
        calibrate(Rows(logits, labels), Terms(0.05, 0.1, on_infeasible="fail"))


def test_where_no_threshold_keeps_to_alpha_nothing_is_accepted_and_the_reason_says_so() -> None:
    logits, labels = rows(40, 20.0)
    result = calibrate(Rows(logits, 1 - labels), Terms(0.05, 0.1))
    assert (result.mode, result.threshold, result.certificate.certified) == ("abstain_all", None, False)
    assert result.certificate.reason == (
        "needs at least 45 images at alpha 0.05, delta 0.1, has 40; and no threshold keeps to alpha 0.05 with a margin "
        "either, so nothing is accepted"
    )


@pytest.mark.parametrize("grouped", [False, True])
def test_what_is_said_to_be_needed_with_sets_is_certified_and_one_less_is_not(grouped: bool) -> None:
    needed = needed_independent(0.2, 0.1, spare_half=True)
    for n in (needed - 1, needed):
        logits, labels = rows(3 * n if grouped else n, 50.0)
        groups = np.arange(len(labels)) // 3 if grouped else None
        terms = Terms(0.2, 0.1, on_infeasible="abstain", spare_half=True)
        assert calibrate(Rows(logits, labels, groups), terms).certificate.certified == (n == needed)


def test_a_rule_that_accepts_all_has_no_threshold() -> None:
    result = calibrate(Rows(*rows(600, 20.0)), Terms(0.05, 0.1))
    assert (result.mode, result.threshold) == ("accept_all", None)


def test_an_unknown_way_out_is_refused() -> None:
    with pytest.raises(CalibrationError, match="on_infeasible must be one of fail, empirical, abstain, got 'hope'"):
        calibrate(Rows(*rows(40, 2.0)), Terms(0.05, 0.1, on_infeasible="hope"))
