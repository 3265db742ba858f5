import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from natix_lib.decisions import Policy
from natix_lib.evaluation import Scored, at_prior, evaluate, metrics, promised_slices

NAMES = ("None", "Cones", "Sign")


def scored(
    n: int = 400, classes: int = 3, seed: int = 0, frames: int = 4, threshold: float | None = 0.5, positive: tuple = ()
) -> tuple[Scored, np.ndarray]:
    """Decisions on noisy logits whose frames of one group agree."""
    generator = np.random.default_rng(seed)
    group = np.arange(n) // frames
    labels = generator.integers(0, classes, n // frames + 1)[group]
    logits = generator.normal(0, 1, (n // frames + 1, classes))[group] + generator.normal(0, 0.3, (n, classes))
    logits[np.arange(n), labels] += 1.2
    mode = "threshold" if threshold is not None else "accept_all"
    policy = Policy(NAMES[:classes], positive, mode, threshold)
    return Scored(labels, group.astype(str), policy.apply(logits), policy.positive_mask()), logits


def value(figures: dict, name: str) -> float:
    return figures[name]["value"]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_metrics_are_those_of_sklearn(classes: int) -> None:
    data, _ = scored(classes=classes, positive=NAMES[1:classes])
    figures = metrics(data, 50, 0.95, 0)
    d, labels = data.decisions, data.labels
    accepted = d.accepted
    assert value(figures, "accuracy") == pytest.approx(sk.accuracy_score(labels, d.prediction))
    assert value(figures, "macro_f1") == pytest.approx(sk.f1_score(labels, d.prediction, average="macro"))
    assert value(figures, "mcc") == pytest.approx(sk.matthews_corrcoef(labels, d.prediction))
    assert value(figures, "nll") == pytest.approx(sk.log_loss(labels, d.probabilities))
    assert value(figures, "auroc") == pytest.approx(sk.roc_auc_score(labels > 0, d.score))
    assert value(figures, "coverage") == pytest.approx(accepted.mean())
    assert value(figures, "selective_risk") == pytest.approx(
        1 - sk.accuracy_score(labels[accepted], d.prediction[accepted])
    )
    assert value(figures, "score_accuracy") == pytest.approx(sk.accuracy_score(labels > 0, d.score > 0.5))
    assert value(figures, "score_mcc") == pytest.approx(sk.matthews_corrcoef(labels > 0, d.score > 0.5))


def test_prediction_sets_are_measured_on_the_accepted() -> None:
    data, logits = scored()
    decisions = Policy(NAMES, (), "threshold", 0.5, sets_threshold=0.8).apply(logits)
    figures = metrics(Scored(data.labels, data.groups, decisions, data.positive), 50, 0.95, 0)
    assert decisions.sets is not None
    rows = decisions.accepted
    held = [data.labels[i] in np.flatnonzero(decisions.sets[i]) for i in np.flatnonzero(rows)]
    assert value(figures, "set_coverage") == pytest.approx(np.mean(held))
    assert (
        value(figures, "set_size") == pytest.approx(decisions.sets[rows].sum(axis=1).mean())
        and value(figures, "set_size") > 1
    )
    assert "set_size" not in metrics(data, 5, 0.95, 0)


def test_without_positive_classes_auroc_is_the_mean_of_one_against_the_rest() -> None:
    data, _ = scored()
    figures = metrics(data, 10, 0.95, 0)
    expected = sk.roc_auc_score(data.labels, data.decisions.probabilities, multi_class="ovr")
    assert value(figures, "auroc") == pytest.approx(expected) and "score_mcc" not in figures


def test_tied_scores_count_half_in_auroc() -> None:
    data, _ = scored(positive=("Cones",))
    rounded = Scored(data.labels, data.groups, Policy(NAMES, ("Cones",)).apply(np.round(scored()[1])), data.positive)
    expected = sk.roc_auc_score(data.labels == 1, rounded.decisions.score)
    assert value(metrics(rounded, 5, 0.95, 0), "auroc") == pytest.approx(expected)


def test_intervals_of_clustered_frames_are_wider_than_those_of_single_ones() -> None:
    data, _ = scored(frames=10)
    single = Scored(data.labels, np.arange(400).astype(str), data.decisions, data.positive)
    for name in ("accuracy", "macro_f1", "auroc", "nll"):
        wide, narrow = (metrics(d, 400, 0.95, 0)[name] for d in (data, single))
        assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]
        assert wide["low"] <= wide["value"] <= wide["high"]


@pytest.mark.slow
def test_the_interval_covers_the_true_accuracy_as_often_as_it_says() -> None:
    truth = np.mean([value(metrics(scored(seed=1000 + s)[0], 0, 0.9, 0), "accuracy") for s in range(200)])
    hits = 0
    for seed in range(150):
        interval = metrics(scored(seed=seed)[0], 200, 0.9, 0)["accuracy"]
        hits += interval["low"] <= truth <= interval["high"]
    assert 0.86 < hits / 150 < 0.99


@pytest.mark.parametrize("right", [True, False])
def test_nine_images_that_are_all_right_or_all_wrong_have_no_certain_interval(right: bool) -> None:
    logits = np.tile([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]], (3, 1))
    labels = (np.arange(9) + (not right)) % 3
    policy = Policy(NAMES, ("Cones",))
    data = Scored(labels, np.arange(9).astype(str), policy.apply(logits), policy.positive_mask())
    figures = evaluate(data, NAMES, {"weather": ["rain"] * 9}, 200, 0.95, 0, 5)
    edge = 1 - 0.025 ** (1 / 9)  # of Clopper and Pearson's interval for none of nine
    for part in (figures["metrics"], figures["slices"]["weather"]["rain"]["metrics"]):
        risk, accuracy = part["selective_risk"], part["accuracy"]
        assert (risk["value"], accuracy["value"]) == (float(not right), float(right))
        assert risk["high"] - risk["low"] == pytest.approx(edge) == accuracy["high"] - accuracy["low"]
        assert all(part[name]["low"] is None for name in ("mcc", "macro_f1", "auroc", "nll", "brier", "score_mcc"))
    assert (
        figures["baseline"]["accuracy"]["low"] > 0
        and figures["baseline"]["gain"]["low"] < 0.4 + figures["metrics"]["accuracy"]["value"]
    )


def test_a_metric_that_no_resample_moves_has_no_interval() -> None:
    logits = np.tile([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]], (20, 1))
    policy = Policy(NAMES)
    data = Scored(np.arange(60) % 3, np.arange(60).astype(str), policy.apply(logits), policy.positive_mask())
    figures = metrics(data, 200, 0.95, 0)
    assert figures["mcc"] == {"value": pytest.approx(1.0), "low": None, "high": None}
    assert figures["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 60)) and figures["accuracy"]["high"] == 1.0


def test_how_much_worse_the_rounded_score_is_than_the_label_is_paired() -> None:
    data, logits = scored(positive=("Cones", "Sign"))
    off = Policy(NAMES, ("Cones", "Sign"), cut=4.0).apply(logits)
    figures = evaluate(Scored(data.labels, data.groups, off, data.positive), NAMES, {}, 200, 0.95, 0, 20)
    loss, m = figures["score_loss"], figures["metrics"]
    assert loss["value"] == pytest.approx(m["label_accuracy"]["value"] - m["score_accuracy"]["value"])
    assert m["label_accuracy"]["value"] == pytest.approx(np.mean((logits.argmax(1) > 0) == (data.labels > 0)))
    assert m["label_mcc"]["value"] == pytest.approx(sk.matthews_corrcoef(data.labels > 0, logits.argmax(1) > 0))
    assert 0 < loss["low"] < loss["value"] < loss["high"]
    assert evaluate(scored()[0], NAMES, {}, 5, 0.95, 0, 20)["score_loss"] is None


def test_ece_has_a_null_and_no_percentile_interval() -> None:
    figures = metrics(scored()[0], 200, 0.95, 0)["ece"]
    assert figures["low"] is None and figures["high"] is None
    assert 0 < figures["null_high"] < 0.2 and 0 < figures["p_value"] <= 1


def test_the_risk_of_nothing_accepted_is_null_and_never_zero() -> None:
    figures = metrics(scored(threshold=1e6)[0], 100, 0.95, 0)
    assert figures["coverage"]["value"] == 0 and figures["selective_risk"] == {"value": None, "low": None, "high": None}


def test_a_single_class_has_no_auroc_and_no_warning() -> None:
    data, _ = scored()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = metrics(data.take(data.labels == 0), 50, 0.95, 0)
    assert figures["auroc"]["value"] is None and figures["mcc"]["value"] == 0.0


def test_the_baseline_is_the_majority_class_and_the_gain_is_paired() -> None:
    data, _ = scored()
    figures = evaluate(data, NAMES, {}, 300, 0.95, 0, 20)
    counts = np.bincount(data.labels)
    assert figures["baseline"]["class"] == NAMES[counts.argmax()]
    assert figures["baseline"]["accuracy"]["value"] == pytest.approx(counts.max() / 400)
    gain = figures["baseline"]["gain"]
    assert gain["value"] == pytest.approx(figures["metrics"]["accuracy"]["value"] - counts.max() / 400)
    assert 0 < gain["low"] < gain["value"] < gain["high"]


def test_confusion_recall_and_precision_are_those_of_sklearn() -> None:
    data, _ = scored()
    figures = evaluate(data, NAMES, {}, 10, 0.95, 0, 20)
    assert np.array_equal(figures["confusion"], sk.confusion_matrix(data.labels, data.decisions.prediction))
    recall = sk.recall_score(data.labels, data.decisions.prediction, average=None)
    assert [figures["per_class"][name]["recall"] for name in NAMES] == pytest.approx(recall)


def test_slices_are_measured_alone_and_small_ones_have_no_interval() -> None:
    data, _ = scored()
    weather = ["rain" if i < 15 else None if i < 200 else "clear" for i in range(400)]
    slices = evaluate(data, NAMES, {"weather": weather}, 100, 0.95, 0, 20)["slices"]["weather"]
    assert {name: part["n"] for name, part in slices.items()} == {"(none)": 185, "clear": 200, "rain": 15}
    right = data.decisions.prediction == data.labels
    assert slices["clear"]["metrics"]["accuracy"]["value"] == pytest.approx(right[200:].mean())
    assert slices["rain"]["metrics"]["accuracy"]["low"] is None
    assert slices["clear"]["metrics"]["accuracy"]["low"] is not None


def test_the_roc_rises_from_the_origin_with_finite_thresholds() -> None:
    data, _ = scored(positive=("Cones", "Sign"))
    points = evaluate(data, NAMES, {}, 10, 0.95, 0, 20)["roc"]
    assert len(points) <= 101 and (points[0]["fpr"], points[0]["tpr"]) == (0, 0)
    assert (points[-1]["fpr"], points[-1]["tpr"]) == (1, 1)
    assert all(np.isfinite(point["threshold"]) for point in points)
    area = np.trapezoid([p["tpr"] for p in points], [p["fpr"] for p in points])
    assert area == pytest.approx(sk.roc_auc_score(data.labels > 0, data.decisions.score), abs=0.01)


def test_the_risk_coverage_curve_ends_at_the_error_rate() -> None:
    data, _ = scored()
    last = evaluate(data, NAMES, {}, 10, 0.95, 0, 20)["risk_coverage"][-1]
    assert last == {"coverage": 1.0, "risk": pytest.approx((data.decisions.prediction != data.labels).mean())}


def test_figures_at_a_prior_are_those_of_images_repeated_until_classes_are_as_frequent() -> None:
    data, _ = scored(classes=2, positive=NAMES[1:2])
    counts = np.bincount(data.labels)
    times = np.array([9 * counts[1], counts[0]])  # of each class, so that nine in ten are of the first
    rows = np.repeat(np.arange(400), times[data.labels])
    repeated = Scored(data.labels[rows], data.groups[rows], data.decisions.take(rows), data.positive)
    figures = at_prior(data, np.array([0.9, 0.1]), 200, 0.95, 0)
    expected = metrics(repeated, 0, 0.95, 0)
    assert set(figures) == {"coverage", "selective_risk", "false_alarms", "missed"}
    for name, figure in figures.items():
        assert figure["value"] == pytest.approx(value(expected, name)), name
        assert figure["low"] < figure["value"] < figure["high"]


def test_figures_at_a_prior_are_undefined_without_an_image_of_a_class() -> None:
    data, _ = scored(classes=3)
    some = data.take(data.labels != 2)
    figures = at_prior(some, np.array([0.5, 0.3, 0.2]), 20, 0.95, 0)
    assert figures["coverage"] == {"value": None, "low": None, "high": None}


def test_promised_slices_are_counted_beside_what_was_promised() -> None:
    """Of six rainy images four are accepted, one of them wrong; nothing is known of snow, nor of fog."""
    logits = np.array([[9.0, 0], [9, 0], [0, 9], [0, 9], [1, 0], [1, 0], [9, 0], [9, 0]])
    labels = np.array([0, 1, 1, 1, 0, 0, 0, 1])
    policy = Policy(("a", "b"), (), "threshold", 5.0)
    rows = Scored(labels, np.array(list("ccddeeff")), policy.apply(logits), policy.positive_mask())
    promises = [{"kind": "overall", "of_slice": None, "alpha": 0.1, "certified": True}] + [
        {"kind": "slice", "of_slice": {"tag": tag, "value": value}, "alpha": 0.3, "certified": value == "rain"}
        for tag, value in (("weather", "rain"), ("weather", "snow"), ("sight", "fog"))
    ]
    rain, snow, fog = promised_slices(rows, {"weather": [*["rain"] * 6, None, "sun"]}, promises, 100, 0.95, 0)
    assert (rain["tag"], rain["value"], rain["alpha"], rain["certified"], rain["n"]) == (
        "weather",
        "rain",
        0.3,
        True,
        6,
    )
    assert rain["coverage"]["value"] == 4 / 6 and rain["selective_risk"]["value"] == 1 / 4
    assert 0 <= rain["selective_risk"]["low"] < 1 / 4 < rain["selective_risk"]["high"] <= 1
    for none in (snow, fog):
        assert none["n"] == 0 and not none["certified"]
        assert none["selective_risk"] == {"value": None, "low": None, "high": None}
