"""What runs in the workers.

A call travels as bytes of ours: function and task, and apart from them what all tasks of a plan share (its
configuration). A worker unpickles the shared part once and keeps it. So the environment is set before the first import,
a large configuration costs one transfer per worker instead of one per task, and what a worker cannot import is an error
with a name.

An exception of the function is returned, not raised: it arrives as the type that it was, with the worker's traceback as
a note.
"""

from __future__ import annotations

import os
import pickle
import platform
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import cloudpickle

import sketchscale
from sketchscale.engine.base import Json
from sketchscale.engine.turns import take_turns
from sketchscale.errors import SetupError

__all__ = ["CALLS_PER_WORKER", "Shared", "Work", "pack", "pack_shared", "run_call", "unpack", "versions", "warm_worker"]

CALLS_PER_WORKER = 3
"""Of a warm worker, at once: one reads, one runs the network, one writes."""

_INLINE_BYTES = 64_000
"""A shared part up to this size travels with every call; a larger one is put into the object store once."""

_KEPT = 4
"""Shared parts that a worker keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The arguments that all tasks of a plan have in common, packed.

    Attributes:
        key: of the worker's memory.
        source: pickled, or a list with the one reference to it in the object store.
    """

    key: str
    source: bytes | list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One call, packed; all its parts are plain, so that a worker of another version can still say what it is."""

    task: bytes
    shared: Shared
    environment: Mapping[str, str]

    @property
    def parts(self) -> tuple[Any, ...]:
        """Arguments of `run_call`."""
        return versions(), self.task, self.shared.key, self.shared.source, dict(self.environment)


def versions() -> str:
    """What driver and workers must have alike.

    >>> versions().split()[0]
    'sketchscale'
    """
    python = ".".join(platform.python_version_tuple()[:2])
    return f"sketchscale {sketchscale.__version__}, Python {python}"


def pack(fn: Callable[..., Json], args: tuple[Any, ...]) -> bytes:
    """A function and its own arguments."""
    packed: bytes = cloudpickle.dumps((fn, args))
    return packed


def pack_shared(key: str, args: tuple[Any, ...]) -> Shared:
    """Arguments that further calls will have too."""
    packed = cloudpickle.dumps(args)
    return Shared(key=key, source=packed if len(packed) <= _INLINE_BYTES else [ray.put(packed)])


def run_call(wanted: str, task: bytes, key: str, source: bytes | list[Any], environment: dict[str, str]) -> Any:
    """Run one call in a worker; see `unpack` for what comes back."""
    os.environ.update(environment)
    if wanted != versions():
        return _failure(
            SetupError(
                f"a worker has {versions()}; expected: {wanted}, as here; "
                f"to fix: install the same on every node of the cluster"
            )
        )
    try:
        fn, own = pickle.loads(task)
        shared = _MEMORY.get(key, source)
    except (ImportError, AttributeError) as error:
        what = f"a worker cannot import what it is to run: {error}"
        return _failure(
            SetupError(f"{what}; expected: the packages of this machine; to fix: install them on every node")
        )
    try:
        return True, fn(*own, *shared)
    except Exception as error:  # handed to the driver, as every executor does
        return _failure(error)


def unpack(answer: Any) -> Json:
    """The value of a call.

    Raises:
        Exception: what the function raised.
    """
    good, value = answer
    if good:
        return value
    raise pickle.loads(value)


def _failure(error: Exception) -> tuple[bool, bytes]:
    """An exception on its way; one that cannot travel becomes an OSError or a RuntimeError of the same words."""
    error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
    try:
        packed: bytes = cloudpickle.dumps(error)
        pickle.loads(packed)
    except Exception:
        kind = OSError if isinstance(error, OSError) else RuntimeError
        packed = pickle.dumps(kind(f"{type(error).__name__}: {error}"))
    return False, packed


class _Memory:
    """Shared parts, unpickled once; the last few are kept."""

    def __init__(self) -> None:
        self._lock, self._kept = threading.Lock(), OrderedDict[str, tuple[Any, ...]]()

    def get(self, key: str, source: bytes | list[Any]) -> tuple[Any, ...]:
        with self._lock:
            if key not in self._kept:
                packed = source if isinstance(source, bytes) else ray.get(source[0])
                self._kept[key] = pickle.loads(packed)
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]


_MEMORY = _Memory()


class _WarmWorker:
    """An actor: the process, and what its modules keep between calls, such as a network on a GPU."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def run(self, *parts: Any) -> Any:
        with take_turns(self._turn):
            return run_call(*parts)


warm_worker: Any = ray.remote(_WarmWorker)
"""Declared once: Ray exports a class or function anew each time that it is wrapped."""
