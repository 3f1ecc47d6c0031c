"""On which machines: engines run any plan and know no images. `open_engine` finds one by name."""

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
"""Name to import path, so that nothing heavy loads before it is asked for. A new engine is a file and a line here."""


_EXTRAS = {"dask": ("distributed", "dask"), "ray": ("ray", "ray")}
"""Engine to the module that it needs and the extra that brings it."""


def open_engine(name: str = "threads", workers: int | None = None, **options: Any) -> Engine:
    """An engine by name; close it when done. Clusters are started or joined at the first task.

    Args:
        name: a key of ENGINES.
        workers: how many tasks run at once; the usable cores, or what the cluster has, when None. Serial has one.
        options: further fields of `EngineOptions`.

    Raises:
        UnknownNameError: lists the known engines.
        InputError: an option that means nothing to this engine.
        SetupError: the engine's packages are not installed; names the extra.

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
    _check_extra(name)
    module, _, attribute = ENGINES[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)(chosen)
    return engine


def _check_extra(name: str) -> None:
    module, extra = _EXTRAS.get(name, ("sketchscale", ""))
    if importlib.util.find_spec(module) is None:
        raise SetupError(
            f"--engine {name} needs the package {module!r}, which is not installed; "
            f"to fix: pip install 'sketchscale[{extra}]'"
        )
