from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from natix_lib.distributed.gradients import summing
from natix_lib.distributed.world import ALONE, World
from tests.processes import run_together

SUMS = """
import torch
from natix_lib.distributed.gradients import summing
from natix_lib.distributed.world import World

world = World.from_environment()
images = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


def model():
    torch.manual_seed(1)
    layers = [torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(3, 3))  # the last one is used by nobody


with world.joined():
    for most in (1, 300, 10**6):
        ours = model()
        with summing(ours.parameters(), world, most) as sums:
            for rows in (7, 2):  # of two, one of three processes has none
                expected = model()
                expected[:5](images[:rows]).square().sum().backward()
                own = images[:rows][list(world.share(rows))]
                ours.zero_grad()
                for number, image in enumerate(own, 1):  # parts, more on one process than on another
                    if number == len(own):
                        sums.last_part()
                    ours[:5](image).square().sum().backward()
                sums.finish()
                for mine, theirs in zip(ours.parameters(), expected.parameters()):
                    whole = torch.zeros_like(mine) if theirs.grad is None else theirs.grad
                    torch.testing.assert_close(mine.grad, whole)
"""


@pytest.mark.slow
def test_three_processes_sum_their_parts_of_a_batch_to_its_gradient(tmp_path: Path) -> None:
    run_together(SUMS, tmp_path, 3)


class Exchange:
    """Stands for an exchange with another process that has the same gradients; notes what is sent and waited for."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def all_reduce(self, flat: Tensor, async_op: bool) -> "Exchange.Work":
        assert async_op
        self.events.append(("sent", flat.numel()))
        return Exchange.Work(self, flat)

    class Work:
        def __init__(self, exchange: "Exchange", flat: Tensor) -> None:
            self.exchange, self.flat = exchange, flat

        def wait(self) -> None:
            self.exchange.events.append(("waited", self.flat.numel()))
            self.flat *= 2


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Exchange:
    exchange = Exchange()
    monkeypatch.setattr(distributed, "all_reduce", exchange.all_reduce)
    return exchange


class Marked(nn.Module):
    """Notes when backward comes to it."""

    def __init__(self, exchange: Exchange, name: str) -> None:
        super().__init__()
        self.exchange, self.name = exchange, name

    def forward(self, values: Tensor) -> Tensor:
        values.register_hook(lambda gradient: self.exchange.events.append((self.name, 0)))
        return values * 1.0


def gradient_of(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_the_last_layers_are_sent_while_backward_is_still_before_the_first(exchange: Exchange) -> None:
    model = nn.Sequential(nn.Linear(3, 4), Marked(exchange, "first layer next"), nn.Linear(4, 2))
    with summing(model.parameters(), World(0, 2), bucket_bytes=4 * 10) as sums:
        model(torch.ones(1, 3)).sum().backward()  # the first of two parts: nothing is whole
        assert exchange.events == [("first layer next", 0)]
        sums.last_part()
        model(torch.ones(1, 3)).sum().backward()
        sent = [("first layer next", 0), ("sent", 10), ("first layer next", 0), ("sent", 4), ("sent", 12)]
        assert sorted(exchange.events) == sorted(sent) and exchange.events.index(("sent", 10)) == 1
        gradients = [gradient_of(p).clone() for p in model.parameters()]
        sums.finish()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(gradient_of(parameter), 2 * gradient)


def test_a_bucket_that_is_whole_early_waits_for_those_before_it(exchange: Exchange) -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 3, bias=False)
    with summing([*first.parameters(), *second.parameters()], World(1, 2), bucket_bytes=1) as sums:
        sums.last_part()
        first(torch.ones(1, 2)).sum().backward()  # this process has no image for the second one
        assert not exchange.events
        sums.finish()
    assert [event for event in exchange.events if event[0] == "sent"] == [("sent", 6), ("sent", 4)]
    assert torch.equal(gradient_of(second.weight), torch.zeros(3, 2))
    assert torch.equal(gradient_of(first.weight), torch.full((2, 2), 2.0))


def test_number_formats_are_not_mixed_and_a_large_gradient_is_a_bucket_of_its_own(exchange: Exchange) -> None:
    of = [
        nn.Parameter(torch.ones(size, dtype=dtype))
        for size, dtype in ((3, torch.float64), (2, torch.float32), (99, torch.float32), (1, torch.float32))
    ]
    with summing(of, World(0, 2), bucket_bytes=40) as sums:
        sums.finish()
    assert [size for event, size in exchange.events if event == "sent"] == [1, 99, 2, 3]


def test_alone_or_after_the_block_nothing_is_sent(exchange: Exchange) -> None:
    layer = nn.Linear(2, 1)
    for world in (ALONE, World(0, 2)):
        with summing(layer.parameters(), world) as sums:
            pass
        sums.last_part()
        layer(torch.ones(1, 2)).sum().backward()
    assert not exchange.events
