"""Work done in threads ahead of who needs it: pictures are decoded while the model scores those before them.

`Executor.map` was rejected: it takes all of its items at once, and a million pictures would be decoded before the
first is scored. Pillow releases Python's lock while it decodes and resizes, so threads do; processes would copy pixels.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def nothing(_: object) -> int:
    """The weight of items that need not be weighed."""
    return 0


def ahead(
    work: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    results: int,
    weigh: Callable[[T], int] = nothing,
    most: int = 0,
) -> Generator[R, None, None]:
    """`map(work, items)`, in order, done in threads before it is asked for.

    Args:
        work: May run several times at once; what it raises is raised in its turn.
        items: Taken one by one, in the thread of who asks.
        threads: How many work at once; 1 works when it is asked, in the thread of who asks.
        results: How many items may be taken, at work or done, beyond those that were asked for.
        weigh: What an item weighs, such as its bytes.
        most: What those items may weigh together; the last one taken may come on top.
    """
    if threads == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[int, Future[R]]] = deque()
    held = 0
    try:
        for item in items:
            waiting.append((weigh(item), pool.submit(work, item)))
            held += waiting[-1][0]
            while waiting and (len(waiting) > results or held > most):
                weight, result = waiting.popleft()
                held -= weight
                yield result.result()
        while waiting:
            yield waiting.popleft()[1].result()
    finally:  # also when who asks stops asking
        pool.shutdown(cancel_futures=True)
