"""The policy: from logits to label, probabilities, score and accepted, the same code wherever a decision is made.

sweep and calibrate each write one; export ships exactly one; evaluation and the runtime apply it. The label is always
the argmax; the threshold, or that of the predicted class, only rejects, and it is compared with the log-odds at
temperature 1 in float64: a fitted temperature serves the probabilities and cannot change a decision. `to_document` and
`from_document` are the one place that knows how a policy stands in thresholds.json and scrcparams.json; the files hold
more, for people.
"""

import reprlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.contracts import SCHEMA_VERSION, check_document
from natix_lib.decisions.score import (
    Logits,
    as_array,
    check_logits,
    group_log_odds,
    has_binary_score,
    predictions_and_log_odds,
    probability,
    softmax,
)
from natix_lib.decisions.sets import lac_scores
from natix_lib.errors import CalibrationError, ContractError
from natix_lib.files import JsonDict

THRESHOLD, CLASS_THRESHOLDS, ACCEPT_ALL, ABSTAIN_ALL = MODES = (
    "threshold",
    "class_thresholds",
    "accept_all",
    "abstain_all",
)
SWEEP_METHOD, CALIBRATE_METHOD = "global_threshold", "temperature_scaling"
ARTIFACT_OF = {SWEEP_METHOD: "thresholds", CALIBRATE_METHOD: "scrcparams"}
SCORE, COMPARATOR, SETS_SCORE = "log_odds", ">", "lac"


@dataclass(frozen=True)
class Decisions:
    """Decisions on n images.

    Attributes:
        prediction: Class index, (n,).
        accepted: Whether the policy stands by it, (n,).
        confidence: Log-odds of the prediction at temperature 1, (n,).
        probabilities: Probability of each class at the policy's temperature, (n, C).
        score: Score in [0, 1], (n,): with positive classes the sum of their probabilities, moved so that the tuned cut
            is at 0.5; without, the prediction's probability. It is the same whether the image is accepted or not, and
            above 0.5 it can contradict the prediction: several positive classes together may outweigh the largest
            class.
        sets: Which classes are in the prediction set, (n, C); None when the policy has no sets.
    """

    prediction: Ints
    accepted: Bools
    confidence: Floats
    probabilities: Floats
    score: Floats
    sets: Bools | None = None

    def take(self, rows: Bools | Ints) -> "Decisions":
        """The decisions on some rows."""
        sets = None if self.sets is None else self.sets[rows]
        return Decisions(
            self.prediction[rows],
            self.accepted[rows],
            self.confidence[rows],
            self.probabilities[rows],
            self.score[rows],
            sets,
        )


@dataclass(frozen=True)
class Policy:
    """An accept rule, a temperature, a cut and a threshold for prediction sets.

    Attributes:
        class_names: Name of each column of the logits.
        positive_classes: Classes of the binary score; may be empty.
        mode: Accept rule, one of `MODES`.
        threshold: Log-odds that an accepted image must exceed; None unless mode is `threshold`.
        class_thresholds: The same by predicted class, (C,); None unless mode is `class_thresholds`.
        bias: Added to the logits of each class before all else, (C,), see `deployment`; None adds nothing.
        temperature: Temperature of the probabilities, above 0.
        cut: Log-odds of the positive classes at which the score is 0.5, at `temperature`; None is 0.
        sets_threshold: Largest 1 - probability of a class in the prediction set; None gives no sets.
        method: Which file the policy stands in: `global_threshold` (sweep) or `temperature_scaling` (calibrate).
    """

    class_names: tuple[str, ...]
    positive_classes: tuple[str, ...] = ()
    mode: str = ACCEPT_ALL
    threshold: float | None = None
    temperature: float = 1.0
    cut: float | None = None
    sets_threshold: float | None = None
    method: str = CALIBRATE_METHOD
    class_thresholds: tuple[float, ...] | None = None
    bias: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if self.method not in ARTIFACT_OF:
            raise CalibrationError(f"policy method must be one of {', '.join(ARTIFACT_OF)}, got {self.method!r}")
        if self.mode not in MODES:
            raise CalibrationError(f"policy mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if (self.threshold is not None) != (self.mode == THRESHOLD):
            raise CalibrationError(f"policy mode {self.mode} does not go with threshold {self.threshold}")
        by_class = self.class_thresholds
        if (by_class is not None) != (self.mode == CLASS_THRESHOLDS) or len(by_class or ()) not in (
            0,
            len(self.class_names),
        ):
            raise CalibrationError(f"policy mode {self.mode} does not go with class_thresholds {by_class}")
        if self.bias is not None and len(self.bias) != len(self.class_names):
            raise CalibrationError(f"policy bias must be {len(self.class_names)} numbers, got {len(self.bias)}")
        numbers = (
            self.temperature,
            self.cut or 0.0,
            self.threshold or 0.0,
            self.sets_threshold or 0.0,
            *(by_class or ()),
            *(self.bias or ()),
        )
        if not all(np.isfinite(numbers)) or self.temperature <= 0:
            raise CalibrationError(f"policy numbers must be finite and temperature above 0, got {numbers}")
        if self.method == SWEEP_METHOD and (
            self.mode == ABSTAIN_ALL or self.temperature != 1 or (self.sets_threshold, self.bias) != (None, None)
        ):
            raise CalibrationError(
                f"a {SWEEP_METHOD} policy cannot abstain from all, nor have a temperature, a bias or sets"
            )
        unknown = set(self.positive_classes) - set(self.class_names)
        if unknown or len(self.class_names) < 2:
            raise CalibrationError(f"policy classes {self.class_names} and positive {self.positive_classes} do not fit")

    def apply(self, logits: ArrayLike) -> Decisions:
        """Decide on logits (n, C); n may be 0. A row is decided alike alone and among others.

        Raises:
            CalibrationError: If logits are not finite, or are neither (n, C) nor one row (C,) of the policy's classes.
        """
        classes = len(self.class_names)
        rows = as_array("logits", logits)
        if rows.shape == (0, classes):
            return self._decide(np.zeros((1, classes))).take(np.empty(0, dtype=np.int64))
        values = check_logits(rows[np.newaxis] if rows.ndim == 1 else rows)
        if values.shape[1] != classes:
            raise CalibrationError(f"logits have {values.shape[1]} columns, the policy knows {classes} classes")
        return self._decide(self.biased(values))

    def biased(self, logits: Logits) -> Logits:
        """The logits (n, C) that all is decided on: with the bias of each class, if there is one."""
        return logits if self.bias is None else check_logits(logits + np.array(self.bias))

    def _decide(self, values: Logits) -> Decisions:
        prediction, confidence = predictions_and_log_odds(values)
        probabilities = softmax(values, self.temperature)
        if self.threshold is not None:
            accepted: Bools = confidence > self.threshold
        elif self.class_thresholds is not None:
            accepted = confidence > np.array(self.class_thresholds)[prediction]
        else:
            accepted = np.full(len(values), self.mode == ACCEPT_ALL)
        score = probabilities.max(axis=1)
        positive = self.positive_mask()
        if has_binary_score(positive):
            distance = group_log_odds(values, positive, self.temperature) - (self.cut or 0.0)
            score = 0.5 * (1.0 + np.tanh(0.5 * distance))  # the sigmoid, without overflow
        sets = None
        if self.sets_threshold is not None:
            sets = lac_scores(probabilities) <= self.sets_threshold
            sets[np.arange(len(values)), prediction] = True
        return Decisions(prediction, accepted, confidence, probabilities, score, sets)

    def positive_mask(self) -> Bools:
        """Which columns are positive classes, (C,)."""
        return np.array([name in self.positive_classes for name in self.class_names], dtype=np.bool_)

    def to_document(self) -> dict[str, Any]:
        """What `from_document` reads, as JSON: the part of thresholds.json or scrcparams.json that decides.

        Numbers are written so that reading gives the same bits.
        """
        rule = {"score": SCORE, "comparator": COMPARATOR}
        document: dict[str, Any] = {
            "artifact": ARTIFACT_OF[self.method],
            "schema_version": SCHEMA_VERSION,
            "method": self.method,
            "class_names": list(self.class_names),
            "positive_classes": list(self.positive_classes),
            "decision": None if self.cut is None else {"cut": probability(self.cut), "cut_logodds": self.cut},
        }
        if self.method == SWEEP_METHOD:
            shown = 0.0 if self.threshold is None else probability(self.threshold)
            return {**document, **rule, "threshold": shown, "threshold_logodds": self.threshold}
        sets = None if self.sets_threshold is None else {"score": SETS_SCORE, "threshold": self.sets_threshold}
        accept: dict[str, Any] = {**rule, "score_temperature": 1, "mode": self.mode, "threshold": self.threshold}
        if self.bias is not None:
            accept["bias"] = dict(zip(self.class_names, self.bias, strict=True))
        if self.class_thresholds is not None:
            accept["class_thresholds"] = dict(zip(self.class_names, self.class_thresholds, strict=True))
        return {**document, "temperature": self.temperature, "accept": accept, "sets": sets}

    @classmethod
    def from_document(cls, document: JsonDict, where: object = "policy") -> "Policy":
        """The policy of a thresholds.json or scrcparams.json.

        Args:
            document: The file's content, as JSON gives it.
            where: Its path, for the message.

        Raises:
            ContractError: If the document is neither, of another schema, or a part of it is missing, of another type,
                outside its range, or does not fit the others.
        """
        method = document.get("method")
        if not isinstance(method, str) or method not in ARTIFACT_OF:
            raise ContractError(
                f"{where}: policy method must be {SWEEP_METHOD} or {CALIBRATE_METHOD}, got {reprlib.repr(method)}"
            )
        check_document(document, ARTIFACT_OF[method], where)
        sets, temperature, by_class, bias = None, 1.0, None, None
        if method == SWEEP_METHOD:
            accept, threshold = document, document["threshold_logodds"]
            mode = ACCEPT_ALL if threshold is None else THRESHOLD
        else:
            accept, temperature, sets = document["accept"], float(document["temperature"]), document["sets"]
            threshold, mode, by_class = accept["threshold"], accept["mode"], accept.get("class_thresholds")
            bias = accept.get("bias")
            for name, values in (("class_thresholds", by_class), ("bias", bias)):
                if values is not None and sorted(values) != sorted(document["class_names"]):
                    raise ContractError(f"{where}: {name} must name each class, got {list(values)}")
        for name, word in (("score", SCORE), ("comparator", COMPARATOR), ("score_temperature", 1)):
            if accept.get(name, word) != word:
                raise ContractError(f"{where}: {name} of the accept rule must be {word}, got {accept[name]!r}")
        if sets is not None and sets["score"] != SETS_SCORE:
            raise ContractError(f"{where}: sets must use the score {SETS_SCORE}, got {sets['score']!r}")
        decision = document["decision"]
        try:
            return cls(
                class_names=tuple(document["class_names"]),
                positive_classes=tuple(document["positive_classes"]),
                method=method,
                mode=mode,
                threshold=None if threshold is None else float(threshold),
                temperature=temperature,
                cut=None if decision is None else float(decision["cut_logodds"]),
                sets_threshold=None if sets is None else float(sets["threshold"]),
                class_thresholds=_in_order(by_class, document["class_names"]),
                bias=_in_order(bias, document["class_names"]),
            )
        except CalibrationError as error:
            raise ContractError(f"{where}: {error}") from error


def _in_order(values: dict[str, float] | None, names: list[str]) -> tuple[float, ...] | None:
    """Numbers by class in the order of the classes, whatever the order in the file, where keys are sorted."""
    return None if values is None else tuple(float(values[name]) for name in names)
