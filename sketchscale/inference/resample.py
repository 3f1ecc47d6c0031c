"""Linear resampling of axes, with the same bits for any part of an axis.

    finer      │▁│▂│▅│▇│▆│▃│     an output is a mean of inputs around its own centre, weighted by a triangle of
                ╲ ╱ ╲ ╱ ╲ ╱      half-width max(1, step): bilinear when enlarging, without aliasing when reducing
    coarser    │ ▂ │ ▆ │ ▄ │

Every coordinate and weight depends only on the output's index from the array's corner, (i + 0.5) step - 0.5 in float64,
and sums have a fixed order. Weights beyond the array's edges are left out, and the others are scaled to sum to one.

Source: ours; the antialiased triangle is that of Pillow's and torch's bilinear resizing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Taps", "axis_taps", "resampled", "resampled_box", "scaled_length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taps:
    """One axis of an interpolation: the inputs of each of n outputs.

    Attributes:
        index: int64 (n, k), inputs from the array's start; those beyond it are moved to its edge, with weight 0.
        weight: float64 (n, k), rows sum to one.
    """

    index: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]

    @property
    def span(self) -> tuple[int, int]:
        """The range of needed inputs, half open."""
        return int(self.index.min()), int(self.index.max()) + 1


def axis_taps(start: int, stop: int, step: float, half_width: float, size: int) -> Taps:
    """Return triangular weights of outputs start .. stop along an axis.

    Args:
        step: from one output's centre to the next, in inputs.
        half_width: of the triangle, in inputs; at least 1.
        size: number of inputs on the axis.

    >>> axis_taps(2, 3, 0.5, 1.0, 9).weight.round(2).tolist()
    [[0.0, 0.25, 0.75, 0.0]]
    """
    centre = (np.arange(start, stop, dtype=np.float64) + 0.5) * step - 0.5
    reach = math.ceil(half_width)
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(-reach, reach + 2)
    weight = np.maximum(0.0, 1 - np.abs(index - centre[:, None]) / half_width)
    weight[(index < 0) | (index >= size)] = 0
    return Taps(index=np.clip(index, 0, size - 1), weight=weight / weight.sum(axis=1, keepdims=True))


def resampled(values: npt.NDArray[Any], taps: Sequence[Taps | None]) -> npt.NDArray[Any]:
    """Resample the last axes by their taps, one after the other; None leaves an axis as it is.

    Args:
        values: (..., one axis for each of the taps), each beginning at its taps' span.

    Returns:
        float32, or float64 for types of more than 24 significant bits; without any taps `values`.

    >>> row = np.array([[0, 0, 4, 4]], np.uint8)
    >>> resampled(row, [None, axis_taps(0, 8, 0.5, 1.0, 4)])[0, 2:6]
    array([0., 1., 3., 4.], dtype=float32)
    """
    if all(tap is None for tap in taps):
        return values
    exact = values.dtype.itemsize <= 2 or values.dtype == np.float32
    result = values.astype(np.float32 if exact else np.float64)
    for axis, tap in enumerate(taps, start=values.ndim - len(taps)):
        if tap is None:
            continue
        shape = [1] * values.ndim
        shape[axis] = tap.index.shape[0]
        total = np.zeros((*result.shape[:axis], shape[axis], *result.shape[axis + 1 :]), result.dtype)
        for k in range(tap.index.shape[1]):
            weight = tap.weight[:, k].astype(result.dtype).reshape(shape)
            if weight.any():
                total += result.take(tap.index[:, k] - tap.span[0], axis=axis) * weight
        result = total
    return result


def resampled_box(values: npt.NDArray[Any], scale: float) -> npt.NDArray[Any]:
    """Return a whole array (c, ...) at a scale, every axis but the first; the values as they are at scale 1.

    >>> resampled_box(np.ones((1, 9, 6), np.uint8), 0.5).shape
    (1, 5, 3)
    """
    if scale == 1:
        return values
    lengths = [scaled_length(n, scale) for n in values.shape[1:]]
    pairs = zip(lengths, values.shape[1:], strict=True)
    return resampled(values, [axis_taps(0, m, 1 / scale, max(1.0, 1 / scale), n) for m, n in pairs])


def scaled_length(n: int, scale: float) -> int:
    """Return the length of an axis of n at a scale, rounded, at least 1.

    >>> scaled_length(9, 0.5), scaled_length(1, 0.1)
    (5, 1)
    """
    return max(1, math.floor(n * scale + 0.5))
