import numpy as np
import pytest

from natix_lib.data import duplicates
from natix_lib.data.duplicates import near_duplicates, near_duplicates_across
from natix_lib.data.groups import joined
from natix_lib.errors import DataError


def near_pairs(hashes: list, bits: int) -> list[tuple[int, int, int]]:
    """(bits, i, j) of all pairs, one by one."""
    known = [row for row, value in enumerate(hashes) if value is not None]
    binary = np.array([[hashes[row] >> bit & 1 for bit in range(64)] for row in known], dtype=np.int64).reshape(-1, 64)
    distance = (binary[:, None] != binary).sum(axis=2)
    i, j = np.nonzero(np.triu(distance <= bits, 1))
    return [(int(distance[a, b]), known[a], known[b]) for a, b in zip(i, j, strict=True)]


def groups_of(hashes: list, bits: int) -> list[int]:
    pairs = np.array(near_pairs(hashes, bits), dtype=np.int64).reshape(-1, 3)
    return joined(len(hashes), pairs[:, 1], pairs[:, 2]).tolist()


def drawn(seed: int, rows: int) -> list:
    """Hashes that vary in a few bits around a few centres, so that some are near, some equal and some crowded."""
    generator = np.random.default_rng(seed)
    free = generator.permutation(64)[: int(generator.integers(1, 65))]
    centres = generator.integers(0, 2, (max(1, rows // int(generator.integers(1, 9))), len(free)))
    bits = centres[generator.integers(0, len(centres), rows)] ^ (
        generator.random((rows, len(free))) < generator.choice([0, 0.02, 0.1, 0.5])
    )
    hashes = [sum(1 << int(place) for place, bit in zip(free, row, strict=True) if bit) for row in bits]
    return [None, *hashes[1:]]


@pytest.mark.parametrize("seed", range(24))
def test_groups_and_crossing_pairs_are_those_of_all_pairs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:  # crowds at once
        monkeypatch.setattr(duplicates, "CROWD", 2)
        monkeypatch.setattr(duplicates, "NEIGHBOURS", 1)
    generator = np.random.default_rng(seed)
    bits = int(generator.choice([0, 1, 2, 3, 4, 4, 9, 16]))
    hashes = drawn(seed, int(generator.choice([1, 2, 50, 250])))
    assert near_duplicates(hashes, bits).tolist() == groups_of(hashes, bits)
    roles = generator.integers(-1, 4, len(hashes))
    expected = [pair for pair in near_pairs(hashes, bits) if -1 < roles[pair[1]] != roles[pair[2]] > -1]
    crossing = near_duplicates_across(hashes, roles, bits, most=20)
    listed = [(distance, a, b) for a, b, distance in crossing.nearest.tolist()]
    assert (crossing.count, crossing.exact) == (len(expected), True)
    assert len(listed) == min(20, len(expected)) and set(listed) <= set(expected)
    assert [pair[0] for pair in listed] == [pair[0] for pair in sorted(expected)[:20]]


def test_a_crowd_that_is_no_component_is_looked_through_all_the_same() -> None:
    """2,048 words of a code of distance 5, all equal in 43 bits, and one pair that is near."""
    words = np.zeros(2048, dtype=np.uint64)
    for bit in range(11):
        words ^= np.where(np.arange(2048) >> bit & 1, np.uint64(0b11101101001 << bit), np.uint64(0))
    assert len(set(near_duplicates(words.tolist(), 4).tolist())) == 2048
    assert len(set(near_duplicates(words.tolist(), 5).tolist())) < 2048
    smallest = near_duplicates([*words.tolist(), int(words[77]) ^ (1 << 60)], 4)
    assert smallest[-1] == 77 and len(set(smallest.tolist())) == 2048


def test_equal_hashes_are_joined_even_at_zero_bits_and_never_when_switched_off() -> None:
    assert near_duplicates([7, 7, 9, 7], 0).tolist() == [0, 0, 2, 0]
    assert near_duplicates([7, 7], -1).tolist() == [0, 1]
    assert near_duplicates_across([7, 7], np.array([0, 1]), -1, 9).count == 0


def test_no_hash_joins_nothing() -> None:
    assert near_duplicates([None, None], 4).tolist() == [0, 1] and near_duplicates([], 4).tolist() == []


def test_all_images_of_one_hash_are_counted_without_listing_their_pairs() -> None:
    crossing = near_duplicates_across([5] * 30_000, np.arange(30_000) % 3, 4, most=10)
    assert crossing.count == 3 * 10_000**2 and len(crossing.nearest) == 10


def test_what_cannot_be_exact_in_reasonable_time_is_refused_by_its_key() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 300_000, dtype=np.uint64).tolist()
    with pytest.raises(
        DataError, match=r"up to 16 bits take some 4e\+10 comparisons for 300000 .*: lower split.near_duplicate_bits"
    ):
        near_duplicates(hashes, 16)


def test_counting_that_would_take_too_long_says_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_WORK_ACROSS", 100)
    crossing = near_duplicates_across(list(range(1024)), np.arange(1024) % 2, 4, most=10)
    assert not crossing.exact and crossing.count > 0
