"""Work in threads, in order, with a bounded look-ahead: decoders, OpenCV and zlib run in parallel there."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


CORES = cores()


@contextmanager
def pool(threads: int = CORES) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads; an error drops the work that has not begun."""
    workers = ThreadPoolExecutor(threads)
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)


def map_ahead(items: Iterable[Item], job: Callable[[Item], Result], count: int) -> Iterator[Result]:
    """Yield the job's results in the items' order, computed up to `count` items before they are asked for."""
    with pool() as workers:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(workers.submit(job, item))
            if len(waiting) >= count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
