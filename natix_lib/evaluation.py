"""How good decisions are on TEST: metrics with intervals, a baseline, slices, and the curves of the report.

Intervals come from resamples of whole groups, because frames of one drive are not independent, and those of shares are
at least as wide as an exact one (see `natix_lib.decisions.intervals`). Every metric but AUROC and ECE is a function of
sums over rows, so the resamples of all of them are one matrix product. ECE has no percentile interval (see
`natix_lib.decisions.metrics`): its null under perfect calibration stands in its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.decisions.curve import rank, thin
from natix_lib.decisions.intervals import group_weights, percentile_interval, share_interval, wider
from natix_lib.decisions.joint import OF_SLICE
from natix_lib.decisions.matthews import matthews
from natix_lib.decisions.metrics import EceTest, brier, ece_with_null
from natix_lib.decisions.policy import Decisions
from natix_lib.decisions.score import check_mask, has_binary_score
from natix_lib.files import JsonDict

OUTCOMES = {"missed": (0, 1), "false_alarms": (2, 3), "published": (3, 6), "cleared": (4, 6), "asked": (5, 6)}


@dataclass(frozen=True)
class Scored:
    """Decisions on labelled images.

    Attributes:
        labels: int64 (n,).
        groups: Group of each image, (n,).
        decisions: What the policy says of them.
        positive: Which classes are positive, (C,); all False when the task has no binary score.
    """

    labels: Ints
    groups: NDArray[np.str_]
    decisions: Decisions
    positive: Bools

    def is_binary(self) -> bool:
        """Whether there are positive classes and others: then the score is binary."""
        return has_binary_score(self.positive)

    def take(self, mask: ArrayLike) -> "Scored":
        """The rows of a mask, (n,)."""
        rows = check_mask("mask", mask, len(self.labels))
        return Scored(self.labels[rows], self.groups[rows], self.decisions.take(rows), self.positive)


def evaluate(
    scored: Scored,
    class_names: Sequence[str],
    tags: Mapping[str, Sequence[str | None]],
    resamples: int,
    confidence: float,
    seed: int,
    min_slice: int,
) -> JsonDict:
    """Everything that evaluation.json says of the numbers; see docs/artifacts.md.

    Args:
        scored: Decisions on TEST, n >= 1.
        class_names: C names.
        tags: Tag to the value of each image.
        resamples: Resamples of the groups behind every interval; 0 gives no interval.
        confidence: Confidence of the intervals, both sides together, in (0, 1).
        seed: Seed of the resamples.
        min_slice: Slices with fewer images get no interval.
    """
    labels, prediction = scored.labels, scored.decisions.prediction
    calibration = _calibration(scored, resamples, seed)
    classes = len(class_names)
    counts = np.bincount(labels, minlength=classes)
    majority = int(counts.argmax())
    baseline = np.asarray(labels == majority, dtype=np.float64)
    right = np.asarray(prediction == labels, dtype=np.float64)
    worse = _score_loss(scored)
    sums = _Sums(np.stack([np.ones_like(right), baseline, right - baseline, worse], axis=1), scored, resamples, seed)
    confusion = np.bincount(labels * classes + prediction, minlength=classes**2).reshape(classes, classes)
    return {
        "n": len(labels),
        "groups": sums.groups,
        "confidence": confidence,
        "metrics": metrics(scored, resamples, confidence, seed, calibration),
        "reliability": calibration.reliability,
        "baseline": {
            "class": class_names[majority],
            "accuracy": sums.share(1, 0, confidence),
            "gain": sums.share(2, 0, confidence, least=-1.0),
        },
        "score_loss": sums.share(3, 0, confidence, least=-1.0) if scored.is_binary() else None,
        "confusion": confusion.tolist(),
        "per_class": _per_class(confusion, class_names),
        "slices": _slices(scored, tags, resamples, confidence, seed, min_slice),
        "roc": _roc(scored),
        "risk_coverage": _risk_coverage(scored),
    }


def metrics(
    scored: Scored, resamples: int, confidence: float, seed: int, calibration: EceTest | None = None
) -> JsonDict:
    """Metric name to `{value, low, high}`; a value that is not defined is None, an absent interval is None.

    No interval is there without resamples, and none but of shares of images with few groups or a metric that does not
    vary.

    `accuracy`, `macro_f1` (over classes with a label or a prediction), `mcc` (Gorodkin's R_K), `auroc` (of the binary
    score, else macro one-against-rest), `nll` (nats), `brier`, `ece` (with `null_high` and `p_value`), `coverage`,
    `selective_risk`; with positive classes also what a person is told (`published` and `cleared`, accepted as positive
    and as something else, and `asked`, shares of all), the shares of these that are wrong (`false_alarms` of the
    published, `missed` of the true positives), and `score_accuracy` and `score_mcc` of the score rounded at 0.5; with
    prediction sets also, of the accepted, `set_coverage` (the set holds the label) and `set_size` (mean classes in it).
    The test of calibration is made here unless it is given.
    """
    labels, d = scored.labels, scored.decisions
    n, classes = d.probabilities.shape
    eye = np.eye(classes)
    wrong = d.prediction != labels
    true, predicted = eye[labels], eye[d.prediction]
    sets = np.zeros((n, classes), dtype=np.bool_) if d.sets is None else d.sets
    label_probability = np.maximum(d.probabilities[np.arange(n), labels], np.finfo(np.float64).tiny)
    columns = [
        np.ones((n, 1)),
        -np.log(label_probability)[:, None],
        brier(d.probabilities, labels)[:, None],
        d.accepted[:, None],
        (d.accepted & wrong)[:, None],
        (d.accepted & sets[np.arange(n), labels])[:, None],
        (d.accepted * sets.sum(axis=1))[:, None],
        true * predicted,
        true,
        predicted,
    ]
    columns.append((~wrong)[:, None])
    sums = _Sums(np.concatenate(columns, axis=1).astype(np.float64), scored, resamples, seed)
    total, nll, squared, accepted, _, _, set_sizes = sums.all[:, :7].T
    hit, true_sum, predicted_sum = (sums.all[:, 7 + i * classes : 7 + (i + 1) * classes] for i in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.nanmean(np.where(true_sum + predicted_sum > 0, 2 * hit / (true_sum + predicted_sum), np.nan), axis=1)
        figures: JsonDict = {
            "accuracy": sums.share(-1, 0, confidence),
            "macro_f1": sums.interval(f1, confidence),
            "mcc": sums.interval(matthews(hit, true_sum, predicted_sum, total), confidence),
            "auroc": _auroc(scored, sums, confidence),
            "nll": sums.interval(nll / total, confidence),
            "brier": sums.interval(squared / total, confidence),
            "ece": _ece(calibration or _calibration(scored, resamples, seed)),
            "coverage": sums.share(3, 0, confidence),
            "selective_risk": sums.share(4, 3, confidence),
        }
        if d.sets is not None:
            figures["set_coverage"] = sums.share(5, 3, confidence)
            figures["set_size"] = sums.interval(set_sizes / accepted, confidence)
    if scored.is_binary():
        truth, rounded = scored.positive[labels], d.score > 0.5
        predicted_positive = scored.positive[d.prediction]
        published, cleared = d.accepted & predicted_positive, d.accepted & ~predicted_positive
        flags = [cleared & truth, truth, published & ~truth, published, cleared, ~d.accepted, np.ones_like(truth)]
        outcome = _Sums(np.stack(flags, axis=1).astype(np.float64), scored, resamples, seed)
        for name, (top, bottom) in OUTCOMES.items():
            figures[name] = outcome.share(top, bottom, confidence)
        for name, answer in (("score", rounded), ("label", predicted_positive)):
            pairs = [
                ~truth & ~answer,
                truth & answer,
                ~truth,
                truth,
                ~answer,
                answer,
                answer == truth,
                np.ones_like(truth),
            ]
            part = _Sums(np.stack(pairs, axis=1).astype(np.float64), scored, resamples, seed)
            mcc = matthews(part.all[:, :2], part.all[:, 2:4], part.all[:, 4:6], part.all[:, 7])
            figures[f"{name}_accuracy"] = part.share(6, 7, confidence)
            figures[f"{name}_mcc"] = part.interval(mcc, confidence)
    return figures


def at_prior(scored: Scored, prior: Floats, resamples: int, confidence: float, seed: int) -> JsonDict:
    """What the accepted would show if classes were as frequent as `prior` says, (C,), and looked as they do here.

    Each image weighs prior / share of its class, the share counted anew in each resample. `coverage` and
    `selective_risk`; with positive classes also `false_alarms`, of the published, and `missed`, of the positives; each
    `{value, low, high}`, all None where a class has no image. The intervals are those of resampled groups alone: of few
    images of a class that weighs much they are too short.
    """
    labels, d = scored.labels, scored.decisions
    classes = len(prior)
    of = np.eye(classes)[labels]
    called, truth = scored.positive[d.prediction], scored.positive[labels]
    flags = (d.accepted, d.accepted & (d.prediction != labels), d.accepted & called, d.accepted & called & ~truth)
    columns = [of, *(of * flag[:, None] for flag in (*flags, truth, d.accepted & ~called & truth))]
    sums = _Sums(np.concatenate(columns, axis=1), scored, resamples, seed)
    counts, *rest = np.split(sums.all, len(columns), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = prior / counts
        accepted, wrong, published, false, positives, missed = ((weights * each).sum(axis=1) for each in rest)
        figures = {"coverage": accepted, "selective_risk": wrong / accepted}
        if scored.is_binary():
            figures |= {"false_alarms": false / published, "missed": missed / positives}
    return {name: sums.interval(values, confidence) for name, values in figures.items()}


def _score_loss(scored: Scored) -> Floats:
    """By image: 1 where the label alone says rightly whether it is positive, -1 where the rounded score alone does."""
    truth, d = scored.positive[scored.labels], scored.decisions
    by_label, by_score = scored.positive[d.prediction] == truth, (d.score > 0.5) == truth
    result: Floats = by_label.astype(np.float64) - by_score.astype(np.float64)
    return result


class _Sums:
    """Sums of columns over all images, over each group, and over resamples of whole groups."""

    def __init__(self, columns: Floats, scored: Scored, resamples: int, seed: int) -> None:
        """Of columns (n, K); `all` is first over all images, then over each resample, (1 + B, K)."""
        self.number, self.draws = group_weights(scored.groups, resamples, seed)
        self.groups = int(self.draws.shape[1])
        self.of_group = np.zeros((self.groups, columns.shape[1]))
        np.add.at(self.of_group, self.number, columns)
        self.all = np.vstack([self.of_group.sum(axis=0), self.draws @ self.of_group])

    def interval(self, values: Floats, confidence: float) -> JsonDict:
        """Value (the first) and percentile interval (over the rest)."""
        if not np.isfinite(values[0]):
            return {"value": None, "low": None, "high": None}
        low, high = percentile_interval(values[1:], self.groups, confidence) or (None, None)
        return {"value": float(values[0]), "low": low, "high": high}

    def share(self, top: int, bottom: int, confidence: float, least: float = 0.0) -> JsonDict:
        """As `interval`, for one column over another of which it is a share, or a difference of two shares."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.all[:, top] / self.all[:, bottom]
        if not np.isfinite(values[0]) or not len(self.draws):
            return self.interval(values, confidence)
        exact = share_interval(self.of_group[:, top], self.of_group[:, bottom], confidence, least)
        low, high = wider(exact, percentile_interval(values[1:], self.groups, confidence))
        return {"value": float(values[0]), "low": low, "high": high}


def _auroc(scored: Scored, sums: _Sums, confidence: float) -> JsonDict:
    """AUROC of the binary score, else the mean over classes of one against the rest."""
    labels, d = scored.labels, scored.decisions
    if scored.is_binary():
        tasks = [(d.score, scored.positive[labels])]
    else:
        tasks = [(d.probabilities[:, c], labels == c) for c in range(d.probabilities.shape[1])]
    tasks = [(score, truth) for score, truth in tasks if truth.any() and not truth.all()]
    if not tasks:
        return {"value": None, "low": None, "high": None}
    curves = [_auroc_draws(score, truth, sums.number, sums.draws) for score, truth in tasks]
    return sums.interval(np.mean(curves, axis=0), confidence)


def _auroc_draws(score: Floats, truth: Bools, number: Ints, draws: NDArray[np.int64]) -> Floats:
    """AUROC (ties count half) over all rows, then over each draw; (1 + B,); NaN where a draw has one class only."""
    levels, level = np.unique(score, return_inverse=True)
    result = np.empty(len(draws) + 1)
    for i in range(len(result)):
        weight = np.ones(len(score)) if i == 0 else draws[i - 1][number].astype(np.float64)
        positive = np.bincount(level, weight * truth, len(levels))
        negative = np.bincount(level, weight * ~truth, len(levels))
        below = np.cumsum(negative) - negative
        pairs = positive.sum() * negative.sum()
        result[i] = (positive * (below + 0.5 * negative)).sum() / pairs if pairs else np.nan
    return result


def _calibration(scored: Scored, resamples: int, seed: int) -> EceTest:
    d = scored.decisions
    return ece_with_null(d.probabilities.max(axis=1), d.prediction == scored.labels, max(resamples, 1), seed)


def _ece(test: EceTest) -> JsonDict:
    return {"value": test.value, "low": None, "high": None, "null_high": test.null_high, "p_value": test.p_value}


def _per_class(confusion: NDArray[np.int64], class_names: Sequence[str]) -> JsonDict:
    rows = {}
    for c, name in enumerate(class_names):
        hit, true, predicted = int(confusion[c, c]), int(confusion[c].sum()), int(confusion[:, c].sum())
        rows[name] = {
            "n": true,
            "recall": hit / true if true else None,
            "precision": hit / predicted if predicted else None,
        }
    return rows


def _slices(
    scored: Scored,
    tags: Mapping[str, Sequence[str | None]],
    resamples: int,
    confidence: float,
    seed: int,
    min_slice: int,
) -> JsonDict:
    figures: JsonDict = {}
    for tag, values in sorted(tags.items()):
        texts = np.array(["(none)" if value is None else value for value in values])
        figures[tag] = {}
        for value in sorted(set(texts.tolist())):
            part = scored.take(texts == value)
            n = len(part.labels)
            draws = resamples if n >= min_slice else 0
            figures[tag][value] = {"n": n, "metrics": metrics(part, draws, confidence, seed)}
    return figures


def promised_slices(
    scored: Scored,
    tags: Mapping[str, Sequence[str | None]],
    promises: Sequence[JsonDict],
    resamples: int,
    confidence: float,
    seed: int,
) -> list[JsonDict]:
    """What each slice had of which something was asked for: the share accepted, and the share of these that is wrong.

    Args:
        scored: Decisions on TEST, n >= 1.
        tags: Tag to the value of each image.
        promises: `guarantee.promises` of the policy's file.
        resamples: As in `evaluate`, and so the others.
        confidence: Confidence of the intervals.
        seed: Seed of the resamples.

    Returns:
        Of each slice, in the order of the promises, the promise's `tag`, `value`, `alpha` and `certified`, the images
        `n`, and `coverage` and `selective_risk` as in `metrics`.
    """
    wrong, accepted = scored.decisions.prediction != scored.labels, scored.decisions.accepted
    figures = []
    for each in promises:
        if each["kind"] != OF_SLICE:
            continue
        tag, value = each["of_slice"]["tag"], each["of_slice"]["value"]
        rows = np.array([one == value for one in tags.get(tag, [None] * len(wrong))])
        shares = {name: {"value": None, "low": None, "high": None} for name in ("coverage", "selective_risk")}
        if rows.any():
            flags = np.stack([np.ones_like(accepted), accepted, accepted & wrong], axis=1)[rows]
            sums = _Sums(flags.astype(np.float64), scored.take(rows), resamples, seed)
            shares = {"coverage": sums.share(1, 0, confidence), "selective_risk": sums.share(2, 1, confidence)}
        promised = {"tag": tag, "value": value, "alpha": each["alpha"], "certified": each["certified"]}
        figures.append({**promised, "n": int(rows.sum()), **shares})
    return figures


def _roc(scored: Scored) -> list[dict[str, float]]:
    """ROC of the binary score: threshold falling from 1, finite."""
    if not scored.is_binary():
        return []
    truth, score = scored.positive[scored.labels], scored.decisions.score
    if truth.all() or not truth.any():
        return []
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(score[order][1:] < score[order][:-1], True))
    tpr, fpr = (np.cumsum(flags[order])[ends] / flags.sum() for flags in (truth, ~truth))
    points = [{"threshold": 1.0, "fpr": 0.0, "tpr": 0.0}]
    for i in thin(ends):
        points.append({"threshold": float(score[order][ends[i]]), "fpr": float(fpr[i]), "tpr": float(tpr[i])})
    return points


def _risk_coverage(scored: Scored) -> list[dict[str, float]]:
    """Selective risk at each coverage, most confident first."""
    ranking = rank(scored.decisions.confidence, scored.decisions.prediction != scored.labels)
    n = len(scored.labels)
    return [
        {"coverage": float(ranking.ends[i] / n), "risk": float(ranking.errors[i] / ranking.ends[i])}
        for i in thin(ranking.ends, int(scored.decisions.accepted.sum()))
    ]
