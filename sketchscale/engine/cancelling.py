"""Cancel a job from another thread: the job checks an event between two tasks, or two steps of a training.

    stop = threading.Event()
    with cancelled_by(stop):
        ...                     # `check_cancelled` in here raises after `stop.set()`

The job ends as with Ctrl-C: running tasks finish, no more are started, and finished work is kept.
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
    """Let this event cancel the work inside the block; None keeps the event of the surrounding job, if any.

    Raises:
        Cancelled: instead of the KeyboardInterrupt that ends a training.
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
    """Return whether an event can cancel this job."""
    return _CANCEL.get() is not None


def cancelled() -> bool:
    """Return whether the job was cancelled."""
    event = _CANCEL.get()
    return event is not None and event.is_set()


def check_cancelled() -> None:
    """Raise Cancelled if the job was cancelled."""
    if cancelled():
        raise Cancelled
