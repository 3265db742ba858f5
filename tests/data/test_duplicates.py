import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from natix_lib.data import duplicates
from natix_lib.data.candidates import CROWD
from natix_lib.data.duplicates import Closest, closest, near_duplicates
from natix_lib.data.windows import MIRROR, WINDOWS, window_hashes


def packed(rows: np.ndarray) -> list[bytes | None]:
    return [row.astype("<u8").tobytes() for row in rows]


def test_no_hash_and_a_negative_number_of_bits_join_nothing() -> None:
    alone, zeros = np.arange(2), np.zeros(2, dtype=int)
    assert near_duplicates([None, None], alone, zeros, np.full(2, -1), 4).links.to.tolist() == [0, 1]
    assert near_duplicates([], np.arange(0), np.arange(0), np.arange(0), 4).links.to.tolist() == []
    equal = packed(np.full((2, len(WINDOWS)), 7, dtype=np.uint64))
    assert near_duplicates(equal, alone, zeros, np.full(2, -1), -1).links.to.tolist() == [0, 1]
    assert near_duplicates(equal, alone, zeros, np.full(2, -1), 0).links.smallest.tolist() == [0, 0]


def test_images_of_two_given_splits_are_counted_and_not_joined() -> None:
    equal = packed(np.full((3, len(WINDOWS)), 7, dtype=np.uint64))
    near = near_duplicates(equal, np.arange(3), np.zeros(3, dtype=int), np.array([0, 3, 0]), 0)
    assert near.links.smallest[0] != near.links.smallest[1] and near.across.exact
    assert near.across.count == len(near.across.nearest) >= 1


def test_images_of_one_group_are_linked_only_where_two_that_show_the_same_have_two_labels() -> None:
    equal = packed(np.full((4, len(WINDOWS)), 7, dtype=np.uint64))
    group, none = np.zeros(4, dtype=int), np.full(4, -1)
    assert not len(near_duplicates(equal, group, np.zeros(4, dtype=int), none, 0).links.rows)
    labels = np.array([0, 1, 1, 1])
    links = near_duplicates(equal, group, labels, none, 0).links
    assert len(links.rows) and (labels[links.rows] != labels[links.to[links.rows]]).all()


def test_more_than_can_be_looked_at_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nine pictures that are the same by their hashes and none of their pixels, three pairs are looked at."""
    monkeypatch.setattr(duplicates, "MOST_LOOKS", 3)
    equal = packed(np.full((9, len(WINDOWS)), 7, dtype=np.uint64))
    generator = np.random.default_rng(0)
    looked: list[int] = []

    def picture(row: int) -> Image.Image:
        looked.append(row)
        return Image.fromarray(generator.integers(0, 256, (32, 32), dtype=np.uint8))

    near = near_duplicates(equal, np.arange(9), np.zeros(9, dtype=int), np.array([0, 3] * 4 + [-1]), 0, picture)
    assert len(looked) <= 6 and not len(near.links.rows)
    assert near.unseen >= 5 and not near.across.exact


@pytest.mark.parametrize(("slot", "other"), [(3, 0), (0, 20), (16, 16)])
def test_the_closest_windows_are_named(slot: int, other: int) -> None:
    one, two = np.random.default_rng(0).integers(1, 2**64, (2, 2 * len(WINDOWS)), dtype=np.uint64)
    two[other] = one[slot] ^ np.uint64(9)
    two[5] = one[6] = 0
    assert closest(one.tobytes(), two.tobytes()) == Closest(slot, other, mirrored=False, bits=2)
    two[other] = one[0] = 0
    two[len(WINDOWS)] = one[slot] ^ np.uint64(MIRROR)
    if slot:
        assert closest(one.tobytes(), two.tobytes()) == Closest(slot, len(WINDOWS), mirrored=True, bits=0)
        assert closest(two.tobytes(), one.tobytes()) == Closest(len(WINDOWS), slot, mirrored=True, bits=0)


@pytest.mark.slow
@pytest.mark.parametrize("looks", [None, 50])
def test_a_crowd_of_near_images_takes_bounded_work(looks: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20,000 images that are all near each other some of the 200 million pairs are compared, and all are joined.

    With pictures, none of which show the same, as many pairs are looked at as may be, and the others are counted.
    """
    count, compared, opened = 20_000, [0], [0]
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 2**64, (1, len(WINDOWS)), dtype=np.uint64)
    flips = (np.uint64(1) << generator.integers(0, 64, (3, count), dtype=np.uint64)).sum(axis=0, dtype=np.uint64)
    tells = duplicates._Known.tells

    def counted(known: duplicates._Known, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        compared[0] += len(a)
        return tells(known, a, b)

    def picture(row: int) -> Image.Image:
        opened[0] += 1
        return Image.fromarray(np.random.default_rng(row).integers(0, 256, (32, 32), dtype=np.uint8))

    monkeypatch.setattr(duplicates._Known, "tells", counted)
    monkeypatch.setattr(duplicates, "MOST_LOOKS", looks)
    near = near_duplicates(
        packed(scene ^ flips[:, None]),
        np.arange(count),
        np.zeros(count, dtype=int),
        np.full(count, -1),
        6,
        picture if looks else None,
    )
    assert 0 < compared[0] < 36 * CROWD * count * len(WINDOWS) < count**2 / 2 * len(WINDOWS) / 10
    if looks:
        assert opened[0] <= 2 * looks and near.unseen > 100_000 and not len(near.links.rows)
    else:
        assert not near.links.smallest.any() and not near.unseen


def stamped(image: Image.Image) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).rectangle((5, image.height * 0.9, image.width * 0.6, image.height * 0.97), fill=(0, 0, 0))
    return image


def test_changed_photographs_are_joined_with_their_evidence_and_others_are_not(real_data: Path) -> None:
    names = ["camvid_0001TP_006690.jpg", "tracon_train_0200.jpg", "tracon_train_0300.jpg", "camvid_0016E5_00390.jpg"]
    originals = [Image.open(real_data / "roadwork-real" / "images" / name).convert("RGB") for name in names]
    changes = [
        ImageOps.mirror,
        stamped,
        lambda image: ImageOps.crop(image, (image.width // 10, image.height // 10) * 2),
        lambda image: image.rotate(3, Image.Resampling.BICUBIC),
        lambda image: ImageOps.expand(image, (0, image.height // 4)),
        lambda image: image.convert("L").convert("RGB").resize((image.width // 4, image.height // 4)),
    ]
    images = originals + [change(image) for change in changes for image in originals]
    contents = []
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        contents.append(buffer.getvalue())
    hashes = [window_hashes(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
    near = near_duplicates(
        hashes,
        np.arange(len(images)),
        np.zeros(len(images), dtype=int),
        np.full(len(images), -1),
        6,
        lambda row: Image.open(io.BytesIO(contents[row])),
    )
    assert near.links.smallest.tolist() == [0, 1, 2, 3] * 7
    reasons = [near.links.why(int(row)) for row in near.links.rows]
    assert all("of 64 bits differ" in reason and "tiles agree" in reason for reason in reasons)
    assert any("mirrored" in reason for reason in reasons)


def test_images_without_a_label_are_compared_with_those_of_other_groups_and_contradict_none() -> None:
    equal = packed(np.full((3, len(WINDOWS)), 7, dtype=np.uint64))
    none = np.full(3, -1)
    apart = near_duplicates(equal, np.arange(3), np.array([1, -1, 1]), none, 0).links
    assert apart.smallest.tolist() == [0, 0, 0]
    one_group = near_duplicates(equal, np.zeros(3, dtype=int), np.array([1, -1, -1]), none, 0).links
    assert not len(one_group.rows)
