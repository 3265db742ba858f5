"""Roles that an earlier division gave: images keep them, and only groups without any are placed.

An image is known again by its pixels, so that another layout, other names and other labels change nothing; where no
image has the pixels, as after a change of `data.resize_shorter_side`, by its id. By id alone was rejected: in another
layout the names are others, and all that was in TEST would be drawn anew without a word.

A group that holds images of several earlier roles, because a new image or a changed rule joins them, may not cross. It
takes the role among them that is held out furthest, TEST before VAL_CALIB before VAL_SELECT before TRAIN, and its
images of the other roles are left out of every role, in this division and in those that name it as theirs. Moving them
to TEST was rejected: models of earlier months have trained on them. Dividing the group was rejected: it leaks. Refusing
was rejected: each month that finds one more near-duplicate would end in an error that only a smaller set can mend.

What adapt has seen without a label counts as TRAIN: with a label it would be no image to measure on. An image that was
left out for another reason, synthetic, without a label or with two, counts as one of its group's role: when its label
is mended it comes back to its drive, which may be all that is left of it.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from natix_lib import storage
from natix_lib.arrays import Bools, Ints
from natix_lib.contracts import ARTIFACTS, ROLES, TEST, TRAIN, UNLABELLED, read_hashed_document
from natix_lib.documents import PIXEL_DIGITS, held_name
from natix_lib.errors import DataError, StorageError
from natix_lib.files import JsonDict

NONE, LEFT_OUT = -1, -2  # in place of a role's number: an image that the division did not know, or kept out
REASON = "split.previous"  # why an image is left out, in splits.json


@dataclass(frozen=True)
class Previous:
    """An earlier division.

    Attributes:
        where: Its address.
        sha256: SHA-256 of its splits.json.
        class_names: Its classes.
        ids: Id of each image that it gave a role or kept out, (m,).
        pixels: The first PIXEL_DIGITS digits of each image's pixel hash, (m,); empty where it does not tell them.
        roles: Number of each image's role, or LEFT_OUT, (m,).
    """

    where: str
    sha256: str
    class_names: list[str]
    ids: list[str]
    pixels: list[str]
    roles: list[int]


@dataclass(frozen=True)
class Kept:
    """What an earlier division says of the images of a new one.

    Attributes:
        roles: Number of the role that each image's group has to keep, NONE for a new group, (n,).
        left_out: Images that must be in no role, (n,).
        images: Images that keep their role.
        new: Images that it did not know.
        gone: Images that it knew and that are not here.
        splits_sha256: SHA-256 of its splits.json.
        warnings: What a reader must know, sentences.
    """

    roles: Ints
    left_out: Bools
    images: int
    new: int
    gone: int
    splits_sha256: str
    warnings: list[str]

    def document(self) -> JsonDict:
        """What the new splits.json tells of it."""
        return {"splits_sha256": self.splits_sha256, "kept": self.images, "new": self.new, "gone": self.gone}


def splits_address(uri: str) -> str:
    """Where the splits.json lies that a file, a run's folder or a bundle stands for, on the disk or in a bucket."""
    name = ARTIFACTS["splits"].file
    for folder in (uri.rstrip("/"), f"{uri.rstrip('/')}/split", f"{uri.rstrip('/')}/{ARTIFACTS['bundle'].file}"):
        if name in storage.file_names(folder):
            return f"{folder}/{name}"
    return uri


def read_previous(uri: str) -> Previous:
    """Read an earlier division.

    Args:
        uri: A splits.json, a run's folder or a bundle, on the disk or in a bucket.

    Raises:
        StorageError: If it is not there or cannot be read.
        ContractError: If it is no splits.json.
    """
    with tempfile.TemporaryDirectory() as scratch:
        address = splits_address(uri)
        try:
            file = storage.fetch_file(address, scratch)
        except StorageError as error:
            raise StorageError(f"split.previous {uri}: no splits.json is there: {error}") from error
        document, sha256 = read_hashed_document(file, "splits")
    members = {role: document["roles"].get(role, []) for role in ROLES}
    members |= {held_name(role): document.get("held", {}).get(role, []) for role in ROLES}
    members[UNLABELLED] = document.get("unlabelled", [])
    members[REASON] = sorted(name for name, reason in document.get("left_out", {}).items() if reason == REASON)
    known = document.get("pixels", {})
    numbers = [*range(len(ROLES)), *range(len(ROLES)), ROLES.index(TRAIN), LEFT_OUT]
    return Previous(
        where=address,
        sha256=sha256,
        class_names=document["class_names"],
        ids=[name for names in members.values() for name in names],
        pixels=[part for role in members for part in _parts(known.get(role, ""))] if known else [],
        roles=[number for number, names in zip(numbers, members.values(), strict=True) for _ in names],
    )


def _parts(pixels: str) -> list[str]:
    return [pixels[start : start + PIXEL_DIGITS] for start in range(0, len(pixels), PIXEL_DIGITS)]


def keep_roles(previous: Previous, ids: Sequence[str], pixels: Sequence[str], groups: Ints, given: Ints) -> Kept:
    """The roles that images keep, and with them their groups.

    Args:
        previous: The earlier division.
        ids: Id of each image, (n,).
        pixels: SHA-256 of each image's pixels, hex, (n,).
        groups: Number of each image's group, below n, (n,).
        given: Number of the role that the data owner gave each image, -1 for none, (n,).

    Raises:
        DataError: If it knows none of the images, or a role that the data owner gave is another one than is kept.
    """
    parts = [each[:PIXEL_DIGITS] for each in pixels]
    roles, by_id, gone = _known_again(previous, ids, parts)
    known = roles != NONE
    if not known.any():
        raise DataError(
            f"split.previous {previous.where} knows none of the {len(ids)} images, by their pixels or their ids: "
            "name a division of these images"
        )
    highest = np.full(len(ids), NONE)
    # The roles are numbered from what trains to what is held out; what was left out has been trained on.
    np.maximum.at(highest, groups, np.where(roles == LEFT_OUT, ROLES.index(TRAIN), roles))
    group_roles = highest[groups]
    _refuse_contradiction(previous, ids, groups, group_roles, given)
    crossing = (roles >= 0) & (roles != group_roles)
    warnings = []
    if crossing.any():
        first = int(np.flatnonzero(crossing)[0])
        other = int(np.flatnonzero((groups == groups[first]) & (roles == group_roles[first]))[0])
        warnings.append(
            f"{np.count_nonzero(crossing)} images are in no split: split.previous has them in another one than images "
            f"of their group, which stay where they are, first {ids[first]} ({ROLES[roles[first]]}) with {ids[other]} "
            f"({ROLES[roles[other]]})."
        )
    if np.any(roles == LEFT_OUT):
        warnings.append(
            f"{np.count_nonzero(roles == LEFT_OUT)} images are in no split, as in split.previous: they were trained on "
            "before their group was known to be held out."
        )
    if by_id:
        warnings.append(f"{by_id} images keep the role of their id in split.previous: their pixels have changed.")
    if gone:
        of_test = sum(role == ROLES.index(TEST) for role in gone)
        warnings.append(
            f"{len(gone)} images of split.previous are gone, {of_test} of them from TEST"
            + (": figures on TEST do not compare with earlier ones." if of_test else ".")
        )
    return Kept(
        roles=group_roles,
        left_out=crossing | (roles == LEFT_OUT),
        images=int(np.count_nonzero((roles >= 0) & ~crossing)),
        new=int(np.count_nonzero(~known)),
        gone=len(gone),
        splits_sha256=previous.sha256,
        warnings=warnings,
    )


def _known_again(previous: Previous, ids: Sequence[str], parts: list[str]) -> tuple[Ints, int, list[int]]:
    """The earlier role of each image, how many are known by their id alone, and the roles of the images that are gone.

    An id tells nothing where the image that had it is known by its pixels.
    """
    of_pixels: dict[str, int] = {}
    for part, role in zip(previous.pixels, previous.roles, strict=bool(previous.pixels)):
        of_pixels[part] = max(role, of_pixels.get(part, role))
    roles = np.array([of_pixels.get(part, NONE) for part in parts], dtype=np.int64)
    here = set(parts)
    pixels_here = [part in here for part in previous.pixels] or [False] * len(previous.ids)
    of_id = {
        name: role for name, role, there in zip(previous.ids, previous.roles, pixels_here, strict=True) if not there
    }
    unknown = np.flatnonzero(roles == NONE).tolist()
    taken = [row for row in unknown if ids[row] in of_id]
    roles[taken] = [of_id.pop(ids[row]) for row in taken]
    return roles, len(taken), list(of_id.values())


def _refuse_contradiction(previous: Previous, ids: Sequence[str], groups: Ints, group_roles: Ints, given: Ints) -> None:
    """Refuse a given role beside another one that is kept, but for one drawn from TRAIN, as it was given to none."""
    owner = np.full(len(ids), NONE)
    np.maximum.at(owner, groups, given)
    owner_roles = owner[groups]
    drawn = (owner_roles == ROLES.index(TRAIN)) & ~np.isin(group_roles, given)
    clash = np.flatnonzero((owner_roles >= 0) & (group_roles >= 0) & (owner_roles != group_roles) & ~drawn)
    if len(clash):
        first = int(clash[0])
        raise DataError(
            f"{len(clash)} images have another role by the split column than their group has in split.previous "
            f"{previous.where}, first {ids[first]}: {ROLES[owner_roles[first]]} and {ROLES[group_roles[first]]}; mend "
            "the split column, set split.use_given: false or leave split.previous out"
        )
