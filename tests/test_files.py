import errno
import subprocess
import sys
from pathlib import Path

import pytest

from natix_lib import files
from natix_lib.errors import ContractError, StorageError


def test_equal_values_give_equal_json() -> None:
    assert files.canonical_json({"b": 1, "a": "é"}) == files.canonical_json({"a": "é", "b": 1})


def test_json_never_holds_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.canonical_json({"risk": float("nan")})


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    target = tmp_path / "bundle.json"
    files.write_bytes(target, b"old")

    def full() -> None:
        with files.replacing(target) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"cannot write .*bundle.json: No space left on device"):
        full()
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_a_really_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        files.write_bytes(Path("/proc/natix"), b"x")


def test_a_killed_process_leaves_nothing_at_the_name(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from natix_lib.files import replacing\n"
        "with replacing(sys.argv[1]) as part:\n"
        "    part.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.json")], check=False)
    assert done.returncode == -9 and not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(("content", "message"), [(b"{", "is not JSON"), (b"[]", "must hold a JSON object, got list")])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ContractError, match=message):
        files.read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "a": 2}', "is not JSON: it names 'a' twice"),
        (b'{"b": [{"a": 1, "c": 0, "a": 1}]}', "is not JSON: it names 'a' twice"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b'{"a": 1e999}', "the number '1e999' is too large"),
        (b'{"a": 9223372036854775808}', "the number '9223372036854775808' is too large"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is too large"),
        (b'{"a": ' + b"[" * 100_000, "nested more than 64 deep"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested more than 64 deep"),
        (b'{"a": "\xff"}', "is not JSON"),
        (b'{"a": "\\ud800"}', "is not JSON"),
        (b"{1: 2}", "is not JSON"),
        (b"", "is not JSON"),
        (b"{} {}", "is not JSON"),
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ContractError, match=message) as refusal:
        files.read_json(tmp_path / "x.json")
    assert len(str(refusal.value)) < len(str(tmp_path)) + 200


def test_json_of_64_levels_and_64_bits_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'{"a": ' + b"[" * 63 + b"]" * 63 + b', "b": -9223372036854775808}')
    assert files.read_json(tmp_path / "x.json")["b"] == -(2**63)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_it_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_bytes(b"one")
    (folder / "b").symlink_to("a")
    table = files.file_table(folder, leave_out="m.json")
    files.check_files(folder, table, "bundle")
    (folder / "a").rename(tmp_path / "a")
    (folder / "a").symlink_to(tmp_path / "a")
    with pytest.raises(ContractError, match="is a link that leads out of the folder"):
        files.check_files(folder, table, "bundle")


def test_a_changed_file_is_told_from_its_table(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    table = files.file_table(tmp_path, leave_out="m.json")
    files.check_files(tmp_path, table, "bundle")
    (tmp_path / "a").write_bytes(b"two")
    with pytest.raises(ContractError, match="does not match the SHA-256"):
        files.check_files(tmp_path, table, "bundle")
    (tmp_path / "a").write_bytes(b"longer")
    with pytest.raises(ContractError, match="has 6 bytes, its manifest says 3"):
        files.check_files(tmp_path, table, "bundle")
    (tmp_path / "a").unlink()
    with pytest.raises(ContractError, match="lacks the file a"):
        files.check_files(tmp_path, table, "bundle")


def test_a_file_that_is_read_gives_the_hash_of_the_bytes_that_were_parsed(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a":   1}')  # not as natix writes it
    value, sha256 = files.read_hashed_json(tmp_path / "x.json")
    assert value == {"a": 1} and sha256 == files.sha256_file(tmp_path / "x.json")


def test_a_csv_has_the_digits_of_a_float32_and_quotes_what_needs_it(tmp_path: Path) -> None:
    files.write_csv(tmp_path / "a.csv", [("id", "x"), ("a,b", 1 / 3), (7, 1e-9)])
    assert (tmp_path / "a.csv").read_bytes() == b'id,x\n"a,b",0.33333333\n7,1e-09\n'
