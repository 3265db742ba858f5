"""The place where `natix run` keeps its finished steps: where it is, what lies in it, and how it is emptied.

    PLACE/lock                               held by a run at work, and alone by who removes
    PLACE/failed.log                         the log of the last run that a bug has ended
    PLACE/artifacts/.steps/KEY.json          KFP's entry of a finished step; its time says when it was last used
    PLACE/artifacts/.steps/KEY.record        what natix says of it; its time says when it was made
    PLACE/artifacts/natix-.../STEP/          the step's artifacts
    PLACE/buckets/HASH/                      what is kept of a bucket's address, as `natix_lib/storage/staging.py` says

Here nothing needs KFP, so that the cache can be looked at and emptied at once, and where nothing can be run. A folder
of a step that no entry names is left over: its run was killed, or it was changed and made anew. An entry is removed
before its artifacts, so what a removal leaves half done is left over too and is never taken for a result.

Only what has these names in this place is ever removed, no link is followed, and a folder without `artifacts/.steps`
is no cache. The lock is the system's (flock), which ends with its process however that ends: a file that says a run is
at work would outlive a run that was killed.
"""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from natix_lib.errors import ConfigError, ContractError, StorageError
from natix_lib.files import JsonDict, read_json

ARTIFACTS, STEPS, RECORD, FAILED_LOG, LOCK = "artifacts", ".steps", ".record", "failed.log", "lock"
BUCKETS, ADDRESS, TREE = "buckets", "address.json", "tree-"  # the last two in the folder of an address
VARIABLE = "NATIX_CACHE"  # by which a run tells its steps where its cache is
ENTRY = re.compile(r"([0-9a-f]{64})\.json")
STEP = re.compile(r"[a-z][a-z0-9_-]*")
RUN = re.compile(r"natix-.+-\d{4}(-\d\d){5}-\d{6}")  # as KFP names the folder of a run
ELSEWHERE = "name a folder with --cache or XDG_CACHE_HOME"


@dataclass(frozen=True)
class Kept:
    """What the cache holds of one step, or of a bucket.

    Attributes:
        step: The step's name, or the bucket's address.
        key: The entry's key, 64 hex digits; "" for what is left over.
        folder: The folder of the artifacts or objects; None when the entry names none in this cache.
        size: Bytes of its files.
        used: When it was last made or taken from the cache, seconds since the epoch.
        made: When it was made; None where nothing says.
        record: What natix has written of the step: "code", "seconds", "images", "work"; {} where nothing was.
    """

    step: str
    key: str
    folder: Path | None
    size: int
    used: float
    made: float | None
    record: JsonDict


def place(folder: Path | None) -> Path:
    """The cache's place: `folder`, or `$NATIX_CACHE`, or `$XDG_CACHE_HOME/natix`, or `~/.cache/natix`.

    Raises:
        ConfigError: If none is named and this user has no home folder.
    """
    try:
        if folder or os.environ.get(VARIABLE):
            return folder or Path(os.environ[VARIABLE])
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "natix"
    except RuntimeError as error:
        raise ConfigError(f"no place for the cache, this user has no home folder: {ELSEWHERE}") from error


def steps_folder(cache: Path) -> Path:
    """The folder of the entries, which is also what tells a cache from any other folder."""
    return cache / ARTIFACTS / STEPS


@contextlib.contextmanager
def in_use(cache: Path) -> Iterator[None]:
    """Let nothing be removed from the cache within the block; wait for a removal that is at work.

    Where the file system knows no locks nothing is held, and nothing can be removed either.
    """
    with (cache / LOCK).open("a") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def buckets() -> Iterator[Path]:
    """The folder of what is kept of buckets, of which nothing is removed within the block.

    Where there can be no cache, it is a folder that goes at the end of the block.
    """
    try:
        cache = place(None)
        steps_folder(cache).mkdir(parents=True, exist_ok=True)
        (cache / BUCKETS).mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=cache / BUCKETS):
            pass
    except (OSError, ConfigError):
        with tempfile.TemporaryDirectory(prefix="natix-") as scratch:
            yield Path(scratch)
        return
    with in_use(cache):
        yield cache / BUCKETS


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    with (cache / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"a run is at work with the cache {cache}: nothing is removed until it ends") from error
        yield


def read_record(path: Path) -> JsonDict:
    """The record of a step; {} where there is none that can be read."""
    try:
        return read_json(path)
    except ContractError:
        return {}


def kept(cache: Path) -> list[Kept]:
    """All that the cache holds, last used first, then what is left over; nothing where no run has made a cache yet.

    Raises:
        StorageError: If it cannot be read.
    """
    if not _is_cache(cache):
        return []
    try:
        entries = [_entry(cache, path) for path in _names(steps_folder(cache)) if ENTRY.fullmatch(path.name)]
        named = {entry.folder for entry in entries}
        runs = [path for path in _names(cache / ARTIFACTS) if RUN.fullmatch(path.name) and _is_folder(path)]
        folders = [path for run in runs for path in _names(run) if path not in named]
        left = [Kept(path.name, "", path, _size(path), path.lstat().st_mtime, None, {}) for path in folders]
        if _is_folder(cache / BUCKETS):
            entries += [_of_bucket(path) for path in _names(cache / BUCKETS) if _is_folder(path)]
    except OSError as error:
        raise StorageError(f"cache {error.filename or cache}: {error.strerror or error}") from error
    return sorted(entries, key=lambda entry: -entry.used) + sorted(left, key=lambda entry: -entry.used)


def remove(cache: Path, chosen: Iterable[Kept], logs: bool = False) -> int:
    """Remove what `kept` has listed, each entry before its artifacts.

    Args:
        cache: The cache's place.
        chosen: What to remove; it is no error when it is gone by now.
        logs: Whether to remove the log of a run that failed, and what the writer of an entry left when it was killed.

    Returns:
        Bytes that were freed.

    Raises:
        StorageError: If it is no cache, a run is at work there, or the disk refuses.
    """
    freed = 0
    if not _is_cache(cache):
        raise StorageError(f"{cache} is no cache of natix: it has no folder {ARTIFACTS}/{STEPS}")
    steps = steps_folder(cache)
    try:
        with _alone(cache):
            for each in chosen:
                if each.key:
                    (steps / f"{each.key}.json").unlink(missing_ok=True)
                    (steps / f"{each.key}{RECORD}").unlink(missing_ok=True)
                if each.folder:
                    _remove(each.folder)
                freed += each.size
            for path in [cache / FAILED_LOG, *steps.glob(".*"), *steps.glob(f"*{RECORD}")] if logs else []:
                if not (path.suffix == RECORD and path.with_suffix(".json").exists()):
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {error.filename or cache}: {error.strerror or error}") from error
    return freed


def size_text(size: int) -> str:
    """Bytes as a person reads them: 812 B, 4.2 kB, 130 MB, 1.5 GB."""
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 999.5:
            break
        number, unit = number / 1000, larger
    return f"{number:.{0 if unit == 'B' or number >= 99.95 else 1}f} {unit}"


def _is_cache(cache: Path) -> bool:
    steps = steps_folder(cache)
    return _is_folder(steps.parent) and _is_folder(steps)


def _entry(cache: Path, path: Path) -> Kept:
    key, record_path = path.stem, path.with_suffix(RECORD)
    try:
        outputs = read_json(path)
    except ContractError:
        outputs = {}
    uris = [value["uri"] for value in outputs.values() if isinstance(value, dict) and isinstance(value.get("uri"), str)]
    folder = _step_folder(cache, Path(uris[0])) if uris else None
    record = read_record(record_path)
    step = record.get("step") or (folder.name if folder else "unknown")
    size = path.lstat().st_size + (_size(folder) if folder else 0)
    made = record_path.lstat().st_mtime if record else None
    return Kept(str(step), key, folder, size, path.lstat().st_mtime, made, record)


def _of_bucket(folder: Path) -> Kept:
    record = read_record(folder / ADDRESS)
    used = (folder / ADDRESS if record else folder).lstat().st_mtime
    size = sum(_size(path) for path in _names(folder) if not path.name.startswith(TREE))  # links to the same bytes
    return Kept(str(record.get("address", "bucket")), folder.name if record else "", folder, size, used, None, {})


def _step_folder(cache: Path, artifact: Path) -> Path | None:
    """The step's folder that an artifact lies in; None outside the cache: there nothing is sized or removed."""
    artifacts, step, run = (cache / ARTIFACTS).absolute(), artifact.parent, artifact.parent.parent
    inside = run.parent.resolve() == artifacts.resolve() and RUN.fullmatch(run.name) and STEP.fullmatch(step.name)
    return artifacts / run.name / step.name if inside else None


def _names(folder: Path) -> list[Path]:
    return sorted(folder.absolute() / path.name for path in folder.iterdir())


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 for a link."""
    if path.is_symlink() or not path.exists():
        return 0
    if not path.is_dir():
        return path.lstat().st_size
    return sum(_size(below) for below in path.iterdir())


def _remove(path: Path) -> None:
    """Remove the folder of a step or bucket, and that of its run or of all buckets when nothing but a lock is left."""
    if _is_folder(path.parent):
        if _is_folder(path):
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if {left.name for left in path.parent.iterdir()} <= {LOCK}:
            shutil.rmtree(path.parent)
