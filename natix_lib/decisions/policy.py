"""The policy: from logits to label, probabilities, score and accepted, the same code wherever a decision is made.

sweep and calibrate each write one; export ships exactly one; evaluation and the runtime apply it. The label is always
the argmax, the threshold only rejects, and the threshold is compared with the log-odds at temperature 1 in float64:
a fitted temperature serves the probabilities and cannot change a decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.decisions.score import Bools, Floats, Ints, check_logits, group_log_odds, log_odds, predictions, softmax
from natix_lib.errors import CalibrationError, ContractError

THRESHOLD, ACCEPT_ALL, ABSTAIN_ALL = MODES = ("threshold", "accept_all", "abstain_all")
SWEEP_METHOD, CALIBRATE_METHOD = "global_threshold", "temperature_scaling"
SCORE, COMPARATOR = "log_odds", ">"


@dataclass(frozen=True)
class Decisions:
    """Decisions on n images.

    Attributes:
        prediction: Class index, (n,).
        accepted: Whether the policy stands by it, (n,).
        confidence: Log-odds of the prediction at temperature 1, (n,).
        probabilities: (n, C), at the policy's temperature.
        score: In [0, 1], (n,): the positive classes with the cut at 0.5, or the prediction's probability.
    """

    prediction: Ints
    accepted: Bools
    confidence: Floats
    probabilities: Floats
    score: Floats


@dataclass(frozen=True)
class Policy:
    """An accept rule, a temperature and a cut.

    Attributes:
        class_names: Of the logits' columns.
        positive_classes: Classes of the binary score; may be empty.
        mode: `threshold`, `accept_all` or `abstain_all`.
        threshold: Log-odds that an accepted image must exceed; None unless mode is `threshold`.
        temperature: Of the probabilities, above 0.
        cut: Log-odds of the positive classes at which the score is 0.5, at `temperature`.
    """

    class_names: tuple[str, ...]
    positive_classes: tuple[str, ...] = ()
    mode: str = ACCEPT_ALL
    threshold: float | None = None
    temperature: float = 1.0
    cut: float = 0.0

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if self.mode not in MODES:
            raise CalibrationError(f"policy mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if (self.threshold is not None) != (self.mode == THRESHOLD):
            raise CalibrationError(f"policy mode {self.mode} does not go with threshold {self.threshold}")
        numbers = (self.temperature, self.cut, self.threshold or 0.0)
        if not all(np.isfinite(numbers)) or self.temperature <= 0:
            raise CalibrationError(f"policy numbers must be finite and temperature above 0, got {numbers}")
        unknown = set(self.positive_classes) - set(self.class_names)
        if unknown or len(self.class_names) < 2:
            raise CalibrationError(f"policy classes {self.class_names} and positive {self.positive_classes} do not fit")

    def apply(self, logits: ArrayLike) -> Decisions:
        """Decide on logits (n, C); n may be 0.

        Raises:
            CalibrationError: If logits are not finite or C is not the number of classes.
        """
        values = np.asarray(logits, dtype=np.float64).reshape(-1, np.shape(logits)[-1])
        if values.shape[1] != len(self.class_names):
            raise CalibrationError(
                f"logits have {values.shape[1]} columns, the policy knows {len(self.class_names)} classes"
            )
        if not len(values):
            nothing = np.empty(0)
            return Decisions(np.empty(0, np.int64), np.empty(0, np.bool_), nothing, values, nothing)
        values = check_logits(values)
        confidence = log_odds(values)
        probabilities = softmax(values / self.temperature)
        if self.mode == THRESHOLD:
            assert self.threshold is not None
            accepted = confidence > self.threshold
        else:
            accepted = np.full(len(values), self.mode == ACCEPT_ALL)
        score = probabilities.max(axis=1)
        positive = self.positive_mask()
        if positive.any() and not positive.all():
            distance = group_log_odds(values / self.temperature, positive) - self.cut
            score = 0.5 * (1.0 + np.tanh(0.5 * distance))  # the sigmoid, without overflow
        return Decisions(predictions(values), accepted, confidence, probabilities, score)

    def positive_mask(self) -> Bools:
        """Which columns are positive classes, (C,)."""
        return np.array([name in self.positive_classes for name in self.class_names], dtype=np.bool_)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Policy":
        """The policy of a thresholds.json or scrcparams.json.

        Raises:
            ContractError: If the document is neither, or lacks a part.
        """
        try:
            method = document["method"]
            if method == SWEEP_METHOD:
                accept, temperature = document, 1.0
                threshold = document["threshold_logodds"]
                mode = ACCEPT_ALL if threshold is None else THRESHOLD
            elif method == CALIBRATE_METHOD:
                accept, temperature = document["accept"], float(document["temperature"])
                threshold, mode = accept["threshold"], accept["mode"]
            else:
                raise ContractError(f"policy method must be {SWEEP_METHOD} or {CALIBRATE_METHOD}, got {method!r}")
            if (accept["score"], accept["comparator"]) != (SCORE, COMPARATOR):
                raise ContractError(
                    f"policy must compare {SCORE} by {COMPARATOR}, got {accept['score']!r} and {accept['comparator']!r}"
                )
            if accept.get("score_temperature", 1) != 1:
                raise ContractError(f"policy score_temperature must be 1, got {accept['score_temperature']}")
            decision = document["decision"]
            return cls(
                class_names=tuple(document["class_names"]),
                positive_classes=tuple(document["positive_classes"]),
                mode=mode,
                threshold=None if threshold is None else float(threshold),
                temperature=temperature,
                cut=0.0 if decision is None else float(decision["cut_logodds"]),
            )
        except (KeyError, TypeError, ValueError, CalibrationError) as error:
            raise ContractError(f"policy document is malformed: {error!r}") from error
