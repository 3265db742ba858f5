"""What sweep and calibrate share: where a policy comes from, its cut, its curve file, and what its plots show."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy
from numpy.typing import NDArray

from natix_lib import __version__
from natix_lib.arrays import Bools
from natix_lib.decisions.cut import TunedCut, judge_cut, matthews, tune_cut
from natix_lib.decisions.policy import Policy
from natix_lib.decisions.score import group_log_odds, has_binary_score, probability
from natix_lib.errors import NatixError
from natix_lib.files import JsonDict, replacing
from natix_lib.logits import CalibrationSet


@contextmanager
def naming_keys(section: str, *arguments: str) -> Iterator[None]:
    """Let the errors of functions, which speak of their arguments, name the keys of the config that they came from."""
    try:
        yield
    except NatixError as error:
        names = rf"(?<![\w.])({'|'.join(arguments)})\b"
        raise type(error)(re.sub(names, rf"{section}.\1", str(error))) from error


def provenance(data: CalibrationSet) -> JsonDict:
    """Where a policy fitted on `data` comes from."""
    inherited = ("model_sha256", "splits_sha256", "dataset_fingerprint", "role")
    return {
        **{key: data.header.get(key) for key in inherited},
        "logits_sha256": data.logits_sha256,
        "labels_sha256": data.labels_sha256,
        "dtype": str(data.logits.dtype),
        "versions": {"natix": __version__, "numpy": np.__version__, "scipy": scipy.__version__},
    }


def tuned_cut(data: CalibrationSet, temperature: float, tune: bool) -> tuple[TunedCut | None, JsonDict | None]:
    """The cut of the binary score that ships, None for 0.5, and how the best one was judged by `judge_cut`.

    Both are None when the task has no binary score, its labels are all positive or all negative, or not `tune`.
    """
    positive = Policy(tuple(data.class_names), tuple(data.positive_classes)).positive_mask()
    truth = positive[data.labels]
    if not tune or not has_binary_score(positive) or truth.all() or not truth.any():
        return None, None
    scores = group_log_odds(data.logits, positive, temperature)
    best, trial = tune_cut(scores, truth), judge_cut(scores, truth, data.groups)
    reason = (
        f"the best cut {probability(best.logodds):.3f} does not beat 0.5 by more than chance where it was not tuned: "
        f"{trial.worse} of {trial.changed} changed {trial.unit}s become wrong, p = {trial.p_value:.3f}"
    )
    document = {
        **asdict(trial),
        "cut": probability(best.logodds),
        "value": best.mcc,
        "value_at_half": matthews(scores > 0, truth),
        "reason": "" if trial.kept else reason,
    }
    return best if trial.kept else None, document


def document_of(policy: Policy, cut: TunedCut | None, trial: JsonDict | None) -> JsonDict:
    """The part of a policy's file that decides, with what its cut reached and why it is there or not."""
    document = {**policy.to_document(), "cut_trial": trial}
    if cut is not None:
        document["decision"] |= {"objective": "mcc", "value": cut.mcc}
    return document


def acceptance(data: CalibrationSet, accepted: Bools) -> JsonDict:
    """Of each true class that is there, its images `n` and the share `accepted`."""
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    kept = np.bincount(data.labels[accepted], minlength=len(data.class_names))
    return {
        name: {"n": int(n), "accepted": float(k / n)}
        for name, n, k in zip(data.class_names, counts, kept, strict=True)
        if n
    }


def write_curve(path: str, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a curve as Parquet, one row a point.

    The arrays are handed over as buffers: pyarrow's own conversion imports pandas, half a second for nothing.
    """
    table = {
        name: pa.Array.from_buffers(
            pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
        )
        for name, values in columns.items()
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(table), temporary)
