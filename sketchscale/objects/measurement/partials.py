"""What one block knows about the objects in it, and how blocks add up: exactly, whatever the blocks were.

Every number below is an integer sum, a minimum or a maximum over pixels, so partials of any blocks, combined in any
order, are those of the whole image to the bit. Three things make that so:

  * moments are sums of absolute pixel indices in 64-bit integers that may wrap around: what is computed from them is
    small again, and arithmetic modulo 2^64 does not mind the way there;
  * intensities become integer codes before they are added: integer pixels up to 32 bits are coded exactly (value minus
    the smallest value of the type); all others on a grid of 2^32 steps between the lowest and the highest value of the
    whole plane, so a mean is off by at most 2^-33 of that range. Squares are added as two 32-bit halves;
  * perimeter and Euler number are sums over the 2 x 2 windows of the image. A block owns the windows whose lower right
    pixel it owns, so it needs a halo of one pixel above and on the left; windows that stick out of the image at the
    bottom or right belong to the last blocks, and outside the image is background:

        h h h h h        h  halo, read only            window:  a b
        h . . . 0        .  owned                                c d   owned with d
        h . . . 0        0  outside the image
        h 0 0 0 0

Limits: 2^31 pixels an object, images of 100,000 x 100,000 px.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError

__all__ = [
    "CODE_STEPS",
    "SUMS",
    "Coding",
    "Partial",
    "combine_partials",
    "empty_partial",
    "fold_partials",
    "ids_inside",
    "image_coding",
    "is_exact",
    "partial_objects",
]

CODE_STEPS = 2**32 - 1
"""Steps of the fixed grid on which intensities that are not small integers are added."""

SUMS = ("area", "y", "x", "yy", "xx", "yx", "crofton_axis", "crofton_diagonal", "euler")
"""Rows of `Partial.sums`. The two Crofton counts and the Euler number are sums over 2 x 2 windows."""

_FOLD_ROWS = 1 << 18
"""Rows of partials held before they are combined; more where the result is larger than that."""

_NOWHERE = np.iinfo(np.int64).max

# By window code d + 2b + 4c + 8a. Rows: multiples of pi/4 and of pi/(4 sqrt 2) in the Crofton perimeter of four
# directions, and the Euler number for 8-connected objects. Source: Rivollier 2010, Ohser et al. 2002, as scikit-image.
_WINDOWS = np.array(
    [
        [0, 1, 0, 0, 0, 1, 0, 0, 1, 2, 0, 0, 1, 2, 0, 0],
        [0, 1, 1, 2, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0, 0, -1, 0],
    ],
    np.int64,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """How intensities become integers, one entry a channel: code = round((value - low) * scale).

    Attributes:
        lows: value of code 0.
        scales: codes per unit of intensity; 1 where integers are coded exactly, 0 for a channel of one value.
    """

    lows: tuple[float, ...]
    scales: tuple[float, ...]


def image_coding(dtype: npt.DTypeLike, ranges: Sequence[tuple[float, float]]) -> Coding:
    """The coding of a plane.

    Args:
        dtype: of the pixels.
        ranges: lowest and highest value of each channel in the whole plane; they matter for floats and 64-bit integers
            only.

    Raises:
        InputError: a range is empty or not finite.

    >>> image_coding("uint8", [(3, 7)]).scales
    (1.0,)
    """
    kind = np.dtype(dtype)
    if is_exact(kind):
        low = float(np.iinfo(kind).min) if kind.kind in "iu" else 0.0
        return Coding(lows=(low,) * len(ranges), scales=(1.0,) * len(ranges))
    for low, high in ranges:
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise InputError.of(
                found=f"intensities from {low} to {high}", expected="finite numbers", fix="remove NaN and Inf"
            )
    scales = tuple(CODE_STEPS / (high - low) if high > low else 0.0 for low, high in ranges)
    return Coding(lows=tuple(float(low) for low, _ in ranges), scales=scales)


def is_exact(dtype: npt.DTypeLike) -> bool:
    """Whether intensities of this type are added exactly, without knowing their range: integers up to 32 bits."""
    kind = np.dtype(dtype)
    return kind.kind in "iub" and kind.itemsize <= 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """What is known of n objects from some of their pixels, c channels; ordered by label.

    Attributes:
        label: (n,) ids.
        sums: (9, n) rows as SUMS.
        starts, stops: (2, n) half-open box, (y, x); (3, n) in a volume.
        codes: (c, 3, n) sum of intensity codes, and low and high 32-bit halves of their squares, added apart.
        lows, highs: (c, n) smallest and largest intensity.
    """

    label: npt.NDArray[np.uint64]
    sums: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    lows: npt.NDArray[np.float64]
    highs: npt.NDArray[np.float64]

    def sum(self, name: str) -> npt.NDArray[np.int64]:
        """(n,) one row of `sums`."""
        row: npt.NDArray[np.int64] = self.sums[SUMS.index(name)]
        return row

    def box_size(self) -> npt.NDArray[np.int64]:
        """(n,) pixels or voxels of the boxes of whole objects."""
        size: npt.NDArray[np.int64] = np.prod(self.stops - self.starts, axis=0)
        return size

    def at_edge(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """(n,) whether the box of a whole object reaches an edge of an image of this shape."""
        reaches: npt.NDArray[np.bool_] = ((self.starts == 0) | (self.stops == np.array(shape)[:, None])).any(axis=0)
        return reaches

    def take(self, rows: slice) -> Partial:
        """What is known of some of the objects."""
        arrays = {f.name: getattr(self, f.name)[..., rows] for f in fields(self)}
        return Partial(**arrays)

    def as_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """For io.blobs.put_arrays; `Partial(**arrays)` is the way back."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


COMBINE: dict[str, np.ufunc] = {
    "sums": np.add,
    "starts": np.minimum,
    "stops": np.maximum,
    "codes": np.add,
    "lows": np.minimum,
    "highs": np.maximum,
}
"""How each part of a Partial is combined across blocks."""


def combine_partials(parts: Iterable[Partial]) -> Partial:
    """All that several partials know together, one column an object, ordered by label. Order of parts is of no matter.

    Args:
        parts: of one plane, at least one; see `empty_partial`.
    """
    listed = list(parts)
    label = np.concatenate([p.label for p in listed])
    order = np.argsort(label, kind="stable")
    label = label[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(label)), bool), label[1:] != label[:-1]]))
    combined = {}
    for name, ufunc in COMBINE.items():
        values = np.concatenate([getattr(p, name) for p in listed], axis=-1)[..., order]
        combined[name] = ufunc.reduceat(values, starts, axis=-1) if len(starts) else values
    return Partial(label=label[starts], **combined)


def fold_partials(parts: Iterable[Partial], empty: Partial) -> Partial:
    """As `combine_partials`, of more parts than memory holds at once: what is held stays near the result's size.

    Args:
        parts: read as they are needed.
        empty: a partial of no object, which is the answer where there is no part.
    """
    waiting, rows = [empty], 0
    for part in parts:
        waiting.append(part)
        rows += len(part.label)
        if rows > max(_FOLD_ROWS, len(waiting[0].label)):
            waiting, rows = [combine_partials(waiting)], 0
    return combine_partials(waiting)


def empty_partial(channels: int) -> Partial:
    """What is known of no object, in an image of so many channels."""
    none = np.zeros((2, 0), np.int64)
    return Partial(
        label=np.zeros(0, np.uint64),
        sums=np.zeros((len(SUMS), 0), np.int64),
        starts=none,
        stops=none,
        codes=np.zeros((channels, 3, 0), np.int64),
        lows=np.zeros((channels, 0)),
        highs=np.zeros((channels, 0)),
    )


def partial_objects(
    labels: npt.NDArray[Any], image: npt.NDArray[Any], origin: tuple[int, int], coding: Coding
) -> Partial:
    """Measure what one block holds.

    Args:
        labels: (1 + y [+ 1], 1 + x [+ 1]) ids, 0 background: the block with its halo row and column in front (zeros at
            the image's edge), and a row or column of zeros behind where the image ends.
        image: (c, y, x) intensities of the block itself; c may be 0.
        origin: (y, x) of the block's first pixel in the image.
        coding: one entry a channel, of the whole plane.

    Returns:
        Objects that own a pixel or a window here; one with only a window has area 0 and no box.

    Raises:
        InputError: an intensity is not finite or outside the range the coding was made for; an id of 2^63 or more.
    """
    # Two types only, and contiguous: each new one would be compiled anew.
    labels = np.ascontiguousarray(labels, np.uint64 if labels.dtype.itemsize > 4 else np.uint32)
    ids = ids_inside(labels)
    channels, (height, width) = len(image), image.shape[1:]
    sums = np.zeros((len(ids), len(SUMS)), np.int64)
    starts = np.full((len(ids), 2), _NOWHERE, np.int64)
    stops = np.full((len(ids), 2), -1, np.int64)
    codes = np.zeros((channels, len(ids), 3), np.int64)
    lows = np.full((channels, len(ids)), np.inf)
    highs = np.full((channels, len(ids)), -np.inf)
    _add_geometry(labels, ids, np.array([*origin, height, width], np.int64), sums, starts, stops)
    _add_windows(labels, ids, _WINDOWS, sums)
    steps = np.array([coding.lows, coding.scales], np.float64)
    if not _add_intensities(labels, ids, np.ascontiguousarray(image), steps, codes, lows, highs):
        raise InputError.of(
            found=f"an intensity in the block at {origin} that is not finite or outside the range of the plane",
            expected=f"values from {coding.lows} on",
            fix="remove NaN and Inf, and measure the plane its ranges were taken from",
        )
    return Partial(
        label=ids.astype(np.uint64),
        sums=np.ascontiguousarray(sums.T),
        starts=np.ascontiguousarray(starts.T),
        stops=np.ascontiguousarray(stops.T),
        codes=np.ascontiguousarray(codes.transpose(0, 2, 1)),
        lows=lows,
        highs=highs,
    )


def ids_inside(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sorted ids without 0; looks at the first pixel of each run along a row, which is far less than all pixels.

    Raises:
        InputError: an id of 2^63 or more, which the column `label` does not hold.

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
def _add_geometry(labels, ids, box, sums, starts, stops):  # type: ignore[no-untyped-def]
    """Area, moments and box, run by run along the rows; `box` is y, x, height and width, labels have a halo."""
    top, left, height, width = box
    for row in range(height):
        y = top + row
        begin = 0
        while begin < width:
            label = labels[row + 1, begin + 1]
            end = begin + 1
            while end < width and labels[row + 1, end + 1] == label:
                end += 1
            if label:
                i = np.searchsorted(ids, label)
                a, b = left + begin, left + end
                n, sum_x = end - begin, (b - a) * (a + b - 1) // 2
                sums[i, 0] += n
                sums[i, 1] += n * y
                sums[i, 2] += sum_x
                sums[i, 3] += n * y * y
                sums[i, 4] += _squares_below(b) - _squares_below(a)
                sums[i, 5] += y * sum_x
                starts[i, 0] = min(starts[i, 0], y)
                starts[i, 1] = min(starts[i, 1], a)
                stops[i, 0] = max(stops[i, 0], y + 1)
                stops[i, 1] = max(stops[i, 1], b)
            begin = end


@numba.njit(nogil=True, cache=True)
def _add_windows(labels, ids, table, sums):  # type: ignore[no-untyped-def]
    """Perimeter and Euler counts of every 2 x 2 window; windows of one label count nothing and are passed over."""
    height, width = labels.shape
    for y in range(1, height):
        for x in range(1, width):
            a, b = labels[y - 1, x - 1], labels[y - 1, x]
            c, d = labels[y, x - 1], labels[y, x]
            if a == b and a == c and a == d:
                continue
            window = (d, b, c, a)
            for k in range(4):
                label = window[k]
                known = label == 0
                for earlier in range(k):
                    known = known or window[earlier] == label
                if known:
                    continue
                code = (d == label) + 2 * (b == label) + 4 * (c == label) + 8 * (a == label)
                i = np.searchsorted(ids, label)
                sums[i, 6] += table[0, code]
                sums[i, 7] += table[1, code]
                sums[i, 8] += table[2, code]


@numba.njit(nogil=True, cache=True)
def _add_intensities(labels, ids, image, steps, codes, lows, highs):  # type: ignore[no-untyped-def]
    """Sums, squares and extremes of the intensities, run by run; False when one is outside the coding."""
    height, width = image.shape[1:]
    for row in range(height):
        begin = 0
        while begin < width:
            label = labels[row + 1, begin + 1]
            end = begin + 1
            while end < width and labels[row + 1, end + 1] == label:
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
