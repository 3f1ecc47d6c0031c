"""Pack calls for the workers, and run them there.

A call travels as our own bytes: a function and its arguments. Large arguments that every call of a plan has (its
configuration, a classifier) are packed once, travel once to each worker, and are unpacked there once. Because we unpack
them ourselves, what a worker cannot import is an error that names it.

An exception of the function is returned, not raised: it arrives with its own type, and with the traceback of the worker
as a note.
"""

from __future__ import annotations

import pickle
import platform
import threading
import traceback
import uuid
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

__all__ = ["CALLS_PER_WORKER", "Packer", "run_call", "unpack", "versions", "warm_worker"]

CALLS_PER_WORKER = 3
"""Calls of a warm worker at once: one reads, one runs the network, one writes."""

Work = tuple[str, bytes, dict[str, Any]]
"""Versions, packed call, sources of its shared arguments by key; plain, so that a worker of another version can still
report its version."""

_SMALL, _INLINE = 4_000, 64_000
"""Sizes in bytes: arguments up to the first are packed with each call; shared ones up to the second travel with each
call, larger ones are in the object store."""

_IMPORTING = threading.Lock()
"""Held while unpacking, because calls of a warm worker start together but must not import together."""

_KEPT = 16
"""How many shared arguments a driver recognises and a worker keeps."""


def versions() -> str:
    """Return the versions that driver and workers must have in common.

    >>> versions().split()[0]
    'sketchscale'
    """
    python = ".".join(platform.python_version_tuple()[:2])
    return f"sketchscale {sketchscale.__version__}, Python {python}"


@dataclass(frozen=True, slots=True)
class _Slot:
    """Placeholder of a shared argument in a packed call."""

    key: str


@dataclass(slots=True)
class _Known:
    """An argument that was seen; `source` is None until it is seen again, and stays None if it is small."""

    value: Any
    key: str
    seen: int = 0
    source: bytes | list[Any] | None = None


class Packer:
    """Packs calls and shares repeated arguments (the same object); thread-safe."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def pack(self, fn: Callable[..., Json], args: tuple[Any, ...]) -> Work:
        """Return the arguments of `run_call`."""
        records: list[_Known] = []
        with self._lock:
            for value in args:  # records hold the arguments, so that no other object gets their id
                known = self._known.setdefault(id(value), _Known(value, uuid.uuid4().hex))
                self._known.move_to_end(id(value))
                known.seen += 1
                if known.seen == 2:
                    packed = cloudpickle.dumps(value)
                    if len(packed) > _SMALL:
                        known.source = packed if len(packed) <= _INLINE else [ray.put(packed)]
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
                records.append(known)
        sources = {k.key: k.source for k in records if k.source is not None}
        slots = [k.value if k.source is None else _Slot(k.key) for k in records]
        return versions(), cloudpickle.dumps((fn, slots)), sources


def unpack(answer: Any) -> Json:
    """Return the value of a call.

    Raises:
        Exception: the exception of the function.
    """
    good, value = answer
    if good:
        return value
    raise pickle.loads(value)


def run_call(wanted: str, call: bytes, sources: dict[str, Any]) -> Any:
    """Run one call in a worker; `unpack` opens the answer."""
    if wanted != versions():
        what = f"a worker has {versions()}; expected: {wanted}, as here"
        return _failure(SetupError(f"{what}; to fix: install the same on every node of the cluster"))
    try:
        with _IMPORTING:
            fn, slots = pickle.loads(call)
        args = [_MEMORY.get(slot.key, sources) if isinstance(slot, _Slot) else slot for slot in slots]
    except (ImportError, AttributeError) as error:
        what = f"a worker cannot import its task: {error}; expected: the packages of this machine"
        return _failure(SetupError(f"{what}; to fix: install them on every node"))
    try:
        return True, fn(*args)
    except Exception as error:  # raised in the driver, as in every executor
        return _failure(error)


def _failure(error: Exception) -> tuple[bool, bytes]:
    """Pack an exception; one that cannot be pickled becomes an OSError or a RuntimeError with the same text."""
    error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
    try:
        packed: bytes = cloudpickle.dumps(error)
        pickle.loads(packed)
    except Exception:
        kind = OSError if isinstance(error, OSError) else RuntimeError
        packed = pickle.dumps(kind(f"{type(error).__name__}: {error}"))
    return False, packed


class _Memory:
    """Shared arguments, unpacked once; the latest are kept."""

    def __init__(self) -> None:
        self._lock, self._kept = threading.Lock(), OrderedDict[str, Any]()

    def get(self, key: str, sources: Mapping[str, bytes | list[Any]]) -> Any:
        with self._lock:
            if key not in self._kept:
                source = sources[key]
                self._kept[key] = pickle.loads(source if isinstance(source, bytes) else ray.get(source[0]))
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]


_MEMORY = _Memory()


class _WarmWorker:
    """An actor: a process whose modules keep something between calls, such as a network on a GPU."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def run(self, *work: Any) -> Any:
        with take_turns(self._turn):
            return run_call(*work)


warm_worker: Any = ray.remote(_WarmWorker)
"""Declared once, because Ray exports a class or function again each time that it is wrapped."""
