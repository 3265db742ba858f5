"""What the groups of VAL_CALIB can certify, known as soon as the images are divided and before training costs anything.

One image of each group counts as independent, and every image is in a group, if alone. So what `calibrate` will count
is known from splits.json, and what it needs at least from the config; only how many predictions will be wrong is not,
nor which slices a tag has.
"""

import math
from collections.abc import Sequence

from natix_lib.config import Config, Scrc
from natix_lib.contracts import VAL_CALIB
from natix_lib.decisions.calibration import ABSTAIN, Terms
from natix_lib.decisions.slices import Slice
from natix_lib.errors import CalibrationError
from natix_lib.files import JsonDict
from natix_lib.progress import WARNING


def terms_of(scrc: Scrc, slices: Sequence[Slice] | None = None) -> Terms:
    """The section scrc as the terms of an accept rule.

    Args:
        scrc: The section.
        slices: The slices that it asks for; None where tags are not known yet: then each tag stands for one slice, the
            fewest that it can have.
    """
    return Terms(
        scrc.alpha,
        scrc.delta,
        scrc.on_infeasible,
        spare_half=scrc.sets != "none",
        misses=scrc.misses,
        false_alarms=scrc.false_alarms,
        per_class=scrc.per_class,
        per_slice=scrc.per_slice,
        slices=_fewest(scrc.slices) if slices is None else slices,
    )


def _fewest(asked: Sequence[str]) -> list[Slice]:
    """A slice for each name, but for a tag that stands beside one of its values."""
    names = dict.fromkeys(asked)
    return [Slice(name, "") for name in names if not any(other.startswith(f"{name}=") for other in names)]


def say_what_can_be_certified(splits: JsonDict, config: Config) -> list[str]:
    """What a person is told of a run right after split, a line each; nothing where no policy is to be certified.

    Args:
        splits: Content of splits.json.
        config: The config of the run.
    """
    if config.export.policy != "calibrate":
        return []
    groups, terms = _groups(splits), terms_of(config.scrc)
    classes = len(splits["class_names"])
    line = _arithmetic(groups, terms, classes)
    if groups >= terms.needed(classes):
        return [line]
    accepts_none = terms.on_infeasible == ABSTAIN  # with fail, split has ended the run
    outcome = "the policy will accept nothing" if accepts_none else "the accept rule will carry no guarantee"
    return [f"{WARNING}{line}: {outcome}"]


def require_certifiable(splits: JsonDict, scrc: Scrc) -> None:
    """Refuse a division whose VAL_CALIB is too small to certify anything.

    Args:
        splits: Content of splits.json.
        scrc: What must be certified.

    Raises:
        CalibrationError: Naming the groups, what is needed, and what to do.
    """
    groups, terms, classes = _groups(splits), terms_of(scrc), len(splits["class_names"])
    if groups < terms.needed(classes):
        raise CalibrationError(
            f"nothing can be certified: {_arithmetic(groups, terms, classes)}; more drives, a larger "
            "split.ratios.val_calib, a larger scrc.alpha, or scrc.on_infeasible: empirical or abstain"
        )


def _groups(splits: JsonDict) -> int:
    """The groups in VAL_CALIB."""
    return len({splits["groups"][name] for name in splits["roles"][VAL_CALIB]})


def _arithmetic(groups: int, terms: Terms, classes: int) -> str:
    smallest = _rounded_up(terms.smallest_alpha(groups, classes))
    half = ", half of them for the prediction sets" if terms.spare_half else ""
    could = f"{smallest:g}" if smallest < 1 else "none"
    return (
        f"{groups} group{'' if groups == 1 else 's'} in {VAL_CALIB}; scrc.alpha {terms.alpha:g} at scrc.delta "
        f"{terms.delta:g} needs {terms.needed(classes)} without an error{half} (smallest alpha they could "
        f"certify: {could})"
    )


def _rounded_up(value: float) -> float:
    """To two digits after the first that is not 0, and never to less than it is."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step) * step
