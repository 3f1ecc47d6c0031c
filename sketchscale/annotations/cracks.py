"""Distances from pixel centres to the cracks between pixels, by what lies at their sides; see targets.py.

Source: the distance transform is that of Meijster, Roerdink and Hesselink 2000, on the lattice of half pixels.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["BEYOND", "DRAWN", "FAR", "UNKNOWN", "pixels", "squared_distances"]

UNKNOWN = -1
"""Label of a pixel without annotation."""
BEYOND = -3
"""Label of a pixel outside the image, in crops that reach over its border."""
DRAWN = -2
"""Code of a drawn boundary pixel."""

FAR = np.iinfo(np.int64).max
"""Squared distance where there is no crack."""


def squared_distances(
    codes: npt.NDArray[np.int32], inside: npt.NDArray[np.bool_], background: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], ...]:
    """Return squared distances in lattice units: to the cracks B, U and R, and to what is known beyond a stroke.

    That is background for pixels `inside`, and an object for those of `background`; for all others nothing is near.
    """
    far, wanted = 1 << 29, inside | background

    def nearest(columns: npt.NDArray[np.int32], wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        near = columns.min(initial=far) < far and wanted.any()
        return _nearest(wanted, columns, far) if near else np.full(codes.shape, FAR, np.int64)

    kinds = (1, 2, 3, 4, 5) if (codes == DRAWN).any() else (1, 2)
    edge, unknown, *sides = (_column_distances(codes, kind, far) for kind in kinds)
    found = [nearest(edge, wanted), nearest(unknown, wanted)]
    if not sides:
        return *found, *(np.full(codes.shape, FAR, np.int64) for _ in range(2))
    beyond = np.where(inside, nearest(sides[1], inside), nearest(sides[2], background))
    return *found, nearest(np.minimum.reduce(sides), wanted), beyond


def pixels(squared: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Convert squared lattice units to px; the largest integer becomes infinity."""
    return np.where(squared == FAR, np.inf, np.sqrt(squared.astype(np.float64)) / 2)


@numba.njit(cache=True, nogil=True)
def _crack(a: int, b: int) -> int:
    """Return the kind of a crack between two neighbours: 1 boundary, 2 perhaps, 0 none, 3 to 5 beside a stroke.

    These differ by what is beside the stroke: 3 unknown, 4 background, 5 an object.
    """
    if a == b or BEYOND in (a, b):
        return 2 if a == UNKNOWN and b == UNKNOWN else 0
    if DRAWN in (a, b):
        other = max(a, b)
        return 5 if other > 0 else (4 if other == 0 else 3)
    return 2 if UNKNOWN in (a, b) else 1


@numba.njit(cache=True, nogil=True)
def _column_distances(codes: npt.NDArray[np.int32], kind: int, far: int) -> npt.NDArray[np.int32]:
    """Return (y, 2 x + 1): from pixel row i the distance along the lattice column to the nearest crack of a kind."""
    h, w = codes.shape
    out = np.full((h, 2 * w + 1), far, np.int32)
    for i in range(h):
        for j in range(w - 1):
            if _crack(codes[i, j], codes[i, j + 1]) == kind:
                out[i, 2 * j + 2] = 0
    for i in range(h - 1):
        for j in range(w):
            if _crack(codes[i, j], codes[i + 1, j]) == kind:
                out[i, 2 * j + 1] = 1
                out[i + 1, 2 * j + 1] = 1
    for i in range(1, h):
        for c in range(2 * w + 1):
            out[i, c] = min(out[i, c], out[i - 1, c] + 2)
    for i in range(h - 2, -1, -1):
        for c in range(2 * w + 1):
            out[i, c] = min(out[i, c], out[i + 1, c] + 2)
    return out


@numba.njit(cache=True, nogil=True)
def _nearest(wanted: npt.NDArray[np.bool_], columns: npt.NDArray[np.int32], far: int) -> npt.NDArray[np.int64]:
    """Return the squared lattice distance of the wanted pixels; others, and pixels without a crack, get the largest.

    Row by row the lower envelope of the parabolas over the lattice columns: linear time, integers only (Meijster,
    Roerdink and Hesselink 2000).
    """
    h, w = wanted.shape
    n = 2 * w + 1
    out = np.full((h, w), FAR, np.int64)
    site, begin = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(h):
        last = -1
        for c in range(n):
            if columns[i, c] >= far:
                continue
            height = np.int64(columns[i, c]) ** 2
            while last >= 0 and _raised(columns, i, site[last], begin[last]) > height + (c - begin[last]) ** 2:
                last -= 1
            start = np.int64(0)
            if last >= 0:
                before = site[last]
                rise = c * c - before * before + height - np.int64(columns[i, before]) ** 2
                start = 1 + rise // (2 * (c - before))
            if start < n:
                last += 1
                site[last], begin[last] = c, start
        if last < 0:
            continue
        for j in range(w - 1, -1, -1):
            c = 2 * j + 1
            while begin[last] > c:
                last -= 1
            if wanted[i, j]:
                out[i, j] = _raised(columns, i, site[last], c)
    return out


@numba.njit(cache=True, nogil=True)
def _raised(columns: npt.NDArray[np.int32], i: int, site: int, c: int) -> int:
    """Return the squared distance from lattice column c in row i to the nearest crack of the column `site`."""
    height = int(columns[i, site])
    return height * height + (c - site) * (c - site)
