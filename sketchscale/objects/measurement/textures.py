"""Intensities of one object that no sum over blocks gives: percentiles, gradients, textures, the ring around it.

Kernels for one crop: `mask` (y, x) uint8 is 1 on the object, 2 on other objects, 0 elsewhere; `plane` (y, x) float64
are the intensities. The crop has at least one pixel around the object, fewer only where the image ends, and is read in
raster order: what comes out depends on the object and its surroundings alone.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["INNER", "LEVELS", "OUTER", "QUANTILES", "gradients", "object_percentiles", "ring_around", "textures"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the intensities, as the columns p05 to p95."""

LEVELS = 32
"""Grey levels that textures tell apart, over the range of the channel."""

INNER, OUTER = 3, 8
"""The ring: pixels of the background at least INNER and at most OUTER px from the nearest pixel of the object."""


@numba.njit(nogil=True, cache=True)
def object_percentiles(values, integral, out):  # type: ignore[no-untyped-def]
    """QUANTILES of n values, linear between neighbours, as `numpy.percentile`.

    Args:
        values: (n,) at least one.
        integral: whether all are whole numbers: these are counted instead of sorted where they lie close together.
        out: (5,) is filled.
    """
    n = len(values)
    low, high = values.min(), values.max()
    span = high - low + 1
    if integral and span <= 4096 and span <= 8 * n + 256:
        sorted_values = _counted(values, low, int(span))
    else:
        sorted_values = np.sort(values)
    for i in range(len(out)):
        place = QUANTILES[i] * (n - 1)
        k = int(np.floor(place))
        t = place - k
        a, b = sorted_values[k], sorted_values[min(k + 1, n - 1)]
        out[i] = b - (b - a) * (1 - t) if t >= 0.5 else a + (b - a) * t


@numba.njit(nogil=True, cache=True)
def _counted(values, low, span):  # type: ignore[no-untyped-def]
    counts = np.zeros(span, np.int64)
    for value in values:
        counts[int(value - low)] += 1
    ordered, k = np.empty(len(values)), 0
    for i in range(span):
        for _ in range(counts[i]):
            ordered[k] = low + i
            k += 1
    return ordered


@numba.njit(nogil=True, cache=True)
def gradients(plane, mask, n):  # type: ignore[no-untyped-def]
    """Mean and standard deviation, over the object's n pixels, of the length of the gradient in intensity per px.

    Central differences of the image, whatever its pixels belong to, so an object's outermost pixels see what is beside
    it; one-sided at the edge of the image; 0 along an axis of one pixel. As `numpy.gradient` of the whole image.
    """
    height, width = plane.shape
    lengths, k, total = np.empty(n), 0, 0.0
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            if mask[y, x] == 1:
                left, right = max(x - 1, 0), min(x + 1, width - 1)
                dy = (plane[below, x] - plane[above, x]) / max(below - above, 1)
                dx = (plane[y, right] - plane[y, left]) / max(right - left, 1)
                lengths[k] = np.sqrt(dy * dy + dx * dx)
                total += lengths[k]
                k += 1
    mean, spread = total / n, 0.0
    for i in range(n):
        spread += (lengths[i] - mean) ** 2
    return mean, np.sqrt(spread / n)


@numba.njit(nogil=True, cache=True)
def textures(plane, mask, low, high, out):  # type: ignore[no-untyped-def]
    """Contrast, correlation, homogeneity and energy of neighbouring grey levels inside the object.

    Pairs of pixels of the object that are neighbours to the right, below, or on either diagonal are counted in both
    orders, all four directions together, into one LEVELS x LEVELS table of integers.

    Args:
        low, high: intensities of the first and the last level, which are LEVELS equal steps apart; values beyond count
            as these; one level where they are equal.
        out: (4,) is filled; NaN where no two pixels are neighbours. Correlation is 1 where all levels are equal.

    Source: Haralick 1973; formulas of scikit-image's `graycoprops` (energy is the root of the angular second moment).
    """
    step = LEVELS / (high - low) if high > low else 0.0
    height, width = plane.shape
    level = np.empty((height, width), np.int32)
    smallest, largest = LEVELS, -1
    for y in range(height):
        for x in range(width):
            level[y, x] = -1
            if mask[y, x] == 1:
                k = min(max(int(np.floor((plane[y, x] - low) * step)), 0), LEVELS - 1)
                level[y, x] = k
                smallest, largest = min(smallest, k), max(largest, k)
    counts = np.zeros((LEVELS, LEVELS), np.int64)
    for y in range(height):
        for x in range(width):
            a = level[y, x]
            if a < 0:
                continue
            if x + 1 < width and level[y, x + 1] >= 0:
                counts[a, level[y, x + 1]] += 1
            if y + 1 < height:
                for b in range(max(x - 1, 0), min(x + 2, width)):
                    if level[y + 1, b] >= 0:
                        counts[a, level[y + 1, b]] += 1
    _haralick(counts, smallest, largest + 1, out)


@numba.njit(nogil=True, cache=True)
def _haralick(counts, first, last, out):  # type: ignore[no-untyped-def]
    """The four numbers of a table of pairs in one order, from level `first` to before `last`; sums are integers."""
    pairs = total = squares = products = contrast = energy = 0
    near = np.zeros(LEVELS, np.int64)
    for i in range(first, last):
        for j in range(first, last):
            n = counts[i, j] + counts[j, i]
            pairs += n
            total += n * i
            squares += n * i * i
            products += n * i * j
            contrast += n * (i - j) * (i - j)
            energy += n * n
            near[abs(i - j)] += n
    if pairs == 0:
        out[:] = np.nan
        return
    homogeneity = 0.0
    for d in range(LEVELS):
        homogeneity += near[d] / (1 + d * d)
    # Both orders are counted, so rows and columns have one mean and one variance.
    variance = pairs * squares - total * total
    out[0] = contrast / pairs
    out[1] = (pairs * products - total * total) / variance if variance > 0 else 1.0
    out[2] = homogeneity / pairs
    out[3] = np.sqrt(energy) / pairs


@numba.njit(nogil=True, cache=True)
def ring_around(mask):  # type: ignore[no-untyped-def]
    """(y, x) bool: the pixels of the ring (see INNER), which belong to no object.

    Each run of the object's pixels in a row covers, in the rows around, what a disc's chord reaches beyond its ends.
    Entering and leaving are counted where they happen and added up along the row, so a run costs its 17 chords.
    """
    height, width = mask.shape
    wide, narrow = np.zeros((height, width + 1), np.int32), np.zeros((height, width + 1), np.int32)
    for y in range(height):
        begin = 0
        while begin < width:
            end = begin + 1
            if mask[y, begin] == 1:
                while end < width and mask[y, end] == 1:
                    end += 1
                _cover(wide, y, begin, end, OUTER * OUTER)
                _cover(narrow, y, begin, end, INNER * INNER - 1)
            begin = end
    ring = np.zeros((height, width), np.bool_)
    for y in range(height):
        reached = close = 0
        for x in range(width):
            reached += wide[y, x]
            close += narrow[y, x]
            ring[y, x] = reached > 0 and close == 0 and mask[y, x] == 0
    return ring


@numba.njit(nogil=True, cache=True)
def _cover(counts, y, begin, end, square):  # type: ignore[no-untyped-def]
    """Count the pixels within a squared distance of a run as entered and left, row by row."""
    height, width = counts.shape[0], counts.shape[1] - 1
    reach = int(np.sqrt(square))
    for row in range(max(0, y - reach), min(height, y + reach + 1)):
        chord = int(np.sqrt(square - (row - y) * (row - y)))
        counts[row, max(0, begin - chord)] += 1
        counts[row, min(width, end + chord)] -= 1
