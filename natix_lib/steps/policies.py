"""What sweep and calibrate share: where a policy comes from, its cut, and its curve file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy
from numpy.typing import NDArray

from natix_lib import __version__
from natix_lib.decisions.cut import Cut, tune_cut
from natix_lib.decisions.policy import COMPARATOR, SCORE, Policy
from natix_lib.decisions.score import group_log_odds
from natix_lib.decisions.sweep import probability
from natix_lib.files import JsonDict, replacing, sha256_file
from natix_lib.logits import CalibrationSet

ACCEPT_RULE = {"score": SCORE, "comparator": COMPARATOR}


def origin(data: CalibrationSet, logits_path: str, labels_path: str) -> JsonDict:
    """Classes and provenance of a policy fitted on `data`."""
    inherited = ("model_sha256", "splits_sha256", "dataset_fingerprint", "role")
    return {
        "class_names": data.class_names,
        "positive_classes": data.positive_classes,
        "provenance": {
            **{key: data.header.get(key) for key in inherited},
            "logits_sha256": sha256_file(logits_path),
            "labels_sha256": sha256_file(labels_path),
            "dtype": str(data.logits.dtype),
            "versions": {"natix": __version__, "numpy": np.__version__, "scipy": scipy.__version__},
        },
    }


def decision(data: CalibrationSet, temperature: float, wanted: bool) -> JsonDict | None:
    """The tuned cut of the binary score as JSON, or None when the task has none or none is wanted."""
    policy = Policy(tuple(data.class_names), tuple(data.positive_classes))
    positive = policy.positive_mask()
    truth = positive[data.labels]
    if not wanted or not positive.any() or positive.all() or truth.all() or not truth.any():
        return None
    values = data.logits.astype(np.float64) / temperature
    cut: Cut = tune_cut(group_log_odds(values, positive), truth)
    return {"cut": probability(cut.logodds), "cut_logodds": cut.logodds, "objective": "mcc", "value": cut.mcc}


def write_curve(path: str, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a curve as Parquet, one row a point."""
    with replacing(path) as temporary:
        pq.write_table(pa.table(dict(columns)), temporary)
