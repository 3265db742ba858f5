import numpy as np
import pytest

from natix_lib.data import candidates as module
from natix_lib.data.candidates import BANDS, Candidates, candidates
from natix_lib.data.windows import MIRROR, WINDOWS


class Alone:
    """Each image alone."""

    kinds = np.arange(100, dtype=np.int32)

    def tells(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a != b

    def needed(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.ones(len(a), dtype=bool)

    def learn(self, a: np.ndarray, b: np.ndarray) -> None:
        pass


def packed(rows: np.ndarray) -> list[bytes | None]:
    return [row.astype("<u8").tobytes() for row in rows]


def triples(found: Candidates) -> list[tuple[int, int, int]]:
    return list(zip(found.a.tolist(), found.b.tolist(), found.bits.tolist(), strict=True))


def all_pairs(rows: np.ndarray, bits: int) -> set[tuple[int, int, int]]:
    """(a, b, bits of the nearest windows) of all pairs, one by one."""
    mirrored = np.concatenate([rows, rows[:, :1] ^ np.uint64(MIRROR)], axis=1)
    found = set()
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            distance = np.bitwise_count(mirrored[a][:, None] ^ mirrored[b])
            distance[-1, -1] = 64
            if distance.min() <= bits:
                found.add((a, b, int(distance.min())))
    return found


def few_scenes(bits: int) -> np.ndarray:
    """Hashes of 60 images of 12 scenes, a few bits apart."""
    generator = np.random.default_rng(bits)
    rows = generator.integers(1, 2**64, (12, len(WINDOWS)), dtype=np.uint64)[generator.integers(0, 12, 60)]
    for _ in range(3):
        rows ^= np.uint64(1) << generator.integers(0, 64, rows.shape).astype(np.uint64)
    rows[::7, 3] ^= np.uint64(5)
    return rows


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("block", [module.BLOCK, 32])
def test_candidates_are_those_of_all_pairs(bits: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the hashes are compared in many blocks and the buffer is emptied often."""
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "BUFFER", block)
    rows = few_scenes(bits)
    found = triples(candidates(packed(rows), bits, Alone()))
    expected = all_pairs(rows, bits)
    assert {pair[:2] for pair in found} == {pair[:2] for pair in expected} and len(found) == len(expected) > 0
    assert [pair[2] for pair in found] == sorted(pair[2] for pair in found)


def test_bands_cover_all_bits_once() -> None:
    """A pair that differs in the last bits of four bands is found, one that differs in a fifth is not for certain."""
    edges = np.linspace(0, 64, BANDS + 1).astype(int)
    rows = np.full((2, len(WINDOWS)), 0, dtype=np.uint64)
    rows[0, 1] = 2**40 + 1
    rows[1, 1] = rows[0, 1] ^ np.uint64(sum(1 << int(edge - 1) for edge in edges[1:5]))
    assert triples(candidates(packed(rows), 4, Alone())) == [(0, 1, 4)]


def test_the_mirrored_picture_within_borders_is_compared_too() -> None:
    generator = np.random.default_rng(0)
    rows = generator.integers(1, 2**64, (2, 2 * len(WINDOWS)), dtype=np.uint64)
    assert triples(candidates(packed(rows), 0, Alone())) == []
    rows[1, 4] = rows[0, len(WINDOWS)] ^ np.uint64(MIRROR)
    assert triples(candidates(packed(rows), 0, Alone())) == [(0, 1, 0)]


def test_of_more_than_can_be_kept_the_nearest_are_and_the_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = few_scenes(4)
    every = triples(candidates(packed(rows), 4, Alone()))
    monkeypatch.setattr(module, "MOST_CANDIDATES", 20)
    monkeypatch.setattr(module, "BUFFER", 8)
    found = candidates(packed(rows), 4, Alone())
    assert [pair[2] for pair in triples(found)] == [pair[2] for pair in every[:20]]
    assert 0 < found.unseen <= len(every) - 20


def test_the_same_is_found_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, results = few_scenes(2), []
    monkeypatch.setattr(module, "MOST_CANDIDATES", 30)
    for threads in (1, 2, 8):
        monkeypatch.setattr(module, "cpu_threads", lambda threads=threads: threads)
        results.append(triples(candidates(packed(rows), 6, Alone())))
    assert results[0] == results[1] == results[2]
