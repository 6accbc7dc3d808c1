"""Work in threads, in order, with a bounded look-ahead: decoders, OpenCV and zlib run beside each other there."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


CORES = cores()


@contextmanager
def pool(threads: int = CORES) -> Iterator[ThreadPoolExecutor]:
    """Threads that leave what has not begun when the work is broken off."""
    workers = ThreadPoolExecutor(threads)
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)


def map_ahead(items: Iterable[Item], job: Callable[[Item], Result], count: int) -> Iterator[Result]:
    """The job's results in the items' order, worked out up to `count` items before they are asked for."""
    with pool() as workers:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(workers.submit(job, item))
            if len(waiting) >= count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
