import tracemalloc

import numpy as np
import pytest

from natix_lib.data.groups import joined
from natix_lib.data.places import EARTH_RADIUS_M, metres_between, within_metres

DEGREE = np.pi * EARTH_RADIUS_M / 180  # metres of a great circle


def smallest(to: np.ndarray) -> np.ndarray:
    return joined(len(to), np.arange(len(to)), to)


def haversine_groups(lat: np.ndarray, lon: np.ndarray, metres: float) -> np.ndarray:
    """Components by the distances of all pairs."""
    known = np.flatnonzero(np.isfinite(lat) & np.isfinite(lon))
    phi, theta = np.radians(lat[known]), np.radians(lon[known])
    a = np.sin((phi[:, None] - phi) / 2) ** 2
    a = a + np.cos(phi[:, None]) * np.cos(phi) * np.sin((theta[:, None] - theta) / 2) ** 2
    i, j = np.nonzero(2 * EARTH_RADIUS_M * np.arcsin(np.minimum(1, np.sqrt(a))) <= metres)
    return joined(len(lat), known[i], known[j])


@pytest.mark.parametrize("seed", range(40))
def test_groups_are_those_of_all_pairs_also_at_the_poles_and_the_date_line(seed: int) -> None:
    generator = np.random.default_rng(seed)
    metres = 10 ** generator.uniform(-1, 4)
    count = int(generator.integers(1, 300))
    lat, lon = generator.choice([0, 52, 89.9999, 90, -89.999]), generator.choice([0, 180, -179.9999, 33])
    spread = metres * 10 ** generator.uniform(-1, 2) / DEGREE
    lats = lat + generator.normal(0, spread, count)
    lons = lon + generator.normal(0, spread, count) / max(np.cos(np.radians(lat)), 1e-3)
    lats = np.where(np.abs(lats) > 90, np.sign(lats) * 180 - lats, lats)
    lons = (lons + 180) % 360 - 180
    lats[:1], lons[1:2] = np.nan, np.inf
    to = within_metres(lats, lons, metres)
    linked = np.flatnonzero(to != np.arange(count))
    assert smallest(to).tolist() == haversine_groups(lats, lons, metres).tolist()
    assert (metres_between(lats, lons, linked, to[linked]) <= metres * (1 + 1e-6) + 1e-5).all()
    assert len(linked) == count - len(set(smallest(to).tolist()))


@pytest.mark.parametrize("latitude", [0.0, 60.0, -45.0])
def test_a_place_at_exactly_the_radius_is_near_and_one_beyond_is_not(latitude: float) -> None:
    for metres in (1.0, 100.0, 5000.0):
        lat = np.array([latitude, latitude + metres / DEGREE, latitude - (metres + 1e-4) / DEGREE])
        assert smallest(within_metres(lat, np.full(3, 10.0), metres)).tolist() == [0, 0, 2]


def test_places_across_the_date_line_are_near_and_nothing_is_when_switched_off() -> None:
    lon = np.array([179.9999, -179.9999])
    assert within_metres(np.zeros(2), lon, 100).tolist() == [0, 0]
    assert within_metres(np.zeros(2), lon, 0).tolist() == [0, 1]
    assert within_metres(np.full(2, np.nan), lon, 100).tolist() == [0, 1]


def test_two_crowds_are_joined_by_their_only_near_places() -> None:
    """Cubes with so many places that only the k-d tree looks at them."""
    generator = np.random.default_rng(0)
    for gap, groups in ((99.9, 1), (100.1, 2)):
        lat = np.concatenate([generator.uniform(-40, 0, 300), generator.uniform(gap, gap + 40, 300)]) / DEGREE
        lat[[0, 300]] = 0, gap / DEGREE
        lon = generator.uniform(-1e-5, 1e-5, 600)
        lon[[0, 300]] = 0
        to = within_metres(lat, lon, 100)
        linked = np.flatnonzero(to != np.arange(600))
        assert len(set(smallest(to).tolist())) == groups
        assert metres_between(lat, lon, linked, to[linked]).max() <= 100
        assert smallest(to).tolist() == haversine_groups(lat, lon, 100).tolist()


def test_20_000_frames_of_one_crossing_take_no_memory_for_their_pairs() -> None:
    generator = np.random.default_rng(0)
    lat, lon = generator.normal(48, 2e-4, 20_000), generator.normal(11, 2e-4, 20_000)
    tracemalloc.start()
    assert len(set(smallest(within_metres(lat, lon, 100)).tolist())) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # all pairs: 3.2 GB
