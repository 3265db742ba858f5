"""The config section `split`: how images are divided into TRAIN, VAL_SELECT, VAL_CALIB and TEST."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from natix_lib.config.key import OpenFraction, default
from natix_lib.config.section import Section
from natix_lib.grammar import Place

ROLE_RATIO_NAMES = ("train", "val_select", "val_calib", "test")
SHARES = "choice: most images train, and VAL_CALIB holds what a certificate needs, some 150 accepted at a risk of 0.02"


class Ratios(Section):
    """Target share of images of each split role; the four sum to 1."""

    train: OpenFraction = default(0.6, "Share that fits the weights, TRAIN.", unit="share of images", source=SHARES)
    val_select: OpenFraction = default(
        0.1, "Share that chooses the epoch, VAL_SELECT.", unit="share of images", source=SHARES
    )
    val_calib: OpenFraction = default(
        0.15, "Share that policies are fitted on, VAL_CALIB.", unit="share of images", source=SHARES
    )
    test: OpenFraction = default(
        0.15, "Share that evaluate reads once at the end, TEST.", unit="share of images", source=SHARES
    )

    @model_validator(mode="after")
    def _check(self) -> "Ratios":
        ratios = [getattr(self, name) for name in ROLE_RATIO_NAMES]
        if abs(sum(ratios) - 1.0) > 1e-6:
            raise ValueError(f"split.ratios must sum to 1, got {sum(ratios):.3f}: {ratios}")
        return self


class Split(Section):
    """How images are divided into TRAIN, VAL_SELECT, VAL_CALIB and TEST."""

    ratios: Ratios = Ratios()
    seed: NonNegativeInt = default(
        0, "Seed of the division; each seed gives another one.", unit="none", source="convention: the first seed"
    )
    min_per_class: PositiveInt = default(
        1,
        "Images of every class that every role must have; synthetic ones do not count in VAL_CALIB and TEST.",
        unit="images",
        source="choice: a role without a class can say nothing about it",
    )
    previous: Place = default(
        "",
        "Earlier division whose images keep their roles, so that only new groups are placed and none leaves TEST: a "
        'splits.json, a run\'s folder or a bundle, local or in a bucket; "" divides anew.',
        source="choice: an earlier division must be named by who owns it",
    )
    use_given: bool = default(
        True,
        "Whether a split column or Parquet files that are named after roles are honoured, and checked.",
        source="choice: the owner of the data knows its division",
    )
    gps_radius_m: NonNegativeFloat = default(
        100.0,
        "Distance below which two places are one group; 0 switches it off.",
        unit="metres",
        source="choice: about as far as a camera on a street sees the same scene",
    )
    near_duplicate_bits: Annotated[int, Field(ge=-1, le=16)] = default(
        6,
        "Bits between two windows of images from which on they are not laid over each other to see whether they are "
        "near-duplicates; -1 switches it off.",
        unit="bits of 64",
        source="measured: finds 95 % of every kind of change, see benchmarks/duplicates.py",
    )
    conflicting_labels: Literal["keep", "drop"] = default(
        "keep",
        "What happens to images that look the same and have different labels: keep shows them in data.html, drop "
        "leaves all of them out.",
        source="choice: either label may be the right one, and images are not lost in silence",
    )
    drive_gap_s: NonNegativeFloat = default(
        60.0,
        "Seconds up to which images without a group are frames of one drive, by captured_at or a time that ends their "
        "names; 0 switches it off.",
        unit="seconds",
        source="choice: longer than a red light or a tunnel, shorter than the stop between two drives",
    )
    drive_names: bool = default(
        True,
        "Whether frame numbers in names, such as pgh0123_00045.jpg, tell drives where their pictures confirm it.",
        source="choice: names are all that many sets have, and numbers alone also count strangers",
    )
    drive_looks: bool = default(
        True,
        "Whether neighbours by name or time that look alike are one drive, where names and times alone do not tell.",
        source="choice: consecutive frames leak most",
    )
