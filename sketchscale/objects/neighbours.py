"""How far the next object is, and how many are near: from the centroids of all objects of a plane.

The only features that need all objects at once; 16 bytes an object, and a search tree. Distances are between centroids,
so they depend on no block, and renaming objects only reorders them.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    distance: Values
    distance_um: Values
    count: npt.NDArray[np.int64]

    def take(self, rows: slice) -> Neighbours:
        """Those of some objects."""
        return Neighbours(distance=self.distance[rows], distance_um=self.distance_um[rows], count=self.count[rows])


def find_neighbours(y: Values, x: Values, *, spacing: tuple[float, float], radius: float) -> Neighbours:
    """The neighbours of every object.

    Args:
        y, x: (n,) centroids in px; n may be 0.
        spacing: um per pixel (y, x); (1, 1) when unknown.
        radius: px, at which an object still counts.

    >>> find_neighbours(np.array([0.0, 3.0, 9.0]), np.array([0.0, 4.0, 4.0]), spacing=(2, 2), radius=5).distance
    array([5., 5., 6.])
    """
    points = np.stack([y, x], axis=1)
    tree = cKDTree(points)
    distance = _nearest(tree, points)
    if spacing[0] == spacing[1]:
        distance_um = distance * spacing[0]
    else:
        scaled = points * np.array(spacing)
        distance_um = _nearest(cKDTree(scaled), scaled)
    # Every object finds itself.
    count = tree.query_ball_point(points, radius, return_length=True) - 1 if len(points) else np.zeros(0)
    return Neighbours(distance=distance, distance_um=distance_um, count=np.asarray(count, np.int64))


def _nearest(tree: cKDTree, points: Values) -> Values:
    if len(points) < 2:
        return np.full(len(points), np.nan)
    # The nearest is the object itself, or another one at the same place: the second is the nearest other either way.
    second: Values = tree.query(points, k=[2])[0][:, 0]
    return second
