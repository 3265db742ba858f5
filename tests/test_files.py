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
