"""What travels to a worker. Function, configuration and environment are pickled once per plan, and unpickled once per
worker process, so that a plan of a million tasks does not pickle its configuration a million times.
"""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from distributed.protocol.pickle import dumps

from sketchscale.engine.base import Json

__all__ = ["Packer", "carried", "run_call"]


class Packer:
    """Packs a function with its last arguments; the same objects again cost nothing.

    >>> packer = Packer({})
    >>> run_call(packer.pack(divmod, (4,)), 9)
    (2, 1)
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._last: tuple[Callable[..., Json], tuple[Any, ...], bytes] | None = None

    def pack(self, fn: Callable[..., Json], rest: tuple[Any, ...]) -> bytes:
        """Bytes for `run_call`. A configuration is frozen, so the same object means the same bytes."""
        if self._last is not None:
            known, before, packed = self._last
            if known is fn and len(before) == len(rest) and all(a is b for a, b in zip(before, rest, strict=True)):
                return packed
        packed = pickle.dumps((self._environment, dumps((fn, rest))))
        self._last = (fn, rest, packed)
        return packed


def run_call(packed: bytes, *first: Any) -> Json:
    """One task, in a worker."""
    fn, rest = _opened(packed)
    return fn(*first, *rest)


@functools.lru_cache(maxsize=8)
def _opened(packed: bytes) -> tuple[Callable[..., Json], tuple[Any, ...]]:
    environment, work = pickle.loads(packed)
    os.environ.update(environment)  # before anything is imported that reads it
    fn, rest = pickle.loads(work)
    return fn, rest


def carried(packed: bytes) -> bytes:
    """Bytes that stay on workers, for the calls that need them."""
    return packed
