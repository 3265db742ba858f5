import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from natix_lib.config import DataSource
from natix_lib.data import archives
from natix_lib.data.archives import unpack
from natix_lib.data.root import local_root
from natix_lib.data.rows import Source
from natix_lib.data.sources import open_source
from natix_lib.errors import DataError
from tests.data.layouts import files, images, reading

CLASSES = {"None/0.jpg": ("None", None), "Roadwork/0.jpg": ("Roadwork", None)}
NAMES = list(CLASSES)


def zipped(path: Path, *names: str, content: bytes = b"x", method: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as file:
        for name in names:
            file.writestr(name, content)
    return path


def tarred(path: Path, *members: str | tarfile.TarInfo, content: bytes = b"x", mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member in members:
            entry = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            entry.size = len(content) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def source_of(place: Path, scratch: Path, **settings: object) -> Source:
    scratch.mkdir()
    data = DataSource(data_root=str(place), **settings)  # type: ignore[arg-type]
    return open_source(local_root(data, scratch), data)


WRITERS: dict[str, Callable[[Path], Path]] = {
    "set.zip": lambda path: zipped(path, *NAMES),
    "SET.ZIP": lambda path: zipped(path, *NAMES, "__MACOSX/None/._0.jpg", method=zipfile.ZIP_DEFLATED),
    "wrapped.zip": lambda path: zipped(path, *(f"set/{name}" for name in NAMES), "__MACOSX/set/._0.jpg"),
    "windows.zip": lambda path: zipped(path, "a\\", "a\\None\\", *(f"a/{name}".replace("/", "\\") for name in NAMES)),
    "set.tar": lambda path: tarred(path, *NAMES),
    "dots.tar": lambda path: tarred(path, *(f"./{name}" for name in NAMES)),
    "set.tar.gz": lambda path: tarred(path, *NAMES, mode="w:gz"),
    "set.tgz": lambda path: tarred(path, *(f"a/{name}" for name in NAMES), mode="w:gz"),
    "set.tar.bz2": lambda path: tarred(path, *NAMES, mode="w:bz2"),
    "set.tar.xz": lambda path: tarred(path, *NAMES, mode="w:xz"),
    "hard.tar": lambda path: tarred(path, "None/0.jpg", link("Roadwork/0.jpg", "None/0.jpg", tarfile.LNKTYPE)),
    "soft.tar": lambda path: tarred(path, "None/0.jpg", link("Roadwork/0.jpg", "../None/0.jpg")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_an_archive_is_read_where_it_lies_alone_and_where_it_is_data_root(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path / "data" / name)
    files(tmp_path, "data/README.md", "data/.DS_Store")
    for number, place in enumerate((path.parent, path)):
        source = source_of(place, tmp_path / f"scratch{number}")
        assert reading(source) == CLASSES and list(source.images()) == [b"x", b"x"]
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([".DS_Store", "README.md", name])


def test_a_role_and_a_folder_of_part_files_are_not_taken_for_a_wrapping_folder(tmp_path: Path) -> None:
    source = source_of(zipped(tmp_path / "a.zip", *(f"train/{name}" for name in NAMES)), tmp_path / "scratch")
    assert {row.given_split for row in source.rows} == {"TRAIN"}


def test_a_name_in_utf_8_without_its_mark_is_read_as_it_is(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "Grün/0.jpg", "Rot/0.jpg")
    path.write_bytes(path.read_bytes().replace(b"\x00\x08", b"\x00\x00"))
    assert [row.label for row in source_of(path, tmp_path / "scratch").rows] == ["Grün", "Rot"]


def encrypted(path: Path) -> Path:
    content = bytearray(zipped(path, "a/0.jpg").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    return path


def changed(path: Path) -> Path:
    content = zipped(path, "a/0.jpg", content=b"0123456789" * 9).read_bytes()
    path.write_bytes(content.replace(b"0123456789" * 9, b"9876543210" * 9))
    return path


def zip_link(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        entry = zipfile.ZipInfo("a/0.jpg")
        entry.external_attr = 0o120777 << 16
        file.writestr(entry, "/etc/passwd")
    return path


def cut(path: Path, keep: int) -> Path:
    path.write_bytes(path.read_bytes()[:keep])
    return path


def with_bad_header(path: Path) -> Path:
    content = bytearray(tarred(path, *NAMES).read_bytes())
    content[1024 + 10] ^= 255  # in the name of the second member, so that its checksum fails
    path.write_bytes(content)
    return path


REFUSED: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "up": ("a.zip", lambda path: zipped(path, "../a.jpg"), "holds '../a.jpg', which leaves the folder"),
    "up within": ("a.zip", lambda path: zipped(path, "a/../../b.jpg"), "which leaves the folder"),
    "absolute": ("a.tar", lambda path: tarred(path, "/etc/a.jpg"), "holds '/etc/a.jpg', which leaves the folder"),
    "drive": ("a.zip", lambda path: zipped(path, "C:/a.jpg"), "holds 'C:/a.jpg': a colon before the first /"),
    "backslash": ("a.tar", lambda path: tarred(path, "a\\b.jpg"), "the backslash may stand for a folder or be part"),
    "both marks": ("a.zip", lambda path: zipped(path, "a/b.jpg", "a\\c.jpg"), "pack it again with / between folders"),
    "up by backslash": ("a.zip", lambda path: zipped(path, "..\\a.jpg"), "holds '../a.jpg', which leaves the folder"),
    "up in a tar": ("a.tar", lambda path: tarred(path, "a\\..\\..\\b.jpg"), "which leaves the folder"),
    "root by backslash": ("a.zip", lambda path: zipped(path, "\\a.jpg"), "holds '/a.jpg', which leaves the folder"),
    "drive by backslash": ("a.zip", lambda path: zipped(path, "C:\\a.jpg"), "holds 'C:/a.jpg': a colon before the fi"),
    "twice by backslash": ("a.zip", lambda path: zipped(path, "a\\b.jpg", "a\\.\\b.jpg"), "holds a/./b.jpg twice"),
    "twice": ("a.tar", lambda path: tarred(path, "a/b.jpg", "./a/b.jpg"), "holds ./a/b.jpg twice"),
    "link out": ("a.tar", lambda path: tarred(path, link("a/0.jpg", "/etc/passwd")), "a link to /etc/passwd, which"),
    "link up": ("a.tar", lambda path: tarred(path, link("a/0.jpg", "../../x")), "a link to ../../x, which"),
    "link in zip": ("a.zip", zip_link, "a/0.jpg is a link; put the files themselves"),
    "device": ("a.tar", lambda path: tarred(path, link("a", "", tarfile.CHRTYPE)), "a is a device or a pipe"),
    "a file as folder": ("a.tar", lambda path: tarred(path, "a", "a/b.jpg"), "cannot be read: a/b.jpg: File exists"),
    "control": ("a.tar", lambda path: tarred(path, "a\nb.jpg"), r"holds 'a\\nb.jpg', which is no name of a file"),
    "encrypted": ("a.zip", encrypted, "archive a.zip cannot be read: it is encrypted"),
    "bad checksum": ("a.zip", changed, "archive a.zip cannot be read: Bad CRC-32"),
    "no zip": ("a.zip", lambda path: files(path.parent, "a.zip") / "a.zip", "a.zip cannot be read: File is not a zip"),
    "no tar": ("a.tar.gz", lambda path: files(path.parent, "a.tar.gz") / "a.tar.gz", "archive a.tar.gz cannot be read"),
    "cut zip": ("a.zip", lambda path: cut(zipped(path, *NAMES), 60), "archive a.zip cannot be read"),
    "cut at a member": ("a.tar", lambda path: cut(tarred(path, *NAMES), 1024), "ends without tar's end mark"),
    "cut in a member": ("a.tar", lambda path: cut(tarred(path, *NAMES), 1100), "archive a.tar cannot be read: "),
    "cut gz": ("a.tgz", lambda path: cut(tarred(path, *NAMES, mode="w:gz"), 80), "archive a.tgz cannot be read"),
    "bad header": ("a.tar", with_bad_header, "at byte 1024 stands neither a member nor the end"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_archive_that_cannot_be_unpacked_safely_or_wholly_is_one_line(tmp_path: Path, name: str) -> None:
    file, write, message = REFUSED[name]
    path = write(tmp_path / file)
    with pytest.raises(DataError, match=message) as error:
        unpack(path, tmp_path / "scratch" / "a")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.parent.glob("b.jpg")) and not (tmp_path / "a.jpg").exists()


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_a_bomb_is_refused_before_a_byte_is_written(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SMALL", 1 << 20)
    path = tmp_path / f"a{suffix}"
    if suffix == ".zip":
        zipped(path, "a.jpg", "b.jpg", content=bytes(1 << 22), method=zipfile.ZIP_DEFLATED)
    else:
        tarred(path, "a.jpg", "b.jpg", content=bytes(1 << 22), mode=f"w:{suffix[5:]}")
    with pytest.raises(
        DataError, match="a.* holds more than 1048576 bytes, the larger of 1048576 and 100 times its size: "
    ):
        unpack(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    assert sorted(file.name for file in unpack(path, tmp_path / "again").iterdir()) == ["a.jpg", "b.jpg"]


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    with pytest.raises(DataError, match="holds more than 3 files"):
        unpack(zipped(tmp_path / "a.zip", *"abcd"), tmp_path / "out")


def test_archives_that_do_not_lie_alone_are_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    zipped(root / "train.zip", *NAMES)
    zipped(root / "test.zip", *NAMES)
    with pytest.raises(
        DataError, match="holds no image but test.zip, train.zip: an archive is unpacked where it lies al"
    ):
        source_of(root, tmp_path / "one")
    (root / "test.zip").unlink()
    files(root, "manifest.csv", text="image,label\nNone/0.jpg,x\n")
    with pytest.raises(DataError, match="holds no image but train.zip"):
        source_of(root, tmp_path / "two")
    images(root, "a", "b")
    (root / "manifest.csv").unlink()
    source = source_of(root, tmp_path / "three")
    assert len(source.rows) == 4 and "(.zip 1): train.zip" in source.warnings[0]


def test_what_is_no_folder_and_no_archive_is_named(tmp_path: Path) -> None:
    for name, message in (
        ("a.txt", "a.txt is no folder and no archive"),
        ("gone", "gone does not exist"),
        ("b.zip", "b.zip does not ex"),
    ):
        files(tmp_path, "a.txt")
        with pytest.raises(DataError, match=message):
            local_root(DataSource(data_root=str(tmp_path / name)), tmp_path)


def test_an_archive_without_images_is_named_and_not_the_folder_that_it_was_unpacked_in(tmp_path: Path) -> None:
    place = zipped(tmp_path / "a.zip", "inner.zip")
    with pytest.raises(DataError, match=f"data.data_root {place} holds no image but inner.zip"):
        source_of(place, tmp_path / "scratch")
