"""A running promise put to the test by labels of accepted images, at any time and as often as one likes.

Errors of accepted images come one after the other. The promise is that each is wrong with a probability of at most
alpha, whatever came before. Against it stands an error rate q above alpha: after k errors in t images their likelihood
ratio is (q / alpha)^k ((1 - q) / (1 - alpha))^(t - k), and the mean of it over all q, uniform between alpha and 1, is
the wealth of a bet against the promise. While the promise holds wealth never grows on average, so that by Ville's
inequality it ever reaches 1 / level with a probability of at most `level`: that is what shows the promise broken, and
whoever looks after every image errs no more often than who looks once. With q = alpha + (1 - alpha) u the wealth is

    M_t(alpha) = integral over u in (0, 1) of (1 + u (1 - alpha) / alpha)^k (1 - u)^(t - k),

which falls when alpha grows. So the rates at which it has reached 1 / level are those below one number, the lower bound
of the risk; the upper bound is the same of the images that are right. Both hold at all times together, each by itself.

The mixture is Robbins' (1970), here over the alternatives above alpha alone, so that it tests all risks up to alpha;
with the whole prior it would test alpha alone. Bets that adapt (Waudby-Smith and Ramdas 2024) were left out: for errors
that are 0 or 1 and alike the mixture loses little and has no order of its own to tune. A binomial test that is repeated
as labels come was rejected: at level .05, looked at after each of 1,000 images, it errs several times as often.

References:
    Robbins (1970), Annals of Mathematical Statistics 41(5); Ville (1939);
    Waudby-Smith & Ramdas (2024), Journal of the Royal Statistical Society B 86(1).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaln

from natix_lib.arrays import Floats, Ints
from natix_lib.decisions.binomial import require_open
from natix_lib.errors import CalibrationError

HALVINGS = 50  # of the interval that a bound lies in


@dataclass(frozen=True)
class Audit:
    """What labels of accepted images show of a promise.

    Attributes:
        n: Images.
        errors: How many of them are wrong.
        broken_at: How many images had been seen when the promise was shown broken; None while it stands.
        lower: Lower bound of the risk, in [0, 1); 0 while nothing can be said.
        upper: Upper bound of the risk, in (0, 1]; 1 while nothing can be said.
        wealth: The largest log of the wealth so far, nats.
    """

    n: int
    errors: int
    broken_at: int | None
    lower: float
    upper: float
    wealth: float


def audit(wrong: ArrayLike, alpha: float, level: float) -> Audit:
    """Test that accepted images are wrong with a probability of at most alpha.

    Args:
        wrong: Whether each accepted image was wrong, (n,), in the order in which the images were drawn; n may be 0.
        alpha: The promised risk, in (0, 1).
        level: Probability that a promise which holds is ever called broken, and that a bound ever fails, in (0, 1).

    Raises:
        CalibrationError: If `wrong` is no list of truth values, or a probability is out of its range.
    """
    require_open("alpha", alpha)
    require_open("level", level)
    flags = np.asarray(wrong)
    if flags.ndim != 1 or (flags.size and flags.dtype != np.bool_):
        raise CalibrationError(f"wrong must be truth values of shape (n,), got {flags.dtype} of shape {flags.shape}")
    errors = np.cumsum(flags, dtype=np.int64)
    seen = np.arange(1, len(flags) + 1)
    wealth, needed = log_wealth(errors, seen, alpha), -np.log(level)
    broken = np.flatnonzero(wealth >= needed)
    return Audit(
        n=len(flags),
        errors=int(errors[-1]) if len(errors) else 0,
        broken_at=int(broken[0]) + 1 if len(broken) else None,
        lower=_lower(errors, seen, needed),
        upper=1.0 - _lower(seen - errors, seen, needed),
        wealth=float(wealth.max(initial=0.0)),
    )


def log_wealth(errors: Ints, seen: Ints, alpha: float) -> Floats:
    """Log of the wealth after `errors` errors in `seen` images, each (n,); -inf where it is below any number."""
    k, right = errors.astype(np.float64), (seen - errors).astype(np.float64)
    with np.errstate(divide="ignore"):
        above = np.log(betainc(right + 1, k + 1, 1 - alpha))  # the posterior's share above alpha
    odds = k * np.log(alpha) + (right + 1) * np.log1p(-alpha)
    result: Floats = betaln(k + 1, right + 1) + above - odds
    return result


def _lower(errors: Ints, seen: Ints, needed: float) -> float:
    """The risk below which every one has been shown wrong at some time; it never exceeds the bound that it rounds."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if (log_wealth(errors, seen, middle) >= needed).any():
            low = middle
        else:
            high = middle
    return low if low > 1e-12 else 0.0
