from pathlib import Path

import pytest

from natix_lib.data.delimited import Made, decoded
from natix_lib.errors import DataError
from tests.data.layouts import files, lines, opened

TOWNS = "image,label,town\na.jpg,x,Köln\nb.jpg,y,Orléans\nc.jpg,y,Ærø\nd.jpg,x,L’Haÿ 12°\n"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_western_text_is_read_whatever_its_encoding_and_a_guess_is_said(tmp_path: Path, encoding: str) -> None:
    content = TOWNS.encode(encoding)
    content = b"\xff\xfe" + content if encoding == "utf-16-le" else content
    (tmp_path / "manifest.csv").write_bytes(content)
    source = opened(tmp_path)
    assert [row.tags["town"] for row in source.rows] == ["Köln", "Orléans", "Ærø", "L’Haÿ 12°"]
    line = "manifest.csv: it is not UTF-8 (byte 0xf6 in line 2) and is read as Windows-1252"
    assert (line in source.warnings) == (encoding == "cp1252")


@pytest.mark.parametrize(
    "content",
    [
        "Москва,Тверь".encode("cp1251"),
        "Łódź".encode("iso8859-2"),
        "Köln".encode("cp850"),
        "München".encode("mac_roman"),
        "東京".encode("shift_jis"),
        "Köln ".encode() + "Köln".encode("latin-1"),
        bytes(range(128, 256)),
    ],
)
def test_text_that_may_be_of_another_encoding_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"it is not UTF-8 \(byte 0x.. in line 1\): save it as UTF-8"):
        decoded(b"label," + content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image,label,note\na.jpg,x,"open\nb.jpg,y,fine\nc.jpg,z,a "word\n', r"',' expected after '\"'"),
        ('image,label,note\na.jpg,x,"open\nb.jpg,y,fine\nc.jpg,z,end"\nd.jpg,x,\n', "a quote opens in line 2 and "
                                                                              "takes in 'b.jpg,y,fine' of line 3"),
        ('image,label,note\na.jpg,x,ok\nb.jpg,y,"two\nlines, but never closed\nc.jpg,z,\n', "the quote that opens in "
                                                                                     "line 3 is never closed"),
        ('note,image,label\n"5\' wide,a.jpg,x\n6" deep,c.jpg,z\n', r"',' expected after '\"', in the row that "
                                                                        "begins in line 2"),
        ('note,image,label\n"5 wide,a.jpg,x\n6 deep",c.jpg,z\n', "a quote opens in line 2"),
        ('"image,label\na.jpg,x\n', "the quote that opens in line 1 is never closed"),
    ],
)  # fmt: skip
def test_a_quote_that_swallows_rows_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(files(tmp_path, "manifest.csv", text=text))


def test_text_of_several_lines_that_are_no_rows_is_read(tmp_path: Path) -> None:
    text = 'image,label,note\na.jpg,x,"first line,\nsecond, and ""third"", of a.jpg too\n\nend"\nb.jpg,y,\n'
    rows = opened(files(tmp_path, "manifest.csv", text=text)).rows
    assert [row.id for row in rows] == ["a.jpg", "b.jpg"]
    assert rows[0].tags["note"] == 'first line,\nsecond, and "third", of a.jpg too\n\nend'


@pytest.mark.parametrize("header", ["image,label", "File_Name ,label,note"])
def test_a_name_that_holds_a_line_break_is_a_name_and_a_row_in_quotes_is_none(tmp_path: Path, header: str) -> None:
    rest = ",x" * header.count(",")
    text = f'{header}\n"two\nlines.jpg"{rest}\n"a\r.jpg\r\n.jpg"{rest}\n'
    rows = opened(files(tmp_path / "a", "manifest.csv", text=text)).rows
    assert [row.id for row in rows] == ["two\nlines.jpg", "a\r.jpg\r\n.jpg"]
    with pytest.raises(DataError, match="a quote opens in line 2 and takes in 'b.jpg,x"):
        opened(files(tmp_path / "b", "manifest.csv", text=f'{header}\n"a\nb.jpg{rest}"{rest}\n'))


def test_what_is_made_when_asked_for_is_a_sequence() -> None:
    squares = Made(4, lambda number: number * number)
    assert list(squares) == [0, 1, 4, 9] and len(squares) == 4 and 9 in squares
    assert "not UTF-8" not in lines([decoded(b"a,b")[1]])
