"""The curve of a run as an event file, which TensorBoard reads while the run goes on.

The format is TensorFlow's: records of TFRecord (length, its masked CRC-32C, content, its masked CRC-32C), each content
a protobuf `Event` (tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto), the first of which names
the format's version. Scalars need seven fields of it, so they are written here: `tensorboard` brings gRPC and a server
to write them, and neither it nor `tensorboardX` goes on in a file.

One record an epoch, with all columns of metrics.csv at the optimiser's step. A run that goes on keeps the records of
the epochs that it does not repeat, with their times, so that no epoch is there twice. What a kill has cost a bucket is
written at the end at the latest: `complete` makes the file say what metrics.csv says.

A file on a disk grows, as readers keep it open and look for what was added; they pass over a record that is not whole
yet. That is why this one file is not replaced at once, as all others are. A bucket's objects cannot grow: there the
file is written whole, beside the training, and never waited for until the run ends.
"""

import struct
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from natix_lib import storage
from natix_lib.errors import StorageError
from natix_lib.progress import WARNING, Lines
from natix_lib.storage.newest import NewestWriter
from natix_lib.training.fit import Epoch, metrics_rows

FILE = "events.out.tfevents.natix"  # TensorBoard takes files whose names hold `tfevents`
VERSION = "brain.Event:2"
HEAD, FOOT = 12, 4  # bytes of a record before and after its content
STEP = b"\x10"  # says that the step comes next
TIMED = 9  # bytes at the beginning of a content that tell the time
END_SECONDS = 60.0  # that a bucket is waited for when a run is done
STOP_SECONDS = 5.0  # and when it is stopped: its checkpoint has the rest of the time that is left


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = _crc_table()  # of Castagnoli's polynomial, reflected


def masked_crc(content: bytes) -> int:
    """CRC-32C of `content`, masked as TFRecord has it: turned right by 15 bits, and a constant added, modulo 2^32."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(content: bytes) -> bytes:
    """A TFRecord of `content`."""
    length = struct.pack("<Q", len(content))
    crcs = (struct.pack("<I", masked_crc(part)) for part in (length, content))
    return length + next(crcs) + content + next(crcs)


def whole_records(file: bytes) -> list[bytes]:
    """The records at the beginning of a file, up to the first that is not whole."""
    records, start = [], 0
    while len(file) >= start + HEAD:
        (length,) = struct.unpack_from("<Q", file, start)
        one = file[start : start + HEAD + length + FOOT]
        if one != record(one[HEAD:-FOOT]):
            break
        records.append(one)
        start += len(one)
    return records


def version_event(wall_time: float) -> bytes:
    """The first Event of a file; the time in seconds since 1970."""
    return struct.pack("<Bd", 0x09, wall_time) + _bytes_field(3, VERSION.encode())


def _step(one: bytes) -> int:
    """The optimiser's step of a record, 0 of one that has none."""
    content, step, place = one[HEAD:-FOOT], 0, TIMED + 1
    if content[TIMED : TIMED + 1] != STEP:
        return 0
    for shift in range(0, 64, 7):
        step |= (content[place] & 0x7F) << shift
        if content[place] < 0x80:
            break
        place += 1
    return step


def epoch_event(row: Epoch, wall_time: float) -> bytes:
    """An Event with each column of metrics.csv but `step`, which is its step; the time in seconds since 1970."""
    names, values = metrics_rows([row])
    scalars = (
        _bytes_field(1, _bytes_field(1, str(name).encode()) + struct.pack("<Bf", 0x15, value))
        for name, value in zip(names, values, strict=True)
        if name != "step"
    )
    step = STEP + _varint(row.step)
    return struct.pack("<Bd", 0x09, wall_time) + step + _bytes_field(5, b"".join(scalars))


def _varint(value: int) -> bytes:
    parts = [value & 0x7F]
    while value := value >> 7:
        parts[-1] |= 0x80
        parts.append(value & 0x7F)
    return bytes(parts)


def _bytes_field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _fetched(place: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        return storage.fetch_file(place, scratch).read_bytes()


class EventFile:
    """The event file of a run; a context that is left with what there is of it on its way."""

    def __init__(self, root: str, run: str) -> None:
        """Take up the file in the folder `run` below `root`, a folder or a bucket's prefix, or begin one.

        Raises:
            StorageError: If the place cannot be read or written.
        """
        folder = f"{root.rstrip('/')}/{run}"
        self.place = f"{folder}/{FILE}"
        self._remote = storage.is_remote(root)
        self._writer = NewestWriter(lambda: None)
        self._unsent = False
        if self._remote:
            there = _fetched(self.place) if FILE in storage.file_names(folder) else b""
        else:
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
                Path(self.place).touch()
                there = Path(self.place).read_bytes()
            except OSError as error:
                raise StorageError(f"training.tensorboard_root {root} cannot be written: {error}") from error
        self._records = whole_records(there)
        self._written = len(self._records)  # how many of them the file is known to have
        if not self._remote and sum(map(len, self._records)) < len(there):  # a record that a kill has cut off
            self._put(self._records, 0)

    def add(self, row: Epoch) -> None:
        """Add an epoch that is done, in place of what the file has of it and of later ones."""
        now = time.time()
        earlier = [one for one in self._records if _step(one) < row.step]  # the version's is 0
        before = earlier or [record(version_event(now))]
        self._show([*before, record(epoch_event(row, now))])

    def complete(self, history: Iterable[Epoch]) -> None:
        """Let the file have these epochs and no others; those that it has keep their times."""
        now = time.time()
        wanted = [record(content) for content in (version_event(now), *(epoch_event(row, now) for row in history))]
        for number, (there, one) in enumerate(zip(self._records, wanted, strict=False)):
            if there[HEAD + TIMED : -FOOT] == one[HEAD + TIMED : -FOOT]:
                wanted[number] = there
        self._show(wanted, again=self._remote)  # whether the last write of all reached a bucket is not known
        self._settle(END_SECONDS)

    def __enter__(self) -> "EventFile":
        """Begin; nothing is written yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait a moment for what is on its way to a bucket."""
        self._settle(STOP_SECONDS)

    def _show(self, records: Sequence[bytes], again: bool = False) -> None:
        same = next(
            (number for number, pair in enumerate(zip(self._records, records, strict=False)) if pair[0] != pair[1]),
            min(len(self._records), len(records)),
        )
        same = min(same, self._written)
        changed = len(records) != len(self._records) or same < len(records)
        self._records = list(records)
        if changed or again:
            self._put(self._records, same)

    def _put(self, records: Sequence[bytes], same: int) -> None:
        """Write `records`, of which the file has the first `same`."""
        if self._remote:
            self._writer.check()
            self._unsent = not self._writer.idle  # what is on its way is of a moment ago: the next one has both
            if not self._unsent:
                self._writer.put(self.place, b"".join(records))
            return
        try:
            with Path(self.place).open("r+b") as file:
                file.truncate(sum(map(len, records[:same])))
                file.seek(0, 2)
                file.write(b"".join(records[same:]))
            self._written = len(records)
        except OSError as error:
            self._written = 0  # how much of it is there is not known: the next one writes all
            Lines().say(f"{WARNING}{self.place} could not be written: {error}; the work goes on")

    def _settle(self, seconds: float) -> None:
        if self._remote and self._writer.settle(seconds) and self._unsent:
            self._unsent = False
            self._writer.put(self.place, b"".join(self._records))
            self._writer.settle(seconds)
