"""Join the shares of all blocks to one forest, and its trees to numbered objects.

    1. nodes   the trees of all blocks; an edge across a face ends at the tree of the pixel behind the face
    2. join    all open edges and edges across faces, lowest first: two trees become one, unless both have a marker;
               edges within a marker come first and always join
    3. number  sums over the blocks, filters by size, numbers in raster order of first pixels: `merge.number_objects`

Why the result does not depend on the blocks: every edge of the image is either inside one block, where it was joined,
dropped or left open by rules that hold for the whole image (see flood.py), or it crosses a face and is handled here.
Step 2 has the image's graph with edges of the forest contracted and edges outside of it left out; Kruskal's algorithm
finds the rest of the same forest.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sketchscale.integration.fixed_point import Int64, Mask, compiled
from sketchscale.integration.union_find import find, tree_numbers, unite
from sketchscale.integration.watershed.flood import FREE, Basins

__all__ = ["join_basins"]


def join_basins(blocks: Iterable[Basins]) -> Int64:
    """Join the trees of all blocks: steps 1 and 2.

    Args:
        blocks: all of an image, in order.

    Returns:
        Object of every tree of every block, 0, 1, ..., without gaps, in order of each object's first tree.
        Memory: about 60 bytes per foreground pixel on the faces between blocks, and 20 per marker.
    """
    marked, inner, across = [np.zeros(0, np.bool_)], [_table()], [_table()]
    faces = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    before = -1
    for block in blocks:
        pair = block.pair.astype(np.int64) + before
        inner.append(_table(pair[:, 0], pair[:, 1], block.order, block.place))
        across.append(_table(block.across + np.int64(before), block.pixel, block.across_order, block.across_place))
        faces.append((block.face, block.face_id + np.int64(before)))
        marked.append(block.marked)
        before += block.area.size
    pixel, node = (np.concatenate(part) for part in zip(*faces, strict=True))
    by_pixel = np.argsort(pixel, kind="stable")
    crossing = np.concatenate(across)
    crossing[:, 1] = node[by_pixel][np.searchsorted(pixel[by_pixel], crossing[:, 1])]
    edges = np.concatenate([*inner, crossing])
    trees = np.concatenate(marked)
    parent = np.arange(trees.size)
    _join(edges[np.lexsort((edges[:, 3], edges[:, 2]))], parent, trees)
    return tree_numbers(parent)


def _table(*columns: npt.NDArray[np.integer]) -> Int64:
    """Return edges (e, 4): their two ends, order, place."""
    return np.stack(columns, axis=1).astype(np.int64) if columns else np.zeros((0, 4), np.int64)


@compiled
def _join(edges: Int64, parent: Int64, marked: Mask) -> None:
    """Join trees along the sorted edges, lowest first."""
    for i in range(edges.shape[0]):
        a, b = find(parent, edges[i, 0]), find(parent, edges[i, 1])
        if a != b and (edges[i, 2] == FREE or not (marked[a] and marked[b])):
            unite(parent, a, b)
            marked[min(a, b)] = marked[a] or marked[b]
