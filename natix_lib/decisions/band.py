"""A bound on the errors of the m most confident rows that holds for all m at once, and a chain from one of them.

**The walk.** Sort rows by falling score and let k_m be the errors among the first m. A rank m is bad if the true risk
of accepting that share is above alpha. Whatever the shape of the risk, the k_m of all bad ranks together are
stochastically at least a walk S_m of independent Bernoulli(alpha) steps: the zones in which the risk is above alpha
begin where it equals alpha, so given how many rows fall into a zone, the errors up to its beginning and inside each of
its prefixes have a mean of at least alpha; couple errors to earlier and other rows to later places. The walk does not
depend on which ranks are bad. So nothing need be known of the risk, which may rise, fall and rise again, and two tests
are exact:

- `band`: for K with P(S_m <= K(m) for any m <= n) <= delta, all m with k_m <= K(m) are certified together.
- `chain`: ranks fixed before the errors are seen, each tested with the whole of delta, until one fails.

**Sharp ranks.** K_l(m), the most errors at which a binomial test of level l passes m rows, is a staircase, and a walk
that is ever at or under a step is so at the step's first rank. Those ranks, where one more error has just become
allowed, are the only ones that the band has to count, and the only ones that a chain should test: just before them a
test is many times as strict for almost the same coverage. The level l of the band is found by bisection over an exact
recursion, the distribution of the walk that has not been under the staircase so far; beyond `STEPS` steps a geometric
part of them is taken, which makes the staircase lower, never higher.

Between the two, a twentieth of delta goes to the band, which needs no guess, and the rest to a chain from where other
data say that it passes and reaches far (`selection.best_start`). A fifth accepted less at every size. Without such data
the band has all. What this accepts beside the best start that could be had is in docs/performance.md. Rejected: several
chains that share delta, whose fixed starts lie between sharp ranks; binary search, whose steps share it; Hoeffding-
Bentkus and DKW bounds in place of the binomial, far weaker at small risks; betting on group means.

With tied scores only the ends of tie groups can be accepted. The band covers them as it covers all ranks; the chain
tests the first end from each sharp rank on, which the proof does not speak of and the simulations do (tests, `heavy
ties`).
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, gammaln

from natix_lib.arrays import Floats, Ints
from natix_lib.decisions.binomial import most_errors
from natix_lib.decisions.curve import Ranking

STEPS = 200  # of the staircase that the recursion counts; all of them up to some 4,000 rows at alpha .05
CLOSE, AIM = 0.95, 0.98  # of delta, what is spent at least and what is tried for: the rest is worth no coverage
NARROW = 1.001  # between a level that spends too much and one that does not
ROUNDS = 40
FFT_FROM = 200_000  # products of a convolution
TAIL = 1e-14  # probability that a distribution may lose at its far end on a step: nothing beside any delta
BAND_SHARE = 0.05  # of delta, where a chain has the rest


@dataclass(frozen=True)
class Staircase:
    """The most errors K(m) that m rows may hold so that a Bernoulli(alpha) walk is rarely at or under it.

    Attributes:
        level: Level l of the binomial tests at the sharp ranks, in (0, delta].
        ranks: The sharp ranks, rising, (J,); empty where the rows are too few for any.
        allowed: K at each of them and up to the next, (J,).
    """

    level: float
    ranks: Ints
    allowed: Ints

    def at(self, ranks: Ints) -> Ints:
        """K of each rank, -1 below the first sharp one."""
        result: Ints = np.append(-1, self.allowed)[np.searchsorted(self.ranks, ranks, side="right")]
        return result


@functools.lru_cache(maxsize=64)
def staircase(n: int, alpha: float, delta: float) -> Staircase:
    """The highest one for up to n rows with P(S_m <= K(m) for any m <= n) <= delta, S a Bernoulli(alpha) walk.

    Args:
        n: Rows, at least 1.
        alpha: Bound on the risk, in (0, 1).
        delta: Probability that the walk may be at or under it, in (0, 1); at least .95 of it is spent where the steps
            are fine enough.
    """
    low, high = 0.0, delta  # low spends at most delta, high may spend more
    spent_low, spent_high = 0.0, np.inf
    level = delta / max(1.0, (2.4 * np.log(n * alpha) - 2.9) * (1 - 0.22 * np.log(10 * delta)))  # near what it comes to
    best = Staircase(0.0, *sharp_ranks(n, alpha, 0.0))
    for _ in range(ROUNDS):
        tried = Staircase(level, *sharp_ranks(n, alpha, level))
        spent = crossing(tried.ranks, tried.allowed, alpha)
        if spent > delta:
            high, spent_high = level, spent
        else:
            best, low, spent_low = tried, level, spent
            if spent >= CLOSE * delta or level == delta:
                break
        if low and high / low < NARROW:
            break
        level = _between(low, spent_low, high, spent_high, delta)
    return best


def _between(low: float, spent_low: float, high: float, spent_high: float, delta: float) -> float:
    """The next level to try: what is spent is close to a power of the level, and near it to its first."""
    if not np.isfinite(spent_high):
        return min(high, low * max(AIM * delta / spent_low, NARROW)) if spent_low else high
    if not spent_low:
        return float(np.sqrt(low * high)) if low else high * min(AIM * delta / spent_high, 0.9)
    slope = np.log(spent_high / spent_low) / np.log(high / low)
    step = np.log(AIM * delta / spent_low) / max(slope, 1e-9)
    return float(low * (high / low) ** np.clip(step / np.log(high / low), 0.1, 0.9))


@functools.lru_cache(maxsize=64)
def sharp_ranks(n: int, alpha: float, level: float) -> tuple[Ints, Ints]:
    """The ranks up to n at which one more error becomes allowed at a level, rising, and the errors allowed there, (J,).

    All of them, or `STEPS` that are spread geometrically; they are kept, so nobody may change them.
    """
    most = most_errors(n, alpha, level) if level else -1
    errors = np.arange(most + 1)
    if most >= STEPS:
        errors = np.unique(np.geomspace(1, most + 1, STEPS).round().astype(np.int64)) - 1
    return first_ranks(errors, alpha, level), errors


def first_ranks(errors: Ints, alpha: float, level: float) -> Ints:
    """The fewest rows m that pass the test with so many errors, P(Bin(m, alpha) <= errors) <= level, (J,)."""
    if not len(errors):
        return errors
    rare = -np.log(level) / alpha
    low = np.floor(errors / alpha).astype(np.int64) if level < 0.4 else errors  # their median: it does not pass
    high = low + np.ceil(2 * rare + 4 * np.sqrt((errors + 1) * rare / alpha)).astype(np.int64) + 2
    while (failing := bdtr(errors, high, alpha) > level).any():
        high[failing] *= 2
    while (high - low > 1).any():
        middle = (low + high) // 2
        passes = bdtr(errors, middle, alpha) <= level
        high, low = np.where(passes, middle, high), np.where(passes, low, middle)
    result: Ints = high
    return result


@functools.lru_cache(maxsize=4096)
def first_rank(errors: int, alpha: float, level: float) -> int:
    """As `first_ranks`, of one number of errors."""
    return int(first_ranks(np.array([errors]), alpha, level)[0])


def crossing(ranks: Ints, allowed: Ints, alpha: float) -> float:
    """P(S_m <= K(m) for any of the ranks m) of a walk S of Bernoulli(alpha) steps, K the errors allowed there."""
    alive, first, crossed, before = np.ones(1), 0, 0.0, 0  # P(S = first + i and never under K so far)
    for rank, most in zip(ranks.tolist(), allowed.tolist(), strict=True):
        steps, least = _steps(rank - before, alpha)
        alive, first, before = _convolved(alive, steps), first + least, rank
        under = max(most + 1 - first, 0)
        crossed += float(alive[:under].sum())
        alive, first = alive[under:], first + under
        if not len(alive):
            break
        alive = alive[: len(alive) - int(np.searchsorted(np.cumsum(alive[::-1]), TAIL))]
    return crossed


def _steps(count: int, alpha: float) -> tuple[Floats, int]:
    """P(Bin(count, alpha) = first + i) but for its tails, and first."""
    spread = 8.0 * np.sqrt(count * alpha * (1 - alpha)) + 12.0
    first = max(0, int(count * alpha - spread))
    k = np.arange(first, min(count, int(count * alpha + spread) + 1) + 1)
    chosen = gammaln(count + 1) - gammaln(k + 1) - gammaln(count - k + 1)
    shares = np.exp(chosen + k * np.log(alpha) + (count - k) * np.log1p(-alpha))
    return shares / shares.sum(), first


def _convolved(a: Floats, b: Floats) -> Floats:
    """Their convolution, by the FFT where that is faster; its rounding is some 1e-16 a place."""
    if len(a) * len(b) < FFT_FROM:
        return np.convolve(a, b)
    places = len(a) + len(b) - 1
    size = 1 << (places - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(a, size) * np.fft.rfft(b, size), size)[:places]


def band(ranking: Ranking, alpha: float, delta: float) -> tuple[int | None, float]:
    """Index of the largest end that the staircase certifies, None if none, and the level of its tests."""
    stairs = staircase(int(ranking.ends[-1]), alpha, delta)
    passed = np.flatnonzero(ranking.errors <= stairs.at(ranking.ends))
    return (int(passed[-1]) if len(passed) else None), stairs.level


def chain(ranking: Ranking, alpha: float, delta: float, start: int) -> int | None:
    """Index of the last end that passes of the sharp ranks from `start` on, None where the first fails.

    Args:
        ranking: Errors by rank.
        alpha: Bound on the risk.
        delta: Spent on each test.
        start: Rows of the first test, which is the last sharp rank up to there; chosen without these errors.
    """
    last = len(ranking.ends) - 1
    n = int(ranking.ends[last])
    allowed = max(most_errors(min(start, n), alpha, delta), 0)
    passed: int | None = None
    while True:
        rank = first_rank(allowed, alpha, delta)
        index = int(np.searchsorted(ranking.ends, min(rank, n)))  # the last is tested, which no sharp rank need be
        end = int(ranking.ends[index])
        allowed = most_errors(end, alpha, delta)
        if ranking.errors[index] > allowed:
            return passed
        passed = index
        if index == last:
            return passed
        # Errors grow more slowly than what is allowed: all sharp ranks before one error too many pass as well.
        reached = int(np.searchsorted(ranking.errors, allowed, side="right"))
        ahead = most_errors(int(ranking.ends[min(reached, last)]), alpha, delta)
        allowed = max(allowed + 1, ahead)
