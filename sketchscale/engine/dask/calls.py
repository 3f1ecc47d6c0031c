"""Pack calls for the workers. What all calls of a plan share (function, configuration) is pickled once, and unpickled
once per worker process, so a plan of a million tasks does not pickle its configuration a million times.

Everything travels as bytes, so the scheduler imports nothing of ours but this file.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

from distributed.protocol.pickle import dumps

from sketchscale.engine.base import Json

__all__ = ["Packer", "carried", "run_call"]


class Packer:
    """Splits a call into bytes that it shares with earlier calls, and its own bytes.

    An argument is shared if it is the same object as in the previous call; arguments are frozen records.

    >>> packer, shared = Packer(), [4]
    >>> calls = [packer.pack(max, ([number], shared)) for number in (3, 7)]
    >>> [run_call(*call) for call in calls]
    [[4], [7]]
    """

    def __init__(self) -> None:
        self._fn: Callable[..., Json] | None = None
        self._args: tuple[Any, ...] = ()
        self._own: frozenset[int] = frozenset()
        self._shared = b""

    def pack(self, fn: Callable[..., Json], args: tuple[Any, ...]) -> tuple[bytes, bytes]:
        """Return the two arguments of `run_call`."""
        if fn is not self._fn or len(args) != len(self._args):
            self._share(fn, args, frozenset())
        else:
            own = frozenset(i for i, arg in enumerate(args) if arg is not self._args[i])
            if not own <= self._own:
                self._share(fn, args, frozenset() if self._own else own)
        return self._shared, dumps([args[i] for i in sorted(self._own)])

    def _share(self, fn: Callable[..., Json], args: tuple[Any, ...], own: frozenset[int]) -> None:
        self._fn, self._args, self._own = fn, args, own
        kept = [None if i in own else arg for i, arg in enumerate(args)]
        self._shared = dumps((fn, kept, sorted(own)))


def run_call(shared: bytes, own: bytes) -> Json:
    """Run one packed call in a worker."""
    fn, kept, positions = _opened(shared)
    args = list(kept)
    for position, value in zip(positions, pickle.loads(own), strict=True):
        args[position] = value
    return fn(*args)


@functools.lru_cache(maxsize=8)
def _opened(shared: bytes) -> tuple[Callable[..., Json], list[Any], list[int]]:
    fn, kept, positions = pickle.loads(shared)
    return fn, kept, positions


def carried(shared: bytes) -> bytes:
    """Return the bytes, which stay on workers for the calls that share them."""
    return shared
