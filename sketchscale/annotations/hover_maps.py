"""Turn labels into maps that networks read and write: where in its object a pixel lies, and whether it lies in one.

    h   from -1 at the leftmost pixel of an object, through 0 at its centre column, to 1 at the rightmost; 0 outside
    v   the same from top to bottom
    m   1 inside, 0 outside

Of partial annotation, m is known wherever anything is annotated. v and h are known, as 0, in background and on drawn
boundaries, and in the objects that are visible whole: those without an unknown 4-neighbour, where they could go on.

Source: HoVer-Net (Graham et al. 2019, section III-A), with the centre rounded to a pixel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.annotations.targets import BEYOND, UNKNOWN

__all__ = ["maps_from_labels", "maps_from_sketch"]


def maps_from_labels(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Return the maps h, v and m of a label image.

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


def maps_from_sketch(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Return the maps v, h and m of an annotation, and where v and h are known.

    Args:
        codes: (y, x), see targets.region_codes. An object that the image's border cuts is taken as it is.

    Returns:
        float32 (4, y, x): v, h, m in the order of flow y, flow x, distance, and 1 where v and h are known, else 0. m is
        known where a pixel is annotated; it is 0 on drawn boundaries.

    >>> maps_from_sketch(np.array([[0, 1, 1, 1, 0, 2, 2, -1]], np.int32))[[1, 3], 0].tolist()
    [[0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]]
    """
    h, v, m = maps_from_labels(np.where(codes > 0, codes, 0))
    beside = ndimage.binary_dilation(codes == UNKNOWN) & (codes > 0)
    cut = np.isin(codes, np.unique(codes[beside]))
    known = ~cut & (codes != UNKNOWN) & (codes != BEYOND)
    return np.stack([v, h, m, known.astype(np.float32)])


def _extent(offset: npt.NDArray[np.int64], ids: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.float64]:
    """Return for each pixel the largest offset of its object on its side of the centre, at least 1."""
    least, most = np.ones(n), np.ones(n)
    np.maximum.at(least, ids, -offset)
    np.maximum.at(most, ids, offset)
    return np.where(offset < 0, least[ids], most[ids])
