"""Several small requests at once, in order: otherwise a loop over objects in a bucket waits for every round trip.

The threads have the context of who asks: the storage settings of its job.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

Item = TypeVar("Item")
Value = TypeVar("Value")


def ahead(work: Callable[[Item], Value], items: Iterable[Item], *, at_once: int = 16) -> Iterator[Value]:
    """What `work` gives for each item, in order; at most `at_once` values are under way or waiting.

    Raises:
        Exception: the first one in the order of the items; what is under way is finished first.

    >>> list(ahead(lambda n: n * n, range(4), at_once=2))
    [0, 1, 4, 9]
    """
    waiting: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix="ahead") as pool:
        for item in items:
            waiting.append(pool.submit(contextvars.copy_context().run, work, item))
            if len(waiting) >= at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
