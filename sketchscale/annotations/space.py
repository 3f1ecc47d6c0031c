"""Distances to cracks, and flow, over any number of axes, each with its own spacing; targets.py says what they mean.

targets.py has kernels for planes, which are faster there; tests hold both to the same result.

*Distance.* The cracks across one axis lie half a pixel from pixel centres along it, and on the lines of pixel centres
along all others. So the nearest of them is found along its own axis first, then over the other axes as in any distance
transform, and the nearest over all axes is the nearest crack. All of it in integers: along an axis the lattice steps by
half a pixel times its spacing, and spacings are whole numbers of a common unit (`lattice_steps`).

*Strokes in planes.* A stroke in one plane of a volume leaves the neighbouring planes unknown, so a crack U lies at half
a section on both sides of it. Inside an outlined object the distance is then known next to the outline only; further
in, the distance within the plane is its upper bound, and half a section (or the crack within the plane, if nearer) its
lower one. Several planes through an object, and planes next to one another, tighten both, by the same rule.

*Boundary strokes* are lines here: the sides of one are cracks B, whatever lies beyond them. A drawn pixel counts as
background at -0.5 px from an object. In planes a stroke has a width instead; see strokes.py.

Source: as targets.py; the distance transform is that of Meijster, Roerdink and Hesselink 2000, axis by axis.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from sketchscale.annotations.cracks import BEYOND, DRAWN, FAR, UNKNOWN, pixels

__all__ = ["fields_in_space", "flow_in_space", "lattice_steps", "squared_distances_in_space"]

_FINENESS = 16
"""Spacings are rounded to this share of the last axis' spacing."""
_REACH = 2
"""px, of the window of the flow."""


def lattice_steps(spacing: Sequence[float]) -> tuple[tuple[int, ...], int]:
    """Return whole numbers in proportion to the spacings, and how many of their units the last spacing has.

    >>> lattice_steps((2.0, 1.0, 1.0)), lattice_steps((2.5, 1.0, 1.0)), lattice_steps((1, 1))
    (((2, 1, 1), 1), ((5, 2, 2), 2), ((1, 1), 1))
    """
    steps = [max(1, round(_FINENESS * one / spacing[-1])) for one in spacing]
    common = math.gcd(*steps)
    return tuple(step // common for step in steps), steps[-1] // common


def fields_in_space(
    codes: npt.NDArray[np.int32], spacing: Sequence[float] | None, outside: float, signed: bool
) -> dict[str, npt.NDArray[Any]]:
    """Return the fields of `Targets` that depend on distances, by name; `two_sided` is where distances are exact.

    Args:
        codes: see targets.region_codes; any number of axes.
        spacing: of each axis, relative to the last; None for 1.
        outside, signed: see targets.targets_from_sketch.

    >>> fields_in_space(np.array([[[0, 1, 1, 1, -1, -1]]], np.int32), None, -5.0, True)["signed"][0, 0].tolist()
    [-0.5, 0.5, 1.5, 0.0, 0.0, 0.0]
    """
    spacing = (1.0,) * codes.ndim if spacing is None else tuple(spacing)
    steps, unit = lattice_steps(spacing)
    inside, background, drawn = codes > 0, codes == 0, codes == DRAWN
    to_edge, to_unknown = _to_both(codes, inside, steps)
    exact = (to_edge <= to_unknown) & (to_edge < FAR)
    distance = np.where(exact, pixels(to_edge) / unit, 0).astype(np.float32)
    flow, flow_known = flow_in_space(codes, distance, exact, spacing)
    nearest, half = np.minimum(to_edge, to_unknown), unit**2
    bounded, on_edge = inside & ~exact & (nearest < FAR), to_edge == half
    below, below_known = np.zeros_like(distance), np.zeros_like(exact)
    if signed:
        to_object, to_unknown_object = _to_both(np.where(drawn, 0, codes), background, steps)
        beside = (to_object <= to_unknown_object) & (to_object < FAR)
        below = np.where(drawn, -0.5, np.where(beside, -pixels(to_object) / unit, distance)).astype(np.float32)
        below_known = exact | beside | drawn
    return {
        "flow": flow,
        "distance": np.where(background, outside, distance).astype(np.float32),
        "known": exact | background,
        "flow_known": flow_known,
        "lower": np.where(bounded, pixels(nearest) / unit, 0).astype(np.float32),
        "upper": np.where(bounded, pixels(to_edge) / unit, 0).astype(np.float32),
        "bounded": bounded,
        "two_sided": exact,
        "boundary": on_edge | drawn,
        "boundary_known": on_edge | (inside & (to_unknown > half)) | drawn | background,
        "signed": below,
        "signed_known": below_known,
    }


def _to_both(
    codes: npt.NDArray[np.int32], wanted: npt.NDArray[np.bool_], steps: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the squared distances of the wanted pixels to the cracks B and U; FAR for all others."""
    near, far = (squared_distances_in_space(codes, steps, kind) for kind in (1, 2))
    return np.where(wanted, near, FAR), np.where(wanted, far, FAR)


def squared_distances_in_space(codes: npt.NDArray[np.int32], steps: Sequence[int], kind: int) -> npt.NDArray[np.int64]:
    """Return the squared distance of every pixel to the nearest crack of a kind, in squared units of half a pixel.

    Args:
        codes: see targets.region_codes; any number of axes.
        steps: of the lattice along each axis, whole numbers.
        kind: 1 for boundaries that are certain, 2 for possible ones.

    Returns:
        The shape of `codes`; FAR where there is no such crack.

    >>> squared_distances_in_space(np.array([[0, 1, 1, 1, -1]], np.int32), (1, 1), 1).tolist()
    [[1, 1, 9, 25, 49]]
    """
    nearest = np.full(codes.shape, FAR, np.int64)
    for axis in range(codes.ndim):
        across = np.ascontiguousarray(np.moveaxis(codes, axis, -1))
        found = _to_cracks(_lines(across), kind, steps[axis])
        if not (found < FAR).any():
            continue
        distances = np.moveaxis(found.reshape(across.shape), -1, axis)
        for other in range(codes.ndim):
            if other != axis:
                lines = np.ascontiguousarray(np.moveaxis(distances, other, -1))
                _lower_envelopes(_lines(lines), (2 * steps[other]) ** 2)
                distances = np.moveaxis(lines, -1, other)
        np.minimum(nearest, distances, out=nearest)
    return nearest


def _lines(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a contiguous array as its lines along the last axis; the memory is shared."""
    return values.reshape(math.prod(values.shape[:-1]), values.shape[-1])


@numba.njit(cache=True, nogil=True)
def _crack(a: int, b: int) -> int:
    """Return the kind of the crack between two neighbours: 1 boundary, 2 perhaps, 0 none."""
    if a == b or BEYOND in (a, b):
        return 2 if a == UNKNOWN and b == UNKNOWN else 0
    if UNKNOWN in (a, b):
        return 1 if DRAWN in (a, b) else 2
    return 1


@numba.njit(cache=True, nogil=True)
def _to_cracks(lines: npt.NDArray[np.int32], kind: int, step: int) -> npt.NDArray[np.int64]:
    """Return the squared distance along each line to its nearest crack of a kind."""
    count, n = lines.shape
    out = np.empty((count, n), np.int64)
    far = 1 << 29
    for i in range(count):
        last = far
        for j in range(n):
            last = 1 if j > 0 and _crack(lines[i, j - 1], lines[i, j]) == kind else min(far, last + 2)
            out[i, j] = last
        last = far
        for j in range(n - 1, -1, -1):
            last = 1 if j < n - 1 and _crack(lines[i, j], lines[i, j + 1]) == kind else min(far, last + 2)
            nearest = min(last, out[i, j])
            out[i, j] = FAR if nearest >= far else (nearest * step) ** 2
    return out


@numba.njit(cache=True, nogil=True)
def _lower_envelopes(lines: npt.NDArray[np.int64], weight: int) -> None:
    """Replace f by the least f(p) + weight (p - q)^2 along each line: the lower envelope of parabolas."""
    count, n = lines.shape
    site, begin, height = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(count):
        last = -1
        for c in range(n):
            here = lines[i, c]
            if here == FAR:
                continue
            while (
                last >= 0
                and height[last] + weight * (begin[last] - site[last]) ** 2 > here + weight * (begin[last] - c) ** 2
            ):
                last -= 1
            start = np.int64(0)
            if last >= 0:
                before = site[last]
                rise = weight * (c * c - before * before) + here - height[last]
                start = 1 + rise // (2 * weight * (c - before))
            if start < n:
                last += 1
                site[last], begin[last], height[last] = c, start, here
        if last < 0:
            continue
        for q in range(n - 1, -1, -1):
            while begin[last] > q:
                last -= 1
            lines[i, q] = height[last] + weight * (q - site[last]) ** 2


def flow_in_space(
    codes: npt.NDArray[np.int32],
    distance: npt.NDArray[np.float32],
    exact: npt.NDArray[np.bool_],
    spacing: Sequence[float],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the flow (axes, ...), a unit vector in space, of a plane or volume, and where it is known.

    Args:
        codes: see targets.region_codes. distance, exact: of the same shape, px of the last axis.
        spacing: of each axis, relative to the last.
    """
    lead = 3 - codes.ndim
    three: Any = tuple(np.ascontiguousarray(a.reshape((1,) * lead + a.shape)) for a in (codes, distance, exact))
    window: Any = _window((1.0,) * lead + tuple(spacing))
    flow, known = _flow(*three, *window)
    return np.ascontiguousarray(flow[lead:].reshape(codes.ndim, *codes.shape)), known.reshape(codes.shape)


@functools.lru_cache(maxsize=8)
def _window(spacing: tuple[float, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the reach of the window in pixels along each axis, and the weights of the gradient, (3, *window).

    A derivative of a Gaussian of sigma 1 px. Along each axis the weights are divided by what a slope of 1 gives, so
    that axes with different spacings count alike.
    """
    reach = np.array([max(1, int(_REACH / one)) for one in spacing], np.int64)
    offsets = [np.arange(-r, r + 1) * one for r, one in zip(reach.tolist(), spacing, strict=True)]
    places = np.stack(np.meshgrid(*offsets, indexing="ij"))
    weights = np.exp(-(places**2).sum(axis=0) / 2) * places
    return reach, weights / (weights * places).sum(axis=(1, 2, 3), keepdims=True)


@numba.njit(cache=True, nogil=True)
def _flow(
    codes: npt.NDArray[np.int32],
    distance: npt.NDArray[np.float32],
    exact: npt.NDArray[np.bool_],
    reach: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    depth, h, w = codes.shape
    flow, known = np.zeros((3, depth, h, w), np.float32), np.zeros((depth, h, w), np.bool_)
    sides = weights.shape[1:]
    reached, heights = np.empty(sides, np.bool_), np.empty(sides, np.float64)
    stack = np.empty((weights[0].size, 3), np.int64)
    for k in range(depth):
        for i in range(h):
            for j in range(w):
                if codes[k, i, j] == 0:
                    known[k, i, j] = True
                if not exact[k, i, j]:
                    continue
                at = (k, i, j)
                alone = _copy_window(codes, distance, exact, at, reach, heights)
                if alone or _look_around(codes, distance, exact, at, reach, reached, heights, stack):
                    known[k, i, j] = True
                    gz, gy, gx = _gradient(heights, weights)
                    norm = np.sqrt(gz * gz + gy * gy + gx * gx)
                    if norm > 1e-6:
                        flow[0, k, i, j], flow[1, k, i, j], flow[2, k, i, j] = gz / norm, gy / norm, gx / norm
    return flow, known


@numba.njit(cache=True, nogil=True)
def _copy_window(
    codes: npt.NDArray[np.int32],
    distance: npt.NDArray[np.float32],
    exact: npt.NDArray[np.bool_],
    at: tuple[int, int, int],
    reach: npt.NDArray[np.int64],
    heights: npt.NDArray[np.float64],
) -> bool:
    """Write the distances in a window that lies in one object and is known; return whether it does."""
    k, i, j = at
    a0, b0, c0 = k - reach[0], i - reach[1], j - reach[2]
    depth, rows, columns = heights.shape
    if (
        min(a0, b0, c0) < 0
        or a0 + depth > codes.shape[0]
        or b0 + rows > codes.shape[1]
        or c0 + columns > codes.shape[2]
    ):
        return False
    for a in range(depth):
        for b in range(rows):
            for c in range(columns):
                if codes[a0 + a, b0 + b, c0 + c] != codes[k, i, j] or not exact[a0 + a, b0 + b, c0 + c]:
                    return False
                heights[a, b, c] = distance[a0 + a, b0 + b, c0 + c]
    return True


@numba.njit(cache=True, nogil=True)
def _look_around(
    codes: npt.NDArray[np.int32],
    distance: npt.NDArray[np.float32],
    exact: npt.NDArray[np.bool_],
    at: tuple[int, int, int],
    reach: npt.NDArray[np.int64],
    reached: npt.NDArray[np.bool_],
    heights: npt.NDArray[np.float64],
    stack: npt.NDArray[np.int64],
) -> bool:
    """Write the heights in the window, NaN beyond the image; return False if an unknown pixel could be the object's.

    The object may have every pixel that is reached from the middle through pixels of its id and unknown ones.
    """
    a0, b0, c0 = at[0] - reach[0], at[1] - reach[1], at[2] - reach[2]
    mine = codes[at]
    for a, b, c in np.ndindex(heights.shape):
        z, y, x = a0 + a, b0 + b, c0 + c
        beyond = z < 0 or y < 0 or x < 0 or z >= codes.shape[0] or y >= codes.shape[1] or x >= codes.shape[2]
        heights[a, b, c] = np.nan if beyond or codes[z, y, x] == BEYOND else -0.5
        reached[a, b, c] = False
    reached[reach[0], reach[1], reach[2]] = True
    stack[0] = reach
    waiting = 1
    while waiting:
        waiting -= 1
        a, b, c = stack[waiting]
        if codes[a0 + a, b0 + b, c0 + c] == UNKNOWN or not exact[a0 + a, b0 + b, c0 + c]:
            return False
        heights[a, b, c] = distance[a0 + a, b0 + b, c0 + c]
        for way in range(6):
            shift = 1 if way % 2 else -1
            p = a + (shift if way // 2 == 0 else 0)
            q = b + (shift if way // 2 == 1 else 0)
            r = c + (shift if way // 2 == 2 else 0)
            if p < 0 or q < 0 or r < 0 or p >= heights.shape[0] or q >= heights.shape[1] or r >= heights.shape[2]:
                continue
            if reached[p, q, r] or np.isnan(heights[p, q, r]):
                continue
            code = codes[a0 + p, b0 + q, c0 + r]
            if code == mine or code == UNKNOWN:  # noqa: SIM109 - a tuple of two integer types does not compile
                reached[p, q, r] = True
                stack[waiting, 0], stack[waiting, 1], stack[waiting, 2] = p, q, r
                waiting += 1
    return True


@numba.njit(cache=True, nogil=True)
def _gradient(heights: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the weighted sum of differences between opposite pixels.

    A pixel beyond the image continues the line through its opposite and the middle.
    """
    flat, w = heights.ravel(), weights.reshape(3, heights.size)
    last = flat.size - 1
    here = flat[last // 2]
    gz, gy, gx = 0.0, 0.0, 0.0
    for n in range(last // 2):
        up, down = flat[last - n] - here, flat[n] - here
        if np.isnan(up):
            up = -down
        if np.isnan(down):
            down = -up
        if not np.isnan(up):
            gz += w[0, last - n] * (up - down)
            gy += w[1, last - n] * (up - down)
            gx += w[2, last - n] * (up - down)
    return gz, gy, gx
