"""Decisions beside scikit-learn, scipy, torch and MAPIE: where they must agree, and where a peer is wrong and why."""

from typing import Any

import numpy as np
import pytest
import torch
from mapie.risk_control import BinaryClassificationController
from scipy.special import logsumexp, softmax
from scipy.stats import beta, binom, binomtest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, _TemperatureScaling
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import f1_score, log_loss, matthews_corrcoef

from natix_lib.decisions import certify_selection, fit_temperature, log_odds, sweep_thresholds, upper_risk_bound
from natix_lib.decisions.binomial import is_certified, most_errors
from natix_lib.decisions.temperature import negative_log_likelihood

GRID = np.linspace(0, 0.99, 100)  # MAPIE's default


def drawn(true: float, n: int = 4000, classes: int = 13, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / true) by the Gumbel trick."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3 * max(true, 1), (n, classes))
    return logits, (logits / true + generator.gumbel(size=logits.shape)).argmax(axis=1)


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    z = logits / temperature
    return float((logsumexp(z, axis=1) - z[np.arange(len(z)), labels]).mean())


def torch_lbfgs(logits: np.ndarray, labels: np.ndarray, in_log: bool, **options: Any) -> float:
    """T found by torch's LBFGS in float64, from T = 1, as a variable itself or as its logarithm."""
    z, y = torch.from_numpy(logits), torch.from_numpy(labels)
    variable = torch.tensor(0.0 if in_log else 1.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([variable], max_iter=50, **options)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(z / (variable.exp() if in_log else variable), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted = variable.detach()
    return float(fitted.exp() if in_log else fitted)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5, 30.0])
@pytest.mark.parametrize("classes", [2, 13])
def test_sklearns_scalar_search_and_torchs_line_search_on_log_t_find_the_same_temperature(
    true: float, classes: int
) -> None:
    logits, labels = drawn(true, classes=classes)
    fitted = fit_temperature(logits, labels).temperature
    assert fitted == pytest.approx(1 / _TemperatureScaling().fit(logits, labels).beta_, rel=1e-5)
    careful = {"line_search_fn": "strong_wolfe", "tolerance_grad": 1e-9, "tolerance_change": 1e-12}
    assert fitted == pytest.approx(torch_lbfgs(logits, labels, in_log=True, **careful), rel=1e-5)


@pytest.mark.parametrize("true", [0.5, 2.5, 30.0])
def test_lbfgs_on_raw_t_misses_the_minimum_because_50_steps_of_a_fixed_rate_end_far_from_it(true: float) -> None:
    logits, labels = drawn(true)
    published = torch_lbfgs(logits, labels, in_log=False, lr=0.01)
    fit = fit_temperature(logits, labels)
    assert fit.temperature == pytest.approx(true, rel=0.05)
    assert published != pytest.approx(true, rel=0.2)
    assert nll(logits, labels, fit.temperature) < nll(logits, labels, published) - 0.005


class PassThrough(ClassifierMixin, BaseEstimator):
    """A trained classifier whose features are its logits."""

    def __init__(self, classes: int = 3) -> None:
        self.classes = classes

    def fit(self, x: np.ndarray, y: np.ndarray) -> "PassThrough":
        self.classes_, self.n_features_in_ = np.arange(self.classes), self.classes
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x.argmax(axis=1)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_sklearns_calibrated_classifier_cannot_predict_when_a_class_is_absent_because_it_counts_the_labels_seen(
    absent: int,
) -> None:
    logits, labels = drawn(2.0, n=900, classes=3)
    kept = labels != absent
    logits, labels = logits[kept], labels[kept]
    model = FrozenEstimator(PassThrough().fit(logits, labels))
    calibrated = CalibratedClassifierCV(model, method="temperature", ensemble=True).fit(logits, labels)
    with pytest.raises(ValueError, match="could not be broadcast"):
        calibrated.predict_proba(logits)
    fit = fit_temperature(logits, labels)
    around = [nll(logits, labels, fit.temperature * factor) for factor in (0.99, 1.0, 1.01)]
    assert fit.status == "ok" and around[1] < min(around[0], around[2])


def test_sklearns_calibrated_classifier_raises_in_fit_when_the_last_class_is_absent_because_columns_are_by_rank() -> (
    None
):
    logits, labels = drawn(2.0, n=900, classes=3)
    logits, labels = logits[labels != 2], labels[labels != 2]
    calibrated = CalibratedClassifierCV(FrozenEstimator(PassThrough().fit(logits, labels)), method="temperature")
    with (
        pytest.warns(RuntimeWarning, match=r"training fold \(3\) does not match total number of classes \(2\)"),
        pytest.raises(IndexError, match="index 2 is out of bounds for axis 1 with size 2"),
    ):
        calibrated.fit(logits, labels)
    assert fit_temperature(logits, labels).status == "ok"


@pytest.mark.parametrize("delta", [0.01, 0.1, 0.5])
def test_the_upper_bound_is_scipys_exact_one_sided_one(delta: float) -> None:
    for accepted in (1, 2, 17, 400):
        for errors in {0, 1, accepted // 3, accepted - 1, accepted}:
            bound = upper_risk_bound(errors, accepted, delta)
            exact = binomtest(errors, accepted, alternative="less").proportion_ci(1 - delta, method="exact")
            assert bound == pytest.approx(exact.high, rel=1e-9)
            assert errors == accepted or bound == pytest.approx(beta.ppf(1 - delta, errors + 1, accepted - errors))


@pytest.mark.parametrize("alpha", [0.003, 0.05, 0.1, 0.37, 0.9])
@pytest.mark.parametrize("delta", [0.001, 0.0125, 0.1, 0.45])
def test_the_most_errors_are_those_of_brute_force_and_never_fall(alpha: float, delta: float) -> None:
    sizes = [*range(1, 250), 1000, 5000]
    most = [most_errors(m, alpha, delta) for m in sizes]
    assert most == [int((binom.cdf(np.arange(m + 1), m, alpha) <= delta).sum()) - 1 for m in sizes]
    assert (np.diff(most) >= 0).all()


def selection(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Top probabilities with ties in [.3, 1), and errors that are rarer where they are higher."""
    generator = np.random.default_rng(seed)
    top = (0.3 + 0.7 * generator.beta(2, 1, n)).round(3).clip(0.3, 0.999)
    return top, (generator.random(n) > top**0.35).astype(np.int64)


def mapie(top: np.ndarray, errors: np.ndarray, alpha: float, method: str = "bonferroni", delta: float = 0.1) -> Any:
    """MAPIE's controller: its precision of "top >= t" as the prediction "right" is 1 - selective risk."""
    controller = BinaryClassificationController(
        lambda p: np.column_stack([1 - p, p]), "precision", 1 - alpha, confidence_level=1 - delta, fwer_method=method
    )
    return controller.calibrate(top, 1 - errors)


@pytest.mark.parametrize("alpha", [0.05, 0.06, 0.08])
@pytest.mark.parametrize("seed", range(3))
def test_all_that_mapie_certifies_is_certified_because_its_p_values_are_never_below_the_exact_ones(
    alpha: float, seed: int
) -> None:
    """MAPIE accepts s >= t and takes errors as ceil(m * a rounded risk), which is at times one error too many."""
    top, errors = selection(seed=seed)
    controller = mapie(top, errors, alpha)
    accepted = (top >= GRID[:, None]).sum(axis=1)
    wrong = ((top >= GRID[:, None]) & (errors == 1)).sum(axis=1)
    assert (accepted > 0).all()
    exact, p_values = binom.cdf(wrong, accepted, alpha), controller.p_values[:, 0]
    assert (p_values >= exact * (1 - 1e-9)).all()
    larger = p_values > exact * (1 + 1e-9)
    assert larger.any() and (p_values <= binom.cdf(wrong + 1, accepted, alpha) * (1 + 1e-9)).all()

    valid = np.isin(GRID, controller.valid_predict_params)
    assert 5 < valid.sum() < 95
    spent = 0.1 / len(GRID)
    assert all(is_certified(int(k), int(m), alpha, spent) for k, m in zip(wrong[valid], accepted[valid], strict=True))
    ours = certify_selection(top, errors, alpha, 0.1)
    assert ours.accepted >= (top >= controller.best_predict_param).sum() > 0


def test_mapies_default_certifies_nothing_where_one_threshold_accepts_none_because_its_p_value_there_is_nan() -> None:
    """Holm's correction takes the smallest p-value first, and for numpy's argmin that is the NaN."""
    top, errors = selection()
    top = top.clip(max=0.985)
    assert [bool((top >= level).any()) for level in GRID[-2:]] == [True, False]
    with pytest.warns(UserWarning, match="No predict parameters were found"):
        controller = mapie(top, errors, 0.06, "bonferroni_holm")
    assert np.isnan(controller.p_values[-1, 0]) and controller.best_predict_param is None
    bonferroni = mapie(top, errors, 0.06)
    ours = certify_selection(top, errors, 0.06, 0.1)
    assert ours.accepted >= (top >= bonferroni.best_predict_param).sum() > 0


@pytest.mark.parametrize("temperature", [0.4, 1.0, 7.0])
def test_the_mean_nll_is_sklearns_log_loss(temperature: float) -> None:
    logits, labels = drawn(2.0, n=800)
    expected = log_loss(labels, softmax(logits / temperature, axis=1), labels=range(13))
    assert negative_log_likelihood(logits, labels, temperature).mean() == pytest.approx(expected, rel=1e-12)


def test_random_points_of_the_curve_of_13_classes_are_sklearns_f1() -> None:
    logits, labels = drawn(1.5, n=3000)
    logits, labels = logits[labels != 5].round(1), labels[labels != 5]
    sweep, scores, predicted = sweep_thresholds(logits, labels), log_odds(logits), logits.argmax(axis=1)
    curve = sweep.curve
    options = {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
    for i in np.random.default_rng(0).integers(0, len(curve.accepted), 60):
        accepted = scores > curve.threshold_logodds[i]
        assert accepted.sum() == curve.accepted[i]
        shown = np.where(accepted, predicted, -1)
        assert curve.macro_f1[i] == pytest.approx(f1_score(labels, shown, **options), abs=1e-12)
        assert curve.f1_accepted[i] == pytest.approx(
            f1_score(labels[accepted], predicted[accepted], **options), abs=1e-12
        )
    lowest = -np.inf if sweep.threshold_logodds is None else sweep.threshold_logodds
    assert sweep.f1_score == pytest.approx(
        f1_score(labels, np.where(scores > lowest, predicted, -1), **options), abs=1e-12
    )


def test_random_points_of_the_curve_of_two_classes_are_sklearns_matthews_correlation() -> None:
    logits, labels = drawn(1.5, n=3000, classes=2)
    curve, scores, predicted = sweep_thresholds(logits, labels).curve, log_odds(logits), logits.argmax(axis=1)
    assert curve.mcc is not None
    for i in np.random.default_rng(0).integers(50, len(curve.accepted), 60):
        accepted = scores > curve.threshold_logodds[i]
        assert curve.mcc[i] == pytest.approx(matthews_corrcoef(labels[accepted], predicted[accepted]), abs=1e-12)


def test_the_aurc_without_ties_is_the_plain_mean_of_the_selective_risks() -> None:
    logits, labels = drawn(1.5, n=2000)
    top = softmax(logits, axis=1).max(axis=1)
    assert len(np.unique(top)) == len(top)
    wrong = (logits.argmax(axis=1) != labels)[np.argsort(-top)]
    sweep = sweep_thresholds(logits, labels)
    assert sweep.aurc == pytest.approx((np.cumsum(wrong) / np.arange(1, 2001)).mean(), rel=1e-12)
    assert sweep.aurc == pytest.approx(sweep.curve.selective_risk.mean(), rel=1e-12)
