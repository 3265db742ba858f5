from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from natix_lib.data.index import read_index
from natix_lib.errors import ContractError
from tests.street_sets import ingested


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(ingested(tmp_path_factory.mktemp("index"), groups=4)["index"])


def test_pandas_reads_a_row_for_each_image_and_no_pixels(index: Path) -> None:
    table = pd.read_parquet(index)
    assert len(table) == 12 and "image" not in table and set(table["width"]) == {56} and set(table["height"]) == {40}
    assert table["label"].tolist() == [int(name[:2]) % 2 for name in table["id"]]
    assert table["sha256"].str.len().eq(64).all() and table["bytes"].gt(0).all()
    assert {row["camera"] for row in table["tags"]} == {"front", "rear"}


def test_what_was_written_is_read(index: Path) -> None:
    opened = read_index(index)
    assert len(opened) == 12 and opened.class_names == ["None", "Roadwork"] and opened.tag_names == ["camera"]
    assert opened.column("group")[:3] == ["g0"] * 3 and opened.document["counts"] == {"None": 6, "Roadwork": 6}


def rewritten(
    index: Path, out: Path, table: pa.Table | None = None, metadata: dict[bytes, bytes] | None = None
) -> Path:
    whole = pq.read_table(index)
    changed = whole if table is None else table
    kept = whole.schema.metadata if metadata is None else metadata
    pq.write_table(changed.replace_schema_metadata(kept), out)
    return out


def test_a_file_that_is_no_index_is_one_line(index: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("id,label")
    with pytest.raises(ContractError, match="index .*text cannot be read"):
        read_index(tmp_path / "text")
    with pytest.raises(ContractError, match="index .*gone cannot be read"):
        read_index(tmp_path / "gone")
    with pytest.raises(ContractError, match="is no index: its metadata lacks 'natix'"):
        read_index(rewritten(index, tmp_path / "a", metadata={}))
    with pytest.raises(ContractError, match="the metadata of .* is not JSON"):
        read_index(rewritten(index, tmp_path / "b", metadata={b"natix": b"{"}))
    with pytest.raises(ContractError, match="must be a index document, got None"):
        read_index(rewritten(index, tmp_path / "c", metadata={b"natix": b"{}"}))


def test_rows_and_columns_must_be_those_of_the_metadata(index: Path, tmp_path: Path) -> None:
    table = pq.read_table(index)
    with pytest.raises(ContractError, match="has 5 rows, its metadata says 12"):
        read_index(rewritten(index, tmp_path / "a", table.slice(0, 5)))
    with pytest.raises(ContractError, match="must have the columns id, label, .*tags, got"):
        read_index(rewritten(index, tmp_path / "b", table.drop_columns(["hashes"])))
