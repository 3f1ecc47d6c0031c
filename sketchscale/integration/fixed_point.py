"""Shared by the integer kernels: types of arrays, compilation, fractional bits, and float16 by its bit patterns.

The kernels that link, count and compare are written for (z, y, x): a plane is a volume of one section.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = [
    "FLOW_BITS",
    "SUPPRESSED_BITS",
    "Float16",
    "Float32",
    "Int32",
    "Int64",
    "Mask",
    "Uint8",
    "Uint16",
    "Uint32",
    "above",
    "compiled",
    "half_values",
    "sections",
]

# types of arrays
Mask: TypeAlias = npt.NDArray[np.bool_]
Uint8: TypeAlias = npt.NDArray[np.uint8]
Uint16: TypeAlias = npt.NDArray[np.uint16]
Uint32: TypeAlias = npt.NDArray[np.uint32]
Int32: TypeAlias = npt.NDArray[np.int32]
Int64: TypeAlias = npt.NDArray[np.int64]
Float16: TypeAlias = npt.NDArray[np.float16]
Float32: TypeAlias = npt.NDArray[np.float32]

FLOW_BITS = 14
"""Fractional bits of the flow, and of the displacement of `euler`."""
SUPPRESSED_BITS = 28
"""Fractional bits of the displacement of `suppressed`."""

_Value = TypeVar("_Value", bound=np.generic)
_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def compiled(kernel: _Kernel) -> _Kernel:
    """Compile with numba: cached on disk, without the interpreter lock and without relaxed arithmetic."""
    return cast(_Kernel, njit(cache=True, nogil=True, error_model="numpy")(kernel))


def sections(array: npt.NDArray[_Value], *, leading: int = 0) -> npt.NDArray[_Value]:
    """Return a view with the axes (z, y, x) after `leading` other axes; a plane gets one section.

    >>> sections(np.zeros((3, 4, 5)), leading=1).shape, sections(np.zeros((3, 4, 5))).shape
    ((3, 1, 4, 5), (3, 4, 5))
    """
    return array.reshape(array.shape[:leading] + (1,) * (3 + leading - array.ndim) + array.shape[leading:])


@functools.cache
def half_values() -> Float32:
    """Return the value of each of the 65,536 float16 bit patterns, because numba has no float16 on the CPU."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


@functools.lru_cache(maxsize=8)
def above(threshold: float) -> Uint8:
    """Return for each bit pattern whether its value is above the threshold; False for NaN."""
    with np.errstate(invalid="ignore"):
        return (half_values().astype(np.float64) > threshold).astype(np.uint8)
