"""Join the end points into objects: inside one block, then across blocks, then number them.

A component is a connected component of the *sinks* (the set S of all end points) under the relation "at most R apart
along every axis", R being the link radius; a pixel belongs to the component of its end point. An object is one
component, or several whose borders agree (step 3).

    1. In a block     components of S in the window, with local ids 1, 2, ...; areas, first pixels and boxes over the
                      pixels of the core only, so that every pixel is counted once.
    2. Across blocks  a sink in the windows of two blocks has a local id in both: the two ids are one component.
    3. Borders        where the flow is noisy or the object long, several components are one object. Two components that
                      touch are one object when the lower of their peaks rises little above the highest pass between
                      them, the saddle of the distance on their common border: by less than `prominence` px plus 8 px
                      times the mean scalar product of the flow on the two sides. A maximum, and sums of integers over
                      pairs of pixels, each pair seen by one block: exact for any blocks. With a `join_share`, they are
                      also one object when more than that share of the pairs end near each other.
    4. Globally       filters by size, then numbers 1, 2, ... in raster order of each object's first pixel.

         core of A      core of B                    a, b: sinks, at most R apart
       ┌──────────────┬──────────────┐               window of A = core of A grown by m >= R: holds a and b; up
       │            a │ b            │               to R from the core S is exact: A finds the link a-b
       │          ╌╌╌╌┼╌╌╌╌┐         │               b lies in the windows of A and of B: one component in both
       │   window of A│    ╎  c      │               B finds b-c in the same way
       └──────────────┴────╎─────────┘

Proof that the result does not depend on the blocks. Let G be the relation on S for the whole image, and G' the relation
that the blocks generate: links seen in some window, and equality of a sink with itself in two windows. G' never joins
what G does not, because windows hold true sinks only. For the converse take a link a-b of G. a lies in exactly one
core, A's; b is at most R from that core, where A's window holds all of S: A's components join a and b. And a's id in A
is joined to a's id in every other window that holds a by step 2. So both relations have the same closure, and the
components are the same sets of sinks; borders, area, first pixel and number are functions of these sets and of the
ends. There is no overlap threshold and no distance between centroids; objects larger than a block, spirals, and objects
over four blocks need no special case.

links.py decides which end points are linked; with crowds (volumes) the same proof holds, because counts are exact up to
`link` from the core.

Why borders: without step 3, R = 2 splits long objects even on exact flow, and more so under noise; R = 3 helps less and
joins small neighbours. Why a sum of both: in exact fields the flow decides (parallel within an object, opposite between
two), but a network that is unsure predicts short flow where objects touch, and then the height of the peak above the
pass decides, in px, because that is the scale of the noise of a predicted distance. Two limits, one on the share of the
peak and one on the flow, had no setting that was right on both (benchmarks/results/rules.txt).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.integration.borders import Borders, borders_of
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.fixed_point import Float32, Int32, Int64, Uint32, compiled
from sketchscale.integration.follow import EndPoints
from sketchscale.integration.links import link_ends
from sketchscale.integration.region import Region
from sketchscale.integration.tables import core_tables
from sketchscale.integration.union_find import tree_numbers, unite_equal, unite_pairs
from sketchscale.integration.watershed.config import WatershedConfig
from sketchscale.integration.watershed.flood import Basins

__all__ = [
    "BlockObjects",
    "ObjectMap",
    "Unifier",
    "join_components",
    "local_objects",
    "number_objects",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockObjects:
    """What the other blocks need to know of the n local objects of a block. Row i of the tables is local id i + 1.

    Attributes:
        area: int64 (n,), pixels of the core.
        first: int64 (n,), smallest raster index in the image of a pixel of the core; the image's size when area is 0.
        box: int64 (n, 2 * axes), start and stop of the pixels of the core; empty when area is 0.
        shared: int64 (k,), raster indices of the window's sinks that may lie in another block's window, ascending.
        shared_id: int32 (k,), their local ids.
        peak: float32 (n,), largest distance of the pixels of the core, px; -inf when area is 0.
        pair: int32 (p, 2), local ids of two objects that touch, the smaller one first, each pair once.
        pairs, saddle, vote, near: (p,), see `Borders`.
    """

    area: Int64
    first: Int64
    box: Int64
    shared: Int64
    shared_id: Int32
    peak: Float32
    pair: Int32
    pairs: Int64
    saddle: Float32
    vote: Int64
    near: Int64

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by name, as they are stored between the steps."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> BlockObjects:
        """Return the objects with these arrays."""
        return cls(**arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMap:
    """The objects of a whole image after merging and filters; row i is label i + 1.

    Attributes:
        area: int64 (n,), pixels.
        first: int64 (n,), raster index of the first pixel, strictly ascending.
        box: int64 (n, 2 * axes), start and stop.
        blocks: int32 (n,), number of blocks that hold pixels of the object.
        dropped_small, dropped_large: numbers of objects that the size filters made background.
    """

    area: Int64
    first: Int64
    box: Int64
    blocks: Int32
    dropped_small: int
    dropped_large: int

    @property
    def count(self) -> int:
        """Number of objects."""
        return int(self.area.size)

    @property
    def crossing(self) -> int:
        """Number of objects in more than one block."""
        return int((self.blocks > 1).sum())


def local_objects(points: EndPoints, region: Region, config: IntegrationConfig) -> tuple[Uint32, BlockObjects]:
    """Find the objects of one block: step 1 of the merge.

    Args:
        points: from `follow_flow`, for the same region.

    Returns:
        provisional: uint32, shape of the core: the pixel's local id, 0 for background.
        objects: their tables.
    """
    ids, n = link_ends(points, region, config)
    found = np.zeros(region.kept.shape, np.uint32)
    _look_up(points.ends.reshape(-1), ids.reshape(-1), found.reshape(-1))
    provisional = found[tuple(map(slice, region.core.shape))]
    tables = core_tables(provisional, points.bits[-1], region.core, region.shape, n)
    shared, shared_id = _shared_sinks(ids, region, config.margin)
    borders = borders_of(found, points, region, config)
    objects = BlockObjects(
        area=tables.area,
        first=tables.first,
        box=tables.box,
        shared=shared,
        shared_id=shared_id,
        peak=tables.peak,
        pair=borders.pair.astype(np.int32),
        pairs=borders.pairs,
        saddle=borders.saddle,
        vote=borders.vote,
        near=borders.near,
    )
    return provisional, objects


def _shared_sinks(ids: Int32, region: Region, margin: int) -> tuple[Int64, Int32]:
    """Return the sinks, and their ids, in the part of the window that other windows may reach."""
    faces = zip(region.core.start, region.core.stop, region.shape, region.window.start, strict=True)
    private = [(a + margin * (a > 0) - o, b - margin * (b < n) - o) for a, b, n, o in faces]
    outside = np.array(ids, copy=True)
    outside[tuple(slice(a, max(a, b)) for a, b in private)] = 0
    at = np.nonzero(outside)
    inside = tuple(i + o for i, o in zip(at, region.window.start, strict=True))
    return np.ravel_multi_index(inside, region.shape).astype(np.int64), outside[at]


class Unifier:
    """Step 2: join the components of all blocks, row by row of blocks (a row is one place along axis 0).

    Holds 8 bytes per local object, and the shared sinks of one row of blocks.
    """

    def __init__(self) -> None:
        self._parent = np.empty(0, np.int64)
        self._pixel = np.empty(0, np.int64)
        self._node = np.empty(0, np.int64)

    def add_row(self, blocks: Iterable[BlockObjects], keep_from: int) -> None:
        """Join the components of one row of blocks with one another and with those of earlier rows.

        Args:
            blocks: of the row, in raster order.
            keep_from: raster index of the first pixel in the windows of the next row.
        """
        pixels, nodes, count = [self._pixel], [self._node], self._parent.size
        for objects in blocks:
            pixels.append(objects.shared)
            nodes.append(objects.shared_id.astype(np.int64) + (count - 1))
            count += objects.area.size
        self._parent = np.concatenate([self._parent, np.arange(self._parent.size, count)])
        pixel, node = np.concatenate(pixels), np.concatenate(nodes)
        order = np.argsort(pixel, kind="stable")
        pixel, node = pixel[order], node[order]
        unite_equal(pixel, node, self._parent)
        last = np.searchsorted(pixel, keep_from)
        self._pixel, self._node = pixel[last:].copy(), node[last:].copy()

    def roots(self) -> Int64:
        """Return for every local object of every block the number of its component: 0, 1, ..., without gaps."""
        return tree_numbers(self._parent)


def join_components(blocks: Iterable[BlockObjects], roots: Int64) -> Int64:
    """Join components into objects by the borders of all blocks: step 3.

    Args:
        blocks: in the order of `roots`.
        roots: component of every local object, from `Unifier.roots`.

    Returns:
        Object of every local object, 0, 1, ..., without gaps. A border exactly at a limit joins nothing.
    """
    peak = np.full(roots.max(initial=-1) + 1, -np.inf, np.float32)
    parts: list[Borders] = []
    done = 0
    for block in blocks:
        np.maximum.at(peak, roots[done : done + block.peak.size], block.peak)
        pair = np.sort(roots[block.pair.astype(np.int64) + (done - 1)], axis=1)
        apart = pair[:, 0] != pair[:, 1]
        votes = (block.pairs[apart], block.saddle[apart], block.vote[apart], block.near[apart])
        parts.append(Borders(pair[apart], *votes))
        done += block.area.size
    borders = Borders.of(parts)
    one = borders.joining(peak[borders.pair].min(axis=1).astype(np.float64))
    parent = np.arange(peak.size)
    unite_pairs(borders.pair[one], parent)
    return tree_numbers(parent)[roots]


def number_objects(
    blocks: Iterable[BlockObjects | Basins], roots: Int64, size: int, config: IntegrationConfig | WatershedConfig
) -> tuple[ObjectMap, Uint32]:
    """Sum over the blocks, filter by size, number by first pixel: step 4.

    Args:
        blocks: in the order of `roots`.
        roots: object of every local object, from `join_components`.
        size: pixels of the image.

    Returns:
        (objects, labels): labels uint32 (len(roots),), the final label of every local object, 0 when dropped.

    Raises:
        InputError: more objects than uint32 can number.
    """
    total = int(roots.max(initial=-1)) + 1
    area, first = np.zeros(total, np.int64), np.full(total, size, np.int64)
    box, held = np.zeros((total, 0), np.int64), np.zeros(total, np.int32)
    done = 0
    for block in blocks:
        axes = block.box.shape[1] // 2
        if not box.size:
            box = np.tile(np.repeat(np.array([size, 0], np.int64), axes), (total, 1))
        there = block.area > 0
        root = roots[done : done + block.area.size][there]
        done += block.area.size
        np.add.at(area, root, block.area[there])
        np.minimum.at(first, root, block.first[there])
        np.minimum.at(box[:, :axes], root, block.box[there, :axes])
        np.maximum.at(box[:, axes:], root, block.box[there, axes:])
        held[np.unique(root)] += 1
    small = (area > 0) & (area < config.min_size)
    large = area > config.max_size if config.max_size is not None else np.zeros(total, bool)
    kept = np.flatnonzero((area > 0) & ~small & ~large)
    kept = kept[np.argsort(first[kept])]
    if kept.size > np.iinfo(np.uint32).max:
        raise InputError.of(found=f"{kept.size} objects", expected="at most 4294967295", fix="raise min_size")
    label = np.zeros(total, np.uint32)
    label[kept] = np.arange(1, kept.size + 1, dtype=np.uint32)
    objects = ObjectMap(
        area=area[kept],
        first=first[kept],
        box=box[kept],
        blocks=held[kept],
        dropped_small=int(small.sum()),
        dropped_large=int(large.sum()),
    )
    return objects, label[roots]


@compiled
def _look_up(ends: Int32, ids: Int32, found: Uint32) -> None:
    """Look up the local id of every foreground pixel."""
    for i in range(ends.size):
        if ends[i] >= 0:
            found[i] = ids[ends[i]]
