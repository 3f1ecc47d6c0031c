"""Solve the eikonal equation on a whole patch: signed distance and flow of the objects that a network predicts.

A signed distance satisfies |grad phi| = 1 with phi = 0 on its boundary, and that boundary determines it. Descent on
the residual of this equation carries the distance from the boundary by a pixel a step; the exact solution is at hand,
and is what the network is pulled to:

    phi ─▶ level ─▶ objects: where phi > level, parted as below ─▶ distance and flow of these objects, as of full masks

*The level.* Where strokes lie inside objects only, many fields have the right sign on all of them, and their zeros lie
too far in or out. The level is the one whose contour lies on the strongest edges of the image, among levels that leave
the strokes on their sides:

    edge(t) (2 agreement(t) - 1)  is largest        edge: mean over the pixels beside the contour phi = t
                                                    agreement: mean of the shares of foreground and background strokes
                                                    that are on their side of t
So in a step the boundary moves by the level towards edges, and where it is on them the level is 0 and it stays. Without
edges the level is 0: then the solution has the zeros of phi and moves no boundary.

*Different numbers on two strokes mean that a boundary lies between them*, on every way from one to the other. Where phi
is above the level on all of a way, the boundary is laid where the way is lowest: flooding in the order of falling phi
makes lands around the strokes, and lands of different numbers stay apart.

    phi      2  4  3  1  2  5  2        strokes of objects 1 and 2 under the peaks 4 and 5;
    lands    1  1  1  2  2  2  2        between pixels 3 and 4 a boundary is laid, and phi is pulled to 1/2 beside it

Source: level sets are brought back to distances by Sussman, Smereka and Osher 1994; contours on the strongest edges are
geodesic active contours (Caselles, Kimmel and Sapiro 1997), here among the levels of one field; flooding from markers
is the watershed of Meyer 1991. Their use on a network in training is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.losses.base import BatchTargets, mean_over_ranks

__all__ = ["Solution", "agreement_with_strokes", "choose_level", "lands", "solve"]

LEVELS = tuple(step / 2 for step in range(-6, 7))
"""px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Signed distance (n, y, x), px, and flow (n, 2, y, x) of a batch; where each is defined, (n, y, x) bool.

    Of volumes with z before y, and three components of flow.
    """

    signed: torch.Tensor
    flow: torch.Tensor
    signed_known: torch.Tensor
    flow_known: torch.Tensor


def solve(phi: torch.Tensor, objects: torch.Tensor, anisotropy: float = 1.0) -> Solution:
    """Return the solution with the zeros of phi and a boundary between strokes of different objects.

    Args:
        phi: (n, y, x) or (n, z, y, x), px, any device; no gradient passes.
        objects: shape of phi, integers, the number of the object on a numbered stroke, 0 elsewhere.
        anisotropy: how many times sections are as far apart as pixels.

    Returns:
        A patch that is an object as a whole, or in which there is none, has no boundary: nothing is defined there.
        The border of a patch is no boundary.
    """
    heights, numbers = phi.detach().float().cpu().numpy(), objects.cpu().numpy()
    spacing = (anisotropy, 1.0, 1.0)
    found = [targets_from_sketch(lands(*pair), spacing=spacing) for pair in zip(heights, numbers, strict=True)]
    names = ("signed", "flow", "signed_known", "flow_known")
    stacked = {name: np.stack([getattr(one, name) for one in found]) for name in names}
    return Solution(**{name: torch.from_numpy(values).to(phi.device) for name, values in stacked.items()})


def choose_level(phi: torch.Tensor, targets: BatchTargets) -> tuple[float, float]:
    """Return the level whose contour lies on the strongest edges in all processes, and how far the strokes agree.

    Args:
        phi: (n, y, x), px.
        targets: with edges, or without: then the level is 0.

    Returns:
        The level, px, and 2 agreement - 1 there, from 0 (no better than chance) to 1. Of equally good levels the one
        nearest to 0.
    """
    levels = LEVELS if targets.edges.shape[1] else (0.0,)
    with torch.no_grad():
        counts = mean_over_ranks(torch.stack([_counts(phi.detach(), level, targets) for level in levels]).double())
    *sides, edge, contour = counts.cpu().numpy().T
    agreement = _agreement(np.stack(sides))
    score = agreement * edge / np.maximum(contour, 1)
    best = max(range(len(levels)), key=lambda i: (score[i], -abs(levels[i])))
    return levels[best], float(agreement[best])


def agreement_with_strokes(excess: torch.Tensor, targets: BatchTargets) -> float:
    """Return from 0 to 1 how far strokes agree with the sign of a field (n, y, x), over all processes.

    With the mean m of the shares of foreground strokes above 0 and of background strokes not above 0 it is
    max(0, 2 m - 1). If only one kind of stroke exists, its share is used.
    """
    with torch.no_grad():
        counts = mean_over_ranks(_counts(excess, 0.0, targets).double())
    return float(_agreement(counts[:4].cpu().numpy()[:, None])[0])


def _agreement(sides: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the agreement for each column of the first four rows of `_counts`."""
    right_in, inside, right_out, outside = sides
    shares = [right / count for right, count in ((right_in, inside), (right_out, outside)) if count[0] > 0]
    return np.maximum(0, 2 * np.mean(shares, axis=0) - 1) if shares else np.zeros(len(inside))


def _counts(phi: torch.Tensor, level: float, targets: BatchTargets) -> torch.Tensor:
    """Return six sums: foreground above the level and in all, background below and in all, contour edges and pixels."""
    above = phi > level
    beside = torch.zeros_like(above)
    for axis in range(1, above.ndim):
        later, earlier = above.narrow(axis, 1, above.shape[axis] - 1), above.narrow(axis, 0, above.shape[axis] - 1)
        beside.narrow(axis, 1, above.shape[axis] - 1).logical_or_(later != earlier)
    beside &= ~targets.ignored
    edge = (targets.edges[:, 0] * beside).sum() if targets.edges.shape[1] else above.new_zeros((), dtype=phi.dtype)
    masks = (above & targets.inside, targets.inside, ~above & targets.background, targets.background)
    sums = [*(mask.sum() for mask in masks), edge, beside.sum()]
    return torch.stack([one.to(phi.dtype) for one in sums])


def lands(phi: npt.NDArray[np.float32], objects: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
    """Return the objects of one patch: 0 where phi <= 0, else the number of the land plus 1; 1 without a number.

    Args:
        phi, objects: (y, x) or (z, y, x), see `solve`.

    Returns:
        The shape of phi. A way goes from a pixel to its neighbours along each axis. Of equally high pixels the first in
        raster order floods first; a pixel between two lands goes to the higher neighbour.

    >>> phi = np.array([[2, 4, 3, 1, 2, 5, 2, -1, 3]], np.float32)
    >>> lands(phi, np.array([[0, 1, 0, 0, 0, 2, 0, 0, 0]])).tolist()
    [[2, 2, 2, 2, 3, 3, 3, 0, 1]]
    """
    if not (objects > 0).any():
        return (phi > 0).astype(np.int32)
    flooded: npt.NDArray[np.int32] = _flood(np.ascontiguousarray(phi), np.ascontiguousarray(objects, np.int32))
    return flooded


@numba.njit(cache=True, nogil=True)
def _flood(phi: npt.NDArray[np.float32], objects: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Compute `lands`; a land is a tree of pixels, and its root holds its number."""
    shape = np.array(phi.shape)
    heights, owner = phi.ravel(), objects.ravel().copy()
    land = np.full(phi.size, -1, np.int64)
    around = np.empty(2 * phi.ndim, np.int64)
    for p in np.argsort(-heights, kind="mergesort"):
        if not heights[p] > 0:
            break
        land[p] = p
        for q in around[: _flooded_neighbours(p, shape, heights, land, around)]:
            a, b = _root(land, p), _root(land, q)
            if a != b and (owner[a] == 0 or owner[b] == 0 or owner[a] == owner[b]):
                land[b] = a
                owner[a] = max(owner[a], owner[b])
    out = np.zeros(phi.size, np.int32)
    for p in range(phi.size):
        if land[p] >= 0:
            out[p] = owner[_root(land, p)] + 1
    return out.reshape(phi.shape)


@numba.njit(cache=True, nogil=True)
def _flooded_neighbours(
    p: int,
    shape: npt.NDArray[np.int64],
    heights: npt.NDArray[np.float32],
    land: npt.NDArray[np.int64],
    out: npt.NDArray[np.int64],
) -> int:
    """Return how many neighbours are in a land, and write them to `out`, the higher ones first.

    Of equally high ones, the first in raster order comes first.
    """
    count, axes = 0, shape.size
    for side in range(2 * axes):
        axis = side if side < axes else 2 * axes - 1 - side
        step = -1 if side < axes else 1
        stride = 1
        for later in range(axis + 1, axes):
            stride *= shape[later]
        if not 0 <= p // stride % shape[axis] + step < shape[axis]:
            continue
        q = p + step * stride
        if land[q] >= 0:
            at = count
            while at > 0 and heights[out[at - 1]] < heights[q]:
                out[at] = out[at - 1]
                at -= 1
            out[at] = q
            count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _root(parents: npt.NDArray[np.int64], at: int) -> int:
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = parents[at]
    return at
