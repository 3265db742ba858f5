"""Images that a model was fitted on, known again among new ones, so that no policy is certified or measured on them.

splits.json, which every bundle holds, tells of each image the first digits of its pixel hash and the hash of its whole
picture. An image with the same pixels is the same image, whatever it is called; one whose whole picture has a hash
within `split.near_duplicate_bits`, mirrored or not, is taken for a near-duplicate. There are no pictures in a bundle to
look at both, so hashes alone decide, and the error that is left is the harmless one: a stranger that looks alike is
left out of the new images. On 867 photographs of roads, within 6 bits, JPEG of quality 50 is known again in 100 %, half
the size in 100 %, brighter by a quarter in 98.5 %, cropped by 3 % at each side in 71 %; no two of 375,000 pairs, of
which one was mirrored, agreed. The hashes of all windows, which find more crops, would take seventeen times the
place. One frame of a drive can pass where another is known, so whole groups are left out, all that the rules of split
join.

What counts: TRAIN; the images without a label that adapt has seen; VAL_SELECT, which chose the epoch and by which class
weights are taken back, so that its errors are too few as well; and the images of their groups that were left out. Not
VAL_CALIB and TEST: no weight depends on them, and the policy that did is the one that is renewed. An id tells nothing,
because cameras count from one every month.

A renewed bundle's division is that of the new images, so it carries the record of the old ones on (`trained`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natix_lib.arrays import Bools, Ints
from natix_lib.contracts import TRAIN, UNLABELLED, VAL_SELECT
from natix_lib.data.previous import REASON
from natix_lib.data.windows import MIRROR, whole_hash
from natix_lib.documents import PIXEL_DIGITS, held_name
from natix_lib.errors import ContractError
from natix_lib.files import JsonDict

TRAINED = "trained on"  # why an image is left out, in splits.json
FITTED_ON = (TRAIN, VAL_SELECT, UNLABELLED, REASON, held_name(TRAIN), held_name(VAL_SELECT))
BLOCK = 1 << 16  # distances at a time for one new image

Looks = NDArray[np.uint64]


@dataclass(frozen=True)
class Trained:
    """What a model was fitted on, or was chosen by.

    Attributes:
        splits_sha256: SHA-256 of the splits.json of the division that it was trained on.
        pixels: The first PIXEL_DIGITS digits of each image's pixel hash, (m,).
        looks: The hash of each image's whole picture, 0 for none, (m,); empty where the bundle has none.
    """

    splits_sha256: str
    pixels: list[str]
    looks: Looks

    def document(self) -> JsonDict:
        """As a new splits.json carries it on."""
        return {
            "splits_sha256": self.splits_sha256,
            "pixels": "".join(self.pixels),
            "looks": "".join(f"{value:016x}" for value in self.looks.tolist()),
        }


@dataclass(frozen=True)
class Known:
    """Which new images a model was fitted on.

    Attributes:
        left_out: Images that are such, or are of the group of one, (n,).
        same: Images with the pixels of one.
        near: Other images that look like one.
        compared: Whether looks were compared at all.
    """

    left_out: Bools
    same: int
    near: int
    compared: bool

    def __str__(self) -> str:
        """The counts, in words."""
        rest = int(np.count_nonzero(self.left_out)) - self.same - self.near
        return (
            f"{np.count_nonzero(self.left_out)} of {len(self.left_out)} images are left out because the bundle's model "
            f"was fitted on them: {self.same} with the same pixels, {self.near} that look the same, {rest} of their "
            "groups"
        )

    def warnings(self) -> list[str]:
        """What a reader must know, sentences."""
        lines = [f"{str(self)[0].upper()}{str(self)[1:]}."] if self.left_out.any() else []
        if not self.compared:
            lines.append(
                "Only equal pixels were compared with what the bundle's model was fitted on: near-duplicates were not "
                "looked for, because the bundle was made before it told of looks, or split.near_duplicate_bits is -1."
            )
        return lines


def trained_of(splits: JsonDict, sha256: str) -> Trained:
    """What the model of a bundle was fitted on.

    Args:
        splits: The content of its splits.json.
        sha256: SHA-256 of that file.

    Raises:
        ContractError: If it tells no pixel hashes, so that no image could be known again.
    """
    carried = splits.get("trained")
    if carried:
        return Trained(carried["splits_sha256"], _parts(carried["pixels"]), _numbers(carried["looks"]))
    pixels, looks = splits.get("pixels") or {}, splits.get("looks") or {}
    if not pixels:
        raise ContractError(
            "the bundle's splits.json tells no pixel hashes, so images that its model was fitted on could not be known "
            "again: train it anew with this natix"
        )
    return Trained(
        sha256,
        [part for name in FITTED_ON for part in _parts(pixels.get(name, ""))],
        _numbers("".join(looks.get(name, "") for name in FITTED_ON)),
    )


def looks_of(hashes: Sequence[bytes | None]) -> Looks:
    """The hash of each image's whole picture, (n,), 0 for none, out of those of its windows."""
    return np.array([whole_hash(each) or 0 for each in hashes], dtype=np.uint64)


def recognised(trained: Trained, pixels: Sequence[str], looks: Looks, groups: Ints, bits: int) -> Known:
    """Which of new images a model was fitted on.

    Args:
        trained: What it was fitted on.
        pixels: SHA-256 of each new image's pixels, hex, (n,).
        looks: The hash of each new image's whole picture, 0 for none, (n,).
        groups: Number of each image's group, below n, (n,).
        bits: The most bits between two hashes of near-duplicates, of 64; negative compares equal pixels alone.
    """
    seen = set(trained.pixels)
    same = np.array([each[:PIXEL_DIGITS] in seen for each in pixels], dtype=bool)
    compared = bits >= 0 and len(trained.looks) > 0
    near = _near(looks, trained.looks, bits) & ~same if compared else np.zeros(len(looks), dtype=bool)
    of_group = np.zeros(len(looks), dtype=bool)
    of_group[groups[same | near]] = True
    return Known(of_group[groups], int(same.sum()), int(near.sum()), compared)


def _near(looks: Looks, others: Looks, bits: int) -> Bools:
    """Which hashes are within some bits of one of the others, mirrored or not, (n,); 0 is near to nothing."""
    kept = np.unique(others[others != 0])
    near = np.zeros(len(looks), dtype=bool)
    for row, value in enumerate(looks):
        if not value:
            continue
        for start in range(0, len(kept), BLOCK):
            part = kept[start : start + BLOCK] ^ value
            if (np.bitwise_count(part) <= bits).any() or (np.bitwise_count(part ^ np.uint64(MIRROR)) <= bits).any():
                near[row] = True
                break
    return near


def _parts(digits: str) -> list[str]:
    return [digits[start : start + PIXEL_DIGITS] for start in range(0, len(digits), PIXEL_DIGITS)]


def _numbers(digits: str) -> Looks:
    return np.frombuffer(bytes.fromhex(digits), dtype=">u8").astype(np.uint64)
