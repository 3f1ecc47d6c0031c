"""Join the end points of a volume into objects: merge.py with one axis more, and with crowds.

In space some thousand voxels face a neighbour, and a few end points between two objects are enough to link them: with
links of 2 voxels and noise 0.5 all objects of a volume become one. But where an object gathers, many trajectories end
in each voxel. So an end voxel is linked by what it counts:

    crowded   at least `crowd` trajectories: linked with every crowded one at most `link_radius` away along all axes
    other     linked with the end voxel of most trajectories at most `climb` away, the first of several in raster order,
              which may be itself: it climbs, step by step, to a crowd

Pieces are the components of these links. With crowd = 1 all are crowded, and the rule is that of the plane.

    1. In a block     components, with local ids; voxels counted over the core         `link_counts`,
                                                                                       `local_volume_objects`
    2. Across blocks  an end voxel in two windows has two ids: one object              `merge.Unifier`
    3. Borders        facing voxels along z, y and x; saddle and agreement             `merge.join_pieces`
    4. Globally       sizes, then numbers by first voxel in raster order (z, y, x)     `number_volume_objects`

Proof that the blocks do not show. Counts are exact in the zone, the core grown by `link`. A block makes the links of
crowded voxels within its zone, and lets the others climb from within its core; all look at exact counts, so no link is
false. Every link of the whole volume has an end in one core, whose block makes it. And an end voxel in two windows is
the same in both, by step 2; so the components are those of the whole volume. Steps 2 and 3 know raster indices and ids
only, and are the code of the plane.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sketchscale.integration.borders import Borders, fixed, near_vote, tolls
from sketchscale.integration.fixed_point import compiled, half_values
from sketchscale.integration.merge import BlockObjects, ObjectMap, look_up, number_objects
from sketchscale.integration.sinks import count_runs, find_runs, link_rows, number_runs, paint_runs
from sketchscale.integration.union_find import flatten, unite
from sketchscale.integration.volume import VolumeConfig, VolumePoints, VolumeRegion

__all__ = ["link_counts", "link_volume_sinks", "local_volume_objects", "number_volume_objects"]


def link_volume_sinks(sinks: npt.NDArray[np.uint8], radius: int) -> tuple[npt.NDArray[np.int32], int]:
    """Components of the set voxels under "at most `radius` apart along every axis"; runs as in `sinks.link_sinks`.

    Args:
        sinks: (z, y, x), non-zero where a trajectory ends.
        radius: voxels, at least 1 (1 is 26-connectivity).

    Returns:
        (ids, n): ids int32 (z, y, x), 0 where there is no sink, else 1 .. n in raster order of the first sink.

    >>> link_volume_sinks(np.array([[[1, 0]], [[0, 0]], [[0, 1]]], np.uint8), 2)[1]
    1
    """
    flat = np.ascontiguousarray(sinks).reshape(-1, sinks.shape[2])
    rows = np.zeros(flat.shape[0] + 1, np.int64)
    total = count_runs(flat, radius, rows)
    start, stop = np.empty(total, np.int32), np.empty(total, np.int32)
    find_runs(flat, radius, rows, start, stop)
    identity = np.empty(total, np.int32)
    count = _link_runs(rows, sinks.shape[1], start, stop, radius, identity)
    ids = np.zeros(flat.shape, np.int32)
    paint_runs(flat, rows, start, stop, identity, ids)
    return ids.reshape(sinks.shape), int(count)


def link_counts(points: VolumePoints, region: VolumeRegion, config: VolumeConfig) -> tuple[npt.NDArray[np.int32], int]:
    """Components of a block's end voxels, by the module's rule.

    Returns:
        (ids, n): ids int32, shape of the window: 1 .. n at end voxels of the zone and where a kept voxel ends, else 0.
    """
    counts = points.counts
    zone, core = (box.relative_to(region.window.start) for box in (region.zone, region.core))
    crowded, n = link_volume_sinks((counts[zone.slices] >= config.crowd).astype(np.uint8), config.link_radius)
    node = np.zeros(counts.shape, np.bool_)
    node[zone.slices] = counts[zone.slices] > 0
    node.reshape(-1)[points.ends[points.ends >= 0]] = True
    ids = np.zeros(counts.shape, np.int32)
    ids[zone.slices] = crowded
    single = node & (ids == 0)
    total = n + int(single.sum())
    ids[single] = np.arange(n + 1, total + 1, dtype=np.int32)
    parent = np.arange(total + 1)
    if config.crowd > 1:
        _climb(counts, np.array([*core.start, *core.stop], np.int64), config.crowd, config.climb, ids, parent)
    flatten(parent)
    roots, names = np.unique(parent, return_inverse=True)
    return names.astype(np.int32)[ids], int(roots.size - 1)


def local_volume_objects(
    points: VolumePoints, region: VolumeRegion, config: VolumeConfig
) -> tuple[npt.NDArray[np.uint32], BlockObjects]:
    """Step 1, for one block.

    Args:
        points: from `volume.follow_volume`, for the same region.

    Returns:
        provisional: uint32, shape of the core: the voxel's local id, 0 for background.
        objects: what the other blocks need to know; `box` has six columns: z0, y0, x0, z1, y1, x1.
    """
    ids, n = link_counts(points, region, config)
    found = np.zeros(region.kept.shape, np.uint32)
    columns = found.shape[2]
    look_up(points.ends.reshape(-1, columns), ids.reshape(-1), found.reshape(-1, columns))
    provisional = found[tuple(slice(0, a) for a in region.core.shape)]
    area = np.zeros(n, np.int64)
    first = np.full(n, int(np.prod(region.shape, dtype=np.int64)), np.int64)
    box = np.tile(np.array([*region.shape, 0, 0, 0], np.int64), (n, 1))
    peak = np.full(n, -np.inf, np.float32)
    place = np.array([*region.core.start, *region.shape], np.int64)
    _count_voxels(provisional, points.bits[3], half_values(), place, area, first, box, peak)
    box[area == 0] = 0
    shared, shared_id = _shared_sinks(ids, region, config.margin)
    borders = _local_borders(found, points, region, config)
    objects = BlockObjects(
        area=area,
        first=first,
        box=box,
        shared=shared,
        shared_id=shared_id,
        peak=peak,
        pair=borders.pair.astype(np.int32),
        saddle=borders.saddle,
        vote=borders.vote,
        near=borders.near,
    )
    return provisional, objects


def _shared_sinks(
    ids: npt.NDArray[np.int32], region: VolumeRegion, margin: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """End voxels outside the part of the window that no other window reaches."""
    faces = zip(region.core.start, region.core.stop, region.shape, region.window.start, strict=True)
    private = [(a + margin * (a > 0) - o, b - margin * (b < n) - o) for a, b, n, o in faces]
    outside = np.array(ids, copy=True)
    outside[tuple(slice(a, max(a, b)) for a, b in private)] = 0
    z, y, x = np.nonzero(outside)
    origin, (_, rows, columns) = region.window.start, region.shape
    pixel = ((z + origin[0]) * np.int64(rows) + (y + origin[1])) * np.int64(columns) + (x + origin[2])
    return pixel, outside[z, y, x]


def _local_borders(
    found: npt.NDArray[np.uint32], points: VolumePoints, region: VolumeRegion, config: VolumeConfig
) -> Borders:
    """Borders of touching objects, over the pairs of facing voxels whose first one is in the core."""
    sizes = np.array([*region.core.shape, *region.window.shape[1:]], np.int64)
    given = (found, points.ends, points.bits, half_values(), sizes, tolls(config))
    borders = Borders.empty(_find_borders(*given, *Borders.empty(0).arrays))
    _find_borders(*given, *borders.arrays)
    return borders.merged()


def number_volume_objects(
    blocks: Iterable[BlockObjects], roots: npt.NDArray[np.int64], size: int, config: VolumeConfig
) -> tuple[ObjectMap, npt.NDArray[np.uint32]]:
    """Step 4: `merge.number_objects` with boxes of three axes.

    Args:
        blocks: in the order of `roots`, with boxes of six columns.
        roots: object of every local object, from `merge.join_pieces`.
        size: voxels of the volume.

    Returns:
        (objects, labels): `objects.box` is z0, y0, x0, z1, y1, x1; labels uint32 (len(roots),), 0 when dropped.

    Raises:
        InputError: more objects than uint32 can number.
    """
    depths = [np.empty((0, 2), np.int64)]

    def planes() -> Iterator[BlockObjects]:
        for block in blocks:
            depths.append(block.box[:, [0, 3]])
            yield replace(block, box=block.box[:, [1, 2, 4, 5]])

    objects, labels = number_objects(planes(), roots, size, config)
    depth = np.concatenate(depths)
    there = (labels > 0) & (depth[:, 1] > depth[:, 0])
    row = labels[there].astype(np.int64) - 1
    low, high = np.full(objects.count, size, np.int64), np.zeros(objects.count, np.int64)
    np.minimum.at(low, row, depth[there, 0])
    np.maximum.at(high, row, depth[there, 1])
    return replace(objects, box=np.column_stack([low, objects.box[:, :2], high, objects.box[:, 2:]])), labels


@compiled
def _link_runs(
    rows: npt.NDArray[np.int64],
    height: int,
    start: npt.NDArray[np.int32],
    stop: npt.NDArray[np.int32],
    radius: int,
    identity: npt.NDArray[np.int32],
) -> int:
    """Union-find over runs of rows at most `radius` apart in y and z; then ids from 1 by each component's first run."""
    parent = np.arange(start.size)
    for row in range(rows.size - 1):
        if rows[row] == rows[row + 1]:
            continue
        z, y = row // height, row % height
        for other_z in range(max(0, z - radius), z + 1):
            last = y if other_z == z else min(height, y + radius + 1)
            for other_y in range(max(0, y - radius), last):
                link_rows(rows, row, other_z * height + other_y, start, stop, radius, parent)
    return number_runs(parent, identity)


@compiled
def _climb(
    counts: npt.NDArray[np.uint16],
    core: npt.NDArray[np.int64],
    crowd: int,
    climb: int,
    ids: npt.NDArray[np.int32],
    parent: npt.NDArray[np.int64],
) -> None:
    """Unite every end voxel of the core below the crowd with the most crowded one near it, the first of several."""
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


@compiled
def _count_voxels(
    provisional: npt.NDArray[np.uint32],
    distance: npt.NDArray[np.uint16],
    value: npt.NDArray[np.float32],
    place: npt.NDArray[np.int64],
    area: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    box: npt.NDArray[np.int64],
    peak: npt.NDArray[np.float32],
) -> None:
    """Voxels, first voxel, box and largest distance of every local object; `place`: core's start, volume's shape."""
    for k in range(provisional.shape[0]):
        for j in range(provisional.shape[1]):
            for i in range(provisional.shape[2]):
                if provisional[k, j, i]:
                    row = provisional[k, j, i] - 1
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


@compiled
def _find_borders(
    found: npt.NDArray[np.uint32],
    ends: npt.NDArray[np.int32],
    bits: npt.NDArray[np.uint16],
    value: npt.NDArray[np.float32],
    sizes: npt.NDArray[np.int64],
    toll: npt.NDArray[np.int64],
    pair: npt.NDArray[np.int64],
    saddle: npt.NDArray[np.float32],
    vote: npt.NDArray[np.int64],
    near: npt.NDArray[np.int64],
) -> int:
    """Facing voxels of different objects: ids, lower distance, votes, while there is room; their number.

    Along z, y and x, the first voxel of a pair within the core; `sizes`: the core's three, the window's rows, columns.
    """
    n = 0
    for z in range(sizes[0]):
        for y in range(sizes[1]):
            for x in range(sizes[2]):
                here = found[z, y, x]
                if here:
                    for axis in range(3):
                        w, v, u = z + (axis == 0), y + (axis == 1), x + (axis == 2)
                        if w >= found.shape[0] or v >= found.shape[1] or u >= found.shape[2]:
                            continue
                        there = found[w, v, u]
                        if there and there != here:
                            if n < vote.size:
                                pair[n, 0], pair[n, 1] = min(here, there), max(here, there)
                                saddle[n] = min(value[bits[3, z, y, x]], value[bits[3, w, v, u]])
                                vote[n] = -toll[0]
                                for a in range(3):
                                    vote[n] += fixed(value[bits[a, z, y, x]]) * fixed(value[bits[a, w, v, u]])
                                near[n] = near_vote(_square(ends[z, y, x], ends[w, v, u], sizes), toll)
                            n += 1
    return n


@compiled
def _square(a: int, b: int, sizes: npt.NDArray[np.int64]) -> int:
    """Of the distance of two end voxels in a straight line, from their flat indices into the window."""
    rows, columns = sizes[3], sizes[4]
    plane = rows * columns
    deep = a // plane - b // plane
    down = a // columns % rows - b // columns % rows
    right = a % columns - b % columns
    return int(deep * deep + down * down + right * right)
