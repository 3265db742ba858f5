"""calibrate, phase 5: VAL_CALIB logits -> scrcparams.json, a temperature and an accept rule with its guarantee.

Prediction sets (`scrc.sets`) need rows that neither the temperature nor the accept rule has seen, so with them half of
the groups of VAL_CALIB goes to each; without them both use all of it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from natix_lib import config
from natix_lib.config.step_settings import CalibrateSettings
from natix_lib.decisions import Certificate, Policy, certify_selection, fit_prediction_sets, fit_temperature
from natix_lib.decisions.binomial import upper_risk_bound
from natix_lib.decisions.curve import Ranking, rank, thin
from natix_lib.decisions.draws import first_half, independent_rows
from natix_lib.decisions.intervals import bootstrap_means
from natix_lib.decisions.metrics import brier, classwise_ece, ece, ece_with_null
from natix_lib.decisions.policy import ABSTAIN_ALL, ACCEPT_ALL, CALIBRATE_METHOD, SETS_SCORE, THRESHOLD
from natix_lib.decisions.score import Bools, Floats, Ints, log_odds_at, predictions_and_log_odds, softmax
from natix_lib.decisions.sets import PAC
from natix_lib.decisions.sweep import require_two_classes
from natix_lib.decisions.temperature import negative_log_likelihood
from natix_lib.errors import CalibrationError
from natix_lib.files import JsonDict, write_bytes, write_json
from natix_lib.logits import CalibrationSet, read_pair
from natix_lib.reports.render import render_policy
from natix_lib.steps.policies import acceptance, document_of, provenance, tuned_cut, write_curve

SEED = 0  # of the resamples: no decision hangs on it, and no key lets a person look for a kinder one
NLL_SPAN, NLL_POINTS = 4.0, 25  # the plotted temperatures: T/4 to 4 T, and 1


def run(
    settings: Mapping[str, Any],
    val_calib_logits: str,
    val_calib_labels: str,
    scrcparams: str,
    scrc_curve: str,
    calibration_report: str,
) -> dict[str, float]:
    """Fit the temperature and certify the accept rule.

    Args:
        settings: `CalibrateSettings`.
        val_calib_logits: Logits file.
        val_calib_labels: Labels file.
        scrcparams: scrcparams.json to write.
        scrc_curve: Parquet to write.
        calibration_report: HTML to write.

    Returns:
        Temperature, coverage and risk on VAL_CALIB, whether the rule is certified, and NLL and ECE before and after.

    Raises:
        NatixError: If the files do not belong together, or nothing is certified and `scrc.on_infeasible` is `fail`.
    """
    wanted = config.parse(CalibrateSettings, settings).scrc
    data = read_pair("calibrate", val_calib_logits, val_calib_labels)
    predicted, scores = predictions_and_log_odds(data.logits)
    require_two_classes(data.labels, predicted)
    wrong = predicted != data.labels
    n = len(scores)
    alone = wanted.sets == "none"
    fitting = np.ones(n, dtype=np.bool_) if alone else first_half(data.groups, data.logits, data.labels)
    groups = None if data.groups is None else data.groups[fitting]
    fit = fit_temperature(data.logits[fitting], data.labels[fitting], groups)
    certificate = certify_selection(
        scores[fitting],
        wrong[fitting],
        wanted.alpha,
        wanted.delta,
        groups,
        wanted.procedure,
        [log_odds_at(p) for p in wanted.grid] or None,
    )
    tested, _ = independent_rows(groups, scores[fitting], wrong[fitting])
    ranking = rank(scores[fitting][tested], wrong[fitting][tested])
    mode, threshold = _accept_rule(certificate, scores[fitting], wrong[fitting], wanted)
    cut, trial = tuned_cut(data, fit.temperature, wanted.tune_cut)
    policy = Policy(
        class_names=tuple(data.class_names),
        positive_classes=tuple(data.positive_classes),
        method=CALIBRATE_METHOD,
        mode=mode,
        threshold=threshold,
        temperature=fit.temperature,
        cut=None if cut is None else cut.logodds,
    )
    decisions = policy.apply(data.logits)
    accepted = decisions.accepted
    probabilities = {"before": softmax(data.logits), "after": decisions.probabilities}
    nll = {
        name: negative_log_likelihood(data.logits, data.labels, t)
        for name, t in (("before", 1.0), ("after", fit.temperature))
    }
    figures, reliability = {}, {}
    for name, p in probabilities.items():
        figures[name], reliability[f"reliability_{name}"] = _metrics(p, nll[name], predicted, data.labels, wanted)
    risk = float(wrong[accepted].mean()) if accepted.any() else None
    kept = accepted[fitting][tested]
    document = {
        **document_of(policy, cut, trial),
        "calibration_loss": fit.nll,
        "sets": _sets(data, probabilities["after"], accepted, ~fitting, wanted),
        "guarantee": _guarantee(certificate, wanted),
        "fit": {"status": fit.status, "reason": fit.reason, "passes": fit.passes, "gradient": fit.gradient},
        "n": n,
        "coverage": float(accepted.mean()),
        "selective_risk": risk,
        "metrics": {**figures, "intervals": _intervals(data, probabilities, nll, wanted)},
        "curves": {
            **reliability,
            "risk_coverage": _risk_coverage(ranking, certificate.delta_spent, int(kept.sum())),
            "chosen": {
                "coverage": float(kept.mean()),
                "risk": float(wrong[fitting][tested][kept].mean()) if kept.any() else None,
            },
            "nll": _nll_curve(data, fit.temperature),
            "acceptance": acceptance(data, accepted),
        },
        "provenance": provenance(data, val_calib_logits, val_calib_labels),
    }
    write_curve(
        scrc_curve,
        {
            "threshold_logodds": ranking.thresholds,
            "accepted": ranking.ends,
            "coverage": ranking.ends / ranking.ends[-1],
            "selective_risk": ranking.errors / ranking.ends,
        },
    )
    write_bytes(calibration_report, render_policy(document).encode())
    write_json(scrcparams, document)
    return {
        "temperature": fit.temperature,
        "coverage": float(accepted.mean()),
        **({} if risk is None else {"selective_risk": risk}),
        "certified": float(certificate.certified),
        "nll_before": figures["before"]["nll"],
        "nll_after": figures["after"]["nll"],
        "ece_before": figures["before"]["ece"],
        "ece_after": figures["after"]["ece"],
    }


def _accept_rule(
    certificate: Certificate, scores: Floats, wrong: Bools, wanted: config.Scrc
) -> tuple[str, float | None]:
    """Mode and threshold: the certified rule, or what `on_infeasible` says."""
    threshold = certificate.threshold
    if threshold is None:
        if wanted.on_infeasible == "fail":
            raise CalibrationError(
                f"zero coverage: {certificate.reason}; more VAL_CALIB images, a larger scrc.alpha, or "
                "scrc.on_infeasible: empirical or abstain"
            )
        if wanted.on_infeasible == "abstain":
            return ABSTAIN_ALL, None
        ranking = rank(scores, wrong)
        allowed = np.flatnonzero(ranking.errors / ranking.ends <= wanted.alpha)
        if not len(allowed):
            raise CalibrationError(
                f"zero coverage: no threshold has an empirical risk of at most scrc.alpha {wanted.alpha:g}"
            )
        threshold = float(ranking.thresholds[allowed[-1]])
    return (ACCEPT_ALL, None) if threshold == -np.inf else (THRESHOLD, threshold)


def _guarantee(certificate: Certificate, wanted: config.Scrc) -> JsonDict:
    return {
        "kind": "selective_risk",
        "procedure": wanted.procedure,
        "alpha": wanted.alpha,
        "delta": wanted.delta,
        "n": certificate.n,
        "m": certificate.accepted,
        "k": certificate.errors,
        "upper_bound": certificate.upper_bound,
        "certified": certificate.certified,
        "unit": certificate.unit,
        "reason": certificate.reason,
    }


def _sets(
    data: CalibrationSet, probabilities: Floats, accepted: Bools, rows: Bools, wanted: config.Scrc
) -> JsonDict | None:
    """The prediction sets, fitted on the half that nothing else has seen."""
    if wanted.sets == "none":
        return None
    found = fit_prediction_sets(
        probabilities[rows],
        data.labels[rows],
        accepted[rows],
        wanted.sets_alpha,
        wanted.delta,
        None if data.groups is None else data.groups[rows],
        wanted.sets,
    )
    return {
        "score": SETS_SCORE,
        "threshold": found.threshold,
        "procedure": found.procedure,
        "alpha": wanted.sets_alpha,
        "delta": wanted.delta if found.procedure == PAC else None,
        "m": found.m,
        "k": found.k,
        "upper_bound": found.upper_bound,
        "certified": found.certified,
        "unit": found.unit,
        "reason": found.reason,
        "promise": found.promise,
    }


def _metrics(
    probabilities: Floats, nll: Floats, predicted: Ints, labels: Ints, wanted: config.Scrc
) -> tuple[JsonDict, list[dict[str, float]]]:
    """Figures of calibration, and the reliability diagram."""
    confidence, right = probabilities.max(axis=1), predicted == labels
    test = ece_with_null(confidence, right, wanted.bootstrap, SEED)
    figures = {
        "nll": float(nll.mean()),
        "brier": float(brier(probabilities, labels).mean()),
        "ece": test.value,
        "ece_null_mean": test.null_mean,
        "ece_null_high": test.null_high,
        "ece_p_value": test.p_value,
        "ece_equal_mass": ece(confidence, right, equal_mass=True),
        "ece_classwise": classwise_ece(probabilities, labels),
    }
    return figures, test.reliability


def _intervals(
    data: CalibrationSet, probabilities: Mapping[str, Floats], nll: Mapping[str, Floats], wanted: config.Scrc
) -> JsonDict:
    """95 % intervals of after minus before, paired, whole groups resampled; None where there can be none."""
    groups = np.arange(len(data.labels)) if data.groups is None else data.groups
    squared = {name: brier(p, data.labels) for name, p in probabilities.items()}
    differences = np.stack([rows["after"] - rows["before"] for rows in (nll, squared)], axis=1)
    nll_range, brier_range = bootstrap_means(differences, groups, wanted.bootstrap, SEED)
    return {"nll_difference": nll_range, "brier_difference": brier_range}


def _risk_coverage(ranking: Ranking, delta: float, accepted: int) -> list[JsonDict]:
    """Points of the tested curve: the risk seen, and its upper bound at the confidence spent on one test.

    One is where the policy accepts `accepted` of the rows tested.
    """
    return [
        {
            "coverage": float(ranking.ends[i] / ranking.ends[-1]),
            "risk": float(ranking.errors[i] / ranking.ends[i]),
            "bound": upper_risk_bound(int(ranking.errors[i]), int(ranking.ends[i]), delta),
        }
        for i in thin(ranking.ends, accepted)
    ]


def _nll_curve(data: CalibrationSet, temperature: float) -> list[JsonDict]:
    """Mean NLL around the fitted temperature and at 1."""
    around = temperature * np.geomspace(1 / NLL_SPAN, NLL_SPAN, NLL_POINTS)
    return [
        {"temperature": float(t), "nll": float(negative_log_likelihood(data.logits, data.labels, t).mean())}
        for t in np.unique(np.append(around, 1.0))
    ]
