import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from natix_lib.contracts import TEST, TRAIN
from natix_lib.errors import DataError
from tests.data.layouts import lines, opened, reading


def shard(path: Path, members: Mapping[str, object], mode: str = "w") -> Path:
    """A tar of texts, bytes, and objects as JSON; gives its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content if isinstance(content, bytes) else None
            if data is None:
                data = (content if isinstance(content, str) else json.dumps(content)).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path.parent


TWO = {"0.jpg": b"zero", "0.cls": "0", "1.cls": "1\n", "1.jpg": b"one"}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_samples_are_read_in_their_order_and_indices_are_numbers(tmp_path: Path, name: str) -> None:
    source = opened(shard(tmp_path / name, TWO, "w" if name == "a.tar" else "w:gz"))
    assert [(row.id, row.label) for row in source.rows] == [(f"{name}#0", 0), (f"{name}#1", 1)]
    assert list(source.images()) == list(source.images()) == [b"zero", b"one"]
    assert source.layout == f"in {name}, shards of WebDataset" and source.warnings == []


def test_json_gives_every_fact_and_names_of_shards_and_folders_the_roles(tmp_path: Path) -> None:
    facts = {"label": "None", "group": "d1", "lat": 1.5, "lon": 2, "city": "Arden", "boxes": [1], "image": "x.jpg"}
    shard(tmp_path / "train-000000.tar", {"a/0.jpeg": b"x", "a/0.json": facts})
    shard(
        tmp_path / "test" / "000000.tar", {"./1.PNG": b"y", "./1.json": {**facts, "split": "test"}, "./._1.jpg": b"z"}
    )
    source = opened(tmp_path)
    (test, train) = source.rows
    assert (train.id, train.given_split, train.group, train.lat) == ("train-000000.tar#a/0", TRAIN, "d1", 1.5)
    assert (test.given_split, test.tags) == (TEST, {"city": "Arden"})
    assert "left out 1 columns of lists, records or bytes: boxes (list)" in lines(source.warnings)


def test_the_label_is_the_json_s_else_the_cls_else_the_txt_and_the_config_decides(tmp_path: Path) -> None:
    members: dict[str, object] = {}
    for number, name in enumerate(["None", "Roadwork", "None"]):
        members |= {f"{number}.jpg": b"x", f"{number}.txt": f"a caption {number}", f"{number}.cls": str(name != "None")}
        members |= {f"{number}.json": {"label": name, "kind": number}}
    root = shard(tmp_path / "a.tar", members)
    assert [row.label for row in opened(root).rows] == ["None", "Roadwork", "None"]
    assert opened(root).rows[0].tags == {"kind": "0", "txt": "a caption 0"}
    assert [row.label for row in opened(root, columns={"label": "cls"}).rows] == ["False", "True", "False"]
    assert [row.label for row in opened(root, columns={"label": "kind"}).rows] == [0, 1, 2]
    with pytest.raises(DataError, match=r"data.columns.label is 'class', which is no column of a.tar; columns are"):
        opened(root, columns={"label": "class"})


def test_a_cls_and_a_json_that_name_other_classes_are_refused(tmp_path: Path) -> None:
    members = {
        "0.jpg": b"x",
        "0.cls": "0",
        "0.json": {"label": "a"},
        "1.jpg": b"x",
        "1.cls": "0",
        "1.json": {"label": "b"},
    }
    with pytest.raises(
        DataError, match="a.tar: 1 is '0' by its .cls and 'b' by its .json, but a.tar: 0 has '0' with 'a'"
    ):
        opened(shard(tmp_path / "a.tar", members))


def test_samples_without_image_or_label_and_files_of_other_kinds_are_said(tmp_path: Path) -> None:
    source = opened(
        shard(tmp_path / "a.tar", {**TWO, "2.cls": "1", "3.jpg": b"x", "3.pth": b"?", "4.jpg": b"", "4.cls": ""})
    )
    assert reading(source) == {
        "a.tar#0": (0, None),
        "a.tar#1": (1, None),
        "a.tar#3": (None, None),
        "a.tar#4": (None, None),
    }
    assert "left out 1 samples without an image: a.tar: 2" in source.warnings
    assert "left out files of samples that are neither image, .cls, .json nor .txt: .pth 1" in source.warnings


def test_of_two_images_the_config_names_one(tmp_path: Path) -> None:
    root = shard(tmp_path / "a.tar", {"0.left.jpg": b"l", "0.right.jpg": b"r", "0.cls": "0"})
    with pytest.raises(DataError, match="0 has the images left.jpg, right.jpg: set data.columns.image to the suffix"):
        opened(root)
    assert list(opened(root, columns={"image": "right.jpg"}).images()) == [b"r"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({**TWO, "2.jpg": b"x", "2.json": "{"}, "a.tar: 2: its .json cannot be read"),
        ({**TWO, "2.jpg": b"x", "2.json": [1]}, "a.tar: 2: its .json must be an object, it is list"),
        ({**TWO, "2.jpg": b"x", "2.json": '{"label": 1, "label": 2}'}, "the key 'label' stands twice in one object"),
        ({**TWO, "2.jpg": b"x", "2.json": {"label": ["a"]}}, "column label .* must hold text or numbers"),
        ({**TWO, "2.jpg": b"x", "2.json": {"label": 0.5}}, "column label must hold a class, got the fraction 0.5"),
        ({**TWO, "2.jpg": b"x", "2.json": {"label": "a", "lat": 91, "lon": 0}}, "lat must be a number within"),
        ({**TWO, "2.jpg": b"x", "2.cls": b"\xff"}, "a.tar: 2: its .cls cannot be read"),
        ({**TWO, "2.jpg": b"x", "2.cls": "\0"}, "2: its .cls cannot be read: it holds a NUL byte"),
        ({"0.jpg": b"x", "1.jpg": b"y", "0.cls": "0", "1.cls": "1"}, "files of 0 do not stand side by side"),
        ({**TWO, "z.jpg": "x", "z.cls": "1" * 5000}, "z: its .cls cannot be read: it holds a number of 5000 digits"),
        ({**TWO, "README": "x"}, "shard a.tar cannot be read: README is no file with a key and a suffix"),
    ],
)  # fmt: skip
def test_a_shard_that_cannot_be_read_rightly_is_one_line(tmp_path: Path, members: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(shard(tmp_path / "a.tar", members), format="webdataset")


@pytest.mark.parametrize("keep", [512, 700, 1024, 2048, 4 * 1024])
def test_a_shard_that_was_cut_off_is_never_a_shorter_set(tmp_path: Path, keep: int) -> None:
    root = shard(tmp_path / "b.tar", TWO)
    (root / "b.tar").write_bytes((root / "b.tar").read_bytes()[:keep])
    with pytest.raises(
        DataError, match=r"b.tar cannot be read: (unexpected end of data|it ends without tar's end mark)"
    ):
        opened(root, format="webdataset")


def test_a_shard_that_ends_before_its_file_does_is_refused(tmp_path: Path) -> None:
    root = shard(tmp_path / "a.tar", TWO)
    shard(tmp_path / "b.tar", {"2.jpg": b"x", "2.cls": "1"})
    (root / "a.tar").write_bytes((root / "a.tar").read_bytes() + (root / "b.tar").read_bytes())
    with pytest.raises(DataError, match="shard a.tar cannot be read: at byte 4096 stands neither a member nor the end"):
        opened(root)


def test_a_tar_of_folders_with_notes_beside_images_has_two_readings(tmp_path: Path) -> None:
    members = {f"{label}/0.{end}": "{}" if end == "json" else b"x" for label in ("a", "b") for end in ("jpg", "json")}
    root = shard(tmp_path / "a.tar", members)
    with pytest.raises(
        DataError, match="may be a shard of WebDataset, .* of the folders a, b: set data.format to webda"
    ):
        opened(root)
    assert len(opened(root, format="webdataset").rows) == 2


def test_a_folder_without_shards_is_named_where_they_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no shard of WebDataset: .tar, .tar.gz, .tgz"):
        opened(shard(tmp_path / "a.zip", TWO), format="webdataset")
