"""Note Ctrl-C and SIGTERM and act on them between two steps, so that no unfinished step is ever saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sketchscale.engine.cancelling import cancelled

__all__ = ["SecondInterrupt", "noted_interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SecondInterrupt(KeyboardInterrupt):
    """A second interrupt before the step ended; the unfinished step must not be saved."""


@contextmanager
def noted_interrupts() -> Iterator[Callable[[], bool]]:
    """Only note the first signal inside the context; a second one raises SecondInterrupt at once.

    Yields:
        A function that returns whether a signal came or the job was cancelled. Signals reach only the main thread.
    """
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise SecondInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield cancelled
        return
    before = [signal.signal(number, note) for number in _SIGNALS]
    try:
        yield lambda: bool(seen) or cancelled()
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
