"""Run several small requests at once, in order, so that a loop over objects does not wait for every round trip.

The threads inherit the context of the caller, so the storage settings of its job.
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
    """Yield the result of `work` for each item, in order; at most `at_once` results are in progress or waiting.

    Raises:
        Exception: the first in the order of the items, after the items in progress have ended.

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
