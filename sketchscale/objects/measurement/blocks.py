"""What one block adds to the sums of its objects: kernels over the lines and windows of an array with any axes.

Sizes, moments, boxes and intensities are added run by run along the lines of the last axis. Border crossings and the
Euler number are sums over windows that are 2 pixels long along each axis. A block owns the windows whose last pixel it
owns, so it needs a halo of one pixel in front along each axis. Windows that extend beyond the end of the image belong
to the last blocks; outside the image is background:

    h h h h h        h  halo, read only            window:  a b
    h . . . 0        .  owned                                c d   owned with d
    h . . . 0        0  outside the image
    h 0 0 0 0
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.objects.measurement.partials import AXES, Coding, Partial, lines_of, unknown_partial

__all__ = ["ids_inside", "partial_objects"]


@functools.cache
def _window_table(axes: int) -> npt.NDArray[np.int64]:
    """Return (2^(2^axes), lines + 1): what each window adds to crossings and Euler number; bit k is the k-th pixel.

    A pair of pixels lies in several windows. It is counted in the one that has the pair's owned pixel last along the
    axes where both pixels agree. The Euler number of closed squares or cubes (8- or 26-connected) is corners minus
    edges plus faces minus cubes, each counted at its first corner, which is the middle of one window.
    """
    corners = list(itertools.product((0, 1), repeat=axes))
    table = np.zeros((2 ** len(corners), len(lines_of(axes)) + 1), np.int64)
    for code in range(len(table)):
        full = {c: bool(code >> k & 1) for k, c in enumerate(corners)}
        for k, line in enumerate(lines_of(axes)):
            moves = [axis in line for axis in AXES[-axes:]]
            ends = [c for c in corners if all(m or at for m, at in zip(moves, c, strict=True))]
            pairs = [(c, tuple(1 - at if m else at for m, at in zip(moves, c, strict=True))) for c in ends]
            table[code, k] = sum(full[a] != full[b] for a, b in pairs) // 2
        for kept in corners:
            around = [c for c in corners if all(at or not k for k, at in zip(kept, c, strict=True))]
            table[code, -1] += (-1) ** sum(kept) * any(full[c] for c in around)
    return table


def partial_objects(
    labels: npt.NDArray[Any], image: npt.NDArray[Any], origin: Sequence[int], coding: Coding
) -> Partial:
    """Measure the objects in one block.

    Args:
        labels: ([1 + z [+ 1],] 1 + y [+ 1], 1 + x [+ 1]) ids, 0 background: the block with a halo of one pixel in front
            along each axis (zeros at the image's edge), and zeros behind where the image ends.
        image: (c, [z,] y, x) intensities of the block itself; c may be 0.
        origin: ([z,] y, x) of the block's first pixel in the image.
        coding: one entry per channel, of the whole image.

    Returns:
        Objects that own a pixel or a window here; one with only a window has size 0 and no box.

    Raises:
        InputError: an intensity is not finite or outside the range of the coding; an id is 2^63 or more.
    """
    # Two types only, and contiguous: the kernels are compiled once for each type.
    labels = np.ascontiguousarray(labels, np.uint64 if labels.dtype.itemsize > 4 else np.uint32)
    ids, axes, (*rows, width) = ids_inside(labels), labels.ndim, image.shape[1:]
    part = unknown_partial(ids, len(image), axes)
    lines = np.ascontiguousarray(labels[tuple(slice(1, n + 1) for n in image.shape[1:])]).reshape(-1, width)
    places = np.indices(rows).reshape(axes - 1, -1).T + np.array(origin[:-1], np.int64)
    _add_geometry(lines, ids, places, origin[-1], part.sums.T, part.starts.T, part.stops.T)
    windows = np.ravel_multi_index(np.indices([n - 1 for n in labels.shape[:-1]]), labels.shape[:-1]).ravel()
    corners = np.ravel_multi_index(np.indices((2,) * axes).reshape(axes, -1), labels.shape)
    table, flat = _window_table(axes), labels.reshape(-1)
    _add_windows(flat, ids, windows * labels.shape[-1], labels.shape[-1] - 1, corners, table, part.sums.T)
    steps, codes = np.array([coding.lows, coding.scales], np.float64), part.codes.transpose(0, 2, 1)
    pixels = np.ascontiguousarray(image).reshape(len(image), len(lines), width)
    if not _add_intensities(lines, ids, pixels, steps, codes, part.lows, part.highs):
        raise InputError.of(
            found=f"an intensity in the block at {tuple(origin)} that is not finite or outside the range of the image",
            expected=f"values from {coding.lows} on",
            fix="remove NaN and Inf, and measure the image from which its ranges were taken",
        )
    return part


def ids_inside(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return sorted ids without 0. Only the first pixel of each run along a row is sorted, which is much faster.

    Raises:
        InputError: an id is 2^63 or more, which the column `label` cannot hold.

    >>> ids_inside(np.array([[0, 7, 7], [2, 2, 0]]))
    array([2, 7])
    """
    fresh = np.ones(labels.shape, bool)
    fresh[..., 1:] = labels[..., 1:] != labels[..., :-1]
    ids = np.unique(labels[fresh])
    if len(ids) and int(ids[-1]) >= 2**63:
        raise InputError.of(found=f"label {ids[-1]}", expected="ids below 2^63", fix="renumber the labels")
    return ids[ids > 0]


@numba.njit(nogil=True, cache=True)
def _squares_below(k: int) -> int:
    """0 + 1 + 4 + ... + (k - 1)^2."""
    return (k - 1) * k * (2 * k - 1) // 6


@numba.njit(nogil=True, cache=True)
def _add_geometry(lines, ids, places, left, sums, starts, stops):  # type: ignore[no-untyped-def]
    """Add size, moments and box, run by run along the lines; `places` are their positions along the other axes."""
    axes = places.shape[1] + 1
    for row in range(len(lines)):
        line, at = lines[row], places[row]
        begin = 0
        while begin < len(line):
            label = line[begin]
            end = begin + 1
            while end < len(line) and line[end] == label:
                end += 1
            if label:
                i = np.searchsorted(ids, label)
                a, b = left + begin, left + end
                n, sum_x = end - begin, (b - a) * (a + b - 1) // 2
                sums[i, 0] += n
                k = axes + 1
                for axis in range(axes - 1):
                    sums[i, axis + 1] += n * at[axis]
                    for other in range(axis, axes - 1):
                        sums[i, k] += n * at[axis] * at[other]
                        k += 1
                    sums[i, k] += at[axis] * sum_x
                    k += 1
                    starts[i, axis] = min(starts[i, axis], at[axis])
                    stops[i, axis] = max(stops[i, axis], at[axis] + 1)
                sums[i, axes] += sum_x
                sums[i, k] += _squares_below(b) - _squares_below(a)
                starts[i, axes - 1] = min(starts[i, axes - 1], a)
                stops[i, axes - 1] = max(stops[i, axes - 1], b)
            begin = end


@numba.njit(nogil=True, cache=True)
def _add_windows(flat, ids, rows, width, corners, table, sums):  # type: ignore[no-untyped-def]
    """Add crossings and Euler counts of every window; windows of a single label add nothing and are skipped.

    `rows` are the places of the first window of each line, `corners` those of a window's pixels from its first one.
    """
    pixels, first = len(corners), sums.shape[1] - table.shape[1]
    window, i, held = np.zeros(pixels, flat.dtype), 0, flat.dtype.type(0)
    for row in rows:
        before, was_even = flat[row], False
        for place in range(row, row + width + 1):
            # each window is two columns, of which the first was the second of the window before
            last, even = flat[place], True
            for k in range(2, pixels, 2):
                even = even and flat[place + corners[k]] == last
            mixed = place > row and not (even and was_even and before == last)
            before, was_even = last, even
            if not mixed:
                continue
            for k in range(pixels):
                window[k] = flat[place - 1 + corners[k]]
            for k in range(pixels):
                label = window[k]
                known = label == 0
                for earlier in range(k):
                    known = known or window[earlier] == label
                if known:
                    continue
                code = 0
                for j in range(k, pixels):
                    if window[j] == label:
                        code += 1 << j
                if label != held:  # mostly the label of the window before
                    i, held = np.searchsorted(ids, label), label
                for column in range(table.shape[1]):
                    sums[i, first + column] += table[code, column]


@numba.njit(nogil=True, cache=True)
def _add_intensities(lines, ids, image, steps, codes, lows, highs):  # type: ignore[no-untyped-def]
    """Add sums, squares and extremes of the intensities, run by run; return False if one is outside the coding."""
    for row in range(len(lines)):
        line = lines[row]
        begin = 0
        while begin < len(line):
            label = line[begin]
            end = begin + 1
            while end < len(line) and line[end] == label:
                end += 1
            if label:
                i = np.searchsorted(ids, label)
                for c in range(image.shape[0]):
                    low, scale = steps[0, c], steps[1, c]
                    total, squares_low, squares_high = np.uint64(0), np.uint64(0), np.uint64(0)
                    smallest, largest = lows[c, i], highs[c, i]
                    for x in range(begin, end):
                        value = np.float64(image[c, row, x])
                        code = np.floor((value - low) * scale + 0.5)
                        if not (code >= 0.0 and code <= 4294967295.0):
                            return False
                        q = np.uint64(code)
                        square = q * q
                        total += q
                        squares_low += square & np.uint64(0xFFFFFFFF)
                        squares_high += square >> np.uint64(32)
                        smallest, largest = min(smallest, value), max(largest, value)
                    codes[c, i, 0] += np.int64(total)
                    codes[c, i, 1] += np.int64(squares_low)
                    codes[c, i, 2] += np.int64(squares_high)
                    lows[c, i], highs[c, i] = smallest, largest
            begin = end
    return True
