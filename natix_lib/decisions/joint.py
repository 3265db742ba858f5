"""Several promises of one accept rule that hold together: of errors, misses, false alarms, each class, named slices.

A bound on all errors hides the ones that matter. With few positives a quarter of them may be accepted as negative and
the accepted are still 95 % right. So beside the risk of all accepted rows (`overall`) these may be asked for: of the
true positives at most a share is accepted as negative (`misses`); of the rows accepted as positive at most a share is
negative (`false_alarms`); of the rows accepted as a class at most a share is another (`class`); of the accepted rows of
a slice, such as images in rain, at most a share is wrong (`slice`).

**The rule** has a threshold for each predicted class, and what is promised of positives needs two: publish above one,
clear below the other, ask a person between. Thresholds that are chosen one after the other on the rows that test them
could not be tested together, so VAL_SELECT says how far the thresholds of the parts lie from each other, and one number
u moves them all: a row is accepted iff its score less the offset of its part is above u.

**The proof.** Each of J promises has delta / J. On the rows that it speaks of, sorted by score less offset, the exact
band of `band` certifies all ranks at once, and misses, which only rise as u falls, all that one binomial test of the
order statistics passes. So with probability 1 - delta whatever any of them certifies is true, at every u, and a u may
be taken with all errors in sight: the one at which the most promises hold, and among those the largest coverage. A
promise that holds at no u, or not where the others do, is named as not certified; the others hold none the less. The
promises need not speak of the same rows, and with groups each draws one row a group of its own: a miss one positive
image of each group that has any. Slices may overlap, and need not be known of the rows to come: the rule does not look
at them, and the promise is about the rows of the slice that come.

Rejected: thresholds for each slice, which would need the slice of every row to come; the largest threshold that each
promise certifies by itself and the strictest of those, because a risk may rise where fewer are accepted; a chain for
each promise, whose tested ranks are others than those of the next; testing all promises at one rank with the whole of
delta (Angelopoulos et al. 2021, Learn then Test, arXiv 2110.01052), which is stronger where all hold and certifies
nothing where one does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.decisions.band import staircase
from natix_lib.decisions.binomial import keeps_with_margin, least_accepted, most_errors, require_open, upper_risk_bound
from natix_lib.decisions.curve import rank
from natix_lib.decisions.draws import independent_rows
from natix_lib.decisions.slices import Slice
from natix_lib.errors import CalibrationError

WAYS = (0.0, 0.25, 0.5, 0.75, 1.0, -0.5)  # along the direction of `offsets`
SEARCHED = 20_000  # rows that are enough to choose among them
OVERALL, MISSES, FALSE_ALARMS, OF_CLASS, OF_SLICE = KINDS = ("overall", "misses", "false_alarms", "class", "slice")


@dataclass(frozen=True)
class Asked:
    """A promise that is asked for.

    Attributes:
        kind: One of `KINDS`.
        alpha: Bound on the share, in (0, 1).
        of_class: Number of the class, for the kind `class`.
        of_slice: The slice, for the kind `slice`.
    """

    kind: str
    alpha: float
    of_class: int | None = None
    of_slice: Slice | None = None

    def __str__(self) -> str:
        """The kind, with the class's number or the slice."""
        return " ".join(str(part) for part in (self.kind, self.of_class, self.of_slice) if part is not None)


@dataclass(frozen=True)
class Kept:
    """What became of a promise at the thresholds that were chosen.

    Attributes:
        asked: The promise.
        certified: Whether it holds.
        unit: What a row stands for, `image` or `group`.
        n: Rows that it speaks of, whether accepted or not.
        m: Rows that the share is of: those of them that are accepted, for misses all of them.
        k: Wrong among the m.
        upper_bound: Clopper-Pearson bound on the share at the level of the test; None if it is not certified.
        reason: Why it is not certified; empty otherwise.
    """

    asked: Asked
    certified: bool
    unit: str
    n: int
    m: int
    k: int
    upper_bound: float | None
    reason: str


@dataclass(frozen=True)
class Outcome:
    """Predicted and true classes of rows, with their scores.

    Attributes:
        scores: Confidence of each prediction, finite, (n,).
        predicted: Class number, (n,).
        labels: Class number, (n,).
        positive: Which classes are positive, (C,).
        groups: Group of each row, (n,); None takes rows as independent.
        positives: Rows of positive classes that misses are counted on in place of these; None takes these.
        slices: Which rows are in each slice that something is promised of, (n,).
    """

    scores: Floats
    predicted: Ints
    labels: Ints
    positive: Bools
    groups: ArrayLike | None = None
    slices: Mapping[Slice, Bools] = field(default_factory=dict)
    positives: "Outcome | None" = None

    def counted_for(self, asked: Asked) -> "Outcome":
        """The rows that a promise is counted on."""
        return self.positives if asked.kind == MISSES and self.positives is not None else self

    def spoken_of(self, asked: Asked) -> tuple[Bools, Bools]:
        """Which rows a promise speaks of, and which of all rows are wrong in its sense if they are accepted."""
        wrong = self.predicted != self.labels
        called, truth = self.positive[self.predicted], self.positive[self.labels]
        if asked.kind == MISSES:
            return truth, ~called
        if asked.kind == FALSE_ALARMS:
            return called, ~truth
        if asked.kind == OF_CLASS:
            return self.predicted == asked.of_class, wrong
        if asked.of_slice is not None:
            return self.slices[asked.of_slice], wrong
        return np.ones(len(wrong), dtype=np.bool_), wrong

    def every(self, step: int) -> "Outcome":
        """One row of `step`."""
        groups = None if self.groups is None else np.asarray(self.groups)[::step]
        return Outcome(
            self.scores[::step],
            self.predicted[::step],
            self.labels[::step],
            self.positive,
            groups,
            {name: mask[::step] for name, mask in self.slices.items()},
            None if self.positives is None else self.positives.every(step),
        )


def offsets(other: Outcome, asked: Sequence[Asked], delta: float) -> Floats:
    """How far the threshold of each predicted class lies from u, (C,), by rows that test nothing.

    The direction is where these rows keep a class's own promise: `class`, or `false_alarms` of positive ones and
    `misses` of the others, or else `overall`. How far to go in it is what would certify the most on these rows; not at
    all, one threshold for all classes, is one of the choices. A bad offset costs coverage, never a promise.

    Args:
        other: Those rows.
        asked: The promises.
        delta: As in `certify_jointly`.
    """
    classes = len(other.positive)
    direction = np.zeros(classes)
    of = {each.kind if each.of_class is None else each.of_class: each for each in asked}
    for c in range(classes):
        if (other.predicted == c).any():
            promises = [of[key] for key in (c, FALSE_ALARMS if other.positive[c] else MISSES) if key in of]
            direction[c] = max(_lowest(other.counted_for(each), each, c) for each in promises or [of[OVERALL]])
    some = other.every(len(other.labels) // SEARCHED + 1)
    best, most = 0.0, (-1, -1)
    for way in WAYS:
        kept = certify_jointly(some, asked, delta, way * direction).kept
        merit = sum(each.certified for each in kept), kept[0].m
        if merit > most:
            best, most = way, merit
    return best * direction


def _lowest(other: Outcome, asked: Asked, c: int) -> float:
    """The lowest score above which the rows predicted as a class, or as one that is not positive, keep to a promise."""
    among, wrong = other.spoken_of(asked)
    rows = ~other.positive[other.predicted] if asked.kind == MISSES else other.predicted == c
    if not rows.any():  # of the positives none is predicted so
        return 0.0
    ranking = rank(other.scores[rows], (among & wrong)[rows])
    of = np.full(len(ranking.ends), among.sum()) if asked.kind == MISSES else ranking.ends
    keeping = np.flatnonzero(ranking.errors <= asked.alpha * of)
    return float(ranking.scores[keeping[-1]] if len(keeping) else ranking.scores[0])


@dataclass(frozen=True)
class _Counts:
    """A promise's counts at every u of the path, (g,)."""

    asked: Asked
    unit: str
    n: int
    m: Ints
    k: Ints
    certified: Bools
    level: float

    def at(self, place: int, delta: float) -> Kept:
        m, k = int(self.m[place]), int(self.k[place])
        if self.certified[place]:
            return Kept(self.asked, True, self.unit, self.n, m, k, upper_risk_bound(k, m, self.level), "")
        return Kept(self.asked, False, self.unit, self.n, m, k, None, self._reason(delta))

    def _reason(self, delta: float) -> str:
        terms = f"at alpha {self.asked.alpha:g}, delta {delta:.3g}"
        needed = least_accepted(self.asked.alpha, delta)
        if self.certified.any():
            return f"holds at other thresholds {terms}, but not together with the other promises"
        if self.n < needed:
            return f"needs at least {needed} {self.unit}s that it speaks of {terms}, has {self.n}"
        return f"no threshold is certified {terms}"

    def by_luck(self) -> Bools:
        """Where the rows keep to alpha with a margin of one error and a standard deviation; no promise."""
        return (self.m > 0) & keeps_with_margin(self.k, self.m, self.asked.alpha)


@dataclass(frozen=True)
class Joint:
    """Thresholds and what they promise.

    Attributes:
        thresholds: Accept a row iff its score is above that of its predicted class, (C,); None accepts nothing.
        kept: Each promise, in the order in which they were asked for.
    """

    thresholds: Floats | None
    kept: list[Kept]


def certify_jointly(
    rows: Outcome, asked: Sequence[Asked], delta: float, offset: Floats, empirical: bool = False
) -> Joint:
    """The thresholds at which the most promises hold, and of those the ones that accept the most rows.

    Args:
        rows: Rows that nothing was trained or chosen on.
        asked: Promises, one of each kind, class and slice, `overall` among them.
        delta: Probability that not all of the certified ones hold, in (0, 1).
        offset: Of each class, (C,), finite, chosen without these rows' labels, see `offsets`.
        empirical: Whether thresholds are given too where no promise can be certified, or not each: those at which the
            rows keep to it with a margin.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    require_open("delta", delta)
    if not asked or not np.isfinite(offset).all():
        raise CalibrationError(f"asked must name a promise and offset must be finite, got {len(asked)} and {offset}")
    shifted = rows.scores - offset[rows.predicted]
    path = rank(shifted, np.zeros(len(shifted), dtype=np.bool_)).thresholds
    share = delta / len(asked)
    counts = [_counted(rows.counted_for(each), each, offset, path, share) for each in asked]
    merit = np.zeros(len(path), dtype=np.int64)
    lucky = np.zeros(len(path), dtype=np.int64)
    for each in counts:
        merit += each.certified
        if not each.certified.any():
            lucky += each.by_luck()
    if empirical:  # what cannot be promised still keeps to its bound where it can, but outweighs no promise
        merit = merit * (len(counts) + 1) + lucky
    if not merit.any():
        last = len(path) - 1
        nothing = [each.at(last, share) for each in counts]
        return Joint(None, [Kept(k.asked, False, k.unit, k.n, 0, 0, None, k.reason) for k in nothing])
    place = int(np.flatnonzero(merit == merit.max())[-1])
    return Joint(_thresholds(rows, shifted, offset, float(path[place])), [each.at(place, share) for each in counts])


def _counted(rows: Outcome, asked: Asked, offset: Floats, path: Floats, share: float) -> _Counts:
    require_open("alpha", asked.alpha)
    shifted = rows.scores - offset[rows.predicted]
    among, wrong = rows.spoken_of(asked)
    places = np.flatnonzero(among)
    none = np.zeros(len(path), dtype=np.int64)
    if not len(places):
        unit = "image" if rows.groups is None else "group"
        return _Counts(asked, unit, 0, none, none, np.zeros(len(path), dtype=np.bool_), share)
    groups = None if rows.groups is None else np.asarray(rows.groups)[places]
    drawn, unit = independent_rows(groups, shifted[places], wrong[places])
    ranking = rank(shifted[places][drawn], wrong[places][drawn])
    n = int(ranking.ends[-1])
    passed = np.searchsorted(-ranking.scores, -path, side="left")  # ends of scores above each u
    m, k = (np.append(0, counts)[passed] for counts in (ranking.ends, ranking.errors))
    if asked.kind == MISSES:
        return _Counts(asked, unit, n, none + n, k, k <= most_errors(n, asked.alpha, share), share)
    stairs = staircase(n, asked.alpha, share)
    return _Counts(asked, unit, n, m, k, k <= stairs.at(m), stairs.level)


def _thresholds(rows: Outcome, shifted: Floats, offset: Floats, u: float) -> Floats:
    """Offset + u, moved by no more than rounding so that exactly the rows above u are above them."""
    lowest = -np.log(len(offset) - 1) - 1  # below all log-odds
    result: Floats = np.maximum(u + offset, lowest)
    for c in range(len(offset)):
        scores, accepted = rows.scores[rows.predicted == c], shifted[rows.predicted == c] > u
        if (~accepted).any():
            result[c] = max(result[c], scores[~accepted].max())
        if accepted.any():
            result[c] = min(result[c], np.nextafter(scores[accepted].min(), -np.inf))
    return result
