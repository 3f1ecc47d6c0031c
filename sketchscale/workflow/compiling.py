"""Whether the compiled kernels of a package still have to be compiled on this machine.

Numba compiles a kernel at its first call and keeps it beside the module, or in NUMBA_CACHE_DIR. Where nothing of a
package is kept, its first task takes many seconds longer: the command line says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["INTEGRATION", "MEASUREMENT", "compiling_line", "is_uncompiled"]

INTEGRATION = ("sketchscale.integration", 12)
MEASUREMENT = ("sketchscale.objects.measurement", 20)
"""A package with kernels, and about how many seconds it takes to compile them."""


def compiling_line(package: str, seconds: int) -> str:
    """What to say before the first task of a package whose kernels have to be compiled; empty where they need not."""
    return f"compiling kernels for this machine, once (about {seconds} s)" if is_uncompiled(package) else ""


def is_uncompiled(package: str) -> bool:
    """Whether no kernel of a package was ever compiled here; looks at names of files only.

    Args:
        package: such as "sketchscale.integration"; those of its modules count that are imported.
    """
    kernels = list(_kernels(package))
    return bool(kernels) and not any(_is_kept(kernel) for kernel in kernels)


def _kernels(package: str) -> Iterator[Any]:
    """What numba made of the functions of the package's own modules."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}."):
            found = list(vars(module).values())
            yield from (one for one in found if hasattr(one, "py_func") and hasattr(one, "stats"))


def _is_kept(kernel: Any) -> bool:
    folder, function = kernel.stats.cache_path, kernel.py_func
    if folder is None:
        return False
    stem = Path(function.__code__.co_filename).stem
    return any(Path(folder).glob(f"{stem}.{function.__qualname__}-*.nbi"))
