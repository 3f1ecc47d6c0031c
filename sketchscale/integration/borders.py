"""Common borders of touching components: the votes of the pairs of facing pixels for and against one object.

A pair is a pixel and the next one along an axis, in different components. It is counted by the block whose core holds
its first pixel. Each pair has three votes, and a border has their sum, or their maximum:

    saddle   the lower distance of the two, px                               maximum
    vote     `prominence` + 8 x scalar product of their flows, px            sum, 24 fractional bits
             (the product is cut to -1 ... 1)
    near     1 if they end at most `join_radius` apart, else 0; - the share  sum, 24 fractional bits

All three are exact in any order, so borders that blocks share add up to those of the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.fixed_point import Float32, Int32, Int64, Uint16, Uint32, compiled, half_values, sections
from sketchscale.integration.follow import EndPoints
from sketchscale.integration.region import Region

__all__ = ["Borders", "borders_of"]

_FLOW_BITS = 12
_VOTE_BITS = 24
_FLOW_GAIN = 8
"""px of prominence that parallel flow on both sides of a border makes up for (benchmarks/rules.py)."""


class Borders(NamedTuple):
    """Borders between components, or parts of borders; a NamedTuple, because kernels fill it.

    Attributes:
        pair: int64 (p, 2), the smaller id first.
        pairs: int64 (p,), number of pairs of pixels.
        saddle: float32 (p,), largest distance that both sides reach, px.
        vote: int64 (p,), sum of the prominence that the pairs allow, px; above 0 where the two may be one.
        near: int64 (p,), above 0 where enough of the border ends together.
    """

    pair: Int64
    pairs: Int64
    saddle: Float32
    vote: Int64
    near: Int64

    @classmethod
    def empty(cls, count: int) -> Borders:
        """Return uninitialised arrays for `count` pairs."""
        votes = np.empty((3, count), np.int64)
        return cls(np.empty((count, 2), np.int64), votes[0], np.empty(count, np.float32), votes[1], votes[2])

    @classmethod
    def of(cls, parts: Sequence[Borders]) -> Borders:
        """Return the borders of all parts, each pair once.

        >>> one = Borders.empty(1)
        >>> one.pair[:], one.pairs[:], one.saddle[:], one.vote[:], one.near[:] = (1, 2), 1, 0.5, 3, -4
        >>> both = Borders.of([one, one])
        >>> both.pair, both.saddle, both.vote, both.near
        (array([[1, 2]]), array([0.5], dtype=float32), array([6]), array([-8]))
        """
        return cls(*map(np.concatenate, zip(cls.empty(0), *parts, strict=True))).merged()

    def merged(self) -> Borders:
        """Return each pair once, in order, with the largest saddle and the sums of the others."""
        if self.vote.size == 0:
            return self
        order = np.lexsort((self.pair[:, 1], self.pair[:, 0]))
        pair = self.pair[order]
        starts = np.flatnonzero(np.concatenate([[True], (pair[1:] != pair[:-1]).any(axis=1)]))
        return Borders(
            pair=pair[starts],
            pairs=np.add.reduceat(self.pairs[order], starts),
            saddle=np.maximum.reduceat(self.saddle[order], starts),
            vote=np.add.reduceat(self.vote[order], starts),
            near=np.add.reduceat(self.near[order], starts),
        )

    def joining(self, low: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which borders make one object of two; one exactly at a limit does not.

        Args:
            low: (p,), the lower of the peaks of the two, px, over their whole areas.
        """
        allowed = self.vote / (self.pairs * float(1 << _VOTE_BITS))
        return (low - self.saddle < allowed) | (self.near > 0)


class _Pixels(NamedTuple):
    """Local ids, end points and bits of the kept pixels of a block as (z, y, x), and the value of each bit pattern."""

    found: Uint32
    ends: Int32
    bits: Uint16
    value: Float32


def borders_of(found: Uint32, points: EndPoints, region: Region, config: IntegrationConfig) -> Borders:
    """Return the borders of a block's components, over the pairs with the first pixel in the core.

    Args:
        found: shape of `region.kept`: the pixel's local id, 0 for background.
        points: of the same region.
    """
    pixels = _Pixels(sections(found), sections(points.ends), sections(points.bits, leading=1), half_values())
    core = sections(found[tuple(map(slice, region.core.shape))]).shape
    sizes = np.array([*core, *region.window.shape[-2:]], np.int64)
    # without a `join_share` a pair costs as much as it can gain, so the votes on ends never join
    share = 1.0 if config.join_share is None else config.join_share
    costs = [round(value * 2**_VOTE_BITS) for value in (config.prominence, share)]
    rule = np.array([*costs, config.join_radius**2], np.int64)
    borders = Borders.empty(_find_pairs(pixels, sizes, rule, Borders.empty(0)))
    _find_pairs(pixels, sizes, rule, borders)
    return borders.merged()


@compiled
def _find_pairs(pixels: _Pixels, sizes: Int64, rule: Int64, borders: Borders) -> int:
    """Fill the votes of all pairs of neighbouring pixels in different components, as many as there is room for.

    Args:
        sizes: the core's shape, then the window's rows and columns.
        rule: px that a pair allows for any flow, cost of a pair in the vote on ends, square of the radius for ends.

    Returns:
        The number of pairs.
    """
    n = 0
    found = pixels.found
    deep, high, wide = found.shape
    for z in range(sizes[0]):
        for y in range(sizes[1]):
            for x in range(sizes[2]):
                here = found[z, y, x]
                if here:
                    if x + 1 < wide and _differ(here, found[z, y, x + 1]):
                        n = _add_pair(pixels, (z, y, x), (z, y, x + 1), sizes, rule, borders, n)
                    if y + 1 < high and _differ(here, found[z, y + 1, x]):
                        n = _add_pair(pixels, (z, y, x), (z, y + 1, x), sizes, rule, borders, n)
                    if z + 1 < deep and _differ(here, found[z + 1, y, x]):
                        n = _add_pair(pixels, (z, y, x), (z + 1, y, x), sizes, rule, borders, n)
    return n


@compiled
def _differ(here: np.uint32, there: np.uint32) -> bool:
    """Whether a pixel belongs to another component."""
    return bool(there != 0 and there != here)


@compiled
def _add_pair(
    pixels: _Pixels,
    first: tuple[int, int, int],
    second: tuple[int, int, int],
    sizes: Int64,
    rule: Int64,
    borders: Borders,
    n: int,
) -> int:
    """Write a pair of pixels and its three votes to row `n` of `borders`, where there is room; return n + 1."""
    if n >= borders.vote.size:
        return n + 1
    z, y, x = first
    w, v, u = second
    bits, value, found = pixels.bits, pixels.value, pixels.found
    borders.pair[n, 0], borders.pair[n, 1] = min(found[z, y, x], found[w, v, u]), max(found[z, y, x], found[w, v, u])
    last = bits.shape[0] - 1
    borders.saddle[n] = min(value[bits[last, z, y, x]], value[bits[last, w, v, u]])
    borders.pairs[n] = 1
    agreement = 0
    for axis in range(last):
        agreement += _fixed(value[bits[axis, z, y, x]]) * _fixed(value[bits[axis, w, v, u]])
    borders.vote[n] = rule[0] + _FLOW_GAIN * min(max(agreement, -(1 << _VOTE_BITS)), 1 << _VOTE_BITS)
    a, b = np.int64(pixels.ends[z, y, x]), np.int64(pixels.ends[w, v, u])
    rows, columns = sizes[3], sizes[4]
    deep = a // (rows * columns) - b // (rows * columns)
    down = a // columns % rows - b // columns % rows
    right = a % columns - b % columns
    gain = 1 << _VOTE_BITS if deep * deep + down * down + right * right <= rule[2] else 0
    borders.near[n] = gain - rule[1]
    return n + 1


@compiled
def _fixed(flow: np.float32) -> int:
    """Return a flow component with 12 fractional bits, cut to lengths up to 8, so that sums stay within 64 bits."""
    return int(np.rint(min(max(flow, np.float32(-8)), np.float32(8)) * np.float32(1 << _FLOW_BITS)))
