"""Tables of the objects of a block, over the pixels of its core: area, first pixel, box and peak."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sketchscale.geometry import Box
from sketchscale.integration.fixed_point import Float32, Int64, Uint16, Uint32, compiled, half_values, sections

__all__ = ["CoreTables", "core_tables"]


class CoreTables(NamedTuple):
    """Tables of n objects; row i is local id i + 1. A NamedTuple, because a kernel fills it.

    Attributes:
        area: int64 (n,), pixels of the core.
        first: int64 (n,), smallest raster index in the image; the image's size when area is 0.
        box: int64 (n, 2 * axes), start and stop; zeros when area is 0.
        peak: float32 (n,), largest distance, px; -inf when area is 0.
    """

    area: Int64
    first: Int64
    box: Int64
    peak: Float32


def core_tables(ids: Uint32, distance: Uint16, core: Box, shape: tuple[int, ...], n: int) -> CoreTables:
    """Return the tables of n objects.

    Args:
        ids: shape of the core, 0 for background.
        distance: of the core or more behind it, bit patterns of float16.
        shape: of the image.
    """
    size, missing = math.prod(shape), 3 - len(shape)
    tables = CoreTables(
        area=np.zeros(n, np.int64),
        first=np.full(n, size, np.int64),
        box=np.tile(np.array([size] * 3 + [0] * 3, np.int64), (n, 1)),
        peak=np.full(n, -np.inf, np.float32),
    )
    place = np.array([*(0,) * missing, *core.start, *(1,) * missing, *shape], np.int64)
    _count_pixels(sections(ids), sections(distance), half_values(), place, tables)
    tables.box[tables.area == 0] = 0
    return tables._replace(box=np.concatenate([tables.box[:, missing:3], tables.box[:, 3 + missing :]], axis=1))


@compiled
def _count_pixels(ids: Uint32, distance: Uint16, value: Float32, place: Int64, tables: CoreTables) -> None:
    """Fill the tables, with boxes (z0, y0, x0, z1, y1, x1); `place` is the core's start and the image's shape."""
    area, first, box, peak = tables
    for k in range(ids.shape[0]):
        for j in range(ids.shape[1]):
            for i in range(ids.shape[2]):
                if ids[k, j, i]:
                    row = ids[k, j, i] - 1
                    z, y, x = k + place[0], j + place[1], i + place[2]
                    area[row] += 1
                    peak[row] = max(peak[row], value[distance[k, j, i]])
                    first[row] = min(first[row], (z * place[4] + y) * place[5] + x)
                    box[row, 0] = min(box[row, 0], z)
                    box[row, 1] = min(box[row, 1], y)
                    box[row, 2] = min(box[row, 2], x)
                    box[row, 3] = max(box[row, 3], z + 1)
                    box[row, 4] = max(box[row, 4], y + 1)
                    box[row, 5] = max(box[row, 5], x + 1)
