"""The config section `recalibrate`: a bundle's policy is renewed with new labelled images, without training."""

from pydantic import model_validator

from natix_lib.config.key import OpenFraction, default
from natix_lib.config.section import Section
from natix_lib.grammar import Place

SHARES = "choice: a certificate costs images first, its power a start that VAL_SELECT finds, and TEST only shows it"


class NewRatios(Section):
    """Target share of each split role of the new images; none trains, and the three sum to 1."""

    val_select: OpenFraction = default(
        0.2, "Share that says where the accept rule begins, VAL_SELECT.", unit="share of images", source=SHARES
    )
    val_calib: OpenFraction = default(
        0.5, "Share that the new policy is fitted on, VAL_CALIB.", unit="share of images", source=SHARES
    )
    test: OpenFraction = default(
        0.3, "Share that evaluate reads once at the end, TEST.", unit="share of images", source=SHARES
    )

    @model_validator(mode="after")
    def _check(self) -> "NewRatios":
        ratios = [self.val_select, self.val_calib, self.test]
        if abs(sum(ratios) - 1.0) > 1e-6:
            raise ValueError(f"recalibrate.ratios must sum to 1, got {sum(ratios):.3f}: {ratios}")
        return self


class Recalibrate(Section):
    """How natix recalibrate renews a bundle's policy; training reads none of it."""

    bundle: Place = default(
        "",
        'Bundle whose policy is renewed: a folder, or a prefix in a bucket; natix recalibrate --bundle gives it; "" is '
        "for configs that only train.",
        source="choice: a bundle must be named by who owns it",
    )
    ratios: NewRatios = NewRatios()
