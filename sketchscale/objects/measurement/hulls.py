"""Convex hull and largest diameter of one object, in integers.

A pixel is the diamond through the middles of its four sides, as in scikit-image. All corners are half-integer, so with
every coordinate doubled the hull, the pixels inside it and the squared distances are exact:

        · o ·        rows 0 .. 2h of a crop of h rows: pixel y has its middle in row 2y + 1,
        o X o        its upper and lower corner in rows 2y and 2y + 2
        · o ·

Only the first and the last pixel of each row matter, so the cost grows with the rows, not with the pixels.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["hull_and_feret"]

_NONE = np.int64(1) << np.int64(40)


@numba.njit(nogil=True, cache=True)
def _corners(left, right, near, far):  # type: ignore[no-untyped-def]
    """Fill the smallest column `near` and largest `far` (negated) of the diamonds in each doubled row, or _NONE."""
    near[:] = _NONE
    far[:] = _NONE
    for y in range(len(left)):
        if left[y] <= right[y]:
            for row, reach in ((2 * y, 0), (2 * y + 1, 1), (2 * y + 2, 0)):
                near[row] = min(near[row], 2 * left[y] - reach)
                far[row] = min(far[row], -2 * right[y] - reach)


@numba.njit(nogil=True, cache=True)
def _lower_chain(values, chain):  # type: ignore[no-untyped-def]
    """Fill `chain` with the rows at the corners of the convex envelope below `values`; return how many."""
    k = 0
    for row in range(len(values)):
        if values[row] == _NONE:
            continue
        while k >= 2:
            a, m = chain[k - 2], chain[k - 1]
            if (values[m] - values[a]) * (row - a) < (values[row] - values[a]) * (m - a):
                break
            k -= 1
        chain[k] = row
        k += 1
    return k


@numba.njit(nogil=True, cache=True)
def _first_pixels(values, chain, k, first):  # type: ignore[no-untyped-def]
    """Fill the first column of a pixel middle on or right of the envelope, for each row of pixels."""
    for i in range(k - 1):
        a, b = chain[i], chain[i + 1]
        run = b - a
        for row in range(a + 1 - a % 2, b + 1, 2):
            at = values[a] * run + (values[b] - values[a]) * (row - a)
            first[row // 2] = -((-at) // (2 * run))


@numba.njit(nogil=True, cache=True)
def _largest_distance(rows, columns, height, width):  # type: ignore[no-untyped-def]
    """Return the largest distance of two corners of a hull, for pixels of this height and width."""
    largest = 0.0
    for i in range(len(rows)):
        for j in range(i):
            dy, dx = (rows[i] - rows[j]) * height, (columns[i] - columns[j]) * width
            largest = max(largest, dy * dy + dx * dx)
    return np.sqrt(largest) / 2


@numba.njit(nogil=True, cache=True)
def hull_and_feret(left, right, height, width):  # type: ignore[no-untyped-def]
    """Return the number of pixels in the convex hull, and the largest diameter of those pixels in px and in um.

    Args:
        left, right: (rows,) int64 first and last column of the object in each row of its box; left > right where the
            row has no pixel.
        height, width: of a pixel, in um.

    Source: area_convex and feret_diameter_max as scikit-image defines them: pixels whose middle is in or on the hull of
        the object's diamonds, and the largest distance between two side middles of these pixels.
    """
    rows = 2 * len(left) + 1
    near, far = np.empty(rows, np.int64), np.empty(rows, np.int64)
    chain, other = np.empty(rows, np.int64), np.empty(rows, np.int64)
    _corners(left, right, near, far)
    first, last = np.empty(len(left), np.int64), np.empty(len(left), np.int64)
    _first_pixels(near, chain, _lower_chain(near, chain), first)
    _first_pixels(far, other, _lower_chain(far, other), last)
    area = 0
    for y in range(len(left)):
        last[y] = -last[y]
        area += last[y] - first[y] + 1
    _corners(first, last, near, far)
    k, m = _lower_chain(near, chain), _lower_chain(far, other)
    ends, columns = np.empty(k + m), np.empty(k + m)
    for i in range(k):
        ends[i], columns[i] = chain[i], near[chain[i]]
    for i in range(m):
        ends[k + i], columns[k + i] = other[i], -far[other[i]]
    return area, _largest_distance(ends, columns, 1.0, 1.0), _largest_distance(ends, columns, height, width)
