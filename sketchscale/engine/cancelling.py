"""Ending a job from another thread: an event that the job looks at between two tasks, or two steps of a training.

    stop = threading.Event()
    with cancelled_by(stop):
        ...                     # `check_cancelled` in here raises after `stop.set()`

It ends as Ctrl-C does: tasks that run come to their end, no more are taken, and what is finished is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sketchscale.errors import Cancelled

__all__ = ["can_be_cancelled", "cancelled", "cancelled_by", "check_cancelled"]

_CANCEL: ContextVar[threading.Event | None] = ContextVar("what cancels this job", default=None)


@contextmanager
def cancelled_by(event: threading.Event | None) -> Iterator[None]:
    """Inside, this event ends the work; None leaves it to the job around, if there is one.

    Raises:
        Cancelled: in the place of the KeyboardInterrupt with which a training ends.
    """
    token = _CANCEL.set(event or _CANCEL.get())
    try:
        yield
    except KeyboardInterrupt as error:
        if cancelled() and not isinstance(error, Cancelled):
            raise Cancelled from error
        raise
    finally:
        _CANCEL.reset(token)


def can_be_cancelled() -> bool:
    """Whether there is an event to look at."""
    return _CANCEL.get() is not None


def cancelled() -> bool:
    """Whether the job is to end."""
    event = _CANCEL.get()
    return event is not None and event.is_set()


def check_cancelled() -> None:
    """End the job here if it was cancelled.

    Raises:
        Cancelled: it was.
    """
    if cancelled():
        raise Cancelled
