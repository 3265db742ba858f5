"""The checkpoints of one run: numbered files that a stopped run continues from, in a folder or in a bucket.

They are written beside the training (`newest.py`), so that it neither waits for a store nor ends with it: what is
written is the state as it was at its step. The folder below the root is named by everything the run depends on, so the
same command finds its own checkpoints and another one never does.
"""

import re
from typing import Any

from natix_lib import storage
from natix_lib.files import canonical_json, sha256_bytes
from natix_lib.storage.newest import NewestWriter

NAME = re.compile(r"step-(\d{8})\.safetensors")
UNFINISHED = re.compile(rf"\.({NAME.pattern})\.\d+\.part")  # on a disk, of a process that ended while it wrote
KEPT = 2  # the newest ones
STOP_SECONDS = 15.0  # for the last checkpoint after SIGTERM; who stops it waits 25, Kubernetes 30, a step ends first
SETTLE_SECONDS = 60.0  # for the last one when training has ended: it is needed only if what follows fails


class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        run: SHA-256 of what the run depends on.
        folder: Where they are.
    """

    def __init__(self, root: str, identity: dict[str, Any]) -> None:
        """Keep them below `root`, a folder or a bucket's prefix, for the run with this identity (JSON)."""
        self.run = sha256_bytes(canonical_json(identity))
        self.folder = f"{root.rstrip('/')}/{self.run[:16]}"
        self._writer = NewestWriter(self._drop_old)

    def place(self, number: int) -> str:
        """The address of checkpoint `number`."""
        return f"{self.folder}/step-{number:08d}.safetensors"

    def save(self, number: int, content: bytes) -> None:
        """Let a checkpoint be written, and old ones be dropped."""
        self._writer.put(self.place(number), content)

    @property
    def idle(self) -> bool:
        """Whether all that was given to `save` is written."""
        return self._writer.idle

    def check(self) -> None:
        """Raise StorageError if the place has refused the first checkpoint of this run, as a mistyped one does."""
        self._writer.check()

    def save_now(self, number: int, content: bytes) -> None:
        """Write a checkpoint before the process ends, for at most STOP_SECONDS."""
        self._writer.write_now(self.place(number), content, STOP_SECONDS)

    def settle(self) -> None:
        """Wait for what is being written, for at most SETTLE_SECONDS; what does not come is said."""
        self._writer.settle(SETTLE_SECONDS)

    def numbers(self) -> list[int]:
        """The numbers of those that are there, the newest first."""
        return [int(name[5:13]) for name in reversed(_whole(storage.file_names(self.folder)))]

    def newest(self) -> str | None:
        """Where the newest checkpoint is, or None."""
        numbers = self.numbers()
        return self.place(numbers[0]) if numbers else None

    def _drop_old(self) -> None:
        """Drop what is older than the newest: a newer one may be at work in another thread."""
        files = storage.file_names(self.folder)
        whole = _whole(files)
        unfinished = [name for name in files if (of := UNFINISHED.fullmatch(name)) and of[1] <= max(whole, default="")]
        for name in [*whole[:-KEPT], *unfinished]:
            storage.remove_file(f"{self.folder}/{name}")


def _whole(files: list[str]) -> list[str]:
    return [name for name in files if NAME.fullmatch(name)]
