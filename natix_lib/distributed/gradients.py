"""Gradients summed over processes in buckets, each of which travels while those before it are still computed.

A parameter's gradient is whole when the backward pass has accumulated it; a bucket whose gradients all are is sent at
once, without waiting. Backward comes to the last layers first, so buckets are filled from the last parameter on. They
are sent in one order on every process, as exchanges must be: one that is whole early waits for those before it.
Buckets of 25 MB are PyTorch's measure (Li et al., PyTorch Distributed, VLDB 2020, arXiv 2006.15704).

DistributedDataParallel was rejected: it waits for parameters that a process without images has no gradient of, it
takes means of processes' means, and the parts of a batch that one process computes and another does not need `no_sync`
around them. What is summed here is a share of one normalised loss (`training/loss.py`), so the sums are the batch's.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from natix_lib.distributed.world import World

BUCKET_BYTES = 25 * 2**20  # DistributedDataParallel's default


class SummedGradients:
    """Sums the gradients of some parameters over all processes, for one batch after another."""

    def __init__(self, parameters: Iterable[nn.Parameter], world: World, bucket_bytes: int = BUCKET_BYTES) -> None:
        """Begin; `summing` does so and takes its hooks away again.

        Args:
            parameters: The same on every process, in the same order.
            world: The processes.
            bucket_bytes: Most bytes of a bucket, unless one gradient alone has more.
        """
        self._buckets = list(_buckets(parameters, bucket_bytes)) if world.size > 1 else []
        self._number = {id(one): number for number, bucket in enumerate(self._buckets) for one in bucket}
        self._hooks = [
            one.register_post_accumulate_grad_hook(self._accumulated)  # type: ignore[no-untyped-call]
            for bucket in self._buckets
            for one in bucket
        ]
        self._begin()

    def _begin(self) -> None:
        self._last = False
        self._absent = [len(bucket) for bucket in self._buckets]
        self._sent: list[tuple[Tensor, Any]] = []

    def last_part(self) -> None:
        """Say that the next backward pass is the batch's last one, so that its gradients may be sent."""
        self._last = True

    def finish(self) -> None:
        """Send what was not, wait for all, and leave the sums in the parameters' gradients.

        A gradient that a process lacks counts as zero. The gradients of a bucket are then parts of one tensor.
        """
        while len(self._sent) < len(self._buckets):
            self._send()
        for bucket, (flat, work) in zip(self._buckets, self._sent, strict=True):
            work.wait()
            for one, part in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                one.grad = part.view_as(one)
        self._begin()

    def close(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()

    def _accumulated(self, parameter: Tensor) -> None:
        if not self._last:
            return
        self._absent[self._number[id(parameter)]] -= 1
        while len(self._sent) < len(self._buckets) and not self._absent[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        """Send the next bucket."""
        bucket = self._buckets[len(self._sent)]
        flat = torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in bucket])
        self._sent.append((flat, distributed.all_reduce(flat, async_op=True)))


@contextmanager
def summing(
    parameters: Iterable[nn.Parameter], world: World, bucket_bytes: int = BUCKET_BYTES
) -> Iterator[SummedGradients]:
    """Sum gradients within the block; alone, nothing is done. Arguments as those of `SummedGradients`."""
    sums = SummedGradients(parameters, world, bucket_bytes)
    try:
        yield sums
    finally:
        sums.close()


def _buckets(parameters: Iterable[nn.Parameter], most: int) -> Iterator[list[nn.Parameter]]:
    """The parameters from the last on, in lists of one number format and at most so many bytes, or of one parameter."""
    bucket: list[nn.Parameter] = []
    size = 0
    for one in reversed(list(parameters)):
        if bucket and (size + one.nbytes > most or one.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(one)
        size += one.nbytes
    if bucket:
        yield bucket
