"""On which machines: engines run any plan and know no images. `open_engine` finds one by name."""

from __future__ import annotations

import importlib
import os

from sketchscale.engine.base import Engine
from sketchscale.errors import UnknownNameError

__all__ = ["ENGINES", "open_engine"]

ENGINES = {
    "serial": "sketchscale.engine.local:SerialEngine",
    "threads": "sketchscale.engine.local:ThreadEngine",
    "processes": "sketchscale.engine.local:ProcessEngine",
}
"""Name to import path, so that nothing heavy loads before it is asked for. A new engine is a file and a line here."""


def open_engine(name: str = "threads", workers: int | None = None) -> Engine:
    """An engine by name; close it when done.

    Args:
        name: a key of ENGINES.
        workers: how many tasks run at once; the number of usable cores when None. Serial has one.

    Raises:
        UnknownNameError: lists the known engines.

    >>> open_engine("serial").workers
    1
    """
    if name not in ENGINES:
        raise UnknownNameError.among("engine", name, ENGINES)
    module, _, attribute = ENGINES[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    engine: Engine = kind() if name == "serial" else kind(workers or usable_cores())
    return engine


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
