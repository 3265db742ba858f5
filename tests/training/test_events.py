"""The event file is read back with protobuf's own parser, and its checksums with Google's CRC-32C."""

import errno
import struct
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from natix_lib.errors import StorageError
from natix_lib.training.events import FILE, EventFile
from natix_lib.training.fit import Epoch, metrics_rows
from tests.cloud_storage import BUCKET, Cloud

Field = descriptor_pb2.FieldDescriptorProto
MESSAGES: dict[str, list[tuple[str, int, int, str]]] = {
    "Value": [("tag", 1, Field.TYPE_STRING, ""), ("simple_value", 2, Field.TYPE_FLOAT, "")],
    "Summary": [("value", 1, Field.TYPE_MESSAGE, "Value")],
    "Event": [
        ("wall_time", 1, Field.TYPE_DOUBLE, ""),
        ("step", 2, Field.TYPE_INT64, ""),
        ("file_version", 3, Field.TYPE_STRING, ""),
        ("summary", 5, Field.TYPE_MESSAGE, "Summary"),
    ],
}


def event_class() -> Any:
    """TensorFlow's Event, as far as scalars need it."""
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="read", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of in fields:
            label = Field.LABEL_REPEATED if field == "value" else Field.LABEL_OPTIONAL
            message.field.add(
                name=field, number=number, type=kind, label=label, type_name=f".read.{of}" if of else None
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("read.Event"))


EVENT = event_class()


def unmasked(value: int) -> int:
    turned = (value - 0xA282EAD8) & 0xFFFFFFFF
    return (turned >> 17 | turned << 15) & 0xFFFFFFFF


def events(file: bytes) -> Iterator[Any]:
    while file:
        length, of_length = struct.unpack("<QI", file[:12])
        content, (of_content,) = file[12 : 12 + length], struct.unpack("<I", file[12 + length : 16 + length])
        assert unmasked(of_length) == google_crc32c.value(file[:8])
        assert unmasked(of_content) == google_crc32c.value(content)
        yield EVENT.FromString(content)
        file = file[16 + length :]


def curve(file: bytes) -> list[dict[str, float]]:
    """The scalars of each event, by tag, with its step."""
    first, *rest = events(file)
    assert first.file_version == "brain.Event:2" and not first.summary.value
    return [{"step": event.step, **{value.tag: value.simple_value for value in event.summary.value}} for event in rest]


def rows(count: int) -> list[Epoch]:
    return [Epoch(n, 100 * n + 100, 0.1 / (n + 1), 0.7 - 0.1 * n, 0.5, 0.6, 0.7, 0.25, -0.125) for n in range(count)]


def expected(history: list[Epoch]) -> list[dict[str, Any]]:
    names, *table = metrics_rows(history)
    return [
        {str(name): pytest.approx(value, rel=1e-6) for name, value in zip(names, row, strict=True)} for row in table
    ]


def file_of(root: Path) -> Path:
    return root / "train-1" / FILE


def test_each_epoch_is_there_as_soon_as_it_is_added_with_every_column_of_metrics_csv(tmp_path: Path) -> None:
    with EventFile(str(tmp_path), "train-1") as file:
        for row in rows(4):
            file.add(row)
            assert curve(file_of(tmp_path).read_bytes()) == expected(rows(row.epoch + 1))
    *_, last = events(file_of(tmp_path).read_bytes())
    assert len(astuple(rows(1)[0])) == len(last.summary.value) + 1 and 1.7e9 < last.wall_time < 1e11


@pytest.mark.parametrize("done", [0, 1, 3, 5])
def test_a_run_that_goes_on_has_no_epoch_twice_or_missing_and_keeps_the_times_of_those_that_it_does_not_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    now = 1000.0
    monkeypatch.setattr("natix_lib.training.events.time.time", lambda: now)
    first = EventFile(str(tmp_path), "train-1")
    for row in rows(5):
        first.add(row)
    with file_of(tmp_path).open("ab") as cut_off:
        cut_off.write(b"\x07\x00")  # killed while it wrote
    before, now = file_of(tmp_path).read_bytes(), 2000.0
    again = EventFile(str(tmp_path), "train-1")
    assert file_of(tmp_path).read_bytes() == before[:-2]
    for row in rows(8)[done:]:
        again.add(row)
    file = file_of(tmp_path).read_bytes()
    again.complete(rows(8))
    assert file_of(tmp_path).read_bytes() == file and curve(file) == expected(rows(8))
    assert [event.wall_time for event in events(file)][1:] == [1000.0] * done + [2000.0] * (8 - done)


def test_a_file_that_lacks_epochs_or_has_others_is_put_right_at_the_end(tmp_path: Path) -> None:
    wrong = [*rows(2), replace(rows(3)[2], train_loss=9.0), *rows(6)[4:]]
    file = EventFile(str(tmp_path), "train-1")
    for row in wrong:
        file.add(row)
    file.complete(rows(5))
    assert curve(file_of(tmp_path).read_bytes()) == expected(rows(5))


def test_a_run_that_goes_on_before_epochs_that_lack_others_has_each_step_once(tmp_path: Path) -> None:
    file = EventFile(str(tmp_path), "train-1")
    for row in [*rows(3), *rows(8)[5:]]:  # a bucket may lack those that were on their way
        file.add(row)
    again = EventFile(str(tmp_path), "train-1")
    for row in rows(8)[6:]:
        again.add(row)
    assert curve(file_of(tmp_path).read_bytes()) == expected([*rows(3), *rows(8)[5:]])


def test_what_a_full_disk_refused_is_written_with_the_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = EventFile(str(tmp_path), "train-1")
    file.add(rows(1)[0])
    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        file.add(rows(2)[1])
    assert "No space left" in capsys.readouterr().out
    file.add(rows(3)[2])
    assert curve(file_of(tmp_path).read_bytes()) == expected(rows(3))
    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        file.add(rows(4)[3])
    file.complete(rows(4))
    assert curve(file_of(tmp_path).read_bytes()) == expected(rows(4))


def test_a_bucket_has_each_epoch_while_the_run_goes_on_and_all_when_it_ends(cloud: Cloud) -> None:
    root, name = f"gs://{BUCKET}/logs/", f"logs/train-1/{FILE}"

    def stored() -> list[dict[str, float]]:
        return curve(cloud.bucket.blob(name).download_as_bytes())

    with EventFile(root, "train-1") as file:
        file.add(rows(1)[0])
        file._writer.settle(10)
        assert stored() == expected(rows(1))
        for row in rows(4)[1:]:  # faster than they are sent
            file.add(row)
    assert stored() == expected(rows(4))
    with EventFile(root, "train-1") as file:
        file.add(rows(4)[3])
        file.add(rows(5)[4])
        file.complete(rows(5))
        assert stored() == expected(rows(5))


def test_a_place_that_cannot_be_written_is_told_before_anything_is_trained(tmp_path: Path, cloud: Cloud) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="training.tensorboard_root .*file cannot be written"):
        EventFile(str(tmp_path / "file"), "train-1")
    with pytest.raises(StorageError, match="no-such-bucket"):
        EventFile("gs://no-such-bucket/logs", "train-1")
