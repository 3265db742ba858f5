from pathlib import Path

import pytest
import torch

from natix_lib.distributed.world import ALONE, World
from tests.processes import run_together

EXCHANGES = """
import torch
from natix_lib.distributed.world import World

world = World.from_environment()
rows = torch.arange(7.0)[:, None] * torch.tensor([1.0, 10.0])
layer = torch.nn.Linear(2, 1)
with world.joined():
    assert torch.equal(world.gathered(rows[list(world.share(7))], 7), rows)
    assert torch.equal(world.gathered(rows[:1][list(world.share(1))], 1), rows[:1])
    assert world.summed(torch.tensor(float(world.rank + 1))) == 6
    assert world.of_first((world.rank + 0.5, 3)) == (0.5, 3.0)
    torch.nn.init.constant_(layer.weight, world.rank)
    world.copy_first(layer)
    assert layer.weight.tolist() == [[0.0, 0.0]]
    for block in (2, 7):
        for number_format in (torch.float32, torch.bfloat16):
            own = torch.zeros(7, 2, dtype=number_format)
            own[list(world.share(7))] = rows[list(world.share(7))].to(number_format)
            world.complete(own, block)
            assert torch.equal(own, rows.to(number_format))
"""


@pytest.mark.slow
def test_three_processes_exchange_rows_sums_and_decisions(tmp_path: Path) -> None:
    run_together(EXCHANGES, tmp_path, 3)


@pytest.mark.parametrize("rows", [0, 1, 5, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_all_rows_in_order_and_nearly_equal(rows: int, size: int) -> None:
    shares = [World(rank, size).share(rows) for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_exchanged() -> None:
    part = torch.ones(3)
    with ALONE.joined():
        assert ALONE.gathered(part, 3) is part and ALONE.summed(part) is part
    assert ALONE.of_first([1.0]) == (1.0,) and ALONE.first and ALONE.nodes == 1


def test_the_place_comes_from_torchruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    world = World.from_environment()
    assert (world.rank, world.size, world.local_rank, world.local_size, world.nodes) == (5, 8, 1, 4, 2)
    assert not world.first
