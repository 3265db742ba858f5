"""Objects of buckets, kept on this disk so that a fetch goes on where one was stopped and is free when repeated.

    PLACE/lock                                 held for moments, by who enters or removes
    PLACE/ADDRESS_HASH/address.json            the address and the bytes that lie there; its time says when it was used
    PLACE/ADDRESS_HASH/objects/KEY-HASH        the content of one object in one state
    PLACE/ADDRESS_HASH/tree-.../               what one reader sees: links to the contents, by name
    PLACE/ADDRESS_HASH/tree-....lock           held by that reader until it ends

KEY is made of the object's name and its listed state (generation, or size and entity tag), HASH of the content when it
was received and had been compared with the service's checksum. A content has its name only when it is whole, is never
changed afterwards, and is hashed again before it is used again, which costs a hundredth of decoding it. So what a
killed fetch has left is used, and neither a damaged disk nor an object of another generation can be.

A tree of links, and not one folder that each fetch brings up to date: two runs may read at once, and neither may see
the other's half. Contents of an address that are not listed any more go at the end of the next fetch; other addresses
go when more than MOST_KEPT bytes lie in PLACE, the one that was not used for longest first. What a reader sees stays
until it has ended: the links hold the contents.

A lock of its own for each reader, and not one that all share: who asks in vain to have a shared lock alone has lost it
on Linux, and a reader without a lock counts as killed. So no lock here is ever converted, and a tree, with its lock,
goes only when that lock can be taken.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from natix_lib.errors import ContractError
from natix_lib.files import canonical_json, read_json, sha256_bytes, sha256_file, write_json
from natix_lib.run_cache import ADDRESS, LOCK, TREE
from natix_lib.storage.bucket import Object

MOST_KEPT = 100 * 10**9  # bytes; a choice, as much as a workstation's disk can spare
DIGITS = 32  # of the hashes in a content's name, 128 bits
OBJECTS, TREE_LOCK = "objects", ".lock"


class Kept:
    """The contents of one address, open to fetch into.

    Attributes:
        tree: An empty folder for what this reader sees.
    """

    def __init__(self, tree: Path) -> None:
        self._root = root = tree.parent
        self._contents = {path.name[:DIGITS]: path for path in (root / OBJECTS).iterdir()}
        self.tree = tree

    def put(self, source: Object, target: Path, download: Callable[[Object, Path], object]) -> None:
        """Make `target` the object's content: what is kept of this state, or else what `download` gives."""
        key = _key(source)
        content = self._contents.get(key)
        if content is None or not _whole(content, source.size):
            part = self._root / OBJECTS / f".{uuid.uuid4().hex}"
            try:
                download(source, part)
                part.chmod(0o444)
                content = part.with_name(f"{key}-{sha256_file(part)[:DIGITS]}")
                part.replace(content)
            finally:
                part.unlink(missing_ok=True)
            self._contents[key] = content
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(content, target)
        except OSError:  # a file system without links
            shutil.copyfile(content, target)

    def settle(self, listed: Iterable[Object]) -> None:
        """Remove the contents of objects that are not listed any more, if nobody else reads here."""
        keys = {_key(source) for source in listed}
        with _entered(self._root.parent) as may_remove:
            if may_remove and _sweep(self._root, self.tree.name):
                for key in self._contents.keys() - keys:
                    self._contents.pop(key).unlink(missing_ok=True)


@contextlib.contextmanager
def kept(place: Path, uri: str, size: int) -> Iterator[Kept]:
    """Open the contents of an address; the tree goes at the end of the block, the contents stay.

    Args:
        place: Folder of the contents of all addresses.
        uri: The address.
        size: Bytes of all that lies there.

    Raises:
        OSError: If the disk refuses.
    """
    root = place / sha256_bytes(uri.rstrip("/").encode())
    tree = root / f"{TREE}{uuid.uuid4().hex[:12]}"
    own_lock = tree.with_name(tree.name + TREE_LOCK)
    with contextlib.ExitStack() as opened:
        with _entered(place) as may_remove:
            (root / OBJECTS).mkdir(parents=True, exist_ok=True)
            if may_remove:
                _sweep(root)
            opened.callback(own_lock.unlink, missing_ok=True)
            _taken(opened.enter_context(own_lock.open("a")))
            opened.callback(shutil.rmtree, tree, ignore_errors=True)
            write_json(root / ADDRESS, {"address": uri, "bytes": size})
            if may_remove:
                _forget(place, root)
            own = Kept(tree)
        yield own


def _key(source: Object) -> str:
    return sha256_bytes(canonical_json([source.name, *source.state]))[:DIGITS]


def _whole(content: Path, size: int) -> bool:
    """Whether a content is what was received; one that is not is removed."""
    try:
        if content.stat().st_size == size and sha256_file(content).startswith(content.name[DIGITS + 1 :]):
            return True
        content.unlink()
    except OSError:  # it is gone, or the disk cannot read it
        pass
    return False


def _sweep(root: Path, own: str = "") -> bool:
    """Remove what killed readers have left; who calls it has entered.

    Returns:
        Whether nobody reads here but the reader of the tree `own`.
    """
    nobody = True
    for name in {path.name.removesuffix(TREE_LOCK) for path in root.glob(f"{TREE}*")} - {own}:
        lock = root / f"{name}{TREE_LOCK}"
        if _has_ended(lock):
            shutil.rmtree(root / name, ignore_errors=True)
            lock.unlink(missing_ok=True)
        else:
            nobody = False
    for part in (root / OBJECTS).glob(".*") if nobody else ():
        part.unlink(missing_ok=True)
    return nobody


def _forget(place: Path, used: Path) -> None:
    """Remove whole addresses, the one that was not used for longest first, until MOST_KEPT holds the others."""
    known = [(path.stat().st_mtime, path.parent, _bytes(path)) for path in place.glob(f"*/{ADDRESS}")]
    total = sum(size for _, _, size in known)
    for _, root, size in sorted(known):
        if total <= MOST_KEPT:
            return
        if root != used and _sweep(root):
            shutil.rmtree(root, ignore_errors=True)
            total -= size


def _bytes(state: Path) -> int:
    try:
        size: Any = read_json(state).get("bytes")
    except ContractError:
        return 0
    return size if isinstance(size, int) else 0


@contextlib.contextmanager
def _entered(place: Path) -> Iterator[bool]:
    """Let nobody else enter or remove within the block, and wait for who does.

    Yields:
        Whether that is so; where there are no locks it is not, and nothing may be removed.
    """
    place.mkdir(parents=True, exist_ok=True)
    with (place / LOCK).open("a") as lock:
        yield _taken(lock)


def _has_ended(lock: Path) -> bool:
    """Whether nobody holds the lock of a tree; where there are no locks, somebody may."""
    try:
        with lock.open("r+") as opened:
            return _taken(opened, fcntl.LOCK_NB)
    except FileNotFoundError:  # it is made before the tree and goes after it
        return True
    except OSError:
        return False


def _taken(lock: IO[str], how: int = 0) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | how)
    except OSError:
        return False
    return True
