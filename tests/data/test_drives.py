import csv
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from natix_lib.config import Split
from natix_lib.data.division import COLUMNS
from natix_lib.data.drives import Drives, find_drives
from natix_lib.data.groups import joined_by_all, same_value
from natix_lib.data.windows import whole_hash, window_hashes

REAL = Path(os.environ.get("NATIX_TEST_DATA", "../shared/data")) / "roadwork-real"
OFF: dict[str, Any] = {"drive_gap_s": 0, "drive_names": False, "drive_looks": False}


def columns(
    ids: Sequence[str], whole: Sequence[int | None] | None = None, **given: Sequence[Any]
) -> dict[str, Sequence[Any]]:
    """Columns of images, `whole` the perceptual hash of each whole picture."""
    empty = {name: [None] * len(ids) for name in COLUMNS}
    hashes = [None if value is None else value.to_bytes(8, "little") for value in whole or [None] * len(ids)]
    return {**empty, "id": ids, "label": [0] * len(ids), "hashes": hashes, **given}


def found(values: dict[str, Sequence[Any]], given: Sequence[int] | None = None, **settings: object) -> Drives:
    roles = np.array([-1] * len(values["id"]) if given is None else given)
    return find_drives(values, roles, Split.model_validate(settings))


def joined_by(drives: Drives, rule: str) -> list[int]:
    return drives.rules[rule].smallest.tolist()


def drive_hashes(drives: int, frames: int, seed: int = 0) -> list[int]:
    """Hashes of drives one after another: a frame differs from the one before in 6 of 64 bits, chosen at random."""
    random = np.random.default_rng(seed)
    values = []
    for _ in range(drives):
        value = int(random.integers(0, 2**63))
        for _ in range(frames):
            values.append(value)
            for bit in random.choice(64, 6, replace=False).tolist():
                value ^= 1 << bit
    return values


def strangers(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 2**63, count).tolist()


def test_seconds_apart_in_any_notation_are_one_drive_and_a_longer_stop_ends_it() -> None:
    times = [
        "2024-05-01T12:00:00Z",
        "2024:05:01 12:00:50",
        str(int(datetime(2024, 5, 1, 12, 1, 50, tzinfo=UTC).timestamp())),
    ]
    drives = found(columns(list("dcba"), captured_at=[*times, "2024-05-01T12:02:51"]))
    assert joined_by(drives, "time") == [0, 0, 0, 3]
    assert {drives.rules["time"].why(int(row)) for row in drives.rules["time"].rows} == {"50 s apart", "60 s apart"}
    assert joined_by(found(columns(list("dcba"), captured_at=[*times, None]), drive_gap_s=59), "time") == [0, 0, 2, 3]


@pytest.mark.parametrize("form", ["{:%Y-%m-%d_%H-%M-%S}.jpg", "IMG_{:%Y%m%d_%H%M%S}.jpg", "{:%s}.5.jpg", "{:%s%f}.jpg"])
def test_times_in_names_count_where_no_column_has_them(form: str) -> None:
    begun = datetime(2024, 5, 1, 12)
    ids = [form.format(begun + timedelta(seconds=second)) for second in (50, 65, 120, 3300, 3301)]
    drives = found(columns(ids))
    assert joined_by(drives, "time") == [0, 0, 0, 3, 3] and not drives.warnings
    noon = ["2024-05-01T12:00:00"] * 4 + ["2024-05-01T13:00:00"]
    assert joined_by(found(columns(ids, captured_at=noon)), "time") == [0, 0, 0, 0, 4]


def test_days_and_texts_that_are_no_times_join_nothing_and_leave_drives_untold() -> None:
    drives = found(columns(list("abc"), captured_at=["2024-05-01", "2024-05-01", "noon"]))
    assert joined_by(drives, "time") == [0, 1, 2]
    assert drives.warnings[0].startswith("Drives cannot be told apart in 3 of 3 images (100%): they name neither group")


def test_two_cars_at_one_second_are_two_drives_and_neither_is_cut_by_the_other() -> None:
    """Frames of Munich, Berlin and a second car of Munich, 1.2 km away, take turns."""
    times = [f"2024-05-01T12:00:{second:02d}" for second in range(8) for _ in range(3)]
    lat = [place + 1e-4 * second for second in range(8) for place in (48.1, 52.5, 48.111)]
    drives = found(columns([str(n) for n in range(24)], captured_at=times, lat=lat, lon=[11.5] * 24))
    assert joined_by(drives, "time") == [0, 1, 2] * 8


def test_a_car_of_no_possible_speed_is_another_car() -> None:
    times = ["2024-05-01T12:00:00", "2024-05-01T12:00:10"]
    for metres, expected in ((590, [0, 0]), (610, [0, 1])):
        values = columns(["a", "b"], captured_at=times, lat=[48, 48 + metres / 111_195], lon=[11, 11])
        assert joined_by(found(values), "time") == expected  # 50 m/s for 10 s, and 100 m of two receivers


def test_frames_without_a_place_are_joined_to_those_before_and_after() -> None:
    times = [f"2024-05-01T12:00:{second:02d}" for second in range(4)]
    values = columns(list("abcd"), captured_at=times, lat=[48, None, None, 48], lon=[11, None, None, 11])
    assert joined_by(found(values), "time") == [0, 0, 0, 0]


def test_groups_are_never_joined_and_an_image_without_one_joins_the_nearest() -> None:
    times = [f"2024-05-01T12:00:{second:02d}" for second in (0, 1, 4, 5, 9)]
    values = columns(list("abcde"), captured_at=times, group=["x", None, None, "y", "y"])
    assert joined_by(found(values), "time") == [0, 0, 0, 3, 4]
    names = [f"d1_{n:02d}" for n in range(40)]
    values = columns(names, whole=drive_hashes(1, 40), group=["x", *[None] * 38, "y"])
    assert sorted(set(joined_by(found(values), "name"))) in ([0, 39], [0, 1])


def test_two_rules_together_join_no_two_groups() -> None:
    """b belongs to x by its time; the names then may not take it to y."""
    names = [f"d1_{n:02d}" for n in range(40)]
    times = ["2024-05-01T12:00:00", "2024-05-01T12:00:01", *[None] * 38]
    drives = found(columns(names, whole=drive_hashes(1, 40), captured_at=times, group=["x", None, "y", *[None] * 37]))
    assert joined_by(drives, "time")[:3] == [0, 0, 2] and joined_by(drives, "name")[:4] == [0, 0, 2, 2]


def test_times_of_a_fleet_without_places_join_only_what_looks_alike_and_say_so() -> None:
    hashes = strangers(200)
    hashes[101] = hashes[100] ^ 1
    times = [f"2024-05-01T12:{second // 60:02d}:{second % 60:02d}" for second in range(200)]
    ids = [f"{n:03d}" for n in range(200)]
    drives = found(columns(ids, whole=hashes, captured_at=times))
    assert len(drives.rules["time"].rows) == 0 and 101 in drives.rules["looks"].rows
    assert drives.rules["looks"].why(101) == "neighbours, 1 of 64 bits differ"
    assert "200 images without a place follow one another within 60 s, but only" in drives.warnings[1]
    same_times = found(columns(ids, whole=drive_hashes(1, 200), captured_at=times))
    assert len(set(joined_by(same_times, "time"))) == 1 and same_times.warnings == []


def test_short_drives_by_time_need_no_pictures_to_confirm_them() -> None:
    times = [f"2024-05-01T{hour:02d}:00:{second:02d}" for hour in range(20) for second in range(3)]
    drives = found(columns([f"{n:03d}" for n in range(60)], whole=strangers(60), captured_at=times))
    assert joined_by(drives, "time") == [n // 3 * 3 for n in range(60)] and drives.warnings == []


def test_runs_of_frame_numbers_are_drives_where_pictures_confirm_it() -> None:
    names = [f"pgh{drive:04d}_{30 * frame:05d}.jpg" for drive in range(5) for frame in range(6)]
    drives = found(columns(names, whole=drive_hashes(5, 6)))
    assert joined_by(drives, "name") == [n // 6 * 6 for n in range(30)] and drives.warnings == []
    assert {drives.rules["name"].why(int(row)) for row in drives.rules["name"].rows[:5]} == {
        "30 frames apart of pgh0000_*"
    }
    numbered_strangers = found(columns(names, whole=strangers(30)))
    assert len(numbered_strangers.rules["name"].rows) == 0
    assert numbered_strangers.warnings[0].startswith("Drives cannot be told apart in 30 of 30 images")
    unseen = found(columns(names, whole=[None] * 30))
    assert len(unseen.rules["name"].rows) == 0


def test_numbered_folders_of_classes_are_no_drives() -> None:
    """Pictures of one class look a bit alike; neighbours among them no more than others of the class."""
    random = np.random.default_rng(0)
    names, labels, hashes = [], [], []
    for label in range(10):
        centre = int(random.integers(0, 2**63))
        for number in range(40):
            flips = random.choice(64, 16, replace=False).tolist()
            names.append(f"n{label:08d}_{number}.jpg")
            labels.append(label)
            hashes.append(centre ^ sum(1 << bit for bit in flips))
    assert len(found(columns(names, whole=hashes, label=labels)).rules["name"].rows) == 0


def test_a_camera_roll_is_cut_into_what_looks_alike() -> None:
    """Two drives of 40 frames with 40 strangers between them: IMG_0000 to IMG_0119."""
    hashes = [*drive_hashes(1, 40), *strangers(40, 5), *drive_hashes(1, 40, 6)]
    drives = found(columns([f"IMG_{n:04d}.JPG" for n in range(120)], whole=hashes))
    smallest = np.array(joined_by(drives, "looks"))
    assert len(drives.rules["name"].rows) == 0
    assert (smallest[:40] == 0).all() and (smallest[80:] == 80).all() and len(set(smallest[40:80])) >= 38


def test_neighbours_in_two_given_splits_are_counted_and_told_and_not_joined() -> None:
    names = [f"d1_{n:02d}" for n in range(40)]
    times = [f"2024-05-01T12:00:{second:02d}" for second in range(40)]
    given = [0] * 20 + [3] * 20
    drives = found(columns(names, whole=drive_hashes(1, 40), captured_at=times), given)
    assert joined_by(drives, "time") == [0] * 20 + [20] * 20 == joined_by(drives, "name")
    assert drives.warnings == [
        "1 pairs of images in different given splits are at most 60 s apart, so figures on TEST can be too good.",
        "1 pairs of images in different given splits are neighbouring frames of one drive by their names, so figures "
        "on TEST can be too good.",
    ]
    owned = columns(names, captured_at=times, group=[f"g{n // 20}" for n in range(40)])
    assert found(owned, given).warnings == []  # the owner says that these are two drives


def test_each_rule_can_be_switched_off() -> None:
    names = [f"d1_{n:02d}" for n in range(40)]
    values = columns(names, whole=drive_hashes(1, 40), captured_at=[f"2024-05-01T12:00:{s:02d}" for s in range(40)])
    assert set(found(values).rules) == {"time", "name", "looks"} and found(values, **OFF).rules == {}
    for rule, key in (("time", "drive_gap_s"), ("name", "drive_names"), ("looks", "drive_looks")):
        assert set(found(values, **{**OFF, key: getattr(Split(), key)}).rules) == {rule}


def test_an_empty_set_is_no_trouble() -> None:
    assert found(columns([])).warnings == []


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the photographs are not here")
def test_names_tell_the_three_drives_of_real_photographs_and_join_no_strangers() -> None:
    rows = sorted(csv.DictReader((REAL / "manifest.csv").read_text().splitlines()), key=lambda row: row["image"])
    hashes = []
    for row in rows:
        with Image.open(REAL / row["image"]) as image:
            image.draft("L", (128, 128))
            hashes.append(whole_hash(window_hashes(image)))
    names = [row["image"] for row in rows]
    drives = found(columns(names, whole=hashes, label=[int(row["label"] == "Roadwork") for row in rows]))
    groups = [row["group"] for row in rows]
    assert joined_by(drives, "name") == [groups.index(group) for group in groups]
    assert len(set(groups)) == 402 and len(drives.rules["looks"].rows) == 0
    assert drives.warnings[0].startswith("Drives cannot be told apart in 399 of 867 images (46%)")


def test_twelve_cars_that_drive_side_by_side_are_twelve_drives_and_none_is_cut() -> None:
    """A frame of each every 10 s and 250 m, the cars 1.1 km apart."""
    cars, frames = 12, 12
    times = [
        f"2024-05-01T12:{second // 60:02d}:{second % 60:02d}"
        for second in range(0, 10 * frames, 10)
        for _ in range(cars)
    ]
    lat = [48.0 + 0.01 * car for _ in range(frames) for car in range(cars)]
    lon = [11.0 + 0.00336 * frame for frame in range(frames) for _ in range(cars)]
    drives = found(columns([f"{n:03d}" for n in range(cars * frames)], captured_at=times, lat=lat, lon=lon))
    assert joined_by(drives, "time") == list(range(cars)) * frames


def test_rows_that_two_rules_chain_between_two_owners_groups_are_not_joined_to_both() -> None:
    names = [*(f"a1_{n:03d}.jpg" for n in range(20)), *(f"b2_{n:03d}.jpg" for n in range(20)), "x.jpg", "y.jpg"]
    hashes = drive_hashes(2, 20) + strangers(2, 9)
    groups = ["A", *[None] * 19, "B", *[None] * 21]
    times = ["2024-05-01T12:00:00", *[None] * 19, "2024-05-01T12:01:40", *[None] * 19]
    times += ["2024-05-01T12:00:50", "2024-05-01T12:01:00"]
    drives = found(columns(names, whole=hashes, group=groups, captured_at=times))
    whole = joined_by_all([same_value(groups), *(links.to for links in drives.rules.values())])
    assert whole[0] != whole[20]


@pytest.mark.slow
def test_a_short_drive_is_one_by_its_names_though_few_pairs_cannot_be_sure(real_data: Path) -> None:
    """14 and 18 frames of each drive of CamVid among photographs of streets: README's promise for a small folder."""
    folder = real_data / "roadwork-real" / "images"
    web = sorted(folder.glob("tracon*"))[:60]
    for count in (14, 18):
        paths = [path for drive in ("0001TP", "0006R0", "0016E5") for path in sorted(folder.glob(f"*{drive}*"))[:count]]
        hashes = [whole_hash(window_hashes(Image.open(path))) for path in [*paths, *web]]
        drives = found(columns([path.name for path in [*paths, *web]], whole=hashes))
        first = [count * (row // count) for row in range(3 * count)]
        assert joined_by(drives, "name") == [*first, *range(3 * count, 3 * count + 60)]
