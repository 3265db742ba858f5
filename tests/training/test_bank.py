import errno
import os
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from natix_lib.errors import TrainingError
from natix_lib.training.bank import BLOCK, FeatureBank, allocated, room_on, std_mean

CPU = torch.device("cpu")
SHAPE = (23, 3, 5)
FEATURES = torch.randn(*SHAPE, generator=torch.Generator().manual_seed(0))
BYTES = 4 * 23 * 3 * 5


def bank_of(room: int) -> FeatureBank:
    bank = FeatureBank(SHAPE, CPU, room)
    bank.values[:, :1] = FEATURES[:, :1]
    bank.values[:, 1:] = FEATURES[:, 1:]
    return bank


@pytest.mark.parametrize("room", [BYTES, BYTES - 1], ids=["in memory", "in a file"])
@pytest.mark.parametrize("start", [0, 2, 3])
@pytest.mark.parametrize("size", [8, 23])
def test_a_batch_is_the_chosen_view_of_the_images_in_their_order(
    room: int, start: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bank = bank_of(room)
    assert bank.mapped == (room < BYTES) and not list(tmp_path.iterdir())  # a mapped file has no name any more
    generator = torch.Generator().manual_seed(1)
    order, views = torch.randperm(23, generator=generator), torch.randint(3, (23,), generator=generator)
    given = list(bank.batches(order, views, size, start))
    expected = FEATURES.numpy()[order.numpy(), views.numpy()][start * size :]
    assert [len(rows) for rows, _ in given] == ([8, 8, 7] if size == 8 else [23])[start:]  # none after the last one
    none = (order[:0], FEATURES[:0, 0])
    rows, features = (torch.cat(parts) for parts in zip(none, *given, strict=True))
    assert torch.equal(rows, order[start * size :]) and torch.equal(features, torch.from_numpy(expected))


def test_the_next_batch_is_read_while_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of(0)
    read: list[int] = []
    plain = bank._read

    def noted(rows: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        read.append(int(rows[0]))
        return plain(rows, views)

    monkeypatch.setattr(bank, "_read", noted)
    with closing(cast(Any, bank.batches(torch.arange(23), torch.zeros(23, dtype=torch.long), 8))) as given:
        next(given)  # closing waits for what is being read
    assert read == [0, 8]


@pytest.mark.parametrize(
    ("device", "computed_in", "room", "dtype", "mapped"),
    [
        ("cuda", torch.bfloat16, BYTES, torch.float32, False),
        ("cuda", torch.bfloat16, BYTES - 1, torch.bfloat16, False),
        ("cuda", torch.bfloat16, BYTES // 2 - 1, torch.bfloat16, True),
        ("cuda", None, BYTES - 1, torch.float32, True),
        ("cuda", torch.float16, BYTES - 1, torch.float32, True),
        ("cpu", None, BYTES - 1, torch.float32, True),
    ],
)
def test_where_features_stay_is_decided_by_their_size(
    device: str, computed_in: torch.dtype, room: int, dtype: torch.dtype, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torch.empty
    on: list[torch.device] = []

    def noted(*shape: int, device: torch.device = CPU, **options: Any) -> torch.Tensor:
        on.append(device)
        return plain(*shape, **options)

    monkeypatch.setattr(torch, "empty", noted)
    bank = FeatureBank(SHAPE, torch.device(device), room, computed_in)
    assert (bank.values.dtype, bank.mapped, bank.values.shape) == (dtype, mapped, SHAPE)
    assert on == ([] if mapped else [torch.device(device)])


def test_bfloat16_in_a_file_is_read_back_as_it_was_rounded() -> None:
    values = allocated(SHAPE, torch.bfloat16, 0)
    values.copy_(FEATURES)
    assert torch.equal(values, FEATURES.bfloat16()) and torch.equal(values[7].float(), FEATURES[7].bfloat16().float())


def test_a_disk_without_room_is_named_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    message = f"features need 2.0 GB on the disk of {tmp_path}: No space left on device; name a larger folder"
    with pytest.raises(TrainingError, match=message):
        allocated((500, 1000, 1000), torch.float32, 10**9)
    assert not list(tmp_path.iterdir())


def test_two_fifths_of_the_memory_of_a_device_are_room_and_processes_divide_a_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Card:
        total_memory = 80

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card())
    monkeypatch.setattr("natix_lib.training.bank.memory_limit", lambda: 64)
    assert (room_on(torch.device("cuda", 1), 4), room_on(CPU), room_on(CPU, 4)) == (32, 25, 6)


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("views", [0, 2])
def test_moments_of_blocks_are_those_of_all_and_nothing_cancels(block: int, views: int) -> None:
    generator = torch.Generator().manual_seed(2)
    shape = (100, views, 4) if views else (100, 4)
    spread, centre = torch.tensor([1.0, 1e-3, 10.0, 0.0]), torch.tensor([0, 1e3, -5, 2])
    values = torch.randn(*shape, generator=generator) * spread + centre
    std, mean = std_mean(values, CPU, block)
    of_images = (values.mean(dim=1) if views else values).double().numpy()
    torch.testing.assert_close(mean, torch.from_numpy(of_images.mean(axis=0)), rtol=1e-12, atol=0)
    torch.testing.assert_close(std, torch.from_numpy(of_images.std(axis=0)), rtol=1e-9, atol=1e-13)


def test_features_of_one_block_have_the_very_moments_of_before() -> None:
    values = torch.randn(BLOCK // 64, 3, generator=torch.Generator().manual_seed(3))
    before = torch.std_mean(values.double(), dim=0, correction=0)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(std_mean(values, CPU), before, strict=True))
