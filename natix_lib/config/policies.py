"""The config sections `sweep` and `scrc`: the two policies, each fitted on VAL_CALIB."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from natix_lib.config.key import OpenFraction, default
from natix_lib.config.section import Section

UpToOne = Annotated[float, Field(gt=0.0, le=1.0)]
RESAMPLES = "convention: 1,000 resamples for a 95 % percentile interval, Efron and Tibshirani 1993"


class Sweep(Section):
    """The rejection threshold that the step sweep chooses."""

    objective: Literal["macro_f1", "coverage_at_risk", "f1_at_coverage", "mcc"] = default(
        "macro_f1",
        "Figure that the threshold makes largest: macro-F1 with the rejected counted as missed, the coverage at "
        "max_risk, or macro-F1 or MCC of the accepted at min_coverage.",
        source="choice: F1 of the accepted alone would accept a thousandth of the images",
    )
    max_risk: OpenFraction = default(
        0.05,
        "Highest error rate of the accepted, for coverage_at_risk.",
        unit="share of accepted images",
        source="convention: one in twenty",
    )
    min_coverage: UpToOne = default(
        0.8,
        "Smallest share of images that must be accepted, for f1_at_coverage and mcc.",
        unit="share of images",
        source="choice: at most one image in five goes to a person",
    )
    tune_cut: bool = default(
        True,
        "Whether a binary task also tunes the cut on p(positive), which is stored as decision.",
        source="choice: a tuned cut ships only where it beats 0.5 by more than chance",
    )


class Scrc(Section):
    """The temperature and the accept rule with its guarantee that the step calibrate fits."""

    alpha: OpenFraction = default(
        0.05,
        "Bound on the error rate of accepted images.",
        unit="share of accepted images",
        source="convention: one in twenty",
    )
    delta: OpenFraction = default(
        0.1,
        "Probability that the bound does not hold.",
        unit="probability",
        source="convention: 90 % confidence, as in most examples of distribution-free bounds",
    )
    misses: UpToOne = default(
        1.0,
        "Bound on misses, asked for beside alpha: of the images with a positive class at most this share is accepted "
        "as something else; 1 asks for none. All promises share delta, and each predicted class has a threshold.",
        unit="share of images with a positive class",
        source="choice: the task says what a miss costs",
    )
    false_alarms: UpToOne = default(
        1.0,
        "Bound on false alarms, asked for beside alpha: of the images accepted as positive at most this share is not; "
        "1 asks for none.",
        unit="share of images accepted as positive",
        source="choice: the task says what a false alarm costs",
    )
    per_class: UpToOne = default(
        1.0,
        "Bound for each predicted class, asked for beside alpha: of the images accepted as it at most this share is of "
        "another; 1 asks for none.",
        unit="share of images accepted as a class",
        source="choice: many classes share delta, so each needs more images",
    )
    prior: dict[str, OpenFraction] = default(
        {},
        "Share of each class among the images in use, where the labelled images hold other shares: {roadwork: 0.03}; "
        "what is left of 1 goes to classes that are not named, as on VAL_SELECT, and {} takes the labelled images as "
        "they are. Logits, rule, probabilities and promises are then of these shares; images of a class must look the "
        "same in use.",
        source="choice: how frequent a class is in use is known to whoever runs the cameras",
    )
    slices: list[Annotated[str, Field(min_length=1)]] = default(
        [],
        "Slices of the images for which errors are bounded too, by their tags: weather=rain is one, weather alone is "
        "one for each value in the data; tags are the columns of the manifest that natix gives no meaning to.",
        source="choice: which streets matter is known to whoever signs, and each slice takes its share of delta",
    )
    per_slice: UpToOne = default(
        1.0,
        "Bound for each of scrc.slices, asked for beside alpha: of its accepted images at most this share is wrong; 1 "
        "asks for none. The accept rule does not look at tags, so they need not be known of the images to come.",
        unit="share of accepted images of a slice",
        source="choice: a slice has few images, so what it can keep to is known to whoever names it",
    )
    on_infeasible: Literal["fail", "empirical", "abstain"] = default(
        "empirical",
        "What happens when not all that is asked for can be certified: empirical takes the lowest threshold whose "
        "observed errors, with one more and a standard deviation, keep to alpha, or accepts nothing where there is "
        "none, and the policy is shown as uncertified; abstain accepts nothing; fail stops the run, and right after "
        "split when VAL_CALIB is too small.",
        source="choice: a first run ends with a result that says what it is not",
    )
    sets: Literal["none", "pac", "scrc_i"] = default(
        "none",
        "Prediction sets of accepted images, which take half of VAL_CALIB for themselves: pac bounds their misses with "
        "confidence 1 - delta, scrc_i on average.",
        source="choice: half of VAL_CALIB is much to give",
    )
    sets_alpha: OpenFraction = default(
        0.05,
        "Bound on the share of accepted images whose set misses the label.",
        unit="share of accepted images",
        source="convention: one in twenty, as alpha",
    )
    tune_cut: bool = default(
        True,
        "Whether a binary task also tunes the cut on p(positive), the binary score that the bundle emits.",
        source="choice: a tuned cut ships only where it beats 0.5 by more than chance",
    )
    bootstrap: PositiveInt = default(
        1000,
        "Resamples behind the intervals of calibration figures; the accept rule draws with no seed to turn.",
        unit="resamples",
        source=RESAMPLES,
    )

    @field_validator("prior")
    @classmethod
    def _check_prior(cls, prior: dict[str, float]) -> dict[str, float]:
        if sum(prior.values()) > 1 + 1e-6:  # rounding
            raise ValueError(f"scrc.prior must sum to at most 1, got {sum(prior.values()):g}")
        return prior

    @model_validator(mode="after")
    def _check_slices(self) -> Self:
        if self.per_slice < 1 and not self.slices:
            raise ValueError(
                f"scrc.slices must name tags where scrc.per_slice bounds them, got [] and {self.per_slice:g}"
            )
        return self
