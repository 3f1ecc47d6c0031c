"""Sets of nodes that are joined two by two; a root is the smallest node of its set, so no order of joining shows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sketchscale.integration.fixed_point import compiled

__all__ = ["find", "flatten", "unite", "unite_equal", "unite_pairs"]


@compiled
def find(parent: npt.NDArray[np.signedinteger], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def unite(parent: npt.NDArray[np.signedinteger], a: int, b: int) -> None:
    """The smaller root wins, so that a root is its component's first node."""
    a, b = find(parent, a), find(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@compiled
def unite_equal(pixel: npt.NDArray[np.int64], node: npt.NDArray[np.int64], parent: npt.NDArray[np.int64]) -> None:
    """Join the nodes of equal neighbours in a sorted list of pixels."""
    for i in range(1, pixel.size):
        if pixel[i] == pixel[i - 1]:
            unite(parent, node[i], node[i - 1])


@compiled
def unite_pairs(pair: npt.NDArray[np.int64], parent: npt.NDArray[np.int64]) -> None:
    for i in range(pair.shape[0]):
        unite(parent, pair[i, 0], pair[i, 1])


@compiled
def flatten(parent: npt.NDArray[np.int64]) -> None:
    for node in range(parent.size):
        parent[node] = find(parent, node)
