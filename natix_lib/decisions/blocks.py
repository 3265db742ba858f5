"""Rows in blocks that fit the processor's cache, on all its cores.

Logits of a million images are read block by block as (C, B) float64: reductions over few classes are fast along the
first axis, nothing of the size of the logits is ever copied, and numpy lets go of the interpreter inside a block, so
threads help, if no more than a few. Blocks depend on the shape alone and results come in their order: the same rows
give the same bits with any number of threads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from natix_lib.cpus import cpu_threads

NUMBERS = 1 << 17  # of a block: a megabyte in float64; smaller ones leave the threads waiting for each other
MOST_THREADS = 8
R = TypeVar("R")


def over_blocks(work: Callable[[slice], R], rows: int, classes: int) -> list[R]:
    """`work` of each block of rows, in order.

    Args:
        work: Takes the block's rows; must not change what other blocks read.
        rows: Number of rows n.
        classes: C, which sets how many rows a block has.
    """
    size = max(1, NUMBERS // classes)
    blocks = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    threads = min(cpu_threads(), MOST_THREADS, len(blocks)) if len(blocks) > 1 else 1  # counting reads files
    if threads < 2:
        return [work(block) for block in blocks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, blocks))


def columns(values: NDArray[np.floating], block: slice) -> NDArray[np.float64]:
    """A block of (n, C) as a fresh contiguous float64 (C, B)."""
    result: NDArray[np.float64] = np.array(values[block].T, dtype=np.float64, order="C")
    return result


def sum_columns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the classes of (C, B), (B,): class after class, so that a row's bits do not depend on its neighbours.

    A block of one row would be summed pairwise by numpy; it is summed as two.
    """
    if values.shape[1] == 1:
        return sum_columns(np.repeat(values, 2, axis=1))[:1]
    result: NDArray[np.float64] = np.add.reduce(values, axis=0)
    return result
