"""Turns of the tasks in one worker: several tasks read and write at once, and compute one after another.

A worker that runs a network spends time on input and output and on the network, which do not disturb each other. So an
engine may run several tasks of a worker at once, each in a thread, and give these threads one lock. Heavy computation
goes inside `turn`:

    task 1   read │ network │ write
    task 2   read    ·····  │ network │ write          ·····  waits for its turn
    task 3          read        ·····  │ network │ write

Outside such a worker `turn` does nothing, so the threads of other engines compute in parallel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

__all__ = ["take_turns", "turn"]

_TURN: ContextVar[AbstractContextManager[object] | None] = ContextVar("turn", default=None)


@contextmanager
def take_turns(lock: AbstractContextManager[object]) -> Iterator[None]:
    """Make `turn` take this lock, inside the block and in this thread."""
    token = _TURN.set(lock)
    try:
        yield
    finally:
        _TURN.reset(token)


def turn() -> AbstractContextManager[object]:
    """Return the context for heavy computation; do not nest it.

    >>> with turn():
    ...     3 * 3
    9
    """
    return _TURN.get() or nullcontext()
