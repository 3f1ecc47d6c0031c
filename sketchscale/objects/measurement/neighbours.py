"""How far the next object is, how many are near and how large these are: from the centroids of all objects of a plane.

The only features that need all objects at once; 24 bytes an object, and a search tree. Distances are between centroids,
so they depend on no block, and renaming objects only reorders them; areas are added as whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

__all__ = ["Neighbours", "find_neighbours"]

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What lies around each of n objects.

    Attributes:
        distance: (n,) to the nearest other centroid, px; NaN for an object that is alone.
        distance_um: the same with the spacing; the nearest in um may be another object where pixels are not square.
        count: (n,) other centroids within the radius.
        area: (n,) mean area of these objects, px; NaN where there are none.
    """

    distance: Values
    distance_um: Values
    count: npt.NDArray[np.int64]
    area: Values

    def take(self, rows: slice) -> Neighbours:
        """Those of some objects."""
        return Neighbours(
            distance=self.distance[rows],
            distance_um=self.distance_um[rows],
            count=self.count[rows],
            area=self.area[rows],
        )


def find_neighbours(
    y: Values, x: Values, area: npt.NDArray[np.int64], *, spacing: tuple[float, float], radius: float
) -> Neighbours:
    """The neighbours of every object.

    Args:
        y, x: (n,) centroids in px, 0 and above; n may be 0.
        area: (n,) pixels of each object.
        spacing: um per pixel (y, x); (1, 1) when unknown.
        radius: px, at which an object still counts.

    >>> y, x, area = np.array([0.0, 3.0, 9.0]), np.array([0.0, 4.0, 4.0]), np.array([7, 8, 9])
    >>> found = find_neighbours(y, x, area, spacing=(2, 2), radius=5)
    >>> found.distance, found.area
    (array([5., 5., 6.]), array([ 8.,  7., nan]))
    """
    points = np.stack([y, x], axis=1)
    tree = cKDTree(points)
    distance = _nearest(tree, points)
    if spacing[0] == spacing[1]:
        distance_um = distance * spacing[0]
    else:
        scaled = points * np.array(spacing)
        distance_um = _nearest(cKDTree(scaled), scaled)
    count, total = _within(points, area, radius)
    mean = np.divide(total, count, out=np.full(len(points), np.nan), where=count > 0)
    return Neighbours(distance=distance, distance_um=distance_um, count=count, area=mean)


def _within(
    points: Values, area: npt.NDArray[np.int64], radius: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number and summed area of the others within the radius of each, among those of its cell and of the 8 around it.

    Cells are numbered row by row with an empty column at each end, so that the row above and below are a step away.
    """
    cells = np.floor(points / radius).astype(np.int64) + 1
    width = int(cells[:, 1].max(initial=0)) + 2
    key = cells[:, 0] * width + cells[:, 1]
    order = np.argsort(key, kind="stable")
    found = np.zeros((2, len(points)), np.int64)
    _add_within(points[order], area[order].astype(np.int64), key[order], order, width, radius * radius, found)
    return found[0], found[1]


@numba.njit(nogil=True, cache=True)
def _add_within(points, area, key, order, width, reach, found):  # type: ignore[no-untyped-def]
    for i in range(len(points)):
        for row in (-width, 0, width):
            first = np.searchsorted(key, key[i] + row - 1)
            last = np.searchsorted(key, key[i] + row + 1, side="right")
            for j in range(first, last):
                dy, dx = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1]
                if j != i and dy * dy + dx * dx <= reach:
                    found[0, order[i]] += 1
                    found[1, order[i]] += area[j]


def _nearest(tree: cKDTree, points: Values) -> Values:
    if len(points) < 2:
        return np.full(len(points), np.nan)
    # The nearest is the object itself, or another one at the same place: the second is the nearest other either way.
    second: Values = tree.query(points, k=[2])[0][:, 0]
    return second
