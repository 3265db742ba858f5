"""Files that are either whole or absent: temporary name, fsync, rename; hashes; JSON without NaN.

A directory artifact has a manifest (`dataset.json`, `backbone.json`, ...) that names each of its files with its
SHA-256 and is written last, so a directory whose writer was killed has no manifest and cannot be opened.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from natix_lib.errors import ConfigError, ContractError, StorageError

JsonDict = dict[str, Any]


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


def read_json(path: str | Path) -> JsonDict:
    """Read a JSON object.

    Raises:
        ContractError: If the file is missing, not JSON, or not an object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ContractError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ContractError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ContractError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def file_table(folder: str | Path, leave_out: str) -> JsonDict:
    """`{relative name: {"sha256", "bytes"}}` of every file below `folder` but the manifest `leave_out`."""
    root = Path(folder)
    return {
        path.relative_to(root).as_posix(): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).as_posix() != leave_out
    }


def check_files(folder: str | Path, table: JsonDict, what: str) -> None:
    """Check every file of a manifest's table by size and SHA-256.

    Raises:
        ContractError: If one is missing or differs.
    """
    root = Path(folder)
    for name, facts in table.items():
        path = root / name
        if not path.is_file():
            raise ContractError(f"{what} {root} lacks the file {name} that its manifest names")
        size = path.stat().st_size
        if size != facts["bytes"]:
            raise ContractError(f"{what} file {path} has {size} bytes, its manifest says {facts['bytes']}")
        if sha256_file(path) != facts["sha256"]:
            raise ContractError(f"{what} file {path} does not match the SHA-256 in its manifest")
