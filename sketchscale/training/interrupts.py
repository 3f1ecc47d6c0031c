"""Ctrl-C and SIGTERM, noted and acted on between two steps, so that no half-made step is ever saved."""

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
    """A person did not want to wait for the step to end; what it left half done must not be saved."""


@contextmanager
def noted_interrupts() -> Iterator[Callable[[], bool]]:
    """Inside, the first signal is only noted; the second raises SecondInterrupt at once.

    Yields:
        Whether a signal came, or the job was cancelled. Signals reach the main thread alone.
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
