"""The config sections `export` and `evaluate`: the bundle that ships, and what is said of it."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from natix_lib.config.key import OpenFraction, default
from natix_lib.config.policies import RESAMPLES
from natix_lib.config.section import Section
from natix_lib.documents import MAX_TOLERANCE
from natix_lib.grammar import Place


class Export(Section):
    """The bundle."""

    policy: Literal["sweep", "calibrate"] = Field(
        description="Policy that ships in the bundle: two are fitted and none is preferred."
    )
    parity_images: PositiveInt = default(
        32,
        "Images of VAL_CALIB on which ONNX must repeat the logits that the policy was fitted on.",
        unit="images",
        source="choice: one batch",
    )
    parity_tolerance: Annotated[float, Field(gt=0, le=MAX_TOLERANCE)] = default(
        1e-3,
        "Largest difference of a logit between ONNX and training.",
        unit="share of max(1, |logit|)",
        source="choice: far above float32's rounding, far below what moves a decision",
    )
    publish_uri: Place = default(
        "",
        'Folder, gs:// or s3:// prefix that also receives the bundle; "" leaves it where the run has put it.',
        source="choice: a place must be named by who owns it",
    )


class Evaluate(Section):
    """The one reading of TEST."""

    bootstrap: PositiveInt = default(
        1000, "Resamples of whole groups behind the intervals.", unit="resamples", source=RESAMPLES
    )
    confidence: OpenFraction = default(
        0.95, "Probability that an interval is to cover.", unit="probability", source="convention: 95 % intervals"
    )
    seed: NonNegativeInt = default(0, "Seed of the resamples.", unit="none", source="convention: the first seed")
    min_slice: PositiveInt = default(
        20,
        "Images below which a slice is listed without an interval.",
        unit="images",
        source="choice: an interval of fewer is too wide to say anything",
    )
