"""The processes that compute together, and the few things that they exchange.

torchrun tells a process its place by environment variables; without them it is alone and every exchange below is
nothing. Each process computes a contiguous share of the rows, so that what is gathered stands in the rows' own order
and a result does not depend on the number of processes, but for the rounding of sums. Gradients are
summed by `gradients.py`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

BLOCK = 65_536  # rows that `complete` exchanges at once


@dataclass(frozen=True)
class World:
    """A process's place among all.

    Attributes:
        rank: Its number, from 0.
        size: Number of processes in all.
        local_rank: Its number on its node, and that of its GPU.
        local_size: Processes on its node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def from_environment(cls) -> "World":
        """What torchrun says; alone when it has not started this process."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return cls(*(int(os.environ.get(name, default)) for name, default in zip(names, "0101", strict=True)))

    @property
    def first(self) -> bool:
        """Whether it is the process that speaks and writes."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Machines, with as many processes on each."""
        return self.size // self.local_size

    @property
    def device(self) -> torch.device:
        """Its GPU, or the CPU."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Exchange with the others within the block: tensors of a GPU by NCCL, of a CPU by gloo."""
        if self.size == 1:
            yield
            return
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(self.device)
        distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
        try:
            yield
            distributed.barrier()  # who goes first would close connections that others still read
        finally:
            distributed.destroy_process_group()

    def share(self, rows: int) -> range:
        """The numbers of this process's rows, of `rows` in all; the largest share has one more than the smallest."""
        return range(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def gathered(self, part: Tensor, rows: int) -> Tensor:
        """All `rows` rows, on every process, from each one's `share` of them."""
        if self.size == 1:
            return part
        largest = -(-rows // self.size)
        padded = part.new_zeros((largest, *part.shape[1:]))
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        sizes = (len(World(rank, self.size).share(rows)) for rank in range(self.size))
        return torch.cat([rows_of_one[:size] for rows_of_one, size in zip(parts, sizes, strict=True)])

    def complete(self, values: Tensor, block: int = BLOCK) -> None:
        """Fill in the others' rows of `values` (n, ...), of which each process has its `share`.

        Rows travel as bytes, whatever their number format, and at most `block` of each process at once, so that
        `values` may be a mapped file that no memory holds.
        """
        if self.size == 1:
            return
        shares = [World(rank, self.size).share(len(values)) for rank in range(self.size)]
        for start in range(0, max(map(len, shares)), block):
            several = [values[rows.start + start : min(rows.start + start + block, rows.stop)] for rows in shares]
            sent = values.new_zeros((max(map(len, several)), *values.shape[1:]))
            sent[: len(several[self.rank])] = several[self.rank]
            parts = [torch.empty_like(sent) for _ in shares]
            distributed.all_gather([part.view(torch.uint8) for part in parts], sent.view(torch.uint8))
            for rows_of_one, part in zip(several, parts, strict=True):
                rows_of_one.copy_(part[: len(rows_of_one)])

    def summed(self, value: Tensor) -> Tensor:
        """The sum of `value` over all processes."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total

    def highest(self, value: Tensor) -> Tensor:
        """The elementwise maximum of `value` over all processes."""
        if self.size == 1:
            return value
        most = value.detach().clone()
        distributed.all_reduce(most, op=distributed.ReduceOp.MAX)
        return most

    def lowest(self, number: int) -> int:
        """The smallest of the numbers that the processes give, on every one."""
        return -int(self.highest(torch.tensor(-number, device=self.device)))

    def joined_rows(self, rows: Tensor) -> Tensor:
        """The rows of all processes, which have equally many, in the order of ranks; gradients flow back to each."""
        if self.size == 1:
            return rows
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(rows))  # type: ignore[no-untyped-call]

    def of_first(self, values: Sequence[float]) -> tuple[float, ...]:
        """The first process's `values`, so that all decide alike."""
        if self.size == 1:
            return tuple(values)
        told = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(told, 0)
        return tuple(told.tolist())

    def copy_first(self, module: nn.Module) -> None:
        """Give a module the first process's parameters and buffers."""
        if self.size > 1:
            for value in module.state_dict().values():
                distributed.broadcast(value, 0)


ALONE = World()
