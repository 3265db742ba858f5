"""Drift without labels: do the images of a stream still look like those that the policy was calibrated on?

A policy's promise holds for images that are exchangeable with VAL_CALIB. That is tested image by image, from the
model's answers alone: the log-odds of the prediction, which calibration does not change, and the predicted class.

- Conformal p-values (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2nd ed. 2022, ch. 8). Each image
  is ranked among the reference AND all images of the stream up to itself, ties broken by a uniform number. While all
  are exchangeable these p-values are independent and uniform, exactly, however small the reference is. Ranking among
  the reference alone was rejected: its p-values share the reference's error, which a martingale takes for drift.
- Bets (the simple jumper: Vovk et al., Retrain or not retrain, COPA 2021). Capital is multiplied by 1 + e (p - 1/2), a
  fair game for any slope e; it is spread over several slopes, and a little of it moves among them with each image.
- Starts. A jumper loses while nothing happens, and would find a late shift late. So a part of the capital waits, and a
  piece of it begins to bet every `BLOCK` images: piece b gets 1 / log2(b + 2) - 1 / log2(b + 3), and these sum to 1.
- The alarm. A mixture of fair games is fair, so no more than a share `level` of all streams without a shift ever brings
  it to 1 / level (Ville's inequality), however long they are. There is one game of the log-odds, with half the level,
  and one of each class against the others, with equal parts of the other half (of two classes one game says it all).
  Their bounds are added up, for the games are fair each in what it sees itself and not in what the others see: the
  capital shown is the largest of game x part. An average would promise the same only if all saw the same.

Log-odds are rounded down to multiples of WIDTH, fixed beforehand, so the state is a count for each level. Levels at
quantiles of the reference were rejected: they treat the reference unlike the stream, and nothing exact remains.

The uniform numbers come from a generator whose seed is the hash of VAL_CALIB's logits, one number an image, in the
order in which images are observed: nobody chooses it, and the same images give the same capital. The order must not
depend on what the images show: `natix serve` takes that of its answers, `natix predict` draws one by the same seed.

What is assumed: images of the stream are exchangeable with each other too. Frames of one drive are not, nor is a day
after a night: a stream of those can alarm although each month of it would be like VAL_CALIB. Where VAL_CALIB has
groups, one image of each is taken (`draws.independent_rows`), because frames of one group would make the reference look
narrower than it is. Only a change of what the model answers is seen: errors that leave its answers as they were need
labels. After many images of the shifted kind they are part of what new ones are ranked among, so a small shift against
a small reference may never be found; the alarm stays once it is on.

A two-sample test by Polya urns over the blocks between reference quantiles, exact as well, was tried: it found an
over-confident camera a little sooner and small losses of signal later, and needs a copy of its counts for each start.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_lib.arrays import Floats
from natix_lib.decisions.draws import independent_rows
from natix_lib.decisions.score import check_logits, predictions_and_log_odds
from natix_lib.errors import CalibrationError

LEVEL = 0.01  # share of streams without a shift in which there is ever an alarm, at most
WIDTH = 0.125  # of a level, log-odds: a sixteenth of what calibrated log-odds spread
LOWEST, LEVELS = -64, 576  # log-odds from -8 to 64; those outside are the first level and the last
SLOPES = np.array([-1.0, -0.5, -0.25, 0.25, 0.5, 1.0])  # of bets: 1 is Vovk's; smaller ones win on smaller shifts
JUMP = 3e-4  # share of the capital that changes its slope with each image; Vovk's .01 has no later starts beside it
BLOCK = 100  # images from one start to the next: a shift waits for half of that, and starts are fewer, so dearer


def reference_of(logits: ArrayLike, groups: ArrayLike | None = None) -> dict[str, Any]:
    """What a stream is compared with, as JSON.

    Args:
        logits: Logits of VAL_CALIB, (n, C).
        groups: Group of each image, (n,); one image of each is taken. None takes all images.

    Returns:
        `images`, how many were taken; `width`, of a level; `first_level` and `counts`, images of each level from that
        one on; `classes`, images predicted as each class, (C,).

    Raises:
        CalibrationError: If the logits or the groups break their rules.
    """
    values = check_logits(logits)
    rows, _ = independent_rows(groups, *values.astype(np.float64).T)
    prediction, log_odds = predictions_and_log_odds(values[rows])
    counts = np.bincount(_levels(log_odds, WIDTH), minlength=LEVELS)
    held = np.flatnonzero(counts)
    return {
        "images": len(prediction),
        "width": WIDTH,
        "first_level": int(held[0]) + LOWEST,
        "counts": counts[held[0] : held[-1] + 1].tolist(),
        "classes": np.bincount(prediction, minlength=values.shape[1]).tolist(),
    }


class Drift:
    """The test of one stream; its state does not grow. It has no lock: one thread at a time may call `observe`.

    Attributes:
        images: Images observed.
        capital: The largest of the games' capitals, each times its part of the level; the alarm is at 1 / level.
        alarmed_after: Images that had been observed when the alarm went on; 0 while it is off. It stays on, and the
            capital stays where it was then.
    """

    def __init__(self, reference: Mapping[str, Any], seed: int, level: float = LEVEL) -> None:
        """Begin a stream.

        Args:
            reference: What `reference_of` gives.
            seed: Of the numbers that break ties, at least 0.
            level: Probability of an alarm, ever, while nothing has shifted; in (0, 1).

        Raises:
            CalibrationError: If the level, or a level of the reference, is out of range.
        """
        if not 0 < level < 1:
            raise CalibrationError(f"level must be above 0 and below 1, got {level}")
        first = reference["first_level"] - LOWEST
        last = first + len(reference["counts"]) - 1
        if first < 0 or last >= LEVELS:
            raise CalibrationError(
                f"the levels of a reference must be in {LOWEST}..{LOWEST + LEVELS - 1}, "
                f"got {first + LOWEST} to {last + LOWEST}"
            )
        self.level = level
        self.images, self.alarmed_after, self.capital = 0, 0, 0.0
        self._width: float = reference["width"]
        self._total: int = reference["images"]
        self._counts = np.zeros(LEVELS, dtype=np.int64)
        self._counts[first : last + 1] = reference["counts"]
        self._classes = np.array(reference["classes"], dtype=np.int64)
        self._games = slice(1, None) if len(self._classes) == 2 else slice(None)
        games = len(self._classes[self._games])
        self._parts = np.array([0.5, *[0.5 / games] * games])
        self._wealth = np.zeros((1 + games, len(SLOPES)))
        self._random = np.random.default_rng(seed)

    @property
    def alarm(self) -> bool:
        """Whether the stream is no longer like the reference."""
        return self.alarmed_after > 0

    @property
    def sentence(self) -> str:
        """What the alarm means, or that there is none, on one line."""
        if not self.alarm:
            return f"no drift was seen in {self.images} {'image' if self.images == 1 else 'images'}"
        return (
            f"drift: {self.alarmed_after} images showed that they differ from those that the policy was calibrated on: "
            f"what it promises no longer applies (a false alarm has a probability of at most {self.level:g})"
        )

    def observe(self, log_odds: float, prediction: int) -> None:
        """Take the next image of the stream: the log-odds of its prediction at temperature 1, and the class."""
        if not self.alarm:
            self._bet(self.p_values(log_odds, prediction))
        self.images += 1
        if not self.alarm and self.capital >= 1 / self.level:
            self.alarmed_after = self.images

    def observe_shuffled(self, log_odds: Sequence[float], predictions: Sequence[int]) -> None:
        """Take images of a set that is at hand, log-odds and classes (n,), in an order drawn by the seed.

        The order of a list, such as folder after folder, says something of what the images show.
        """
        for i in self._random.permutation(len(log_odds)).tolist():
            self.observe(log_odds[i], predictions[i])

    def p_values(self, log_odds: float, prediction: int) -> Floats:
        """The conformal p-values of the next image, which is counted: of the log-odds, and of the games of classes."""
        level = int(_levels(np.float64(log_odds), self._width))
        self._total += 1
        self._counts[level] += 1
        self._classes[prediction] += 1
        tie = self._random.random()
        confidence = self._counts[:level].sum() + tie * self._counts[level]
        others = self._total - self._classes
        of_class = tie * others
        of_class[prediction] = others[prediction] + tie * self._classes[prediction]
        values: Floats = np.array([confidence, *of_class[self._games]]) / self._total
        return values

    def _bet(self, p_values: Floats) -> None:
        block, place = divmod(self.images, BLOCK)
        if not place:
            self._wealth += (_waiting(block) - _waiting(block + 1)) / len(SLOPES)
        moved = JUMP * self._wealth.mean(axis=1, keepdims=True)
        self._wealth = ((1 - JUMP) * self._wealth + moved) * (1 + SLOPES * (p_values[:, np.newaxis] - 0.5))
        capitals = self._wealth.sum(axis=1) + _waiting(block + 1)
        self.capital = float((self._parts * capitals).max())


def _waiting(blocks: int) -> float:
    """The part of a game's capital that has not begun to bet when so many blocks have begun."""
    return float(1 / np.log2(blocks + 2))


def _levels(log_odds: Floats | np.float64, width: float) -> NDArray[np.int64]:
    levels: NDArray[np.int64] = np.clip(np.floor(log_odds / width) - LOWEST, 0, LEVELS - 1).astype(np.int64)
    return levels
