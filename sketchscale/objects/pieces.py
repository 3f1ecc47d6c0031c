"""Split labels into their connected pieces, exactly, whatever blocks they are read in.

 1. Every block numbers its own pieces (`label_components`) and gives back, for each, its value and first pixel, and the
    numbers along the faces that it shares with other blocks.
 2. `join_pieces` joins what touches across faces, edges and corners: the pixels on one side of a face meet those on the
    other side that are at most one pixel away, in the blocks around it too.
 3. Ids count from 1 in the order of the first pixel of each whole piece, so they do not depend on blocks or workers.

The result is a reader: a box that is asked for is put together from the blocks it meets, with their final ids.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sketchscale.engine.base import Json, Plan
from sketchscale.evaluation.plan import packed, unpacked
from sketchscale.geometry import Box, Tile, TileCover, tile_cover
from sketchscale.io.files.masks import Few, few_values, label_components
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels, source_shape

__all__ = ["PIXEL_BYTES", "Pieces", "join_pieces", "plan_few_values", "plan_pieces"]

PIXEL_BYTES = 60
"""Memory to number the pieces of a block, for each of its pixels."""

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pieces:
    """Labels whose ids are the connected pieces of other labels.

    Attributes:
        block: that pieces were found in. starts: for each block, in order, where its pieces begin in `ids`.
        ids: of the pieces of all blocks.
        count: of whole pieces.
    """

    source: LabelSource
    shape: tuple[int, ...]
    block: tuple[int, ...]
    starts: tuple[int, ...]
    ids: npt.NDArray[np.int64]
    count: int

    def read(self, box: Box) -> npt.NDArray[np.uint32]:
        """Ids of a box."""
        found = np.zeros(box.shape, np.uint32)
        tiles = tile_cover(self.shape, self.block)
        ranges = [range(a // n, -(-b // n)) for a, b, n in zip(box.start, box.stop, self.block, strict=True)]
        for index in itertools.product(*ranges):
            position = _position(tiles, index)
            write = tiles[position].write
            numbers = label_components(read_labels(self.source, write))
            start = self.starts[position]
            names = np.concatenate([[0], self.ids[start : start + int(numbers.max(initial=0))]])
            common = write.intersect(box)
            part = names[numbers[common.relative_to(write.start).slices]]
            found[common.relative_to(box.start).slices] = part
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    source: LabelSource
    shape: tuple[int, ...]
    block: tuple[int, ...]


def plan_few_values(source: LabelSource, block: tuple[int, ...]) -> Plan[Tile]:
    """A plan whose tasks return `{"few": values}`, the distinct values of a block; see io.masks."""
    shape = source_shape(source)
    return Plan(
        stage="values",
        fn=_few_of_block,
        tasks=tile_cover(shape, block),
        config=_Job(source=source, shape=shape, block=block),
        task_bytes=12 * math.prod(block),
    )


def _few_of_block(tile: Tile, job: _Job) -> Json:
    few: Few = few_values(read_labels(job.source, tile.write))
    return {"few": few}


def plan_pieces(source: LabelSource, block: tuple[int, ...]) -> Plan[Tile]:
    """Find the pieces of every block; `join_pieces` is next.

    Args:
        source: (y, x) or (z, y, x) whole numbers, 0 for background.
        block: pixels of a task.
    """
    shape = source_shape(source)
    return Plan(
        stage="pieces",
        fn=_pieces_of_block,
        tasks=tile_cover(shape, block),
        config=_Job(source=source, shape=shape, block=block),
        task_bytes=PIXEL_BYTES * math.prod(block),
    )


def _pieces_of_block(tile: Tile, job: _Job) -> Json:
    labels = read_labels(job.source, tile.write)
    numbers = label_components(labels)
    flat = numbers.ravel()
    first = np.flatnonzero(np.diff(np.maximum.accumulate(flat), prepend=0))  # numbers rise in raster order
    places = np.stack(np.unravel_index(first, numbers.shape)) + np.array(tile.write.start)[:, None]
    faces = {
        f"{axis}{side}": packed(np.ascontiguousarray(numbers.take(0 if side == "-" else -1, axis=axis)))
        for axis, side in itertools.product(range(labels.ndim), "-+")
        if _is_shared(tile, job, axis, side)
    }
    return {
        "first": packed(np.ravel_multi_index(tuple(places), job.shape).astype(np.int64)),
        "value": packed(labels.ravel()[first]),
        "faces": faces,
    }


def _is_shared(tile: Tile, job: _Job, axis: int, side: str) -> bool:
    return tile.write.start[axis] > 0 if side == "-" else tile.write.stop[axis] < job.shape[axis]


def join_pieces(source: LabelSource, block: tuple[int, ...], results: Sequence[Json]) -> Pieces:
    """Join the pieces of all blocks.

    Args:
        source, block: as given to `plan_pieces`. results: of its tasks, in order.
    """
    shape = source_shape(source)
    first = [unpacked(result["first"]) for result in results]
    values = np.concatenate([unpacked(result["value"]) for result in results])
    starts = np.concatenate([[0], np.cumsum([len(part) for part in first])])
    faces = _Faces(tile_cover(shape, block), starts, results)
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *faces.pairs()])
    pairs = pairs[values[pairs[:, 0]] == values[pairs[:, 1]]]
    ids = _numbered(np.concatenate(first), pairs)
    return Pieces(
        source=source,
        shape=shape,
        block=block,
        starts=tuple(starts[:-1].tolist()),
        ids=ids,
        count=int(ids.max(initial=0)),
    )


def _numbered(first: npt.NDArray[np.int64], pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The id of each piece of a block: the place of its whole piece among all, by first pixel."""
    n = len(first)
    if not n:
        return np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(pairs), np.int32), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    count, whole_of = connected_components(graph, directed=False)
    earliest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(earliest, whole_of, first)
    rank = np.empty(count, np.int64)
    rank[np.argsort(earliest)] = np.arange(1, count + 1)
    found: npt.NDArray[np.int64] = rank[whole_of]
    return found


@dataclass(frozen=True, slots=True, kw_only=False, eq=False)
class _Faces:
    """The numbers along the faces of all blocks, as numbers of the whole: 0 none, k + 1 the piece k of all blocks."""

    tiles: TileCover
    starts: npt.NDArray[np.int64]
    results: Sequence[Json]

    def pairs(self) -> Iterator[npt.NDArray[np.int64]]:
        """Pieces that touch across a face, (n, 2) each."""
        for tile, axis in itertools.product(self.tiles, range(len(self.tiles.shape))):
            if tile.index[axis] + 1 < self.tiles.counts[axis]:
                yield self._across(tile, axis)

    def _across(self, tile: Tile, axis: int) -> npt.NDArray[np.int64]:
        """Pairs between a block's last layer along an axis and the layer after it, corners included."""
        here = self._layer(tile.index, axis, "+")
        beyond = np.pad(np.zeros_like(here), 1)
        own = _without(tile.write, axis)
        around = own.grow(1)
        for step in itertools.product((-1, 0, 1), repeat=here.ndim):
            index = list(tile.index)
            index[axis] += 1
            for other, move in zip([a for a in range(len(index)) if a != axis], step, strict=True):
                index[other] += move
            if all(0 <= i < n for i, n in zip(index, self.tiles.counts, strict=True)):
                theirs = _without(self.tiles[_position(self.tiles, tuple(index))].write, axis)
                common = theirs.intersect(around)
                layer = self._layer(tuple(index), axis, "-")[common.relative_to(theirs.start).slices]
                beyond[common.relative_to(around.start).slices] = layer
        found = [
            _touching(here, beyond[tuple(slice(1 + m, 1 + m + n) for m, n in zip(step, here.shape, strict=True))])
            for step in itertools.product((-1, 0, 1), repeat=here.ndim)
        ]
        return np.unique(np.concatenate(found), axis=0)

    def _layer(self, index: Index, axis: int, side: str) -> npt.NDArray[np.int64]:
        position = _position(self.tiles, index)
        shape = _without(self.tiles[position].write, axis).shape
        numbers = unpacked(self.results[position]["faces"][f"{axis}{side}"]).reshape(shape)
        return np.where(numbers > 0, numbers + self.starts[position], 0)


def _touching(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    both = (a > 0) & (b > 0)
    return np.unique(np.stack([a[both] - 1, b[both] - 1], axis=1), axis=0)


def _without(box: Box, axis: int) -> Box:
    return Box(
        tuple(a for i, a in enumerate(box.start) if i != axis), tuple(b for i, b in enumerate(box.stop) if i != axis)
    )


def _position(tiles: TileCover, index: Index) -> int:
    """Where a tile stands in the raster order of all."""
    return int(np.ravel_multi_index(index, tiles.counts))
