"""The slow, obvious twin of the pyramid kernels: one output pixel at a time, in Python's own whole numbers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt


def halve_mean_slow(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Exact mean of the covered pixels of a (y, x) array of whole numbers, halves up."""
    height, width = values.shape
    out = np.zeros((-(-height // 2), -(-width // 2)), dtype=values.dtype)
    for y, x in np.ndindex(*out.shape):
        covered = [int(v) for v in values[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel()]
        mean = Fraction(sum(covered), len(covered)) + Fraction(1, 2)
        out[y, x] = mean.numerator // mean.denominator
    return out


def halve_nearest_slow(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The top left covered pixel of a (y, x) array."""
    height, width = values.shape
    rows = [[values[2 * y, 2 * x] for x in range(-(-width // 2))] for y in range(-(-height // 2))]
    return np.array(rows, dtype=values.dtype)
