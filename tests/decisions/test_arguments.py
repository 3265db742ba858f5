"""Every public function of decisions, given what people give: the plain call's value, or one line that names it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natix_lib.decisions import (
    Policy,
    certify_selection,
    fit_prediction_sets,
    fit_temperature,
    log_odds,
    sweep_thresholds,
    upper_risk_bound,
)
from natix_lib.decisions.curve import order_and_ends, rank, risk_coverage_areas
from natix_lib.decisions.cut import judge_cut, tune_cut
from natix_lib.decisions.draws import first_half, independent_rows
from natix_lib.decisions.intervals import bootstrap_means, group_weights, share_interval
from natix_lib.decisions.metrics import brier, classwise_ece, ece, ece_with_null
from natix_lib.decisions.prior import fit_prior_shift
from natix_lib.decisions.score import check_groups, check_mask, group_log_odds, predictions_and_log_odds, softmax
from natix_lib.decisions.temperature import negative_log_likelihood
from natix_lib.errors import CalibrationError
from tests.decisions.test_properties import same

N = 60
_random = np.random.default_rng(0)
LOGITS = _random.normal(0, 1, (N, 3)).round(2)
LABELS = np.where(_random.random(N) < 0.7, LOGITS.argmax(axis=1), _random.integers(0, 3, N))
GOOD: dict[str, Any] = {
    "logits": LOGITS,
    "labels": LABELS,
    "probabilities": softmax(LOGITS),
    "mask": log_odds(LOGITS) > -0.2,
    "scores": log_odds(LOGITS),
    "confidence": softmax(LOGITS).max(axis=1),
    "groups": np.arange(N) // 2,
    "values": LOGITS,
}
CALLS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "log_odds": (log_odds, ("logits",)),
    "predictions_and_log_odds": (predictions_and_log_odds, ("logits",)),
    "softmax": (softmax, ("logits",)),
    "group_log_odds": (lambda z: group_log_odds(z, [0, 1, 1]), ("logits",)),
    "negative_log_likelihood": (negative_log_likelihood, ("logits", "labels")),
    "fit_temperature": (fit_temperature, ("logits", "labels", "groups")),
    "fit_prior_shift": (
        lambda z, y, g: fit_prior_shift(z, y, [1.0, 2.0, 3.0], g),
        ("logits", "labels", "groups"),
    ),
    "sweep_thresholds": (sweep_thresholds, ("logits", "labels")),
    "certify_selection": (
        lambda s, e, g: certify_selection(s, e, 0.4, 0.3, g),
        ("scores", "mask", "groups"),
    ),
    "fit_prediction_sets": (
        lambda p, y, a, g: fit_prediction_sets(p, y, a, 0.3, 0.3, g),
        ("probabilities", "labels", "mask", "groups"),
    ),
    "Policy.apply": (Policy(("a", "b", "c"), ("c",), "threshold", 0.1).apply, ("logits",)),
    "rank": (rank, ("scores", "mask")),
    "order_and_ends": (order_and_ends, ("scores",)),
    "tune_cut": (tune_cut, ("scores", "mask")),
    "judge_cut": (judge_cut, ("scores", "mask", "groups")),
    "brier": (brier, ("probabilities", "labels")),
    "ece": (ece, ("confidence", "mask")),
    "classwise_ece": (classwise_ece, ("probabilities", "labels")),
    "ece_with_null": (lambda p, c: ece_with_null(p, c, 20), ("confidence", "mask")),
    "group_weights": (lambda g: group_weights(g, 5, 0), ("groups",)),
    "bootstrap_means": (lambda v, g: bootstrap_means(v, g, 20, 0), ("values", "groups")),
    "independent_rows": (lambda g: independent_rows(g, LOGITS), ("groups",)),
    "first_half": (lambda g: first_half(g, LOGITS), ("groups",)),
    "check_mask": (lambda m: check_mask("mask", m), ("mask",)),
    "check_groups": (check_groups, ("groups",)),
}
NOTHING: Any = None
NAMES = (
    *("logits", "labels", "probabilities", "accepted", "errors", "correct", "is_positive", "mask", "scores"),
    *("positive_logodds", "confidence", "groups", "values"),
)
EQUAL = {  # of each kind of argument, the types that say the same
    "mask": ("list", "int8", "uint64", "float32"),
    "labels": ("list", "int8", "uint64"),
    "groups": ("list", "int8", "uint64", "text"),
}
BROKEN = {  # and what is no such argument, beside `ALWAYS`
    "mask": ("nan", "inf", "negative", "text"),
    "labels": ("nan", "inf", "negative", "text", "float32"),
    "groups": ("nan", "inf", "float32"),
    "logits": ("nan", "inf", "text"),
    "scores": ("nan", "inf", "text"),
    "values": ("nan", "inf", "text"),
    "confidence": ("nan", "inf", "text", "negative"),
    "probabilities": ("nan", "inf", "text", "negative"),
}
ALWAYS = ("object", "empty", "one dimension more", "scalar", "ragged")


def changed(values: np.ndarray, change: str) -> Any:
    result = values.astype(np.int64 if change == "negative" and values.dtype.kind in "bi" else np.float64)
    result[3] = {"nan": np.nan, "inf": np.inf, "negative": -1}.get(change, 0)
    if change in ("nan", "inf", "negative"):
        return result
    if change in ("int8", "uint64", "float32"):
        return values.astype(np.int64).astype(change)
    return {
        "list": values.tolist(),
        "text": np.char.add("g", np.char.zfill(values.astype(str), 4)),
        "object": np.append(values[:-1], [None]) if values.ndim == 1 else [*values.tolist()[:-1], [None] * 3],
        "empty": values[:0],
        "one dimension more": values[:, np.newaxis],
        "scalar": values.ravel()[0],
        "ragged": [*values.tolist(), [1, 2]],
    }[change]


@pytest.mark.parametrize("name", CALLS)
def test_what_says_the_same_gives_the_same_result(name: str) -> None:
    call, rules = CALLS[name]
    plain = call(*(GOOD[rule] for rule in rules))
    for i, rule in enumerate(rules):
        for change in EQUAL.get(rule, ("list",)):
            arguments = [GOOD[rule] for rule in rules]
            arguments[i] = changed(arguments[i], change)
            result = call(*arguments)
            assert name == "check_groups" or same(result, plain), (rule, change)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_such_argument_is_one_line_that_names_it(name: str) -> None:
    call, rules = CALLS[name]
    for i, rule in enumerate(rules):
        for change in (*BROKEN[rule], *ALWAYS, *(("short",) if len(rules) > 1 else ())):
            if (name, change) == ("Policy.apply", "empty"):
                continue  # no image, no decision
            arguments = [GOOD[rule] for rule in rules]
            arguments[i] = arguments[i][:-1] if change == "short" else changed(arguments[i], change)
            with pytest.raises(CalibrationError) as refusal:
                call(*arguments)
                pytest.fail(f"{rule}: {change} passed")
            text = str(refusal.value)
            assert "\n" not in text and any(word in text for word in NAMES), text


@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.lists(st.booleans(), min_size=2, max_size=40), st.sampled_from(["int8", "uint8", "int64", "float32", "O"]))
def test_a_mask_of_0_and_1_is_the_mask_of_booleans_and_never_row_numbers(mask: list, dtype: str) -> None:
    truth, scores = np.array(mask), np.arange(len(mask)) / 7.0
    p = np.stack([scores / 10, 1 - scores / 10], axis=1)
    for call in (
        lambda m: certify_selection(scores, m, 0.5, 0.4),
        lambda m: fit_prediction_sets(p, np.ones(len(m), int), m, 0.5, 0.4),
        lambda m: rank(scores, m),
        lambda m: ece(scores / 10, m),
        lambda m: judge_cut(scores, m),
    ):
        plain = call(truth)
        if dtype == "O":
            with pytest.raises(CalibrationError, match="must be booleans, or 0 and 1, got object"):
                call(truth.astype(object))
        else:
            assert same(call(truth.astype(dtype)), plain) and same(call(mask), plain)


def test_398_wrong_of_400_are_not_certified_by_a_mask_of_ones() -> None:
    labels = np.zeros(400, int)
    p = np.tile([0.1, 0.9], (400, 1))
    p[:2] = [0.9, 0.1]
    for accepted in (np.ones(400, int), np.ones(400), np.ones(400, bool), [1] * 400):
        sets = fit_prediction_sets(p, labels, accepted, 0.1, 0.1)
        assert sets.m == 400 and sets.threshold == pytest.approx(0.9)  # sets that hold the label of all but a few
    with pytest.raises(CalibrationError, match=r"accepted must be 0 or 1, row 1 is not: 2"):
        fit_prediction_sets(p, labels, [1, 2] + [1] * 398, 0.1, 0.1)


def test_probabilities_that_are_none_are_not_certified() -> None:
    labels, accepted = np.zeros(50, int), np.ones(50, bool)
    for bad, rule in ((np.nan, r"in \[0, 1\], row 7"), (0.7, "sum to 1 in every row, row 7"), (-0.1, r"in \[0, 1\]")):
        p = np.tile([0.9, 0.1], (50, 1))
        p[7, 1] = bad
        with pytest.raises(CalibrationError, match=rule):
            fit_prediction_sets(p, labels, accepted, 0.1, 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: upper_risk_bound(2.5, 10, 0.1), "errors must be in 0..accepted"),  # type: ignore[arg-type]
        (lambda: upper_risk_bound(1, 10, "0.1"), r"delta must be in \(0, 1\), got 0.1"),  # type: ignore[arg-type]
        (lambda: certify_selection([1.0], [0], NOTHING, 0.1), r"alpha must be in \(0, 1\), got None"),
        (lambda: certify_selection([1.0], [0], 0.1, 0.1, start=np.nan), r"start must be in \(0, 1\], got nan"),
        (lambda: check_groups([NOTHING, "a"]), "groups must be whole numbers or texts, got object"),
        (lambda: check_groups([0.5, np.nan]), "groups must be whole numbers or texts, got float64"),
        (lambda: log_odds(np.ma.masked_less(LOGITS, 0)), "logits must not be a masked array"),
        (lambda: log_odds([[1.0, 2], [1.0]]), "logits must be an array"),
        (lambda: Policy(("a", "b")).apply(np.zeros((2, 2, 2))), r"shape \(n, C\) .* got \(2, 2, 2\)"),
        (lambda: softmax(LOGITS, 0.0), "temperature must be a finite number above 0, got 0.0"),
        (lambda: group_log_odds(LOGITS, [1, 1, 1]), "some of the 3 classes and not all"),
        (lambda: risk_coverage_areas([2, 1], [0, 0]), "ends must be counts that rise"),
        (lambda: risk_coverage_areas([1, 2], [0, 2]), "errors counts of rows among them"),
        (lambda: share_interval([3.0], [2.0], 0.95), "sums must be those of the rows"),
    ],
)
def test_what_breaks_a_rule_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        call()
