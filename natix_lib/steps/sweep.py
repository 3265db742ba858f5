"""sweep: VAL_CALIB logits -> thresholds.json, the whole threshold curve and its plots."""

from collections.abc import Mapping
from typing import Any

from natix_lib import config
from natix_lib.config.step_settings import SweepSettings
from natix_lib.contracts import VAL_CALIB
from natix_lib.decisions import Policy, ThresholdSweep, sweep_thresholds
from natix_lib.decisions.curve import thin
from natix_lib.decisions.policy import ACCEPT_ALL, SWEEP_METHOD, THRESHOLD
from natix_lib.decisions.score import probability
from natix_lib.decisions.sweep import constant_prediction
from natix_lib.files import JsonDict, write_bytes, write_json
from natix_lib.logits import read_pair
from natix_lib.progress import WARNING, Lines
from natix_lib.reports.render import render_policy
from natix_lib.steps.policies import acceptance, document_of, naming_keys, provenance, tuned_cut, write_curve


def run(
    settings: Mapping[str, Any],
    *,
    val_calib_logits: str,
    val_calib_labels: str,
    thresholds: str,
    sweep_curve: str,
    sweep_report: str,
) -> dict[str, float]:
    """Choose the rejection threshold.

    Args:
        settings: What sweep reads of the config: the keys of `SweepSettings`.
        val_calib_logits: File with the logits of VAL_CALIB.
        val_calib_labels: File with the labels of the same images.
        thresholds: Path to write thresholds.json to.
        sweep_curve: Path to write the whole curve to, as Parquet.
        sweep_report: Path to write the curve's page to, as HTML.

    Returns:
        Threshold, coverage, selective risk, macro-F1 and the areas under the risk curves.

    Raises:
        NatixError: If the files do not belong together or allow no threshold.
    """
    section = config.parse(SweepSettings, settings).sweep
    data = read_pair(val_calib_logits, val_calib_labels)
    with naming_keys("sweep", "objective", "max_risk", "min_coverage"):
        best = sweep_thresholds(data.logits, data.labels, section.objective, section.max_risk, section.min_coverage)
    cut, trial = tuned_cut(data, 1.0, section.tune_cut)
    policy = Policy(
        class_names=tuple(data.class_names),
        positive_classes=tuple(data.positive_classes),
        method=SWEEP_METHOD,
        mode=ACCEPT_ALL if best.threshold_logodds is None else THRESHOLD,
        threshold=best.threshold_logodds,
        cut=None if cut is None else cut.logodds,
    )
    decisions = policy.apply(data.logits)
    constant = constant_prediction(decisions.prediction, data.class_names, f"images of {VAL_CALIB}")
    document = {
        **document_of(policy, cut, trial),
        "f1_score": best.f1_score,
        "objective": {
            "name": best.objective,
            "value": best.value,
            **({"max_risk": section.max_risk} if best.objective == "coverage_at_risk" else {}),
            **({"min_coverage": section.min_coverage} if best.objective in ("f1_at_coverage", "mcc") else {}),
        },
        "coverage": best.coverage,
        "selective_risk": best.selective_risk,
        "n": best.n,
        "n_accepted": best.n_accepted,
        "n_errors": best.n_errors,
        "absent_classes": [data.class_names[c] for c in best.absent_classes],
        "aurc": best.aurc,
        "augrc": best.augrc,
        "table": best.table,
        "curves": {"threshold": _plotted(best), "acceptance": acceptance(data, decisions.accepted)},
        **({"warning": constant} if constant else {}),
        "provenance": provenance(data),
    }
    curve = best.curve
    columns: dict[str, Any] = {
        "threshold_logodds": curve.threshold_logodds,
        "accepted": curve.accepted,
        "coverage": curve.coverage,
        "selective_risk": curve.selective_risk,
        "macro_f1": curve.macro_f1,
        "f1_accepted": curve.f1_accepted,
    }
    write_curve(sweep_curve, columns if curve.mcc is None else {**columns, "mcc": curve.mcc})
    write_bytes(sweep_report, render_policy(document).encode())
    write_json(thresholds, document)
    if constant:
        Lines().say(f"{WARNING}{constant}")
    return {
        "threshold": best.threshold,
        "coverage": best.coverage,
        "selective_risk": best.selective_risk,
        "f1_score": best.f1_score,
        "aurc": best.aurc,
        "augrc": best.augrc,
    }


def _plotted(best: ThresholdSweep) -> list[JsonDict]:
    """Points of the curve that a person looks at, the threshold as a probability."""
    curve = best.curve
    return [
        {
            "threshold": probability(float(curve.threshold_logodds[i])),
            "coverage": float(curve.coverage[i]),
            "risk": float(curve.selective_risk[i]),
            "macro_f1": float(curve.macro_f1[i]),
        }
        for i in thin(curve.accepted, best.n_accepted)
    ]
