"""Split labels into connected components. The result does not depend on the blocks in which they are read.

 1. Each block numbers its own components (`label_components`) and returns the value and first pixel of each, and the
    numbers along the faces that it shares with other blocks.
 2. `join_components` joins components that touch across faces, edges and corners: a pixel on one side of a face meets
    the pixels on the other side that are at most one pixel away, also in the neighbouring blocks.
 3. Ids count from 1 by the first pixel of each whole component, so they do not depend on blocks or workers.

The result is a reader: a box is assembled from the blocks that it meets, with their final ids.
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
from sketchscale.io.files.masks import few_values, label_components
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels, source_shape

__all__ = ["PIXEL_BYTES", "Components", "join_components", "plan_components", "plan_few_values"]

Ints = npt.NDArray[np.int64]

PIXEL_BYTES = 60
"""Memory to number the components of a block, per pixel."""

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Components:
    """Labels with the connected components of other labels as objects.

    Attributes:
        block: size of the blocks. starts: for each block, in order, where its components begin in `ids`.
        ids: final id of each component of each block.
        count: number of whole components.
    """

    source: LabelSource
    shape: tuple[int, ...]
    block: tuple[int, ...]
    starts: tuple[int, ...]
    ids: Ints
    count: int

    def read(self, box: Box) -> npt.NDArray[np.uint32]:
        """Return the ids of a box."""
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
    """Return a plan whose tasks return `{"few": values}`, the distinct values of a block; see `io.files.masks`."""
    shape = source_shape(source)
    return Plan(
        stage="values",
        fn=_few_of_block,
        tasks=tile_cover(shape, block),
        config=_Job(source=source, shape=shape, block=block),
        task_bytes=12 * math.prod(block),
    )


def _few_of_block(tile: Tile, job: _Job) -> Json:
    return {"few": few_values(read_labels(job.source, tile.write))}


def plan_components(source: LabelSource, block: tuple[int, ...]) -> Plan[Tile]:
    """Return the plan that finds the components of every block; `join_components` is next.

    Args:
        source: (y, x) or (z, y, x) integers, 0 for background.
        block: pixels of a task.
    """
    shape = source_shape(source)
    return Plan(
        stage="pieces",
        fn=_components_of_block,
        tasks=tile_cover(shape, block),
        config=_Job(source=source, shape=shape, block=block),
        task_bytes=PIXEL_BYTES * math.prod(block),
    )


def _components_of_block(tile: Tile, job: _Job) -> Json:
    labels, write = read_labels(job.source, tile.write), tile.write
    numbers = label_components(labels)
    flat = numbers.ravel()
    first = np.flatnonzero(np.diff(np.maximum.accumulate(flat), prepend=0))  # numbers rise in raster order
    places = np.stack(np.unravel_index(first, numbers.shape)) + np.array(write.start)[:, None]
    faces = {
        f"{axis}{side}": packed(np.ascontiguousarray(numbers.take(0 if side == "-" else -1, axis=axis)))
        for axis, side in itertools.product(range(labels.ndim), "-+")
        if (write.start[axis] > 0 if side == "-" else write.stop[axis] < job.shape[axis])
    }
    return {
        "first": packed(np.ravel_multi_index(tuple(places), job.shape).astype(np.int64)),
        "value": packed(labels.ravel()[first]),
        "faces": faces,
    }


def join_components(source: LabelSource, block: tuple[int, ...], results: Sequence[Json]) -> Components:
    """Join the components of all blocks.

    Args:
        source, block: as given to `plan_components`. results: of its tasks, in order.
    """
    shape = source_shape(source)
    first = [unpacked(result["first"]) for result in results]
    values = np.concatenate([unpacked(result["value"]) for result in results])
    starts = np.concatenate([[0], np.cumsum([len(part) for part in first])])
    faces = _Faces(tile_cover(shape, block), starts, results)
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *faces.pairs()])
    pairs = pairs[values[pairs[:, 0]] == values[pairs[:, 1]]]
    ids = _numbered(np.concatenate(first), pairs)
    return Components(
        source=source,
        shape=shape,
        block=block,
        starts=tuple(starts[:-1].tolist()),
        ids=ids,
        count=int(ids.max(initial=0)),
    )


def _numbered(first: Ints, pairs: Ints) -> Ints:
    """Return the id of each component of a block: the rank of its whole component among all, by first pixel."""
    n = len(first)
    if not n:
        return np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(pairs), np.int32), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    count, whole_of = connected_components(graph, directed=False)
    earliest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(earliest, whole_of, first)
    rank = np.empty(count, np.int64)
    rank[np.argsort(earliest)] = np.arange(1, count + 1)
    found: Ints = rank[whole_of]
    return found


@dataclass(frozen=True, slots=True, kw_only=False, eq=False)
class _Faces:
    """The numbers along the faces of all blocks, counted over all blocks: 0 is none, k + 1 is component k."""

    tiles: TileCover
    starts: Ints
    results: Sequence[Json]

    def pairs(self) -> Iterator[Ints]:
        """Yield (n, 2) pairs of components that touch across a face."""
        for tile, axis in itertools.product(self.tiles, range(len(self.tiles.shape))):
            if tile.index[axis] + 1 < self.tiles.counts[axis]:
                yield self._across(tile, axis)

    def _across(self, tile: Tile, axis: int) -> Ints:
        """Return pairs between a block's last layer along an axis and the layer after it, corners included."""
        here = self._layer(tile.index, axis, "+")
        beyond = np.pad(np.zeros_like(here), 1)
        around = _without(tile.write, axis).grow(1)
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

    def _layer(self, index: Index, axis: int, side: str) -> Ints:
        position = _position(self.tiles, index)
        shape = _without(self.tiles[position].write, axis).shape
        numbers = unpacked(self.results[position]["faces"][f"{axis}{side}"]).reshape(shape)
        return np.where(numbers > 0, numbers + self.starts[position], 0)


def _touching(a: Ints, b: Ints) -> Ints:
    both = (a > 0) & (b > 0)
    return np.unique(np.stack([a[both] - 1, b[both] - 1], axis=1), axis=0)


def _without(box: Box, axis: int) -> Box:
    return Box(
        tuple(a for i, a in enumerate(box.start) if i != axis), tuple(b for i, b in enumerate(box.stop) if i != axis)
    )


def _position(tiles: TileCover, index: Index) -> int:
    """Return the place of a tile in the raster order of all tiles."""
    return int(np.ravel_multi_index(index, tiles.counts))
