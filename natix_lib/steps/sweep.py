"""sweep, phase 2: VAL_CALIB logits -> thresholds.json and the whole threshold curve."""

from collections.abc import Mapping
from typing import Any

from natix_lib import config
from natix_lib.contracts import SCHEMA_VERSION
from natix_lib.decisions import sweep_thresholds
from natix_lib.decisions.policy import SWEEP_METHOD
from natix_lib.files import write_json
from natix_lib.logits import read_pair
from natix_lib.steps.policies import ACCEPT_RULE, decision, origin, write_curve


def run(
    settings: Mapping[str, Any], val_calib_logits: str, val_calib_labels: str, thresholds: str, sweep_curve: str
) -> dict[str, float]:
    """Choose the rejection threshold.

    Args:
        settings: `config.SweepSettings`.
        val_calib_logits: Logits file.
        val_calib_labels: Labels file.
        thresholds: thresholds.json to write.
        sweep_curve: Parquet to write.

    Returns:
        Threshold, coverage, selective risk, macro-F1 and the areas under the risk curves.

    Raises:
        NatixError: If the files do not belong together or allow no threshold.
    """
    wanted = config.parse(config.SweepSettings, settings).sweep
    data = read_pair("sweep", val_calib_logits, val_calib_labels)
    found = sweep_thresholds(data.logits, data.labels, wanted.objective, wanted.max_risk, wanted.min_coverage)
    curve = found.curve
    columns: dict[str, Any] = {
        "threshold_logodds": curve.threshold_logodds,
        "accepted": curve.accepted,
        "coverage": curve.coverage,
        "selective_risk": curve.selective_risk,
        "macro_f1": curve.macro_f1,
        "f1_accepted": curve.f1_accepted,
    }
    write_curve(sweep_curve, columns if curve.mcc is None else {**columns, "mcc": curve.mcc})
    document = {
        "artifact": "thresholds",
        "schema_version": SCHEMA_VERSION,
        "method": SWEEP_METHOD,
        **ACCEPT_RULE,
        "threshold": found.threshold,
        "threshold_logodds": found.threshold_logodds,
        "f1_score": found.f1_score,
        "objective": {
            "name": found.objective,
            "value": found.value,
            **({"max_risk": wanted.max_risk} if found.objective == "coverage_at_risk" else {}),
            **({"min_coverage": wanted.min_coverage} if found.objective in ("f1_at_coverage", "mcc") else {}),
        },
        "coverage": found.coverage,
        "selective_risk": found.selective_risk,
        "n": found.n,
        "n_accepted": found.n_accepted,
        "n_errors": found.n_errors,
        "absent_classes": [data.class_names[c] for c in found.absent_classes],
        "aurc": found.aurc,
        "augrc": found.augrc,
        "table": found.table,
        "decision": decision(data, 1.0, wanted.tune_cut),
        **origin(data, val_calib_logits, val_calib_labels),
    }
    write_json(thresholds, document)
    return {
        "threshold": found.threshold,
        "coverage": found.coverage,
        "selective_risk": found.selective_risk,
        "f1_score": found.f1_score,
        "aurc": found.aurc,
        "augrc": found.augrc,
    }
