import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from natix_lib.contracts import TEST, TRAIN
from natix_lib.errors import DataError
from tests.data.layouts import files, opened, reading

FEATURES = {"label": {"names": ["None", "Roadwork"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
NAMES = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]


def saved(folder: Path, batches: int = 2) -> Path:
    """A folder as `save_to_disk` of datasets 5 writes it, two rows a batch."""
    folder.mkdir(parents=True, exist_ok=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", image), ("label", pa.int64()), ("group", pa.string())],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    for name in NAMES:
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            for number in range(batches):
                rows = [
                    {"image": {"bytes": b"%d" % number}, "label": label, "group": "d"} for label in (number % 2, -1)
                ]
                stream.write_batch(pa.RecordBatch.from_pylist(rows, schema))
    state = {"_data_files": [{"filename": name} for name in NAMES], "_split": None}
    files(folder, "state.json", text=json.dumps(state))
    return files(folder, "dataset_info.json", text="{}")


def test_a_saved_set_gives_images_labels_groups_and_names(tmp_path: Path) -> None:
    root = saved(tmp_path)
    files(root, "cache-1234.arrow")  # what map leaves there
    source = opened(root)
    assert [(row.id, row.label, row.group, row.given_split) for row in source.rows[:4]] == [
        (f"{NAMES[0]}#{number}", label, "d", None) for number, label in enumerate([0, None, 1, None])
    ]
    assert source.class_names == ["None", "Roadwork"] and len(source.rows) == 8
    assert list(source.images()) == [b"0", b"0", b"1", b"1"] * 2
    assert source.warnings == ["left out 1 files without an image's suffix (.arrow 1): cache-1234.arrow"]


def test_splits_of_a_dictionary_give_the_roles(tmp_path: Path) -> None:
    for split in ("train", "test"):
        saved(tmp_path / "set" / split)
    root = files(tmp_path, "set/dataset_dict.json", text='{"splits": ["train", "test"]}')
    assert set(reading(opened(root)).values()) == {(label, role) for label in (0, 1, None) for role in (TRAIN, TEST)}
    shutil.rmtree(root / "set" / "test")
    with pytest.raises(DataError, match="set/dataset_dict.json lists the splits train, test, and set/test has no s"):
        opened(root)


def test_two_saved_sets_are_refused_unless_their_folders_are_splits(tmp_path: Path) -> None:
    saved(tmp_path / "a" / "train")
    saved(tmp_path / "a" / "test")
    assert {row.given_split for row in opened(tmp_path / "a").rows} == {TRAIN, TEST}
    saved(tmp_path / "b" / "v1")
    saved(tmp_path / "b" / "v2")
    with pytest.raises(DataError, match="folders v1, v2 are data sets of their own: set data.data_root to one"):
        opened(tmp_path / "b")


def without_a_file(root: Path) -> None:
    (root / NAMES[1]).unlink()


def cut_in_a_batch(root: Path) -> None:
    (root / NAMES[0]).write_bytes((root / NAMES[0]).read_bytes()[:-300])


def cut_after_a_batch(root: Path) -> None:
    (root / NAMES[0]).write_bytes((root / NAMES[0]).read_bytes()[:-8])


def with_indices(root: Path) -> None:
    state = json.loads((root / "state.json").read_text())
    files(root, "state.json", text=json.dumps({**state, "_indices_data_files": [{"filename": "indices.arrow"}]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_a_file, "state.json lists the file 'data-00001-of-00002.arrow', which is not there: .* not whole"),
        (cut_in_a_batch, "Arrow file data-00000-of-00002.arrow cannot be read: it does not end as an Arrow stream"),
        (cut_after_a_batch, "Arrow file data-00000-of-00002.arrow cannot be read: it does not end as an Arrow stream"),
        (with_indices, "state.json cannot be read: it selects rows by a file of indices"),
        (lambda root: files(root, "state.json", text="{"), "state.json cannot be read"),
        (lambda root: files(root, "state.json", text="[]"), "must be an object with a list _data_files"),
        (lambda root: files(root, "state.json", text='{"_data_files": []}'), "state.json lists no file"),
        (lambda root: files(root, "state.json", text='{"_data_files": ["x"]}'), "the file None, which is not"),
        (lambda root: files(root, "state.json", text='{"_data_files": [{"filename": "../x"}]}'), "'../x', which"),
        (lambda root: files(root, NAMES[0], text=""), "data-00000-of-00002.arrow cannot be read: it is empty"),
        (lambda root: files(root, NAMES[0], text="ARROW1"), "cannot be read: it does not end as an Arrow stream does"),
    ],
)  # fmt: skip
def test_a_saved_set_that_is_not_whole_is_one_line(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    root = saved(tmp_path)
    damage(root)
    with pytest.raises(DataError, match=message):
        opened(root)


def test_an_arrow_format_that_is_asked_for_and_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no state.json as datasets.save_to_disk writes it"):
        opened(files(tmp_path, "a.arrow"), format="arrow")
