import pytest

from natix_lib.data.frames import in_drives, numbered


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


def test_names_of_drives_have_digits_beside_the_frame_and_another_frame() -> None:
    assert in_drives(["d1_1.jpg", "d1_2.jpg", "d2_1.jpg", "IMG_1.jpg", "IMG_2.jpg", "x.jpg"]).tolist() == [
        True,
        True,
        *[False] * 4,
    ]


def test_no_names_and_numbers_longer_than_a_machine_word_are_no_trouble() -> None:
    assert numbered([]).run.tolist() == []
    assert len(numbered(["9" * 40 + ".jpg", "9" * 39 + "8.jpg"]).run) == 2
