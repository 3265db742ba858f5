import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from natix_lib.cli.review_manifest import HEADER, CommonFolder, address_of, image_cell, quoted
from natix_lib.errors import DataError

PARTS = st.lists(st.sampled_from(["a", "b", "c d", "ü"]), max_size=4)
NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(lambda name: name not in (".", ".."))


def common(*addresses: str) -> str:
    folder = CommonFolder()
    for address in addresses:
        folder.add(address)
    return folder.address


@given(st.lists(PARTS, min_size=1, max_size=5))
def test_the_common_folder_is_the_one_that_the_operating_system_would_name(folders: list[list[str]]) -> None:
    addresses = ["/" + "/".join([*parts, f"{number}.jpg"]) for number, parts in enumerate(folders)]
    assert common(*addresses) == os.path.commonpath([Path(address).parent for address in addresses])
    folder = CommonFolder()
    for address in addresses:
        folder.add(address)
    assert [str(Path(folder.address, folder.name(address))) for address in addresses] == addresses


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["gs://bucket/a.jpg"], "gs://bucket"),
        (["gs://bucket/set/x/a.jpg", "gs://bucket/set/xy/b.jpg"], "gs://bucket/set"),
        (["s3://bucket/x/a.jpg", "s3://bucket/b.jpg"], "s3://bucket"),
        (["/a.jpg", "/b/c.jpg"], "/"),
        (["/photos/1/a.jpg", "/photos/10/b.jpg"], "/photos"),
    ],
)
def test_a_prefix_ends_where_a_folder_does(addresses: list[str], expected: str) -> None:
    assert common(*addresses) == common(*reversed(addresses)) == expected


@pytest.mark.parametrize("other", ["gs://other/a.jpg", "s3://bucket/a.jpg", "/bucket/a.jpg"])
def test_images_without_a_common_folder_are_refused(other: str) -> None:
    with pytest.raises(DataError, match=f"got gs://bucket/b.jpg and {other}: review them one after the other"):
        common("gs://bucket/b.jpg", other)
    with pytest.raises(DataError, match=f"got {other} and gs://bucket/b.jpg"):
        common(other, "gs://bucket/b.jpg")


def test_an_address_says_the_same_of_one_file_and_follows_no_link_that_it_need_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/deep")
    monkeypatch.chdir(tmp_path)
    assert (
        address_of("disk/a.jpg")
        == address_of("./disk//a.jpg")
        == address_of("link/../a.jpg")
        == f"{tmp_path}/disk/a.jpg"
    )
    assert address_of("link/a.jpg") == f"{tmp_path}/link/a.jpg" and address_of("gs://b/a/../b") == "gs://b/a/../b"


@given(NAMES)
@example('a,b "c".jpg')
@example("new\nline.jpg")
@example("return\rline\r\n.jpg")
@example("=1+1.jpg")
@example(" \tfirst.jpg")
@example("last.jpg ")
@example("back\\slash.jpg")
@example("a.jpg,None\nb.jpg")
@example("c:a.jpg")
def test_a_cell_gives_its_name_back_or_none_is_made(name: str) -> None:
    try:
        cell = image_cell(name)
    except DataError as error:
        assert str(error).startswith("no manifest can name it: ")
        assert (
            "\\" in name or name != name.strip() or len(name.splitlines()) > 1 or ":" in name or not name.isprintable()
        )
        return
    text = io.StringIO(f"{HEADER}{cell},{quoted('None')}\n", newline="")
    header, (read, label) = csv.reader(text)
    assert header == ["image", "label"] and label == "None"
    assert os.path.normpath(read) == name and read[0] not in "=+-@\t\r"


@pytest.mark.parametrize(
    "name", ["a.jpg", "b c/d.jpg", 'a,b "c".jpg', "new\nline.jpg", "return\rline.jpg", "=1.jpg", " a"]
)
def test_names_that_people_have_are_no_reason_to_refuse(name: str) -> None:
    assert next(csv.reader(io.StringIO(image_cell(name), newline=""))) == [f"./{name}" if name[0] in "= " else name]
