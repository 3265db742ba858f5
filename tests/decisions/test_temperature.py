import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from natix_lib.decisions import fit_temperature
from natix_lib.decisions.score import softmax
from natix_lib.decisions.temperature import MOST_SHARE, negative_log_likelihood


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


def first_of(margins: np.ndarray, classes: int = 2, wrong: tuple = ()) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a margin for class 0 over all others, and labels that are class 0 but for some rows."""
    logits, labels = np.zeros((len(margins), classes)), np.zeros(len(margins), dtype=int)
    logits[:, 0], labels[list(wrong)] = margins, 1
    return logits, labels


@pytest.mark.parametrize("classes", [2, 13])
@pytest.mark.parametrize("n", [40, 300, 10_000])
def test_rows_of_one_margin_without_an_error_are_as_confident_as_their_number_proves(n: int, classes: int) -> None:
    """No error in n leaves an error rate of up to 1 - .05^(1/n), which is Clopper and Pearson's bound."""
    logits, labels = first_of(np.full(n, 0.8), classes)
    fit = fit_temperature(logits, labels)
    sure = 0.05 ** (1 / n)
    assert fit.status == "separable"
    assert softmax(logits[:1], fit.temperature)[0, 0] == pytest.approx(sure, rel=1e-9)
    assert 1 / fit.temperature == pytest.approx(np.log((classes - 1) * sure / (1 - sure)) / 0.8, rel=1e-7)


def test_twelve_rows_that_are_all_right_prove_no_certainty() -> None:
    """Their mean confidence at T = 1 is .73, and no error in 12 leaves an error rate of up to .22."""
    logits, labels = first_of(np.linspace(0.2, 2, 12))
    fit = fit_temperature(logits, labels)
    assert (fit.status, fit.temperature) == ("separable", 1.0)
    assert fit.reason == (
        "no prediction is wrong: T is the sharpest that 12 images without an error support, and at most 1"
    )
    many = [fit_temperature(*first_of(np.linspace(0.2, 2, n))).temperature for n in (12, 30, 100, 1000, 10_000)]
    assert many[0] == 1.0 and (np.diff(many) < 0).all() and 0.05 < many[-1] < 0.1


def test_a_model_of_13_classes_that_is_sure_of_nothing_and_always_right_may_sharpen_to_what_12_rows_prove() -> None:
    logits, labels = first_of(np.linspace(0.2, 2, 12), classes=13)
    fit = fit_temperature(logits, labels)
    assert softmax(logits).max(axis=1).mean() < 0.22
    assert 0.6 < softmax(logits, fit.temperature).max(axis=1).mean() < 0.05 ** (1 / 12)


@pytest.mark.parametrize("n", [12, 200])
def test_the_last_error_goes_without_a_jump(n: int) -> None:
    """One row is wrong by a margin that shrinks to nothing; without the limit T would follow it to nothing."""
    margins = np.linspace(0.2, 2, n)
    fits = []
    for margin in [*np.geomspace(4.0, 1e-9, 150), 0.0]:
        margins[0] = margin
        fits.append(fit_temperature(*first_of(margins, wrong=(0,))))
    temperatures = [fit.temperature for fit in fits]
    assert np.abs(np.diff(np.log(temperatures))).max() < 0.25
    assert [fits[i].status for i in (0, -2, -1)] == ["ok", "near_separable", "separable"]
    assert temperatures[-2] == pytest.approx(temperatures[-1], rel=1e-6)


def test_errors_that_weigh_as_much_as_three_leave_the_exact_minimum_alone() -> None:
    """The limit allows for three wrong rows of average margin; two are clamped to it and four are fitted."""
    n, margin = 1000, 1.5
    for wrong, status in ((2, "near_separable"), (4, "ok")):
        fit = fit_temperature(*first_of(np.full(n, margin), wrong=tuple(range(wrong))))
        sure = 0.05 ** (1 / n) if wrong == 2 else 1 - wrong / n
        assert (fit.status, 1 / fit.temperature) == (status, pytest.approx(np.log(sure / (1 - sure)) / margin))


def test_an_overconfident_model_with_few_errors_is_cooled_by_the_exact_minimum() -> None:
    """The limit only keeps T from being too sharp, and never above 1."""
    fit = fit_temperature(*first_of(np.linspace(2, 6, 12), wrong=(2,)))
    assert fit.status == "ok" and fit.temperature > 1.3 and abs(fit.gradient) < 1e-8


def test_frames_of_one_group_prove_as_much_as_one() -> None:
    logits, labels = first_of(np.full(600, 0.8))
    alone, grouped = fit_temperature(logits, labels), fit_temperature(logits, labels, np.arange(600) // 50)
    twelve = fit_temperature(*first_of(np.full(12, 0.8)))
    assert alone.temperature < 0.2 and grouped.temperature == pytest.approx(twelve.temperature, rel=1e-12)
    assert "12 groups" in grouped.reason


def test_rows_whose_largest_logits_are_equal_prove_nothing() -> None:
    fit = fit_temperature([[1.0, 1, 0]] * 4, [0] * 4)
    assert (fit.status, fit.temperature) == ("separable", 1.0)


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
