import numpy as np
import pytest

from natix_lib.data.frames import in_drives, numbered, of_drives


@pytest.mark.parametrize(
    ("name", "run", "number", "named"),
    [
        ("images/camvid_0001TP_006690.jpg", "images/camvid_0001TP_*", 6690, True),
        ("camvid_0006R0_f00930.jpg", "camvid_0006R0_f*", 930, True),
        ("pgh0123_00045.jpg", "pgh0123_*", 45, True),
        ("boston_3_17_00120.jpg", "boston_3_17_*", 120, True),
        (
            "2011_09_26_drive_0001_sync/image_02/data/0000000005.png",
            "2011_09_26_drive_0001_sync/image_02/data/*",
            5,
            True,
        ),
        ("tracon_train_0000.jpg", "tracon_train_*", 0, False),
        ("IMG_1234.JPG", "IMG_*", 1234, False),
        ("DCIM/100CANON/IMG_0001.JPG", "DCIM/100CANON/IMG_*", 1, False),
        ("train-00000-of-00005.parquet#17", "train-00000-of-00005.parquet#*", 17, False),
        ("d7/frame_12_jpg.rf.0a1b2c3d.jpg", "d7/frame_*", 12, True),
        ("IMG_20240501_120005.jpg", "IMG_*", 1_714_564_805_000, False),
        ("2024-05-01_12-00-05.jpg", "*", 1_714_564_805_000, False),
        ("cam2/2024-05-01T12.00.05.250Z.png", "cam2/*", 1_714_564_805_250, True),
        ("20240501_120005_00012.jpg", "20240501_120005_*", 12, True),
        ("1714564805.25.png", "*", 714_564_805_250_000_000, False),
        ("1714564805250000000.png", "*", 714_564_805_250_000_000, False),
    ],
)
def test_a_name_is_a_run_and_a_frame(name: str, run: str, number: int, named: bool) -> None:
    frames = numbered([name, "sign.jpg"])
    assert frames.names[int(frames.run[0])].as_py() == run
    assert (frames.number[0], bool(frames.named[0]), int(frames.run[1])) == (number, named, -1)


def test_a_number_that_all_names_of_a_form_end_with_is_no_frame() -> None:
    frames = numbered([f"aachen_{s:06d}_{f:06d}_leftImg8bit.png" for s in (1, 2) for f in (19, 20, 21)])
    assert frames.number.tolist() == [19, 20, 21] * 2 and frames.run.tolist() == [0, 0, 0, 1, 1, 1]
    assert set(frames.form.tolist()) == {0} and frames.apart(0, 2) == "2 frames apart of aachen_000001_*_leftImg8bit"


def test_what_is_between_two_names_with_times_is_told_in_seconds() -> None:
    frames = numbered(["d7/2024-05-01_12-00-55.jpg", "d7/2024-05-01_12-01-10.jpg"])
    assert frames.apart(0, 1) == "15 s apart of d7/*"


def runs(ids: list[str], labels: list[int]) -> list[int]:
    """The runs of images of `None` and `Road work`, -1 for no label."""
    return of_drives(ids, np.array(labels), ["None", "Road work"]).run.tolist()


@pytest.mark.parametrize(
    "folders",
    [
        ("None", "Road work"),
        ("none", "road_work"),
        ("train/None", "test2/Roadwork"),
        ("val-images/None", "test_set/Roadwork"),
    ],
)
def test_a_drive_in_the_folders_of_several_classes_and_splits_is_one_run(folders: tuple[str, str]) -> None:
    drives = [[f"{folders[frame % 2]}/{drive}_{frame:04}.jpg" for frame in range(4)] for drive in ("d1", "d2")]
    assert runs(drives[0] + drives[1], [0, 1] * 4) == [0] * 4 + [1] * 4
    assert runs([f"d1/{folder}/{frame}.jpg" for frame, folder in enumerate(folders)], [0, 1]) == [0, 0]
    assert runs([*drives[0], f"{folders[0]}/d1_0001.jpg"], [0, 1, 0, 1, 0]) != [0] * 5  # a tenth may repeat


def test_folders_of_classes_that_are_numbered_one_by_one_are_runs_of_their_own() -> None:
    ids = [f"{name}/site3_{frame:04}.jpg" for name in ("None", "Road work") for frame in range(30)]
    assert runs(ids, [0] * 30 + [1] * 30) == [0] * 30 + [1] * 30
    assert runs(["None/site3_1.jpg", "Road work/site3_2.jpg"], [1, 0]) == [0, 1]  # of another class: a name


def test_names_of_drives_have_digits_beside_the_frame_and_another_frame() -> None:
    names = ["d1_1.jpg", "d1_2.jpg", "d2_1.jpg", "IMG_1.jpg", "IMG_2.jpg", "x.jpg"]
    assert in_drives(numbered(names)).tolist() == [
        True,
        True,
        *[False] * 4,
    ]


def test_no_names_and_numbers_longer_than_a_machine_word_are_no_trouble() -> None:
    assert numbered([]).run.tolist() == []
    assert len(numbered(["9" * 40 + ".jpg", "9" * 39 + "8.jpg"]).run) == 2
