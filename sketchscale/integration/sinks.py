"""Components of the end points: runs of pixels per row, linked across rows; volumes link rows of sections, too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sketchscale.integration.fixed_point import compiled
from sketchscale.integration.union_find import find, unite

__all__ = ["count_runs", "find_runs", "link_rows", "link_sinks", "number_runs", "paint_runs"]


def link_sinks(sinks: npt.NDArray[np.uint8], radius: int) -> tuple[npt.NDArray[np.int32], int]:
    """Components of the set pixels under "at most `radius` apart along both axes".

    Works on runs: pixels of a row with gaps up to `radius` are one run, and two runs of rows at most `radius` apart are
    linked when they overlap after growing one by `radius`. That is exact: where intervals overlap, an end of one lies
    between two pixels of the other that are at most `radius` apart, so it is within `radius` of one of them.

    Args:
        sinks: (y, x), non-zero where a trajectory ends.
        radius: px, at least 1 (1 is 8-connectivity).

    Returns:
        (ids, n): ids int32 (y, x), 0 where there is no sink, else 1 .. n in raster order of the component's first sink.

    >>> link_sinks(np.array([[1, 0, 1, 0, 0, 1]], np.uint8), 2)
    (array([[1, 0, 1, 0, 0, 2]], dtype=int32), 2)
    """
    rows = np.zeros(sinks.shape[0] + 1, np.int64)
    total = count_runs(sinks, radius, rows)
    start, stop = np.empty(total, np.int32), np.empty(total, np.int32)
    find_runs(sinks, radius, rows, start, stop)
    identity = np.empty(total, np.int32)
    count = _link_runs(rows, start, stop, radius, identity)
    ids = np.zeros(sinks.shape, np.int32)
    paint_runs(sinks, rows, start, stop, identity, ids)
    return ids, int(count)


@compiled
def count_runs(sinks: npt.NDArray[np.uint8], radius: int, rows: npt.NDArray[np.int64]) -> int:
    """Runs per row, as offsets: the runs of row y are rows[y] .. rows[y + 1]."""
    total = 0
    for y in range(sinks.shape[0]):
        last = -radius - 1
        for x in range(sinks.shape[1]):
            if sinks[y, x]:
                if x - last > radius:
                    total += 1
                last = x
        rows[y + 1] = total
    return total


@compiled
def find_runs(
    sinks: npt.NDArray[np.uint8],
    radius: int,
    rows: npt.NDArray[np.int64],
    start: npt.NDArray[np.int32],
    stop: npt.NDArray[np.int32],
) -> None:
    """First and last pixel (inclusive) of every run."""
    for y in range(sinks.shape[0]):
        run = rows[y] - 1
        last = -radius - 1
        for x in range(sinks.shape[1]):
            if sinks[y, x]:
                if x - last > radius:
                    run += 1
                    start[run] = x
                stop[run] = x
                last = x


@compiled
def _link_runs(
    rows: npt.NDArray[np.int64],
    start: npt.NDArray[np.int32],
    stop: npt.NDArray[np.int32],
    radius: int,
    identity: npt.NDArray[np.int32],
) -> int:
    """Union-find over runs at most `radius` rows apart; then ids from 1 in order of each component's first run."""
    parent = np.arange(start.size)
    for y in range(rows.size - 1):
        for above in range(max(0, y - radius), y):
            link_rows(rows, y, above, start, stop, radius, parent)
    return int(number_runs(parent, identity))


@compiled
def link_rows(
    rows: npt.NDArray[np.int64],
    row: int,
    above: int,
    start: npt.NDArray[np.int32],
    stop: npt.NDArray[np.int32],
    radius: int,
    parent: npt.NDArray[np.int64],
) -> None:
    """Unite the runs of two rows that overlap after growing one row by `radius`."""
    other = rows[above]
    for run in range(rows[row], rows[row + 1]):
        while other < rows[above + 1] and stop[other] + radius < start[run]:
            other += 1
        candidate = other
        while candidate < rows[above + 1] and start[candidate] <= stop[run] + radius:
            unite(parent, run, candidate)
            candidate += 1


@compiled
def number_runs(parent: npt.NDArray[np.int64], identity: npt.NDArray[np.int32]) -> int:
    """Ids from 1 by each component's first run; returns how many."""
    count = 0
    for run in range(parent.size):
        root = find(parent, run)
        if root == run:
            count += 1
            identity[run] = count
        else:
            identity[run] = identity[root]
    return count


@compiled
def paint_runs(
    sinks: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    start: npt.NDArray[np.int32],
    stop: npt.NDArray[np.int32],
    identity: npt.NDArray[np.int32],
    ids: npt.NDArray[np.int32],
) -> None:
    for y in range(sinks.shape[0]):
        for run in range(rows[y], rows[y + 1]):
            for x in range(start[run], stop[run] + 1):
                if sinks[y, x]:
                    ids[y, x] = identity[run]
