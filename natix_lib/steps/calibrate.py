"""calibrate, phase 5: VAL_CALIB logits -> scrcparams.json, a temperature and an accept rule with its guarantee."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from natix_lib import config
from natix_lib.contracts import SCHEMA_VERSION
from natix_lib.decisions import Certificate, certify_selection, fit_temperature, log_odds
from natix_lib.decisions.curve import rank
from natix_lib.decisions.metrics import bootstrap_mean, brier, classwise_ece, ece, ece_with_null
from natix_lib.decisions.policy import ABSTAIN_ALL, ACCEPT_ALL, CALIBRATE_METHOD, THRESHOLD
from natix_lib.decisions.score import Bools, Floats, Ints, predictions, softmax
from natix_lib.decisions.sweep import require_two_classes
from natix_lib.decisions.temperature import negative_log_likelihood
from natix_lib.errors import CalibrationError
from natix_lib.files import JsonDict, write_json
from natix_lib.logits import CalibrationSet, read_pair
from natix_lib.steps.policies import ACCEPT_RULE, decision, origin, write_curve


def run(
    settings: Mapping[str, Any], val_calib_logits: str, val_calib_labels: str, scrcparams: str, scrc_curve: str
) -> dict[str, float]:
    """Fit the temperature and certify the accept rule.

    Args:
        settings: `config.CalibrateSettings`.
        val_calib_logits: Logits file.
        val_calib_labels: Labels file.
        scrcparams: scrcparams.json to write.
        scrc_curve: Parquet to write.

    Returns:
        Temperature, coverage and risk on VAL_CALIB, whether the rule is certified, and NLL and ECE before and after.

    Raises:
        NatixError: If the files do not belong together, or nothing is certified and `scrc.on_infeasible` is `fail`.
    """
    wanted = config.parse(config.CalibrateSettings, settings).scrc
    data = read_pair("calibrate", val_calib_logits, val_calib_labels)
    values, labels = data.logits.astype(np.float64), data.labels
    predicted = predictions(values)
    require_two_classes(labels, predicted)
    wrong = predicted != labels
    fit = fit_temperature(values, labels)
    scores = log_odds(values)
    certificate = certify_selection(
        scores, wrong, wanted.alpha, wanted.delta, data.groups, wanted.procedure, wanted.seed
    )
    mode, threshold = _accept_rule(certificate, scores, wrong, wanted)
    accepted = np.full(len(scores), mode == ACCEPT_ALL) if threshold is None else scores > threshold
    before, after = (_metrics(values / t, labels, wanted) for t in (1.0, fit.temperature))
    risk = float(wrong[accepted].mean()) if accepted.any() else None
    document = {
        "artifact": "scrcparams",
        "schema_version": SCHEMA_VERSION,
        "method": CALIBRATE_METHOD,
        "temperature": fit.temperature,
        "calibration_loss": fit.nll,
        "accept": {**ACCEPT_RULE, "score_temperature": 1, "mode": mode, "threshold": threshold},
        "sets": None,
        "guarantee": {
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
        },
        "fit": {"status": fit.status, "passes": fit.passes, "gradient": fit.gradient},
        "coverage": float(accepted.mean()),
        "selective_risk": risk,
        "metrics": {"before": before, "after": after, "intervals": _intervals(data, fit.temperature, wanted)},
        "decision": decision(data, fit.temperature, wanted.tune_cut),
        **origin(data, val_calib_logits, val_calib_labels),
    }
    ranking = rank(scores, wrong)
    write_curve(
        scrc_curve,
        {
            "threshold_logodds": ranking.thresholds,
            "accepted": ranking.ends,
            "coverage": ranking.ends / len(scores),
            "selective_risk": ranking.errors / ranking.ends,
        },
    )
    write_json(scrcparams, document)
    return {
        "temperature": fit.temperature,
        "coverage": float(accepted.mean()),
        **({} if risk is None else {"selective_risk": risk}),
        "certified": float(certificate.certified),
        "nll_before": before["nll"],
        "nll_after": after["nll"],
        "ece_before": before["ece"],
        "ece_after": after["ece"],
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


def _metrics(scaled: Floats, labels: Ints, wanted: config.Scrc) -> JsonDict:
    probabilities = softmax(scaled)
    confidence, right = probabilities.max(axis=1), predictions(scaled) == labels
    test = ece_with_null(confidence, right, wanted.bootstrap, wanted.seed)
    return {
        "nll": float(negative_log_likelihood(scaled, labels).mean()),
        "brier": float(brier(probabilities, labels).mean()),
        "ece": test.value,
        "ece_null_mean": test.null_mean,
        "ece_null_high": test.null_high,
        "ece_p_value": test.p_value,
        "ece_equal_mass": ece(confidence, right, equal_mass=True),
        "ece_classwise": classwise_ece(probabilities, labels),
    }


def _intervals(data: CalibrationSet, temperature: float, wanted: config.Scrc) -> JsonDict:
    """95 % intervals of after minus before, paired, whole groups resampled."""
    groups = np.arange(len(data.labels)) if data.groups is None else data.groups
    values = data.logits.astype(np.float64)
    differences = {
        "nll_difference": negative_log_likelihood(values, data.labels, temperature)
        - negative_log_likelihood(values, data.labels),
        "brier_difference": brier(softmax(values / temperature), data.labels) - brier(softmax(values), data.labels),
    }
    return {
        name: list(bootstrap_mean(rows, groups, wanted.bootstrap, wanted.seed)) for name, rows in differences.items()
    }
