import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from natix_lib.decisions import fit_temperature
from natix_lib.decisions.score import softmax
from natix_lib.decisions.temperature import LEAST_SHARE, MOST_SHARE, negative_log_likelihood


def drawn(temperature: float, n: int, classes: int, seed: int = 0, scale: float = 3.0) -> tuple:
    """Logits, and labels drawn from them at a temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, scale, (n, classes))
    cumulative = softmax(logits / temperature).cumsum(axis=1)
    labels = (generator.random((n, 1)) > cumulative).sum(axis=1).clip(0, classes - 1)
    return logits, labels


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5, 30.0])
@pytest.mark.parametrize("classes", [2, 13])
def test_the_temperature_that_drew_the_labels_is_found(true: float, classes: int) -> None:
    logits, labels = drawn(true, 20_000, classes, scale=3 * max(true, 1))
    fit = fit_temperature(logits, labels)
    assert fit.status == "ok" and abs(fit.gradient) < 1e-8
    p = softmax(logits, true)
    spread = (p * logits**2).sum(axis=1) - (p * logits).sum(axis=1) ** 2
    standard_error = 1 / np.sqrt(spread.sum() / true**2)  # of log T: the Fisher information of log beta
    assert abs(np.log(fit.temperature / true)) < 3 * standard_error < 0.2


def test_the_minimum_is_the_one_that_a_scalar_search_finds() -> None:
    logits, labels = drawn(1.7, 3_000, 5)
    best = minimize_scalar(
        lambda u: log_loss(labels, softmax(logits / np.exp(u)), labels=range(5)), bounds=(-3, 5), method="bounded"
    )
    fit = fit_temperature(logits, labels)
    assert fit.nll == pytest.approx(best.fun, abs=1e-9)
    assert np.log(fit.temperature) == pytest.approx(best.x, abs=1e-4)


@pytest.mark.parametrize(("classes", "margin", "accuracy"), [(2, 4.0, 0.9), (13, 2.0, 0.75), (5, 40.0, 0.6)])
def test_the_closed_form_of_constant_margins(classes: int, margin: float, accuracy: float) -> None:
    n = 1000
    logits = np.zeros((n, classes))
    logits[:, 0] = margin
    labels = np.where(np.arange(n) < accuracy * n, 0, 1)
    beta = np.log((classes - 1) * accuracy / (1 - accuracy)) / margin
    assert fit_temperature(logits, labels).temperature == pytest.approx(1 / beta, rel=1e-8)


def test_a_large_fit_that_is_warm_started_equals_a_small_one() -> None:
    logits, labels = drawn(2.0, 90_000, 3)
    fit = fit_temperature(logits, labels)
    u = np.log(fit.temperature) + np.array([-1e-3, 0, 1e-3])
    values = [negative_log_likelihood(logits, labels, np.exp(v)).mean() for v in u]
    assert values[1] < min(values[0], values[2])


def test_separable_rows_give_the_least_temperature_allowed() -> None:
    logits = np.array([[3.0, 0], [0, 2.0], [5.0, 1]])
    fit = fit_temperature(logits, [0, 1, 0])
    gap = np.sqrt(np.mean([9, 0, 0, 4, 0, 16]))
    assert (fit.status, fit.temperature) == ("separable", pytest.approx(LEAST_SHARE * gap))
    assert fit_temperature(1000 * logits, [0, 1, 0]).temperature == 1.0  # never worse than T = 1


@pytest.mark.parametrize("factor", [1e-4, 1e-2, 1e2, 1e4])
def test_c_times_the_logits_have_c_times_the_temperature(factor: float) -> None:
    logits, labels = drawn(1.7, 3_000, 4)
    one, scaled = fit_temperature(logits, labels), fit_temperature(factor * logits, labels)
    assert scaled.status == "ok" and scaled.temperature == pytest.approx(factor * one.temperature, rel=1e-7)
    assert scaled.nll == pytest.approx(one.nll)


def test_a_minimum_beyond_the_range_is_clamped_to_its_end() -> None:
    logits, labels = np.zeros((1_000_000, 2)), np.zeros(1_000_000, dtype=int)
    logits[:, 0] = 3.0
    labels[500_001:] = 1  # T = 3 / ln(500,001 / 499,999), three quarters of a million
    fit = fit_temperature(logits, labels)
    assert (fit.status, fit.temperature) == ("clamped", pytest.approx(MOST_SHARE * 3 / np.sqrt(2)))


def test_a_model_worse_than_uniform_keeps_temperature_one() -> None:
    logits = np.array([[3.0, 0], [0, 2.0], [5.0, 1]])
    fit = fit_temperature(logits, [1, 0, 1])
    assert (fit.status, fit.temperature) == ("worse_than_uniform", 1.0)


def test_constant_logits_keep_temperature_one() -> None:
    fit = fit_temperature(np.full((4, 3), 2.0), [0, 1, 2, 0])
    assert (fit.status, fit.temperature) == ("constant", 1.0)
    assert fit.nll == pytest.approx(np.log(3))


@pytest.mark.parametrize("seed", range(8))
def test_the_nll_is_never_above_that_at_temperature_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 10.0 ** generator.uniform(-2, 4), (40, 3))
    labels = generator.integers(0, 3, 40)
    fit = fit_temperature(logits, labels)
    assert np.isfinite(fit.temperature) and fit.temperature > 0
    assert fit.nll <= negative_log_likelihood(logits, labels).mean() + 1e-12
