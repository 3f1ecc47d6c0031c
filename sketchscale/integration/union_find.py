"""Union-find: the root of a set is its smallest node, so the order of joining does not matter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sketchscale.integration.fixed_point import Int64, compiled

__all__ = ["find", "flatten", "tree_numbers", "unite", "unite_equal", "unite_pairs"]


@compiled
def find(parent: npt.NDArray[np.signedinteger], node: int) -> int:
    """Return the root of a node, shortening the path to it."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def unite(parent: npt.NDArray[np.signedinteger], a: int, b: int) -> None:
    """Join the sets of two nodes."""
    a, b = find(parent, a), find(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@compiled
def unite_equal(pixel: Int64, node: Int64, parent: Int64) -> None:
    """Join the nodes of equal pixels; the pixels are sorted."""
    for i in range(1, pixel.size):
        if pixel[i] == pixel[i - 1]:
            unite(parent, node[i], node[i - 1])


@compiled
def unite_pairs(pair: Int64, parent: Int64) -> None:
    """Join the nodes of every row of (p, 2)."""
    for i in range(pair.shape[0]):
        unite(parent, pair[i, 0], pair[i, 1])


@compiled
def flatten(parent: Int64) -> None:
    """Make every node point to its root."""
    for node in range(parent.size):
        parent[node] = find(parent, node)


def tree_numbers(parent: Int64) -> Int64:
    """Return for every node the number of its set: 0, 1, ... in order of the sets' roots. Flattens `parent`."""
    flatten(parent)
    number = np.cumsum(parent == np.arange(parent.size)) - 1
    return np.asarray(number[parent], np.int64)
