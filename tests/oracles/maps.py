"""Maps of a label image, object by object."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def maps_by_object(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    maps = np.zeros((3, *labels.shape), np.float32)
    for k in np.unique(labels[labels > 0]):
        y, x = np.nonzero(labels == k)
        for channel, place in ((0, x), (1, y)):
            offset = place - place.sum() // place.size
            maps[channel, y, x] = np.where(offset < 0, offset / max(1, -offset.min()), offset / max(1, offset.max()))
        maps[2, y, x] = 1
    return maps
