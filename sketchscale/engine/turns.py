"""Turns inside one worker: several tasks read and write at once, and compute one after another.

A worker that runs a network is slow at two things that do not disturb each other: input and output, and the network.
An engine may therefore run some tasks of a worker at once, each in a thread, and give these threads one lock. What is
heavy stands inside `turn`:

    task 1   read │ network │ write
    task 2   read    ·····  │ network │ write          ·····  waits for its turn
    task 3          read        ·····  │ network │ write

Outside such a worker a turn is nobody's, and costs nothing: threads of an engine that wants them to compute side by
side do so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

__all__ = ["take_turns", "turn"]

_TURN: ContextVar[AbstractContextManager[object] | None] = ContextVar("turn", default=None)


@contextmanager
def take_turns(lock: AbstractContextManager[object]) -> Iterator[None]:
    """While inside, `turn` of this thread is this lock."""
    token = _TURN.set(lock)
    try:
        yield
    finally:
        _TURN.reset(token)


def turn() -> AbstractContextManager[object]:
    """What is heavy stands inside; do not nest.

    >>> with turn():
    ...     3 * 3
    9
    """
    return _TURN.get() or nullcontext()
