"""Labels as maps that networks read and write: where in its object a pixel lies, and whether it lies in one.

    h   from -1 at the leftmost pixel of an object, through 0 at its centre column, to 1 at the rightmost; 0 outside
    v   the same from top to bottom
    m   1 inside, 0 outside

Source: HoVer-Net (Graham et al. 2019, section III-A), with the centre rounded to a pixel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["maps_from_labels"]


def maps_from_labels(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """h, v and m of a label image.

    Args:
        labels: (y, x), 0 is background; an object that a border cuts is taken as it is.

    Returns:
        float32 (3, y, x).

    >>> maps_from_labels(np.array([[0, 4, 4, 4, 4]]))[:, 0].tolist()
    [[0.0, -1.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0, 1.0]]
    """
    maps = np.zeros((3, *labels.shape), np.float32)
    y, x = np.nonzero(labels)
    if not y.size:
        return maps
    _, ids = np.unique(labels[y, x], return_inverse=True)
    count = np.bincount(ids)
    for channel, place in ((0, x), (1, y)):
        centre = np.floor(np.bincount(ids, place) / count + 1e-9).astype(np.int64)
        offset = place - centre[ids]
        maps[channel, y, x] = offset / _extent(offset, ids, count.size)
    maps[2, y, x] = 1
    return maps


def _extent(offset: npt.NDArray[np.int64], ids: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.float64]:
    """For each pixel the largest offset of its object on its side of the centre, at least 1."""
    least, most = np.ones(n), np.ones(n)
    np.maximum.at(least, ids, -offset)
    np.maximum.at(most, ids, offset)
    return np.where(offset < 0, least[ids], most[ids])
