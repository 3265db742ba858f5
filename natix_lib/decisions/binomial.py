"""The exact binomial test behind every guarantee: of m accepted, k are wrong; can the risk be at most alpha?

`scipy.special` and not `scipy.stats`, whose import alone takes longer than a calibration.
"""

from numbers import Integral, Real

import numpy as np
from scipy.special import bdtr, betaincinv

from natix_lib.arrays import Bools, Ints
from natix_lib.errors import CalibrationError


def require_open(name: str, value: object) -> None:
    """Refuse a probability that is not in (0, 1).

    Raises:
        CalibrationError: Naming it.
    """
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise CalibrationError(f"{name} must be in (0, 1), got {value}")


def upper_risk_bound(errors: int, accepted: int, delta: float) -> float:
    """Clopper-Pearson upper bound on the error rate of the accepted images.

    Args:
        errors: Wrong predictions among the accepted, 0 <= errors <= accepted.
        accepted: Accepted images, at least 1.
        delta: Probability that the bound is too low, in (0, 1).

    Returns:
        The bound in (0, 1]; 1.0 when every accepted prediction is wrong.

    Raises:
        CalibrationError: If an argument is outside its range.

    References:
        Clopper & Pearson (1934), Biometrika 26(4).
    """
    require_open("delta", delta)
    if not _are_whole(errors, accepted) or not 0 <= errors <= accepted or accepted < 1:
        raise CalibrationError(f"errors must be in 0..accepted and accepted at least 1, got {errors} of {accepted}")
    return 1.0 if errors == accepted else float(betaincinv(errors + 1, accepted - errors, 1 - delta))


def is_certified(errors: int, accepted: int, alpha: float, delta: float) -> bool:
    """Whether P(Binomial(accepted, alpha) <= errors) <= delta: the upper bound is then at most alpha."""
    return bool(bdtr(errors, accepted, alpha) <= delta)


def keeps_with_margin(errors: Ints, accepted: Ints, alpha: float) -> Bools:
    """Where counts keep to alpha with one error more, as if the next row were wrong, and a standard deviation of them.

    No promise: the largest number of rows that happens to keep to alpha is one that keeps to it by luck.
    """
    keeps: Bools = (errors + np.sqrt(errors) + 1) / (accepted + 1) <= alpha
    return keeps


def most_errors(accepted: int, alpha: float, delta: float) -> int:
    """The most errors at which `accepted` images are still certified, -1 when not even none is.

    It never falls when `accepted` grows, and never exceeds alpha * accepted for delta below a half.
    """
    low, high = -1, accepted  # certified (or nothing), not certified
    guess = int(alpha * accepted - 2 * np.sqrt(alpha * (1 - alpha) * accepted))
    width = 1
    while high - low > 1:
        middle = min(max(guess, low + 1), high - 1)
        if is_certified(middle, accepted, alpha, delta):
            low, guess = middle, middle + width
        else:
            high, guess = middle, middle - width
        width = min(2 * width, max(1, (high - low) // 2))
    return low


def least_accepted(alpha: float, delta: float) -> int:
    """The fewest accepted rows that can be certified, all of them right: ln delta / ln(1 - alpha), at least 1.

    A last digit of the logarithms can miss by one what the test itself says, so the test has the last word.
    """
    least = int(np.ceil(np.log(delta) / np.log1p(-alpha)))
    if least > 1 and is_certified(0, least - 1, alpha, delta):
        return least - 1
    return least if is_certified(0, least, alpha, delta) else least + 1


def _are_whole(*values: object) -> bool:
    return all(isinstance(value, Integral) for value in values)
