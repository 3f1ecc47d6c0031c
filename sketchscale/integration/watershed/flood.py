"""Flooding from the markers as a minimum spanning forest, and one block's share of it.

Pixels of the foreground are nodes, 4-neighbours are joined by edges, and edges have a strict total order: by pass
height (the higher energy of the two pixels), then by the lower energy, then by the place of the edge in the image, row
by row. The energy of a marker's pixels counts as lowest. Pixels of one marker are joined for free. An object is a tree
of the minimum spanning forest that is rooted in the markers: a pixel belongs to the marker that it reaches over the
lowest passes. As the order is strict, there is one such forest: it does not depend on how an image is cut, and ties are
decided by place. Foreground that no marker reaches is a tree without a root: one object.

A block applies Kruskal's algorithm (lowest edge first) to the edges between the pixels of its core. An edge is

    joined     when one of its trees has no marker, and no pixel on a face to another block. The block sees all edges
               that leave this tree, and this is the lowest: it belongs to the forest (cut property).
    dropped    when its ends are connected already, by lower edges or through the markers, which count as one node. It
               is the highest of a cycle: it does not belong to the forest (cycle property).
    open       otherwise: the result depends on other blocks. Open edges form a forest themselves, so there are fewer of
               them than markers, and pixels on faces, together.

Trees, open edges and the edges across faces are all that `merge.join_basins` needs. `Basins` is what a block stores.

Source: Cousty et al. 2009 (watersheds as forests), Kruskal 1956; the block's share is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.integration.fixed_point import Int32, Int64, Mask, Uint8, Uint32, compiled
from sketchscale.integration.tables import core_tables
from sketchscale.integration.union_find import find, unite
from sketchscale.integration.watershed.relief import STEP, Relief, Surroundings

__all__ = ["FREE", "Basins", "flood_block"]

FREE = -1
"""Order of an edge between two pixels of a marker."""

_MARKED, _OPEN = 1, 2
_FOREGROUND, _MARKER = 1, 2
_BITS = 15
_PLACE = 31
"""Bits of an edge's place in a block: two edges a pixel."""
_MOST = 1 << (_PLACE - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Basins:
    """What the other blocks need to know of the n trees of a block. Row i of the tables is local id i + 1.

    Attributes:
        area: int64 (n,), pixels of foreground in the core.
        first: int64 (n,), smallest raster index in the image of such a pixel; the image's size when area is 0.
        box: int64 (n, 4), y0, x0, y1, x1 (half open) of these pixels; zeros when area is 0.
        marked: bool (n,), whether it holds pixels of a marker.
        closed: bool (n,), whether it is complete: no pixel on a face to another block, and no open edge.
        pair: int32 (e, 2), local ids of an open edge. order: int32 (e,), place: int64 (e,): its rank among all edges.
        across: int32 (a,), local id of the pixel before a face. pixel: int64 (a,), raster index of the one behind it,
            which is another block's. across_order: int32 (a,), across_place: int64 (a,).
        face: int64 (f,), raster indices of the nodes in the core's first row and column, ascending. face_id: int32.
    """

    area: Int64
    first: Int64
    box: Int64
    marked: Mask
    closed: Mask
    pair: Int32
    order: Int32
    place: Int64
    across: Int32
    pixel: Int64
    across_order: Int32
    across_place: Int64
    face: Int64
    face_id: Int32

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by name, as they are stored between the steps."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Basins:
        """Return the basins with these arrays."""
        return cls(**arrays)


def flood_block(relief: Relief, around: Surroundings) -> tuple[Uint32, Basins]:
    """Compute a block's share of the forest.

    Args:
        relief: from `relief_of`, for the same surroundings.

    Returns:
        provisional: uint32, shape of the core: the pixel's local id, 0 for background.
        basins: its trees and edges.

    Raises:
        InputError: more than 2^30 px in the block.
    """
    if around.core.size > _MOST:
        raise InputError.of(
            found=f"{around.core.size} px in one block", expected=f"at most {_MOST}", fix="a smaller --block"
        )
    kind = relief.foreground.astype(np.uint8) * np.uint8(_FOREGROUND) + relief.marker * np.uint8(_MARKER)
    height = np.where(relief.marker, np.int16(-STEP), relief.energy)
    shape = np.array([*around.core.shape], np.int64)
    parent = np.arange(around.core.size, dtype=np.int32)
    flags, link = np.zeros(around.core.size, np.uint8), np.arange(around.core.size + 1, dtype=np.int32)
    sides = zip(around.core.start, around.core.stop, around.shape, strict=True)
    faces = np.array([open_side for a, b, n in sides for open_side in (a > 0, b < n)], np.bool_)
    _begin(kind, faces, shape, parent, flags, link)
    edges = np.empty(_list_edges(kind, height, shape, np.empty(0, np.int64)), np.int64)
    _list_edges(kind, height, shape, edges)
    edges.sort()
    held = _join(edges, int(shape[1]), parent, flags, link)
    ids = np.zeros(around.core.shape, np.int32)
    count = _number(kind, parent, ids)
    provisional = ids * relief.foreground[: shape[0], : shape[1]]
    roots = flags[np.flatnonzero((parent == np.arange(parent.size, dtype=np.int32)) & (ids.reshape(-1) > 0))]
    assert roots.size == count
    return provisional.astype(np.uint32), _basins(edges[:held], ids, roots, kind, height, around)


def _basins(
    edges: Int64, ids: Int32, flags: Uint8, kind: Uint8, height: npt.NDArray[np.int16], around: Surroundings
) -> Basins:
    """Make the tables of the numbered trees; `edges` are the open ones, `flags` those of each tree."""
    own = np.where(kind[: ids.shape[0], : ids.shape[1]] & _FOREGROUND, ids, 0).astype(np.uint32)
    tables = core_tables(own, np.zeros(ids.shape, np.uint16), around.core, around.shape, flags.size)
    order, place, ends = _unpacked(edges, around)
    pair = ids.reshape(-1)[ends]
    closed = (flags & _OPEN) == 0
    closed[pair.reshape(-1) - 1] = False
    # nodes that an edge from another block may end at
    first_lines = np.zeros(ids.shape, np.bool_)
    first_lines[0] = around.core.start[0] > 0
    first_lines[:, 0] |= around.core.start[1] > 0
    y, x = np.nonzero(first_lines & (ids > 0))
    return Basins(
        area=tables.area,
        first=tables.first,
        box=tables.box,
        marked=(flags & _MARKED) > 0,
        closed=closed,
        pair=pair,
        order=order,
        place=place,
        face=_places(y, x, np.zeros(y.size, np.int64), around) // 2,
        face_id=ids[y, x],
        **_across(ids, kind, height, around),
    )


def _unpacked(edges: Int64, around: Surroundings) -> tuple[Int32, Int64, Int64]:
    """Return order and place of open edges, and their two pixels (e, 2) as flat indices of the core."""
    local, down = np.divmod(edges & ((1 << _PLACE) - 1), 2)
    width = around.core.shape[1]
    y, x = np.divmod(local, width)
    ends = np.stack([local, local + np.where(down, width, 1)], axis=1)
    return (edges >> _PLACE).astype(np.int32), _places(y, x, down, around), ends


def _places(y: Int64, x: Int64, down: Int64, around: Surroundings) -> Int64:
    """Return the place in the image of the edges of pixels of the core."""
    pixel = (y + around.core.start[0]) * np.int64(around.shape[1]) + x + around.core.start[1]
    return 2 * pixel + down


def _across(
    ids: Int32, kind: Uint8, height: npt.NDArray[np.int16], around: Surroundings
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of `Basins` for the edges across the faces behind the core."""
    rows, columns = ids.shape
    parts = []
    for down in (0, 1):
        if kind.shape[1 - down] == ids.shape[1 - down]:
            continue
        line: list[Any] = [np.s_[rows - 1 + i, :columns] if down else np.s_[:rows, columns - 1 + i] for i in (0, 1)]
        free = (kind[line[0]] & kind[line[1]] & _MARKER) > 0
        at = np.flatnonzero(free | ((kind[line[0]] & kind[line[1]] & _FOREGROUND) > 0))
        y, x = (np.full(at.size, rows - 1), at) if down else (at, np.full(at.size, columns - 1))
        a, b = (height[side][at].astype(np.int32) + STEP for side in line)
        order = np.where(free[at], FREE, (np.maximum(a, b) << _BITS) | np.minimum(a, b))
        place = _places(y, x, np.full(at.size, down), around)
        pixel = place // 2 + (around.shape[1] if down else 1)
        parts.append((ids[line[0]][at], pixel, order.astype(np.int32), place))
    names = {"across": np.int32, "pixel": np.int64, "across_order": np.int32, "across_place": np.int64}
    return {
        name: np.concatenate([np.zeros(0, dtype), *(part[i] for part in parts)]).astype(dtype)
        for i, (name, dtype) in enumerate(names.items())
    }


def _face(ids: Int32, around: Surroundings) -> tuple[Int64, Int32]:
    """Nodes that an edge from another block may end at."""
    edge = np.zeros(ids.shape, np.bool_)
    edge[0] = around.core.start[0] > 0
    edge[:, 0] |= around.core.start[1] > 0
    y, x = np.nonzero(edge & (ids > 0))
    return _places(y, x, np.zeros(y.size, np.int64), around) // 2, ids[y, x]


@compiled
def _begin(kind: Uint8, faces: Mask, shape: Int64, parent: Int32, flags: Uint8, link: Int32) -> None:
    """Unite the pixels of each marker, link all markers, and set the flags of every tree at its root."""
    rows, columns = shape
    for y in range(rows):
        for x in range(columns):
            if kind[y, x] & _MARKER:
                here = y * columns + x
                link[here + 1] = 0
                if x > 0 and kind[y, x - 1] & _MARKER:
                    unite(parent, here, here - 1)
                if y > 0 and kind[y - 1, x] & _MARKER:
                    unite(parent, here, here - columns)
    for y in range(rows):
        outer = (y == 0 and faces[0]) or (y == rows - 1 and faces[1])
        for x in range(columns):
            if kind[y, x]:
                here = y * columns + x
                flag = _MARKED if kind[y, x] & _MARKER else 0
                if outer or (x == 0 and faces[2]) or (x == columns - 1 and faces[3]):
                    flag |= _OPEN
                flags[find(parent, here)] |= flag


@compiled
def _list_edges(kind: Uint8, height: npt.NDArray[np.int16], shape: Int64, edges: Int64) -> int:
    """List the edges as pass height, lower height, place in the block, packed into one number that sorts in order.

    Fills `edges` as far as there is room; returns the number of edges.
    """
    rows, columns = shape
    n = 0
    for y in range(rows):
        for x in range(columns):
            for down in range(2):
                below, beside = y + down, x + 1 - down
                if below < rows and beside < columns and (kind[y, x] & kind[below, beside]) == _FOREGROUND:
                    if n < edges.size:
                        a, b = np.int64(height[y, x]) + STEP, np.int64(height[below, beside]) + STEP
                        order = (max(a, b) << _BITS) | min(a, b)
                        edges[n] = (order << _PLACE) | (2 * (y * columns + x) + down)
                    n += 1
    return n


@compiled
def _join(edges: Int64, columns: int, parent: Int32, flags: Uint8, link: Int32) -> int:
    """Join edges, drop them, or move them to the front of `edges` as open; return the number of open edges."""
    held = 0
    for i in range(edges.size):
        place = edges[i] & ((1 << _PLACE) - 1)
        low = place >> 1
        high = low + (columns if place & 1 else 1)
        a, b = find(parent, low), find(parent, high)
        if a == b or find(link, a + 1) == find(link, b + 1):
            continue
        unite(link, a + 1, b + 1)
        if flags[a] == 0 or flags[b] == 0:
            flag = flags[a] | flags[b]
            unite(parent, a, b)
            flags[min(a, b)] = flag
        else:
            edges[held] = edges[i]
            held += 1
    return held


@compiled
def _number(kind: Uint8, parent: Int32, ids: Int32) -> int:
    """Write local ids from 1 in raster order of each tree's first node; return the number of trees."""
    count = 0
    rows, columns = ids.shape
    for y in range(rows):
        for x in range(columns):
            if kind[y, x]:
                here = y * columns + x
                root = find(parent, here)
                if root == here:
                    count += 1
                    ids[y, x] = count
                else:
                    ids[y, x] = ids[root // columns, root % columns]
    return count
