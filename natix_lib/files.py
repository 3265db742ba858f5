"""Files that are either whole or absent: temporary name, fsync, rename; hashes; JSON without NaN.

A directory artifact has a manifest (`images.json`, `backbone.json`, ...) that names each of its files with its
SHA-256 and is written last, so a directory whose writer was killed has no manifest and cannot be opened.
"""

import csv
import hashlib
import json
import math
import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from natix_lib.errors import ConfigError, ContractError, StorageError

JsonDict = dict[str, Any]
MAX_DEPTH = 64  # of JSON; the deepest that natix writes has 7 levels


def sha256_bytes(content: bytes) -> str:
    """Hex SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys, two-space indent and a final newline: equal values give equal bytes.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def require_new(path: Path) -> None:
    """Refuse to write over something: `path` must not exist, or be an empty folder.

    Raises:
        ConfigError: If it holds something, or lies below a file.
    """
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise ConfigError(f"output {path} lies below {above}, which is no folder: name another place")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"output {path} exists: name another folder, or remove it")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; at the end make it durable and rename it to `path`.

    Nothing is left at `path` when the block raises or the process dies. Raises StorageError when the disk is full
    or the place cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, value: Any) -> None:
    """Write canonical JSON to `path`, whole or not at all."""
    write_bytes(path, canonical_json(value))


def write_csv(path: str | Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows, the header first, as CSV to `path`, whole or not at all; floats have 8 digits.

    Rows are written as they come, so they may be more than fit into memory.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([f"{cell:.8g}" if isinstance(cell, float) else cell for cell in row] for row in rows)


def read_json(path: str | Path) -> JsonDict:
    """Read a JSON object.

    Raises:
        ContractError: If the file is missing, not JSON, or not an object; see `parse_json`.
    """
    return read_hashed_json(path)[0]


def read_hashed_json(path: str | Path) -> tuple[JsonDict, str]:
    """Read a JSON object as `read_json` does, and give the SHA-256 of its file with it."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ContractError(f"cannot read {path}: {error.strerror or error}") from error
    value = parse_json(content, path)
    if not isinstance(value, dict):
        raise ContractError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value, sha256_bytes(content)


def parse_json(content: bytes | bytearray, where: object) -> Any:
    """The value of a JSON text; stricter than Python's reader, which lets the last of two equal keys win.

    Args:
        content: The text, in UTF-8.
        where: Where the text is from, for the message.

    Raises:
        ContractError: If it is not JSON, names a key twice, is nested too deeply, or holds NaN, Infinity, a number
            beyond 64 bits or text that no file can hold (half of a surrogate pair).
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_whole,
        )
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode()
        if isinstance(value, dict | list):
            _require_shallow(value)
    except RecursionError as error:
        raise ContractError(f"{where} is not JSON: it is nested more than {MAX_DEPTH} deep") from error
    except ValueError as error:
        raise ContractError(f"{where} is not JSON: {error}") from error
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> JsonDict:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(f"it names {Counter(key for key, _ in pairs).most_common(1)[0][0]!r} twice")
    return value


def _require_shallow(value: Any) -> None:
    """Refuse what the writer of JSON, which is recursive, could not write again."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for holder in level
            for child in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise RecursionError


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {reprlib.repr(text)} is too large")
    return value


def _whole(text: str) -> int:
    value = int(text) if len(text) <= 20 else 2**64  # a sign and 19 digits hold 64 bits
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"the number {reprlib.repr(text)} is too large")
    return value


def file_table(folder: str | Path, leave_out: str, known: JsonDict | None = None) -> JsonDict:
    """`{relative name: {"sha256", "bytes"}}` of every file below `folder` but the manifest `leave_out`.

    Args:
        folder: The folder.
        leave_out: Name of the manifest that will hold the table.
        known: Entries of files that their writer, or whoever checked what they are copies of, has hashed: these are
            not read.
    """
    root, known = Path(folder), known or {}
    names = (path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file())
    return {
        name: known.get(name) or {"sha256": sha256_file(root / name), "bytes": (root / name).stat().st_size}
        for name in names
        if name != leave_out
    }


def check_files(folder: str | Path, table: JsonDict, what: str, hash_files: bool = True) -> None:
    """Check every file of a manifest's table by place, size and, with `hash_files`, SHA-256.

    Equal hashes show that the files are those of which the manifest was written, not who wrote it: whoever can change
    a file can write the table again.

    Args:
        folder: Folder of the artifact; a link in it may point elsewhere inside it, not out of it.
        table: Files by name, as `file_table` gave them; its shape was checked.
        what: What the folder is, for the message.
        hash_files: Whether to read every file for its SHA-256.

    Raises:
        ContractError: If one is missing, lies elsewhere or differs.
    """
    root = Path(folder)
    inside = root.resolve()
    for name, entry in table.items():
        path = root / name
        try:
            if not path.is_file():
                raise ContractError(f"{what} {root} lacks the file {name} that its manifest names")
            if not path.resolve().is_relative_to(inside):
                raise ContractError(
                    f"{what} file {path} is a link that leads out of the folder: put the file itself there"
                )
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise ContractError(
                    f"{what} file {path} was changed after it was written: it has {size} bytes, "
                    f"its manifest says {entry['bytes']}"
                )
            if hash_files and sha256_file(path) != entry["sha256"]:
                raise ContractError(
                    f"{what} file {path} was changed after it was written: "
                    "it does not match the SHA-256 in its manifest"
                )
        except OSError as error:
            raise ContractError(f"{what} file {path} cannot be read: {error.strerror or error}") from error
