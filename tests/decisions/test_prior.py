import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from natix_lib.decisions.prior import PriorShift, fit_prior_shift
from natix_lib.decisions.score import softmax
from natix_lib.errors import CalibrationError

SHARES = np.array([0.8, 0.15, 0.05])
WEIGHTS = 1 / (3 * SHARES)  # the balanced ones


def drawn(
    n: int, shares: np.ndarray = SHARES, factor: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact logits of normal classes, those that balanced weights make of them times a factor, and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(shares), n, p=shares)
    points = 2.0 * np.eye(len(shares))[labels] + generator.normal(0, 1, (n, len(shares)))
    likelihoods = 2.0 * points  # log of normal densities about 2 e_c, but for what all classes share
    return likelihoods + np.log(shares), factor * likelihoods, labels


def strength_of(shift: PriorShift) -> float:
    return float((shift.shift[0] - shift.shift[-1]) / np.log(shift.weights[-1] / shift.weights[0]))


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_known_shift_is_recovered_whatever_the_scale_of_the_logits(factor: float) -> None:
    _, weighted, labels = drawn(20_000, factor=factor)
    shift = fit_prior_shift(weighted, labels, WEIGHTS)
    assert (shift.status, shift.reason, shift.images) == ("fitted", "", 20_000)
    assert shift.strength == pytest.approx(factor, rel=0.08) and strength_of(shift) == pytest.approx(shift.strength)
    assert shift.shift.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_corrected_logits_decide_as_the_natural_model_does_and_uncorrected_ones_do_not(factor: float) -> None:
    _, weighted, labels = drawn(2_000, factor=factor)
    natural, weighted_new, truth = drawn(20_000, factor=factor, seed=1)
    shift = fit_prior_shift(weighted, labels, WEIGHTS)
    same = ((weighted_new + shift.shift).argmax(axis=1) == natural.argmax(axis=1)).mean()
    assert same > 0.98 > 0.93 > (weighted_new.argmax(axis=1) == natural.argmax(axis=1)).mean()
    shares = softmax(weighted_new + shift.shift, factor).mean(axis=0)
    assert shares == pytest.approx(np.bincount(truth) / len(truth), abs=0.01)
    assert softmax(weighted_new, factor).mean(axis=0)[2] > 0.09


def test_the_strength_is_where_the_penalised_likelihood_is_highest() -> None:
    _, weighted, labels = drawn(300, factor=2.0)

    def loss(point: np.ndarray) -> float:
        log_temperature, share = point
        each = log_softmax(weighted / np.exp(log_temperature) - share * np.log(WEIGHTS), axis=1)
        return float(-each[np.arange(300), labels].sum() + log_temperature**2 / 2 + (share - 1) ** 2 / 2)

    best = minimize(loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}).x
    assert fit_prior_shift(weighted, labels, WEIGHTS).strength == pytest.approx(best[1] * np.exp(best[0]), rel=1e-4)


def test_what_logistic_regression_learns_with_weights_becomes_what_it_learns_without() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(40_000) < 0.05).astype(int)
    points = generator.normal(0, 1, (40_000, 2)) + labels[:, None]
    seen = np.arange(20_000)
    balanced = LogisticRegression(class_weight="balanced").fit(points[seen], labels[seen])
    plain = LogisticRegression().fit(points[seen], labels[seen])
    weights = 20_000 / (2 * np.bincount(labels[seen]))
    rest = points[20_000:]
    logits = np.stack([np.zeros(len(rest)), balanced.decision_function(rest)], axis=1)
    shift = fit_prior_shift(logits[:3_000], labels[20_000:23_000], weights)
    corrected = softmax(logits + shift.shift)[:, 1]
    assert corrected == pytest.approx(plain.predict_proba(rest)[:, 1], abs=0.08)
    assert corrected.mean() == pytest.approx(0.05, abs=0.01) and softmax(logits)[:, 1].mean() > 0.2


def test_equal_weights_shift_nothing_not_by_a_bit() -> None:
    _, weighted, labels = drawn(100)
    for weights in (np.ones(3), np.full(3, 0.7, dtype=np.float32)):
        shift = fit_prior_shift(weighted, labels, weights)
        assert shift.status == "none" and not shift.shift.any() and shift.document() is None
        assert np.array_equal(weighted + shift.shift, weighted)


def test_without_an_image_of_a_class_the_shift_is_the_analytic_one_and_says_so() -> None:
    _, weighted, labels = drawn(300, factor=3.0)
    shift = fit_prior_shift(weighted, np.where(labels == 2, 0, labels), WEIGHTS)
    assert (shift.status, shift.strength, shift.images) == ("analytic", 1.0, 0)
    assert shift.shift == pytest.approx(-np.log(WEIGHTS) + np.log(WEIGHTS).mean())
    document = shift.document()
    assert document is not None and document["fitted_on"] is None
    assert "not fitted on VAL_SELECT, as class number 2 has no image to fit it on" in document["sentence"]


def test_where_no_image_is_wrong_the_strength_stays_near_one() -> None:
    labels = np.arange(60) % 3
    shift = fit_prior_shift(20.0 * np.eye(3)[labels], labels, WEIGHTS)
    assert shift.status == "fitted" and shift.strength == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_logits_that_say_nothing_or_scream_give_a_finite_shift(scale: float) -> None:
    labels = np.arange(60) % 3
    shift = fit_prior_shift(scale * np.random.default_rng(0).normal(size=(60, 3)), labels, WEIGHTS)
    assert np.isfinite(shift.shift).all()


def test_frames_of_one_group_speak_once() -> None:
    _, weighted, labels = drawn(40, factor=4.0)
    alone = fit_prior_shift(weighted, labels, WEIGHTS).strength
    repeated = np.repeat(weighted, 50, axis=0), np.repeat(labels, 50)
    grouped = fit_prior_shift(*repeated, WEIGHTS, np.repeat(np.arange(40), 50)).strength
    assert grouped == pytest.approx(alone, rel=1e-4)
    assert abs(fit_prior_shift(*repeated, WEIGHTS).strength / alone - 1) > 0.02


def test_a_constant_added_to_a_row_or_to_all_weights_changes_nothing() -> None:
    _, weighted, labels = drawn(300, factor=2.0)
    one = fit_prior_shift(weighted, labels, WEIGHTS)
    other = fit_prior_shift(weighted + np.arange(300)[:, None], labels, 7 * WEIGHTS)
    assert other.shift == pytest.approx(one.shift, rel=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], "weights must be 3 numbers, one a class, got float64 \\(2,\\)"),
        ([1.0, 0.0, 2.0], "weights must be finite and above 0, class number 1 has 0.0"),
        ([1.0, np.inf, 2.0], "class number 1 has inf"),
        ([1.0, np.nan, 2.0], "class number 1 has nan"),
    ],
)
def test_weights_that_are_none_are_refused(weights: list[float], message: str) -> None:
    _, weighted, labels = drawn(30)
    with pytest.raises(CalibrationError, match=message):
        fit_prior_shift(weighted, labels, weights)
