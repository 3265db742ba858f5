from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natix_lib.config import Split
from natix_lib.contracts import ROLES, SCHEMA_VERSION, TEST, TRAIN
from natix_lib.data.division import COLUMNS, Division, divide
from natix_lib.data.previous import REASON, read_previous
from natix_lib.errors import ContractError, DataError, StorageError
from natix_lib.files import sha256_bytes, write_json
from tests.cloud_storage import BUCKET, Cloud

CLASSES = ["None", "Roadwork"]
DRIVES = 60


def columns(drives: range = range(DRIVES), **changes: Callable[[int], object]) -> dict[str, list[Any]]:
    """Three frames of each drive; a change gives a column's cell by the drive's number."""
    frames = [(drive, frame) for drive in drives for frame in range(3)]
    cells: dict[str, list[Any]] = {name: [None] * len(frames) for name in COLUMNS}
    cells["id"] = [f"{drive:03d}-{frame}.jpg" for drive, frame in frames]
    cells["sha256"] = [sha256_bytes(name.encode()) for name in cells["id"]]
    cells["label"] = [drive % 2 for drive, _ in frames]
    cells["group"] = [f"drive {drive}" for drive, _ in frames]
    for name, change in changes.items():
        cells[name] = [change(drive) for drive, _ in frames]
    return cells


def written(division: Division, path: Path) -> str:
    document = {"artifact": "splits", "schema_version": SCHEMA_VERSION, "dataset_fingerprint": "of them"}
    write_json(path, document | division.document())
    return str(path)


def again(path: str, cells: dict[str, list[Any]], **settings: Any) -> Division:
    return divide(cells, CLASSES, Split(**settings), read_previous(path))


def roles(division: Division) -> dict[str, str]:
    """The role of each image by its pixels."""
    return {
        pixels: ROLES[role] for pixels, role in zip(division.pixels, division.roles.tolist(), strict=True) if role >= 0
    }


@pytest.fixture(scope="module")
def first() -> Division:
    return divide(columns(), CLASSES, Split())


@pytest.fixture
def splits(first: Division, tmp_path: Path) -> str:
    return written(first, tmp_path / "splits.json")


def test_new_images_move_none_of_the_old_whatever_seed_and_ratios_say(first: Division, splits: str) -> None:
    ratios = {"train": 0.3, "val_select": 0.1, "val_calib": 0.3, "test": 0.3}
    new = again(splits, columns(range(DRIVES + 20)), seed=7, ratios=ratios)
    before, after = roles(first), roles(new)
    assert all(after[pixels] == role for pixels, role in before.items())
    assert len(after) == 3 * (DRIVES + 20) and new.kept is not None
    assert (new.kept.images, new.kept.new, new.warnings) == (3 * DRIVES, 60, [])
    placed = [role for pixels, role in after.items() if pixels not in before]
    assert TRAIN not in placed  # it holds more than its share of all by then


def test_another_layout_is_known_again_by_its_pixels(first: Division, splits: str) -> None:
    cells = columns()
    cells["id"] = [f"train/{number}.png" for number in np.random.default_rng(0).permutation(len(cells["id"]))]
    assert roles(again(splits, cells)) == roles(first)


def test_names_that_went_to_other_pictures_tell_nothing(first: Division, splits: str) -> None:
    cells = columns()
    cells["id"] = cells["id"][3:] + cells["id"][:3]  # every drive has the names of the next
    assert roles(again(splits, cells)) == roles(first)


def test_other_pixels_under_the_same_names_keep_their_roles_and_it_is_said(first: Division, splits: str) -> None:
    cells = columns()
    cells["sha256"] = [sha256_bytes(f"smaller {name}".encode()) for name in cells["id"]]
    new = again(splits, cells)
    assert new.roles.tolist() == first.roles.tolist()
    assert new.warnings == ["180 images keep the role of their id in split.previous: their pixels have changed."]


def test_a_division_from_before_there_were_pixels_is_read_by_ids(first: Division, tmp_path: Path) -> None:
    document = {key: value for key, value in first.document().items() if key not in ("pixels", "left_out")}
    write_json(
        tmp_path / "old.json",
        {"artifact": "splits", "schema_version": SCHEMA_VERSION, "dataset_fingerprint": "x"} | document,
    )
    assert again(str(tmp_path / "old.json"), columns()).roles.tolist() == first.roles.tolist()


def test_a_group_that_now_joins_test_and_train_stays_in_test_without_the_images_of_train(
    first: Division, splits: str, tmp_path: Path
) -> None:
    drive_of = {role: int(first.ids[int(np.flatnonzero(first.roles == ROLES.index(role))[0])][:3]) for role in ROLES}
    joined = (drive_of[TRAIN], drive_of[TEST], DRIVES)  # the last is new
    place = columns(range(DRIVES + 1), lat=lambda d: 1.0 if d in joined else 2.0 + d, lon=lambda d: 11.0)
    new = again(splits, place)
    before, after = roles(first), roles(new)
    train = {f"{drive_of[TRAIN]:03d}-{frame}.jpg" for frame in range(3)}
    assert new.left_out == dict.fromkeys(sorted(train), REASON)
    assert {name for name in before if name not in after} == {sha256_bytes(name.encode()) for name in train}
    assert all(before.get(pixels, TEST) == role for pixels, role in after.items())
    assert new.warnings == [
        "3 images are in no split: split.previous has them in another one than images of their group, which stay where "
        f"they are, first {min(train)} (TRAIN) with {drive_of[TEST]:03d}-0.jpg (TEST)."
    ]
    assert sum(new.document()["ratios"]["achieved"].values()) == pytest.approx(1)
    third = again(written(new, tmp_path / "second.json"), place)  # what was trained on does not come back into TEST
    assert third.left_out == new.left_out and third.warnings[0].startswith("3 images are in no split, as in split.prev")


def test_images_that_are_gone_are_counted_and_those_of_test_named(first: Division, splits: str) -> None:
    gone = {name for name in first.ids if first.roles[first.ids.index(name)] == ROLES.index(TEST)}
    least = int(min(gone)[:3])
    new = again(splits, columns(range(DRIVES), label=lambda d: d % 2) | {})
    assert new.kept is not None and new.kept.gone == 0
    kept = columns()
    rows = [row for row, name in enumerate(kept["id"]) if int(name[:3]) != least]
    new = again(splits, {name: [cells[row] for row in rows] for name, cells in kept.items()})
    assert new.warnings == [
        "3 images of split.previous are gone, 3 of them from TEST: figures on TEST do not compare with earlier ones."
    ]


def test_other_labels_and_classes_change_no_role(first: Division, splits: str) -> None:
    new = divide(columns(label=lambda d: d % 4 // 2), ["Barrier", "Cone"], Split(), read_previous(splits))
    assert roles(new) == roles(first)


def test_a_class_that_kept_roles_leave_no_room_for_says_so(splits: str) -> None:
    with pytest.raises(
        DataError, match=r"class Rare has 1 groups, 4 splits need .*; split.previous keeps 180 images where they are"
    ):
        divide(
            columns(range(DRIVES + 1), label=lambda d: 2 if d == DRIVES else d % 2),
            [*CLASSES, "Rare"],
            Split(),
            read_previous(splits),
        )


def test_a_given_split_that_contradicts_is_refused_and_one_drawn_from_train_is_none(tmp_path: Path) -> None:
    given = columns(given_split=lambda d: TEST if d % 5 == 0 else TRAIN)
    path = written(divide(given, CLASSES, Split()), tmp_path / "splits.json")
    assert roles(again(path, given)) == roles(divide(given, CLASSES, Split()))
    turned = columns(given_split=lambda d: TEST if d % 5 == 1 else TRAIN)
    with pytest.raises(
        DataError,
        match=r"72 images have another role by the split column than .*, first 000-0.jpg: TRAIN and TEST; mend",
    ):
        again(path, turned)
    assert roles(again(path, turned, use_given=False)) == roles(again(path, given))


def test_a_division_of_other_images_is_refused(splits: str) -> None:
    with pytest.raises(DataError, match=r"split.previous .* knows none of the 30 images"):
        again(splits, columns(range(100, 110)))


def test_a_run_a_bundle_and_a_file_are_found(splits: str, tmp_path: Path) -> None:
    for folder in ("run/split", "bundle"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "splits.json").write_bytes(Path(splits).read_bytes())
    there = [read_previous(str(place)) for place in (splits, tmp_path / "run", f"{tmp_path}/run/", tmp_path / "bundle")]
    assert len({each.sha256 for each in there}) == 1 and len(there[0].ids) == 3 * DRIVES
    with pytest.raises(StorageError, match="no-such does not exist"):
        read_previous(str(tmp_path / "no-such"))
    write_json(tmp_path / "other.json", {"artifact": "index"})
    with pytest.raises(ContractError, match="other.json must be a splits document"):
        read_previous(str(tmp_path / "other.json"))


def test_an_earlier_division_is_read_from_a_bucket(splits: str, cloud: Cloud) -> None:
    content = Path(splits).read_bytes()
    cloud.put({"runs/1/split/splits.json": content, "runs/1/report.html": b"x", "artifacts/splits": content})
    for address in ("runs/1", "runs/1/split/splits.json", "artifacts/splits"):
        assert len(read_previous(f"gs://{BUCKET}/{address}").ids) == 3 * DRIVES


def test_pixels_that_do_not_fit_the_roles_are_refused(first: Division, tmp_path: Path) -> None:
    document = first.document()
    document["pixels"][TEST] = document["pixels"][TEST][1:]
    path = tmp_path / "cut.json"
    write_json(path, {"artifact": "splits", "schema_version": SCHEMA_VERSION, "dataset_fingerprint": "x"} | document)
    with pytest.raises(ContractError, match="pixels must have 16 digits for each image of TEST"):
        read_previous(str(path))


def test_shuffled_rows_and_other_names_give_the_same_division(first: Division) -> None:
    """Without an earlier division: who goes where is drawn by pixels."""
    cells = columns()
    order = np.random.default_rng(1).permutation(len(cells["id"]))
    shuffled = {name: [column[row] for row in order] for name, column in cells.items()}
    assert divide(shuffled, CLASSES, Split()).document() == first.document()
    shuffled["id"] = [f"{number:05d}" for number in range(len(order))]
    shuffled["group"] = [f"g{hash(name) % 2**61}" for name in shuffled["group"]]
    assert roles(divide(shuffled, CLASSES, Split())) == roles(first)
