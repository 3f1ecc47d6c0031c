"""Find out whether the compiled kernels of a package still have to be compiled on this machine.

Numba compiles a kernel at its first call and caches it next to the module, or in NUMBA_CACHE_DIR. Where the cache of a
package is empty, its first task takes many seconds longer, and the command line reports that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["INTEGRATION", "MEASUREMENT", "compiling_line", "is_uncompiled"]

INTEGRATION = ("sketchscale.integration", 12)
MEASUREMENT = ("sketchscale.objects.measurement", 20)
"""A package with kernels, and about how many seconds their compilation takes."""


def compiling_line(package: str, seconds: int) -> str:
    """Return a line to show before a package's kernels are compiled; "" where they are compiled already."""
    return f"compiling kernels for this machine, once (about {seconds} s)" if is_uncompiled(package) else ""


def is_uncompiled(package: str) -> bool:
    """Return whether no kernel of a package was compiled here before; only looks at file names.

    Args:
        package: such as "sketchscale.integration"; only its imported modules count.
    """
    kernels = list(_kernels(package))
    for kernel in kernels:
        folder, function = kernel.stats.cache_path, kernel.py_func
        stem = Path(function.__code__.co_filename).stem
        if folder is not None and any(Path(folder).glob(f"{stem}.{function.__qualname__}-*.nbi")):
            return False
    return bool(kernels)


def _kernels(package: str) -> Iterator[Any]:
    """Yield the compiled functions of the package's modules."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}."):
            found = list(vars(module).values())
            yield from (one for one in found if hasattr(one, "py_func") and hasattr(one, "stats"))
