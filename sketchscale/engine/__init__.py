"""Engines run any plan on one machine or many, and know nothing about images; `open_engine` finds one by name."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from sketchscale.engine.base import Engine, EngineOptions
from sketchscale.engine.local import usable_cores
from sketchscale.errors import InputError, SetupError, UnknownNameError

__all__ = ["ENGINES", "open_engine", "usable_cores"]

ENGINES = {
    "serial": "sketchscale.engine.local:SerialEngine",
    "threads": "sketchscale.engine.local:ThreadEngine",
    "processes": "sketchscale.engine.local:ProcessEngine",
    "dask": "sketchscale.engine.dask:DaskEngine",
    "ray": "sketchscale.engine.ray:RayEngine",
}
"""Name to import path, so that an engine loads only when it is used. A new engine needs a file and a line here."""

_EXTRAS = {"dask": ("distributed", "dask"), "ray": ("ray", "ray")}
"""Engine to the module that it needs and the extra that installs it."""


def open_engine(name: str = "threads", workers: int | None = None, **options: Any) -> Engine:
    """Return the engine of a name, to close when done. Clusters are started or joined at the first task.

    Args:
        name: a key of ENGINES.
        workers: how many tasks run at once; None means the usable cores, or all of the cluster. Serial always has one.
        options: other fields of `EngineOptions`.

    Raises:
        UnknownNameError: lists the known engines.
        InputError: an option that this engine does not have.
        SetupError: the packages of the engine are not installed; names the extra.

    >>> open_engine("serial").workers
    1
    """
    if name not in ENGINES:
        raise UnknownNameError.among("engine", name, ENGINES)
    chosen = EngineOptions(workers=workers, **options)
    if name not in _EXTRAS and chosen.address is not None:
        raise InputError.of(
            found=f"--address {chosen.address} with --engine {name}",
            expected="an address with dask or ray only",
            fix="--engine dask, --engine ray, or no --address",
        )
    package, extra = _EXTRAS.get(name, ("sketchscale", ""))
    if importlib.util.find_spec(package) is None:
        raise SetupError(
            f"--engine {name} needs the package {package!r}, which is not installed; "
            f"to fix: pip install 'sketchscale[{extra}]'"
        )
    module, _, attribute = ENGINES[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)(chosen)
    return engine
