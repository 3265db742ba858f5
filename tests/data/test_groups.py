import numpy as np
import pytest

from natix_lib.data.groups import Linked, near_duplicates, same_value, within_metres


def test_components_run_through_all_rules() -> None:
    linked = Linked({"group": np.array([[0, 1]]), "place": np.array([[1, 2]]), "near": np.array([[4, 5]])})
    component = linked.components(6)
    assert len(set(component[[0, 1, 2]])) == 1 and component[4] == component[5]
    assert len(set(component.tolist())) == 3


def test_equal_values_are_joined_and_unknown_ones_are_not() -> None:
    assert same_value(["a", None, "b", "a", None, "a"]).tolist() == [[0, 3], [3, 5]]


@pytest.mark.parametrize(("latitude", "metres"), [(0.0, 99.0), (60.0, 99.0), (-45.0, 99.0)])
def test_places_are_joined_by_their_distance_on_the_ground(latitude: float, metres: float) -> None:
    degree = 111_195.0  # metres, of a great circle
    lat = np.array([latitude, latitude + metres / degree, latitude, np.nan])
    lon = np.array([10, 10, 10 + 101 / (degree * np.cos(np.radians(latitude))), np.nan])
    assert within_metres(lat, lon, 100).tolist() == [[0, 1]]
    assert len(within_metres(lat, lon, 0)) == 0


def test_places_across_the_date_line_are_near() -> None:
    assert len(within_metres(np.zeros(2), np.array([179.9999, -179.9999]), 100)) == 1


@pytest.mark.parametrize("bits", [0, 1, 4, 9])
def test_near_hashes_are_exactly_those_that_comparing_all_pairs_gives(bits: int) -> None:
    generator = np.random.default_rng(bits)
    base = generator.integers(0, 2**63, 40, dtype=np.uint64)
    flips = np.array(
        [sum(1 << int(b) for b in generator.choice(64, k, replace=False)) for k in range(12)], dtype=np.uint64
    )
    hashes = [int(a ^ flip) for a in base for flip in flips] + [None]
    found = {frozenset(pair) for pair in near_duplicates(hashes, bits).tolist()}
    expected = {
        frozenset((i, j))
        for i in range(len(hashes) - 1)
        for j in range(i)
        if bin(hashes[i] ^ hashes[j]).count("1") <= bits and hashes[i] != hashes[j]
    }
    assert found == expected


def test_equal_hashes_are_joined_even_at_zero_bits_and_never_when_switched_off() -> None:
    assert Linked({"near": near_duplicates([7, 7, 9, 7], 0)}).components(4).tolist() == [0, 0, 1, 0]
    assert len(near_duplicates([7, 7], -1)) == 0


def test_no_hash_joins_nothing() -> None:
    assert len(near_duplicates([None, None], 4)) == 0
