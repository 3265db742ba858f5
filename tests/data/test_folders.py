import os
from pathlib import Path

import pytest

from natix_lib.contracts import TEST, TRAIN, VAL_CALIB, VAL_SELECT
from natix_lib.errors import DataError
from tests.data.layouts import files, images, lines, opened, reading


def test_a_folder_for_each_class_is_read(tmp_path: Path) -> None:
    source = opened(images(tmp_path, "None", "Roadwork", count=1))
    assert reading(source) == {"None/0.jpg": ("None", None), "Roadwork/0.jpg": ("Roadwork", None)}
    assert source.warnings == []


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("train", "validation", "test"), (TRAIN, VAL_SELECT, TEST)),
        (("training", "val", "testing"), (TRAIN, VAL_SELECT, TEST)),
        (("Train", "dev", "holdout"), (TRAIN, VAL_SELECT, TEST)),
        (("TRAIN", "val_calib", "eval"), (TRAIN, VAL_CALIB, TEST)),
        (("training_set", "valid", "test_set"), (TRAIN, VAL_SELECT, TEST)),
        (("train2017", "val2017", "val_test"), (TRAIN, VAL_SELECT, TEST)),
        (("split=train", "split=val", "split=test"), (TRAIN, VAL_SELECT, TEST)),
    ],
)
def test_folders_named_by_split_give_the_roles(tmp_path: Path, names: tuple, roles: tuple) -> None:
    source = opened(images(tmp_path, *(f"{name}/{label}" for name in names for label in ("None", "Roadwork")), count=1))
    assert reading(source) == {
        f"{name}/{label}/0.jpg": (label, role)
        for name, role in zip(names, roles, strict=True)
        for label in ("None", "Roadwork")
    }


def test_classes_whose_names_begin_like_a_role_stay_classes(tmp_path: Path) -> None:
    source = opened(images(tmp_path, "test_track/a", "train_station/b", count=1))
    assert reading(source) == {
        "test_track/a/0.jpg": ("test_track", None),
        "train_station/b/0.jpg": ("train_station", None),
    }


@pytest.mark.parametrize("name", ["test_site", "test_p", "train", "validation"])
def test_the_name_of_data_root_gives_no_role(tmp_path: Path, name: str) -> None:
    source = opened(images(tmp_path / name, "None", "Roadwork"))
    assert {row.given_split for row in source.rows} == {None}


REFUSED = {
    "a folder beside split roles": (
        ["train/None/a.jpg", "train/Roadwork/a.jpg", "test/None/a.jpg", "docs/logo.png"],
        r"docs \(1 images\), test \(1 images\), train \(2 images\): test, train name split roles and docs none; "
        r"move what is no image of the set away, or set data.class_names",
    ),
    "docs beside classes": (
        ["None/a.jpg", "Roadwork/a.jpg", "docs/logo.png"],
        r"docs is hardly the name of a class; move it away, or set data.class_names",
    ),
    "images beside masks": (["images/a.jpg", "masks/a.png"], "images, masks is hardly the name of a class"),
    "one folder": (
        ["images/a.jpg", "images/b.jpg"],
        "all 2 images lie in one folder, images, so there is no second class",
    ),
    "a wrapping folder": (
        ["set/None/a.jpg", "set/Roadwork/a.jpg"],
        "lie in one folder, set, .*; below it are None, Roadwork: set data.data_root to that folder",
    ),
    "split roles in a wrapping folder": (["set/train/None/a.jpg", "set/test/None/a.jpg"], "below it are test, train"),
    "flat images": (
        ["a.jpg", "b.jpg"],
        "2 images lie directly in data.data_root, the first is a.jpg, so no folder names",
    ),
    "flat images beside classes": (
        ["None/a.jpg", "Roadwork/a.jpg", "z.jpg"],
        r"1 images lie directly in data.data_root, the first is z.jpg, beside folders None \(1 images\)",
    ),
    "flat images in split roles": (
        ["train/a.jpg", "test/b.jpg"],
        r"name split roles and hold images without a class folder, the first is test/b.jpg: add .* metadata.csv",
    ),
    "two depths": (
        ["None/a.jpg", "Roadwork/night/b.jpg"],
        "images lie at 2 depths, as None/a.jpg and Roadwork/night/b.jpg: set data.class_names",
    ),
    "parts that hold the classes": (
        ["part1/None/a.jpg", "part1/Roadwork/a.jpg", "part2/None/a.jpg", "part2/Roadwork/a.jpg"],
        "folders None, Roadwork repeat below part1, part2, so either may be the classes: set data.class_names",
    ),
    "nothing that is read": (
        ["a.bin", "b.bin"],
        r"no folder of images for each class; it holds 2 files \(.bin 2\): a.bin",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_folders_with_two_readings_are_refused_with_what_was_seen(tmp_path: Path, name: str) -> None:
    paths, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        opened(files(tmp_path, *paths))


@pytest.mark.parametrize("name", ["a.heic", "a"])
def test_a_class_of_files_that_are_not_read_does_not_vanish(tmp_path: Path, name: str) -> None:
    root = files(images(tmp_path, "None", "Roadwork"), f"Detour/{name}")
    with pytest.raises(
        DataError, match=r"folder Detour holds no image that is read, but 1 files \(.* 1\), the first is De"
    ):
        opened(root)
    assert len(opened(root, class_names=["None", "Roadwork"]).rows) == 4


def test_class_names_decide_what_folders_mean(tmp_path: Path) -> None:
    root = files(tmp_path, "train/None/a.jpg", "part/test/Roadwork/night/b.jpg", "docs/logo.png", "c.jpg")
    source = opened(root, class_names=["None", "Roadwork"])
    assert reading(source) == {
        "part/test/Roadwork/night/b.jpg": ("Roadwork", TEST),
        "train/None/a.jpg": ("None", TRAIN),
    }
    assert source.warnings == ["left out 2 images that no row names: c.jpg, docs/logo.png"]


def test_folders_may_be_named_by_the_numbers_of_classes(tmp_path: Path) -> None:
    source = opened(images(tmp_path, "x/0", "y/1", count=1), class_names=["None", "Roadwork"])
    assert reading(source) == {"x/0/0.jpg": ("0", None), "y/1/0.jpg": ("1", None)}


def test_class_names_that_are_no_folder_or_two_are_refused(tmp_path: Path) -> None:
    root = images(tmp_path, "None", "Roadwork/None")
    with pytest.raises(
        DataError, match="none of data.class_names a, b is a folder of images; folders are None, Roadwork"
    ):
        opened(root, class_names=["a", "b"])
    with pytest.raises(DataError, match="Roadwork/None/0.jpg lies in two folders of data.class_names: Roadwork, None"):
        opened(root, class_names=["None", "Roadwork"])


def test_a_linked_class_folder_is_read_once_and_a_cycle_ends(tmp_path: Path) -> None:
    images(tmp_path / "disk", "cones")
    root = images(tmp_path / "set", "None")
    (root / "Roadwork").symlink_to(tmp_path / "disk" / "cones")
    (root / "None" / "up").symlink_to(root)
    (root / "again").symlink_to(root / "None")
    source = opened(root)
    assert [(row.id, row.label) for row in source.rows] == [
        *((f"None/{n}.jpg", "None") for n in (0, 1)),
        *((f"Roadwork/{n}.jpg", "Roadwork") for n in (0, 1)),
    ]
    assert source.warnings == ["left out 2 linked folders that were read under another name: None/up, again"]
    assert list(source.images()) == [b"x"] * 4


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("None/compare", "../Roadwork/night"),
        ("None/compare", "../Roadwork"),
        ("Construction", "Roadwork"),
        ("Construction", "Roadwork/night"),
        ("A/compare", ".."),
    ],
)
def test_a_link_to_a_folder_that_is_read_anyway_is_left_out_and_said(tmp_path: Path, link: str, target: str) -> None:
    root = images(tmp_path, "None/day", "Roadwork/night", "A/dusk")
    before = reading(opened(root))
    (root / link).symlink_to(target)
    source = opened(root)
    assert reading(source) == before
    assert source.warnings == [f"left out 1 linked folders that were read under another name: {link}"]
    named = opened(root, class_names=["A", "None", "Roadwork"])
    assert reading(named) == before and link in lines(named.warnings)


def test_a_class_name_that_only_links_to_a_folder_that_is_read_is_refused(tmp_path: Path) -> None:
    root = images(tmp_path, "None", "Roadwork")
    (root / "Construction").symlink_to("Roadwork")
    with pytest.raises(DataError, match="Construction of data.class_names only links to what is read under another na"):
        opened(root, class_names=["None", "Construction"])


def test_of_links_to_one_folder_elsewhere_the_nearest_to_the_top_is_read(tmp_path: Path) -> None:
    images(tmp_path / "disk", "cones/night")
    root = images(tmp_path / "set", "None/day")
    for link, target in (
        ("None/compare", "cones"),
        ("None/dark", "cones/night"),
        ("Roadwork", "cones"),
        ("Z", "cones"),
    ):
        (root / link).symlink_to(tmp_path / "disk" / target)
    source = opened(root)
    assert {row.id.rpartition("/")[0]: row.label for row in source.rows} == {
        "None/day": "None",
        "Roadwork/night": "Roadwork",
    }
    assert source.warnings == [
        "left out 3 linked folders that were read under another name: None/compare, None/dark, Z"
    ]


@pytest.mark.parametrize("above", ["", "train/"])
def test_one_class_beside_a_link_to_it_is_refused_with_the_link(tmp_path: Path, above: str) -> None:
    root = images(tmp_path, f"{above}None")
    (root / above / "Roadwork").symlink_to("None")
    with pytest.raises(
        DataError,
        match=rf"one folder, None, so there is no second class \({above}Roadwork only links to what is read under a",
    ):
        opened(root)


def test_a_class_folder_that_links_to_nothing_is_named(tmp_path: Path) -> None:
    root = images(tmp_path, "None", "Roadwork")
    (root / "Detour").symlink_to("/nowhere/Detour")
    with pytest.raises(DataError, match="Detour is a link to /nowhere/Detour, which does not exist: mend or remove it"):
        opened(root)


def test_an_image_that_links_to_nothing_is_a_row_without_bytes(tmp_path: Path) -> None:
    root = images(tmp_path, "None", "Roadwork", count=1)
    (root / "None" / "1.jpg").symlink_to("/nowhere/1.jpg")
    source = opened(root)
    assert [row.id for row in source.rows] == ["None/0.jpg", "None/1.jpg", "Roadwork/0.jpg"]
    assert [str(content) for content in source.images()] == ["b'x'", "no such file", "b'x'"]


def test_hidden_and_system_files_are_left_out_and_said(tmp_path: Path) -> None:
    root = images(tmp_path, "None", "Roadwork")
    files(root, ".ipynb_checkpoints/a.jpg", "__MACOSX/None/._a.jpg", ".git/a.jpg", "None/@eaDir/a.jpg")
    files(root, "None/._0.jpg", ".DS_Store", "None/Thumbs.db")
    source = opened(root)
    assert {row.label for row in source.rows} == {"None", "Roadwork"} and len(source.rows) == 4
    assert source.warnings == [
        "left out 7 hidden or system files and folders: .DS_Store, .git, .ipynb_checkpoints and 4 more"
    ]


def test_pictures_that_are_not_read_are_counted_by_suffix(tmp_path: Path) -> None:
    root = images(tmp_path, "None", "Roadwork")
    files(root, "None/a.heic", "None/b.HEIC", "None/c.cr2", "None/d", "None/e.json", "None/f.jfif", "None/g.AVIF")
    source = opened(files(root, "Roadwork/h.jpe", "Roadwork/i.JPG"))
    assert [row.id for row in source.rows if not row.id[-5].isdigit()] == [
        "None/f.jfif",
        "None/g.AVIF",
        "Roadwork/h.jpe",
        "Roadwork/i.JPG",
    ]
    assert source.warnings == [
        "left out 3 files of formats that are not read (.heic 2, .cr2 1): None/a.heic, None/b.HEIC, None/c.cr2",
        "left out 2 files without an image's suffix (.json 1, none 1): None/d, None/e.json",
    ]


def test_names_that_are_not_utf_8_are_read_under_a_name_that_can_be_stored(tmp_path: Path) -> None:
    root = images(tmp_path, "None", "Roadwork", count=1)
    (root / "None" / "b\udcff.jpg").write_bytes(b"odd")
    images(root, "Stra\udcdfe", count=1)
    source = opened(root)
    names = ["None/0.jpg", r"None/b\udcff.jpg", "Roadwork/0.jpg", r"Stra\udcdfe/0.jpg"]
    assert [row.id for row in source.rows] == names and source.rows[3].label == r"Stra\udcdfe"
    assert list(source.images())[1] == b"odd"
    assert all(name.encode() for name in names)


def test_a_pipe_with_the_name_of_an_image_does_not_block(tmp_path: Path) -> None:
    root = images(tmp_path, "None", "Roadwork", count=1)
    os.mkfifo(root / "None" / "pipe.jpg")
    assert [str(content) for content in opened(root).images()] == [
        "b'x'",
        "it must be a regular file, not a folder, pipe or device",
        "b'x'",
    ]


def test_a_folder_set_on_purpose_ignores_tables_and_says_so(tmp_path: Path) -> None:
    root = files(images(tmp_path, "None", "Roadwork"), "scores.csv", text="image,label\n0.jpg,x\n")
    with pytest.raises(
        DataError, match="scores.csv beside folders None, Roadwork may list the images: set data.manifest"
    ):
        opened(root)
    assert "(.csv 1): scores.csv" in lines(opened(root, format="folder").warnings)


def test_split_roles_below_named_classes_are_read_and_may_not_contradict_those_above(tmp_path: Path) -> None:
    root = images(tmp_path, "a/train", "a/test", "b/train", "b/test", count=1)
    source = opened(root, class_names=["a", "b"])
    assert reading(source)["a/test/0.jpg"] == ("a", "TEST") and reading(source)["b/train/0.jpg"] == ("b", "TRAIN")
    images(root, "train/a/test")
    with pytest.raises(DataError, match="train/a/test/0.jpg is TRAIN by a folder above its class and TEST by one belo"):
        opened(root, class_names=["a", "b"])


def test_a_folder_without_an_image_is_said_to_give_no_class(tmp_path: Path) -> None:
    root = files(images(tmp_path, "a", "b"), "archive/c.zip")
    (root / "closed").mkdir()
    line = "2 folders beside the classes hold no image that is read and give no class: archive (.zip 1), closed (no fi"
    assert line in lines(opened(root).warnings)
    root = images(tmp_path / "roles", "train/a", "train/b", "test/a")
    for name in ("test/b", "train/closed/deep", "val"):
        (root / name).mkdir(parents=True)
    line = "2 folders beside the classes hold no image that is read and give no class: train/closed (no file), val (no"
    assert line in lines(opened(root).warnings)


@pytest.mark.parametrize("name", ["x.jpg_large", "x.jpeg~", "x.PNG!d"])
def test_a_class_folder_of_images_with_longer_suffixes_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="folder c holds no image that is read, but 1 files"):
        opened(files(images(tmp_path, "a", "b"), f"c/{name}"))


@pytest.mark.parametrize(
    "names",
    [
        ("data_train", "data_test"),
        ("trn", "tst"),
        ("labeled", "unlabeled"),
        ("annotated", "not_annotated"),
        ("raw", "processed"),
        ("fold_1", "fold_2", "fold_3"),
    ],
)
def test_folders_that_are_all_named_as_parts_of_a_set_are_no_classes_unless_named(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    root = images(tmp_path, *names)
    with pytest.raises(DataError, match="all are named as parts of a set and hardly as classes: set data.class_names"):
        opened(root)
    assert len(opened(root, class_names=list(names)).rows) == 2 * len(names)


@pytest.mark.parametrize("names", [("raw", "processed"), ("fold_1", "labeled")])
def test_folders_named_as_parts_of_a_set_are_classes_beside_others(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert {row.label for row in opened(images(tmp_path, *names, "Roadwork")).rows} == {*names, "Roadwork"}


@pytest.mark.parametrize(
    "name", ["unlabeled", "Unlabelled", "un-labeled", "unannotated", "not_annotated", "unlabeled2017"]
)
@pytest.mark.parametrize("place", ["{}", "train/{}", "{}/train"])
def test_a_folder_of_images_without_a_label_is_no_class_unless_named(tmp_path: Path, place: str, name: str) -> None:
    root = images(tmp_path, *(place.format(label) for label in ("None", "Roadwork", name)))
    with pytest.raises(
        DataError, match=f": {name} names images without a label and hardly a class; .* or set data.class_names"
    ):
        opened(root)
    assert len(opened(root, class_names=["None", "Roadwork", name]).rows) == 6
    source = opened(root, class_names=["None", "Roadwork"])
    assert len(source.rows) == 4 and "left out 2 images that no row names" in lines(source.warnings)


@pytest.mark.parametrize(
    ("names", "splits", "classes"),
    [
        (("train_none", "train_roadwork", "test_none", "test_roadwork"), "TEST, TRAIN", "none, roadwork"),
        (("None-train", "Roadwork-train", "None-val"), "TRAIN, VAL_SELECT", "None"),
        (("Train None", "TEST none", "dev.Roadwork"), "TEST, TRAIN", "None"),
        (("train2017_road_work", "val2017_road_work", "val_none"), "TRAIN, VAL_SELECT", "road_work"),
        (("val_calib_a_b", "val_test_a_b"), "TEST, VAL_CALIB", "a_b"),
    ],
)
def test_names_that_join_split_and_class_are_refused_with_both_readings_unless_named(
    tmp_path: Path, names: tuple[str, ...], splits: str, classes: str
) -> None:
    root = images(tmp_path, *names)
    with pytest.raises(
        DataError,
        match=rf"{min(names)} \(2 images\).*: these may be {len(names)} classes, or splits {splits} of {classes}: set "
        "data.class_names to all their names .* or list the images in a manifest.csv with columns label and split",
    ):
        opened(root)
    source = opened(root, class_names=list(names))
    assert {(row.label, row.given_split) for row in source.rows} == {(name, None) for name in names}


@pytest.mark.parametrize(
    "names",
    [
        ("train_none", "train_roadwork"),
        ("test_track", "train_station"),
        ("train_none", "test_none", "Roadwork"),
        ("roadwork_test", "latest_none", "contest_none"),
    ],
)
def test_names_with_a_word_of_a_split_are_classes_where_no_class_would_have_two_splits(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    assert {row.label for row in opened(images(tmp_path, *names)).rows} == set(names)


def test_split_roles_below_all_classes_are_read_without_naming_the_classes(tmp_path: Path) -> None:
    source = opened(images(tmp_path, *(f"{label}/{split}" for label in "ab" for split in ("train", "val2017", "test"))))
    assert {(row.label, row.given_split) for row in source.rows} == {
        (label, role) for label in "ab" for role in (TRAIN, VAL_SELECT, TEST)
    }
    assert (
        source.rows[0].id == "a/test/0.jpg" and source.layout == "in a folder for each class, above folders of splits"
    )


def test_split_roles_below_one_class_alone_are_refused_as_before(tmp_path: Path) -> None:
    root = images(tmp_path, "a/train", "b/train", "b")
    with pytest.raises(DataError, match="images lie at 2 depths, as b/0.jpg and a/train/0.jpg: set data.class_names"):
        opened(root)
    with pytest.raises(DataError, match="below it are test, train: set data.data_root to that folder"):
        opened(images(tmp_path / "wrapped", "set/train/a", "set/test/a"))
