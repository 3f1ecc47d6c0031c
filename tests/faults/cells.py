"""Every fault of the proxy in every kind of operation: what comes out, and how long it takes.

An operation runs through the proxy; its result is compared with what the server holds, asked directly. Faults of a PUT
hit the write that the operation depends on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import SketchscaleError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array, read_box, write_box
from sketchscale.io.stores.blobs import list_blobs, put_blob
from tests.faults.proxy import FAULTS, Proxy, Rule, StaleList

__all__ = ["CELLS", "LASTING", "OPERATIONS", "Outcome", "run_cell", "run_stale_list"]

OPERATIONS = ("metadata read", "chunk read", "chunk write", "list")
_PUT_FAULTS = ("lost PUT", "PUT stored then 503", "duplicate PUT")
CELLS = tuple((fault, operation) for fault in FAULTS for operation in OPERATIONS)

LASTING = {
    "503 for ever": ("UnreachableError",),
    "hang on connect": ("UnreachableError",),
    "404 for ever": ("MissingDataError", "UnreachableError"),
    "NoSuchBucket": ("MissingDataError",),
    "403 in mid-run": ("InputError", "OutputError"),
    "expired token": ("InputError", "OutputError"),
}
"""Faults that no patience mends, and the errors they may end in; all others have to end in the same result."""

_SHAPE, _CHUNK = (40, 50), (32, 32)
_WHOLE = Box((0, 0), _SHAPE)
_VALUES = np.arange(2000, dtype=np.uint32).reshape(_SHAPE)
_NEW = _VALUES[::-1].copy()
_NAMES = [f"r/{number}" for number in range(5)]
_GET = {"metadata read": r"/zarr\.json$", "chunk read": "/c/", "list": "list-type=2"}
_PUT = {"metadata read": r"/zarr\.json$", "chunk read": "/c/", "chunk write": "/c/", "list": "/r/"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a cell ended: `result` is identical, different, or the name of the error; `hits` counts broken requests."""

    result: str
    message: str
    seconds: float
    hits: int


def run_cell(fault: str, operation: str, bucket: str, proxy: Proxy) -> Outcome:
    """Run one operation under one fault, on an image of its own; the environment's endpoint is the proxy's."""
    store = f"{bucket}/{fault}-{operation}.zarr".replace(" ", "-").replace(",", "")
    is_put = fault in _PUT_FAULTS
    prepare, act = _steps(store, operation)
    if not is_put:
        prepare()
    action, times = FAULTS[fault]
    method = "PUT" if is_put or operation == "chunk write" else "GET"
    skip = 1 if fault == "403 in mid-run" and operation.startswith("chunk") else 0
    pattern = (_PUT if method == "PUT" else _GET)[operation]
    proxy.rule = rule = Rule(method=method, pattern=pattern, fault=action, times=times, skip=skip)
    started, message = time.monotonic(), ""
    try:
        if is_put:
            prepare()
        result = "identical" if act() else "different"
    except SketchscaleError as error:
        result, message = type(error).__name__, str(error)
    seconds = time.monotonic() - started
    proxy.rule = Rule(method="", pattern="", fault=action, times=0)
    if operation == "chunk write" and result == "identical" and not np.array_equal(_stored(store, proxy), _NEW):
        result = "different"
    return Outcome(result=result, message=message, seconds=seconds, hits=rule.hits)


def run_stale_list(bucket: str, proxy: Proxy) -> list[str]:
    """A plan of two tasks, run twice; the second time the ledger's listing is that of its beginning.

    Returns:
        The tasks that ran, in order. A task whose record is not seen runs again; it is idempotent, so nothing is lost.
    """
    ran: list[str] = []
    store = f"{bucket}/stale.zarr"

    def work(name: str) -> None:
        if f"r/{name}" not in list_blobs(store, "r"):
            ran.append(f"{name} again" if name in ran else name)
            put_blob(store, f"r/{name}", b"{}")

    work("first")
    proxy.rule = Rule(method="GET", pattern="list-type=2", fault=StaleList())
    work("second")
    work("second")
    proxy.rule = Rule(method="", pattern="", fault=StaleList(), times=0)
    return ran if list_blobs(store, "r") == ["r/first", "r/second"] else []


def _steps(store: str, operation: str) -> tuple[Callable[[], None], Callable[[], bool]]:
    """What has to be there, and the operation itself, which says whether its result is right."""
    ref = ArrayRef(store=store, path="0")

    def make() -> None:
        create_array(ref, shape=_SHAPE, chunks=_CHUNK, dtype="uint32")

    def fill() -> None:
        make()
        write_box(ref, _WHOLE, _VALUES)

    def record() -> None:
        for name in _NAMES:
            put_blob(store, name, b"{}")

    def write() -> bool:
        write_box(ref, _WHOLE, _NEW)
        return True

    return {
        "metadata read": (make, lambda: open_array(ref).shape == _SHAPE),
        "chunk read": (fill, lambda: np.array_equal(read_box(ref, _WHOLE), _VALUES)),
        "chunk write": (fill, write),
        "list": (record, lambda: list_blobs(store, "r") == _NAMES),
    }[operation]


def _stored(store: str, proxy: Proxy) -> npt.NDArray[Any]:
    """The pixels as the server has them, without the proxy."""
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.upstream}"
    try:
        return read_box(ArrayRef(store=store, path="0"), _WHOLE)
    finally:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
