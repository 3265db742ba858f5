import itertools

import numpy as np
import pytest
from scipy.stats import permutation_test

from natix_lib.errors import ConfigError
from natix_lib.explora.gate import LEAST_GROUPS, LEVEL, gain, held_out, require_groups


def random_answers(groups: int, better: float, seed: int, size: int = 6) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images of a group are right together, so a group is little more than one observation."""
    generator = np.random.default_rng(seed)
    shares = np.repeat(generator.uniform(0.2, 0.8, (2, groups)), size, axis=1)
    shares[1] += better
    before, after = (generator.random(shares.shape) < shares).astype(float)
    return before, after, [f"drive {i // size}" for i in range(groups * size)]


def test_the_p_value_is_that_of_scipys_sign_flip_test_over_groups() -> None:
    for seed in range(4):
        before, after, groups = random_answers(9, 0.2, seed)
        differences = (after - before).reshape(9, -1).sum(axis=1)
        flips = permutation_test(
            (differences, np.zeros(9)),
            lambda x, y: (x - y).sum(),
            permutation_type="samples",
            alternative="greater",
            n_resamples=10**6,  # more than there are: all are taken
        )
        assert gain(before, after, groups, 0).p == pytest.approx(flips.pvalue)


def test_bounds_are_the_shifts_that_a_sign_flip_test_over_groups_just_bears() -> None:
    before, after, groups = random_answers(8, 0.3, 3)
    sums, sizes = (after - before).reshape(8, -1).sum(axis=1), np.full(8, 6.0)
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))

    def p(shift: float) -> float:
        rest = sums - shift * sizes
        return float((signs @ rest >= rest.sum() - 1e-9).mean())

    found = gain(before, after, groups, 0)
    assert p(found.low - 1e-6) <= LEVEL < p(found.low + 1e-6) and found.low < found.mean < found.high
    mirrored = gain(after, before, groups, 0)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_drawn_subsets_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = random_answers(13, 0.1, 0)
    exact = gain(*answers, 0)
    monkeypatch.setattr("natix_lib.explora.gate.EXACT", 0)
    drawn = gain(*answers, 0)
    assert drawn == gain(*answers, 0) != gain(*answers, 1) and drawn.mean == exact.mean
    assert (drawn.low, drawn.high, drawn.p) == pytest.approx((exact.low, exact.high, exact.p), abs=0.02)


def test_without_a_gain_one_in_twenty_is_promoted_at_most_and_a_large_one_is_seen() -> None:
    chance = np.mean([gain(*random_answers(12, 0.0, seed), 0).beyond_noise for seed in range(400)])
    assert chance < 0.08  # three deviations of a share of .05 in 400
    assert np.mean([gain(*random_answers(12, 0.4, seed), 0).beyond_noise for seed in range(50)]) > 0.9


def test_images_of_one_group_are_one_observation() -> None:
    before, after = np.zeros(40), np.ones(40)
    few = gain(before, after, [str(i % 4) for i in range(40)], 0)
    assert (few.mean, few.low, few.high, few.p) == (1.0, -1.0, 1.0, 1 / 16) and not few.beyond_noise
    enough = gain(before, after, [str(i % LEAST_GROUPS) for i in range(40)], 0)
    assert enough.p == 1 / 32 and enough.beyond_noise


def test_equal_answers_are_no_gain() -> None:
    right = np.random.default_rng(0).random(60)
    same = gain(right, right, [str(i % 20) for i in range(60)], 0)
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0) and not same.beyond_noise


def test_whole_groups_are_held_out_whatever_their_order_and_the_rest_has_every_class() -> None:
    groups = [f"g{i // 3}" for i in range(60)]
    (first,) = held_out(groups, np.zeros(60, dtype=np.int64), 0.001)
    labels = np.array([int(group == first) for group in groups])  # class 1 is in one group alone
    held = held_out(groups, labels, 0.5)
    assert len(held) == 10 and first not in held
    assert held_out(groups[::-1], labels[::-1], 0.5) == held > held_out(groups, labels, 0.2)
    assert len(held_out(groups, labels, 0.001)) == 1


def test_what_cannot_be_asked_about_is_refused() -> None:
    with pytest.raises(ConfigError, match="explora.probe_share 0.2 can hold out none of the 2 groups of TRAIN"):
        held_out(["a", "b"], np.array([0, 1]), 0.2)
    with pytest.raises(ConfigError, match="needs at least 5 groups .* gives 4 of the 20 groups of TRAIN: raise it"):
        require_groups(4, 20, "better")
    require_groups(5, 25, "better")
    require_groups(1, 2, "always")
