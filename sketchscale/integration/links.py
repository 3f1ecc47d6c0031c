"""Link the end points of one block into components, by how many trajectories end in each.

    crowded   at least `crowd` trajectories: linked with every crowded one at most `link_radius` away along all axes
    other     linked with the end point of most trajectories at most `climb` away, the first of several in raster order,
              which may be itself: it climbs, step by step, to a crowd

With crowd = 1 all end points are crowded: the rule of planes. In a volume thousands of voxels of an object face its
neighbour, and a few end points between the two are enough to link them: with links of 2 voxels and noise 0.5 all
objects become one. But in the middle of an object many trajectories end in each voxel, so volumes have a crowd.

Counts are exact in the zone, the core grown by `link`. A block links the crowded end points of its zone, and lets the
others climb from within its core. Both read exact counts, so no link is false; and every link of the image has an end
in one core, and the block of that core makes it (the rest of the proof: merge.py).
"""

from __future__ import annotations

import numpy as np

from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.fixed_point import Int32, Int64, Uint16, compiled, sections
from sketchscale.integration.follow import EndPoints
from sketchscale.integration.region import Region
from sketchscale.integration.sinks import link_sinks
from sketchscale.integration.union_find import flatten, unite

__all__ = ["link_ends"]


def link_ends(points: EndPoints, region: Region, config: IntegrationConfig) -> tuple[Int32, int]:
    """Return the components of a block's end points.

    Returns:
        (ids, n): ids int32, shape of the window: 1 .. n at end points, at least those of the kept pixels, else 0.
    """
    if config.crowd == 1:
        return link_sinks(points.counts, config.link_radius)
    counts = points.counts
    zone, core = (box.relative_to(region.window.start) for box in (region.zone, region.core))
    crowded, n = link_sinks((counts[zone.slices] >= config.crowd).astype(np.uint16), config.link_radius)
    node = np.zeros(counts.shape, np.bool_)
    node[zone.slices] = counts[zone.slices] > 0
    node.reshape(-1)[points.ends[points.ends >= 0]] = True
    ids = np.zeros(counts.shape, np.int32)
    ids[zone.slices] = crowded
    single = node & (ids == 0)
    total = n + int(single.sum())
    ids[single] = np.arange(n + 1, total + 1, dtype=np.int32)
    parent = np.arange(total + 1)
    missing = 3 - len(core.start)
    corners = np.array([*(0,) * missing, *core.start, *(1,) * missing, *core.stop], np.int64)
    _climb(sections(counts), corners, config.crowd, config.climb, sections(ids), parent)
    flatten(parent)
    roots, names = np.unique(parent, return_inverse=True)
    return names.astype(np.int32)[ids], int(roots.size - 1)


@compiled
def _climb(counts: Uint16, core: Int64, crowd: int, climb: int, ids: Int32, parent: Int64) -> None:
    """Unite every end point of the core below the crowd with the most crowded one near it, the first of several."""
    depth, height, width = counts.shape
    for z in range(core[0], core[3]):
        for y in range(core[1], core[4]):
            for x in range(core[2], core[5]):
                if 0 < counts[z, y, x] < crowd:
                    most, goal = 0, 0
                    for w in range(max(0, z - climb), min(depth, z + climb + 1)):
                        for v in range(max(0, y - climb), min(height, y + climb + 1)):
                            for u in range(max(0, x - climb), min(width, x + climb + 1)):
                                if counts[w, v, u] > most:
                                    most, goal = int(counts[w, v, u]), int(ids[w, v, u])
                    unite(parent, ids[z, y, x], goal)
