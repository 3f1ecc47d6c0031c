"""Components of the end points: runs of pixels per row, linked across rows and sections."""

from __future__ import annotations

import numpy as np

from sketchscale.integration.fixed_point import Int32, Int64, Uint16, compiled, sections
from sketchscale.integration.union_find import find, unite

__all__ = ["link_sinks"]


def link_sinks(sinks: Uint16, radius: int) -> tuple[Int32, int]:
    """Return the components of the set pixels; two pixels are linked when at most `radius` apart along every axis.

    Pixels of a row with gaps up to `radius` are one run, and two runs of rows at most `radius` apart are linked when
    they overlap after growing one by `radius`. That is exact: where intervals overlap, an end of one lies between two
    pixels of the other that are at most `radius` apart, so it is within `radius` of one of them.

    Args:
        sinks: (y, x) or (z, y, x) integers or bool, non-zero where a trajectory ends.
        radius: px, at least 1 (1 also links pixels that touch at a corner).

    Returns:
        (ids, n): ids int32, shape of `sinks`, 0 where there is no sink, else 1 .. n in raster order of the component's
        first sink.

    >>> link_sinks(np.array([[1, 0, 1, 0, 0, 1]], np.uint16), 2)
    (array([[1, 0, 1, 0, 0, 2]], dtype=int32), 2)
    """
    height = sections(sinks).shape[1]
    flat = np.ascontiguousarray(sinks).reshape(-1, sinks.shape[-1])
    rows = np.zeros(flat.shape[0] + 1, np.int64)
    total = _find_runs(flat, radius, rows, np.empty(0, np.int32), np.empty(0, np.int32))
    start, stop = np.empty(total, np.int32), np.empty(total, np.int32)
    _find_runs(flat, radius, rows, start, stop)
    ids = np.zeros(flat.shape, np.int32)
    count = _label_runs(flat, height, radius, rows, start, stop, ids)
    return ids.reshape(sinks.shape), int(count)


@compiled
def _find_runs(sinks: Uint16, radius: int, rows: Int64, start: Int32, stop: Int32) -> int:
    """Find the first and last pixel (inclusive) of every run; with empty `start` and `stop` only count the runs.

    The runs of row y are rows[y] .. rows[y + 1]. Returns the number of runs.
    """
    total = 0
    for y in range(sinks.shape[0]):
        last = -radius - 1
        for x in range(sinks.shape[1]):
            if sinks[y, x]:
                if x - last > radius:
                    total += 1
                    if total <= start.size:
                        start[total - 1] = x
                if total <= stop.size:
                    stop[total - 1] = x
                last = x
        rows[y + 1] = total
    return total


@compiled
def _label_runs(sinks: Uint16, height: int, radius: int, rows: Int64, start: Int32, stop: Int32, ids: Int32) -> int:
    """Unite the runs of rows at most `radius` apart in z and y; number the components by their first runs."""
    parent = np.arange(start.size)
    for row in range(rows.size - 1):
        if rows[row] == rows[row + 1]:
            continue
        z, y = row // height, row % height
        for other_z in range(max(0, z - radius), z + 1):
            last = y if other_z == z else min(height, y + radius + 1)
            for other_y in range(max(0, y - radius), last):
                _link_rows(rows, row, other_z * height + other_y, start, stop, radius, parent)
    count = 0
    identity = np.empty(start.size, np.int32)
    for row in range(rows.size - 1):
        for run in range(rows[row], rows[row + 1]):
            root = find(parent, run)
            if root == run:
                count += 1
                identity[run] = count
            else:
                identity[run] = identity[root]
            for x in range(start[run], stop[run] + 1):
                if sinks[row, x]:
                    ids[row, x] = identity[run]
    return count


@compiled
def _link_rows(rows: Int64, row: int, above: int, start: Int32, stop: Int32, radius: int, parent: Int64) -> None:
    """Unite the runs of two rows that overlap after growing one row by `radius`."""
    other = rows[above]
    for run in range(rows[row], rows[row + 1]):
        while other < rows[above + 1] and stop[other] + radius < start[run]:
            other += 1
        candidate = other
        while candidate < rows[above + 1] and start[candidate] <= stop[run] + radius:
            unite(parent, run, candidate)
            candidate += 1
