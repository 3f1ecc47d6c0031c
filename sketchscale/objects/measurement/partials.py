"""Partial measurements of the objects in one block, which add up exactly for any blocks.

Every number is an integer sum, a minimum or a maximum over pixels (see `blocks`), so partials of any blocks, combined
in any order, equal those of the whole image to the bit, for any number of axes. Two rules ensure this:

  * moments are sums of absolute pixel indices in 64-bit integers that may wrap around: the values computed from them
    are small again, so arithmetic modulo 2^64 is exact;
  * intensities become integer codes before they are added: integer pixels up to 32 bits are coded exactly (value minus
    the smallest value of the type); all others on a grid of 2^32 steps between the lowest and the highest value of the
    whole image, so a mean is off by at most 2^-33 of that range. Squares are added as two 32-bit halves.

Limits: 2^31 pixels per object, images of 100,000 x 100,000 px.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError

__all__ = [
    "AXES",
    "CODE_STEPS",
    "Coding",
    "Partial",
    "combine_partials",
    "empty_partial",
    "fold_partials",
    "image_coding",
    "is_exact",
    "lines_of",
    "sum_names",
    "unknown_partial",
]

CODE_STEPS = 2**32 - 1
"""Steps of the fixed grid on which intensities that are not small integers are added."""

AXES = "zyx"
"""Axes of a volume; a plane has the last two."""

_FOLD_ROWS = 1 << 18
"""Rows of partials held before they are combined; more if the result is larger."""

_NOWHERE = np.iinfo(np.int64).max


@functools.cache
def lines_of(axes: int) -> tuple[str, ...]:
    """Return the kinds of lines through pixel centres, as the axes along which they lead; mirror images are included.

    >>> lines_of(2)
    ('y', 'x', 'yx')
    """
    kinds = itertools.chain.from_iterable(itertools.combinations(AXES[-axes:], k + 1) for k in range(axes))
    return tuple(map("".join, kinds))


@functools.cache
def sum_names(axes: int) -> tuple[str, ...]:
    """Return the rows of `Partial.sums`: pixels, moments, border crossings of lines by kind, Euler number.

    >>> sum_names(2)
    ('size', 'y', 'x', 'yy', 'yx', 'xx', 'crossings_y', 'crossings_x', 'crossings_yx', 'euler')
    """
    moments = map("".join, itertools.combinations_with_replacement(AXES[-axes:], 2))
    return ("size", *AXES[-axes:], *moments, *(f"crossings_{line}" for line in lines_of(axes)), "euler")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """Coding of intensities as integers, one entry per channel: code = round((value - low) * scale).

    Attributes:
        lows: value of code 0.
        scales: codes per unit of intensity; 1 if integers are coded exactly, 0 for a channel of a single value.
    """

    lows: tuple[float, ...]
    scales: tuple[float, ...]


def image_coding(dtype: npt.DTypeLike, ranges: Sequence[tuple[float, float]]) -> Coding:
    """Return the coding of an image.

    Args:
        dtype: of the pixels.
        ranges: lowest and highest value of each channel in the whole image; used for floats and 64-bit integers only.

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
    """Return whether intensities of this type are added exactly without a range: integers up to 32 bits."""
    kind = np.dtype(dtype)
    return kind.kind in "iub" and kind.itemsize <= 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """Measurements of n objects from some of their pixels, with d axes and c channels; ordered by label.

    Attributes:
        label: (n,) ids.
        sums: rows as `sum_names`, (10, n) in a plane, (18, n) in a volume.
        starts, stops: (d, n) half-open box.
        codes: (c, 3, n) sum of intensity codes, and separate sums of the low and high 32-bit halves of their squares.
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
        row: npt.NDArray[np.int64] = self.sums[sum_names(len(self.starts)).index(name)]
        return row

    def box_size(self) -> npt.NDArray[np.int64]:
        """(n,) pixels of the boxes of whole objects."""
        size: npt.NDArray[np.int64] = np.prod(self.stops - self.starts, axis=0)
        return size

    def at_edge(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """(n,) whether the box of a whole object reaches an edge of an image of this shape."""
        reaches: npt.NDArray[np.bool_] = ((self.starts == 0) | (self.stops == np.array(shape)[:, None])).any(axis=0)
        return reaches

    def take(self, rows: slice) -> Partial:
        """Return the measurements of some of the objects."""
        return Partial(**{f.name: getattr(self, f.name)[..., rows] for f in fields(self)})

    def as_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the fields for `put_arrays`; `Partial(**arrays)` restores them."""
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
    """Combine partials in any order into one with a column per object, ordered by label.

    Args:
        parts: of one image, at least one; see `empty_partial`.
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
    """Combine partials as `combine_partials` does, holding only about as many rows as the result has.

    Args:
        parts: read as they are needed.
        empty: a partial without objects, returned if there are no parts.
    """
    waiting, rows = [empty], 0
    for part in parts:
        waiting.append(part)
        rows += len(part.label)
        if rows > max(_FOLD_ROWS, len(waiting[0].label)):
            waiting, rows = [combine_partials(waiting)], 0
    return combine_partials(waiting)


def empty_partial(channels: int, axes: int) -> Partial:
    """Return a partial without objects."""
    return unknown_partial(np.zeros(0, np.uint64), channels, axes)


def unknown_partial(ids: npt.NDArray[Any], channels: int, axes: int) -> Partial:
    """Return a partial of objects without pixels. Its memory is laid out by object, as `blocks` fills it."""
    n = len(ids)
    return Partial(
        label=ids.astype(np.uint64),
        sums=np.zeros((n, len(sum_names(axes))), np.int64).T,
        starts=np.full((n, axes), _NOWHERE, np.int64).T,
        stops=np.full((n, axes), -1, np.int64).T,
        codes=np.zeros((channels, n, 3), np.int64).transpose(0, 2, 1),
        lows=np.full((channels, n), np.inf),
        highs=np.full((channels, n), -np.inf),
    )
