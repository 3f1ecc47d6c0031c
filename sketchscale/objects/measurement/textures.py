"""Intensity features that need a whole object: percentiles, gradients, textures, the ring around it.

Kernels for one crop: `mask` (z, y, x) uint8 is 1 on the object, 2 on other objects, 0 elsewhere; `crop` (z, y, x)
float64 are the intensities; a plane has one section. The crop has at least one pixel around the object, fewer only
where the image ends, and is read in raster order: results depend on the object and its surroundings alone.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["INNER", "LEVELS", "OUTER", "QUANTILES", "gradients", "object_percentiles", "ring_around", "textures"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the intensities in the columns p05 to p95."""

LEVELS = 32
"""Grey levels of textures, over the range of the channel."""

INNER, OUTER = 3, 8
"""The ring: background pixels at least INNER and at most OUTER px from the nearest pixel of the object.

The distance of sections in a volume follows from its spacing, in px of a section."""


@numba.njit(nogil=True, cache=True)
def object_percentiles(values, integral, out):  # type: ignore[no-untyped-def]
    """Fill `out` (5,) with QUANTILES of n values, linear between neighbours, as `numpy.percentile`.

    Args:
        values: (n,) at least one.
        integral: all are integers; if they lie close together, they are counted instead of sorted.
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
def gradients(crop, mask, n, section):  # type: ignore[no-untyped-def]
    """Return mean and standard deviation, over the object's n pixels, of the gradient's length in intensity per px.

    Central differences of the image as `numpy.gradient` of the whole image: the object's outermost pixels use pixels
    outside it; one-sided at the edge of the image; 0 along an axis of one pixel. `section`: distance of sections, px.
    """
    depth, height, width = crop.shape
    lengths, k, total = np.empty(n), 0, 0.0
    for z in range(depth):
        before, behind = max(z - 1, 0), min(z + 1, depth - 1)
        for y in range(height):
            above, below = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(width):
                if mask[z, y, x] == 1:
                    left, right = max(x - 1, 0), min(x + 1, width - 1)
                    dz = (crop[behind, y, x] - crop[before, y, x]) / (max(behind - before, 1) * section)
                    dy = (crop[z, below, x] - crop[z, above, x]) / max(below - above, 1)
                    dx = (crop[z, y, right] - crop[z, y, left]) / max(right - left, 1)
                    lengths[k] = np.sqrt(dz * dz + dy * dy + dx * dx)
                    total += lengths[k]
                    k += 1
    mean, spread = total / n, 0.0
    for i in range(n):
        spread += (lengths[i] - mean) ** 2
    return mean, np.sqrt(spread / n)


@numba.njit(nogil=True, cache=True)
def textures(crop, mask, low, high, out):  # type: ignore[no-untyped-def]
    """Fill `out` (4,) with contrast, correlation, homogeneity and energy of neighbouring grey levels in the object.

    Pairs of pixels of the object that are neighbours along an axis or a diagonal are counted in both orders, all 4 (in
    a volume 13) directions together, in one LEVELS x LEVELS table of integers. NaN if no two pixels are neighbours;
    correlation is 1 if all levels are equal.

    Args:
        low, high: intensities of the first and the last of LEVELS equal steps; values outside are clipped. If they are
            equal there is one level.

    Source: Haralick 1973; formulas of scikit-image's `graycoprops` (energy is the root of the angular second moment).
    """
    step = LEVELS / (high - low) if high > low else 0.0
    depth, height, width = crop.shape
    level = np.full(crop.shape, -1, np.int32)
    smallest, largest = LEVELS, -1
    values, here, levels = crop.reshape(-1), mask.reshape(-1), level.reshape(-1)
    for i in range(len(here)):
        if here[i] == 1:
            k = min(max(int(np.floor((values[i] - low) * step)), 0), LEVELS - 1)
            levels[i] = k
            smallest, largest = min(smallest, k), max(largest, k)
    counts = np.zeros((LEVELS, LEVELS), np.int64)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if level[z, y, x] >= 0:
                    _count_pairs(level, z, y, x, counts)
    _haralick(counts, smallest, largest + 1, out)


@numba.njit(nogil=True, cache=True)
def _count_pairs(level, z, y, x, counts):  # type: ignore[no-untyped-def]
    """Count the pairs of a pixel with its neighbours that come later in raster order."""
    depth, height, width = level.shape
    of = counts[level[z, y, x]]
    if x + 1 < width and level[z, y, x + 1] >= 0:
        of[level[z, y, x + 1]] += 1
    for s in range(z, min(z + 2, depth)):
        for r in range(y + 1 if s == z else max(y - 1, 0), min(y + 2, height)):
            for q in range(max(x - 1, 0), min(x + 2, width)):
                if level[s, r, q] >= 0:
                    of[level[s, r, q]] += 1


@numba.njit(nogil=True, cache=True)
def _haralick(counts, first, last, out):  # type: ignore[no-untyped-def]
    """Fill the texture values from pairs counted in one order, levels `first` to before `last`, as integer sums."""
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
    # Both orders are counted, so rows and columns have the same mean and variance.
    variance = pairs * squares - total * total
    out[0] = contrast / pairs
    out[1] = (pairs * products - total * total) / variance if variance > 0 else 1.0
    out[2] = homogeneity / pairs
    out[3] = np.sqrt(energy) / pairs


@numba.njit(nogil=True, cache=True)
def ring_around(mask, section):  # type: ignore[no-untyped-def]
    """Return (z, y, x) bool: the background pixels of the ring (see INNER); sections are `section` px apart.

    The pixels near a run of the object's pixels in a row form chords in the rows around. The start and the end of each
    chord are counted and summed along the row, so the cost of a run is the number of its chords.
    """
    depth, height, width = mask.shape
    wide, narrow = np.zeros((2, depth, height, width + 1), np.int32)
    for z in range(depth):
        for y in range(height):
            begin = 0
            while begin < width:
                end = begin + 1
                if mask[z, y, begin] == 1:
                    while end < width and mask[z, y, end] == 1:
                        end += 1
                    _cover(wide, z, y, begin, end, float(OUTER * OUTER), section)
                    _cover(narrow, z, y, begin, end, INNER * INNER - 1e-9, section)
                begin = end
    ring = np.zeros(mask.shape, np.bool_)
    for z in range(depth):
        for y in range(height):
            reached = close = 0
            for x in range(width):
                reached += wide[z, y, x]
                close += narrow[z, y, x]
                ring[z, y, x] = reached > 0 and close == 0 and mask[z, y, x] == 0
    return ring


@numba.njit(nogil=True, cache=True)
def _cover(counts, z, y, begin, end, square, section):  # type: ignore[no-untyped-def]
    """Count start and end of the chords within a squared distance of a run, row by row."""
    depth, height, width = counts.shape[0], counts.shape[1], counts.shape[2] - 1
    reach = int(np.sqrt(square) / section)
    for s in range(max(0, z - reach), min(depth, z + reach + 1)):
        rest = max(0.0, square - ((s - z) * section) ** 2)
        rows = int(np.sqrt(rest))
        for row in range(max(0, y - rows), min(height, y + rows + 1)):
            chord = int(np.sqrt(rest - (row - y) * (row - y)))
            counts[s, row, max(0, begin - chord)] += 1
            counts[s, row, min(width, end + chord)] -= 1
