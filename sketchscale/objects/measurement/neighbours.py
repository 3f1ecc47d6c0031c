"""Neighbour features from all centroids of an image: distance of the nearest object, number and size of near ones.

These are the only features that need all objects at once: 24 bytes per object, and a search tree. Distances are between
centroids, so they do not depend on blocks or ids; sizes are added as integers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

import numba
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

__all__ = ["RADIUS", "Neighbours", "find_neighbours"]

Ints = npt.NDArray[np.int64]

RADIUS = 100.0
"""Largest distance of a neighbour's centroid, px."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The surroundings of each of n objects.

    Attributes:
        distance: (n,) to the nearest other centroid, px; NaN for a single object.
        distance_um: the same in um; if pixels are not square, this may be another object.
        count: (n,) other centroids within the radius.
        size: (n,) mean size of these objects, px; NaN if there are none.
    """

    distance: Values
    distance_um: Values
    count: Ints
    size: Values

    def take(self, rows: slice) -> Neighbours:
        """Return the values of some objects."""
        return Neighbours(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def find_neighbours(points: Values, size: Ints, *, spacing: tuple[float, ...], radius: float = RADIUS) -> Neighbours:
    """Return the neighbours of every object.

    Args:
        points: (n, d) centroids in px, 0 and above; n may be 0.
        size: (n,) pixels of each object.
        spacing: um per pixel along each axis; 1 if unknown.
        radius: px, inclusive.

    >>> points, size = np.array([[0.0, 0.0], [3.0, 4.0], [9.0, 4.0]]), np.array([7, 8, 9])
    >>> found = find_neighbours(points, size, spacing=(2, 2), radius=5)
    >>> found.distance, found.size
    (array([5., 5., 6.]), array([ 8.,  7., nan]))
    """
    distance = _nearest(points)
    even = len(set(spacing)) == 1
    distance_um = distance * spacing[0] if even else _nearest(points * np.array(spacing))
    count, total = _within(points, size, radius)
    mean = np.divide(total, count, out=np.full(len(points), np.nan), where=count > 0)
    return Neighbours(distance=distance, distance_um=distance_um, count=count, size=mean)


def _within(points: Values, size: Ints, radius: float) -> tuple[Ints, Ints]:
    """Return number and summed size of the others within the radius of each object.

    Candidates are the objects of the same cell and of the cells around it. Cells are numbered line by line with an
    empty cell at each end of each axis, so that neighbouring lines lie at a fixed step.
    """
    cells = np.floor(points / radius).astype(np.int64) + 1
    grid = cells.max(axis=0, initial=0) + 2
    steps = np.array([np.prod(grid[axis + 1 :]) for axis in range(len(grid))], np.int64)
    lines = np.array(list(itertools.product((-1, 0, 1), repeat=len(grid) - 1)), np.int64) @ steps[:-1]
    key = cells @ steps
    order = np.argsort(key, kind="stable")
    found = np.zeros((2, len(points)), np.int64)
    _add_within(points[order], size[order].astype(np.int64), key[order], order, lines, radius * radius, found)
    return found[0], found[1]


@numba.njit(nogil=True, cache=True)
def _add_within(points, size, key, order, lines, reach, found):  # type: ignore[no-untyped-def]
    for i in range(len(points)):
        for line in lines:
            first = np.searchsorted(key, key[i] + line - 1)
            last = np.searchsorted(key, key[i] + line + 1, side="right")
            for j in range(first, last):
                square = 0.0
                for axis in range(points.shape[1]):
                    step = points[j, axis] - points[i, axis]
                    square += step * step
                if j != i and square <= reach:
                    found[0, order[i]] += 1
                    found[1, order[i]] += size[j]


def _nearest(points: Values) -> Values:
    if len(points) < 2:
        return np.full(len(points), np.nan)
    # The nearest is the object itself, or another one at the same place: the second is always the nearest other.
    second: Values = cKDTree(points).query(points, k=[2])[0][:, 0]
    return second
