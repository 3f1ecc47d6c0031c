"""Common borders of touching pieces: what the pairs of facing pixels say for and against one object.

A pair is a pixel and the next one along an axis, in different pieces; the block whose core holds the first of the two
sees it. Each pair says three things, and a border the sum, or the maximum, over its pairs:

    saddle   the lower distance of the two, px                               maximum
    flow     scalar product of their flows - `agreement`                     sum, 24 fractional bits
    ends     1 if they end at most `join_radius` apart, else 0; - the share  sum, 24 fractional bits

All three are exact in any order, so borders that blocks share add up to those of the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.fixed_point import compiled, half_values, sections
from sketchscale.integration.follow import EndPoints
from sketchscale.integration.region import Region

__all__ = ["Borders", "borders_of"]

_FLOW_BITS = 12
_VOTE_BITS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Borders:
    """Borders between pieces, or parts of them.

    Attributes:
        pair: int64 (p, 2), the smaller id first.
        saddle: float32 (p,), largest distance that both sides reach, px.
        vote: int64 (p,), above 0 where the flow on the two sides agrees.
        near: int64 (p,), above 0 where enough of the border ends together.
    """

    pair: npt.NDArray[np.int64]
    saddle: npt.NDArray[np.float32]
    vote: npt.NDArray[np.int64]
    near: npt.NDArray[np.int64]

    @property
    def arrays(
        self,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """To be filled by a kernel."""
        return self.pair, self.saddle, self.vote, self.near

    @classmethod
    def empty(cls, count: int) -> Borders:
        """Room for so many."""
        return cls(
            pair=np.empty((count, 2), np.int64),
            saddle=np.empty(count, np.float32),
            vote=np.empty(count, np.int64),
            near=np.empty(count, np.int64),
        )

    @classmethod
    def of(cls, parts: Sequence[Borders]) -> Borders:
        """The borders of all parts, each pair once.

        >>> one = Borders.empty(1)
        >>> one.pair[:], one.saddle[:], one.vote[:], one.near[:] = (1, 2), 0.5, 3, -4
        >>> both = Borders.of([one, one])
        >>> both.pair, both.saddle, both.vote, both.near
        (array([[1, 2]]), array([0.5], dtype=float32), array([6]), array([-8]))
        """
        parts = [cls.empty(0), *parts]
        return cls(
            pair=np.concatenate([part.pair for part in parts]),
            saddle=np.concatenate([part.saddle for part in parts]),
            vote=np.concatenate([part.vote for part in parts]),
            near=np.concatenate([part.near for part in parts]),
        ).merged()

    def merged(self) -> Borders:
        """Each pair once, in order: the largest saddle, the sums of the votes."""
        if self.vote.size == 0:
            return self
        order = np.lexsort((self.pair[:, 1], self.pair[:, 0]))
        pair = self.pair[order]
        starts = np.flatnonzero(np.concatenate([[True], (pair[1:] != pair[:-1]).any(axis=1)]))
        return Borders(
            pair=pair[starts],
            saddle=np.maximum.reduceat(self.saddle[order], starts),
            vote=np.add.reduceat(self.vote[order], starts),
            near=np.add.reduceat(self.near[order], starts),
        )


def _costs(config: IntegrationConfig) -> npt.NDArray[np.int64]:
    """What each pair costs: of the flow's vote, of the ends' vote; and the square of the radius for ends, px.

    Without a `join_share` a pair costs all that it can say, so that no border's ends speak for joining.
    """
    share = 1.0 if config.join_share is None else config.join_share
    costs = [round(value * 2**_VOTE_BITS) for value in (config.agreement, share)]
    return np.array([*costs, config.join_radius**2], np.int64)


def borders_of(found: npt.NDArray[np.uint32], points: EndPoints, region: Region, config: IntegrationConfig) -> Borders:
    """Borders of a block's pieces, over the pairs whose first pixel is in the core.

    Args:
        found: shape of `region.kept`: the pixel's local id, 0 for background.
        points: of the same region.
    """
    ids, core = sections(found), sections(found[tuple(map(slice, region.core.shape))]).shape
    borders = Borders.empty(_count_pairs(ids, *core))
    if borders.vote.size:
        bits = sections(points.bits, leading=1)
        rows, columns = region.window.shape[-2:]
        sizes = np.array([*core, rows, columns], np.int64)
        _find_pairs(ids, sections(points.ends), bits, half_values(), sizes, _costs(config), *borders.arrays)
    return borders.merged()


@compiled
def _count_pairs(found: npt.NDArray[np.uint32], depth: int, rows: int, columns: int) -> int:
    """Pairs of neighbouring pixels of different objects along every axis, the first pixel within the core."""
    count = 0
    deep, high, wide = found.shape
    for z in range(depth):
        for y in range(rows):
            for x in range(columns):
                here = found[z, y, x]
                if here:
                    if x + 1 < wide and found[z, y, x + 1] and found[z, y, x + 1] != here:
                        count += 1
                    if y + 1 < high and found[z, y + 1, x] and found[z, y + 1, x] != here:
                        count += 1
                    if z + 1 < deep and found[z + 1, y, x] and found[z + 1, y, x] != here:
                        count += 1
    return count


@compiled
def _find_pairs(
    found: npt.NDArray[np.uint32],
    ends: npt.NDArray[np.int32],
    bits: npt.NDArray[np.uint16],
    value: npt.NDArray[np.float32],
    sizes: npt.NDArray[np.int64],
    cost: npt.NDArray[np.int64],
    pair: npt.NDArray[np.int64],
    saddle: npt.NDArray[np.float32],
    vote: npt.NDArray[np.int64],
    near: npt.NDArray[np.int64],
) -> None:
    """What every pair that `_count_pairs` counts says; `sizes`: the core's three, the window's rows and columns."""
    n = 0
    deep, high, wide = found.shape
    for z in range(sizes[0]):
        for y in range(sizes[1]):
            for x in range(sizes[2]):
                here = found[z, y, x]
                if here:
                    if x + 1 < wide and found[z, y, x + 1] and found[z, y, x + 1] != here:
                        pair[n, 0], pair[n, 1] = min(here, found[z, y, x + 1]), max(here, found[z, y, x + 1])
                        saddle[n], vote[n], near[n] = _votes_of(ends, bits, value, sizes, cost, z, y, x, z, y, x + 1)
                        n += 1
                    if y + 1 < high and found[z, y + 1, x] and found[z, y + 1, x] != here:
                        pair[n, 0], pair[n, 1] = min(here, found[z, y + 1, x]), max(here, found[z, y + 1, x])
                        saddle[n], vote[n], near[n] = _votes_of(ends, bits, value, sizes, cost, z, y, x, z, y + 1, x)
                        n += 1
                    if z + 1 < deep and found[z + 1, y, x] and found[z + 1, y, x] != here:
                        pair[n, 0], pair[n, 1] = min(here, found[z + 1, y, x]), max(here, found[z + 1, y, x])
                        saddle[n], vote[n], near[n] = _votes_of(ends, bits, value, sizes, cost, z, y, x, z + 1, y, x)
                        n += 1


@compiled
def _votes_of(
    ends: npt.NDArray[np.int32],
    bits: npt.NDArray[np.uint16],
    value: npt.NDArray[np.float32],
    sizes: npt.NDArray[np.int64],
    cost: npt.NDArray[np.int64],
    z: int,
    y: int,
    x: int,
    w: int,
    v: int,
    u: int,
) -> tuple[np.float32, int, int]:
    """Saddle, vote and vote on ends of the pair of pixels (z, y, x) and (w, v, u)."""
    last = bits.shape[0] - 1
    saddle = min(value[bits[last, z, y, x]], value[bits[last, w, v, u]])
    vote = -cost[0]
    for a in range(last):
        vote += _fixed(value[bits[a, z, y, x]]) * _fixed(value[bits[a, w, v, u]])
    return saddle, vote, _near_vote(_square(ends[z, y, x], ends[w, v, u], sizes[3], sizes[4]), cost)


@compiled
def _square(a: int, b: int, rows: int, columns: int) -> int:
    """Of the distance of two end points in a straight line, from their flat indices into the window."""
    section = rows * columns
    deep = a // section - b // section
    down = a // columns % rows - b // columns % rows
    right = a % columns - b % columns
    return int(deep * deep + down * down + right * right)


@compiled
def _near_vote(square: int, cost: npt.NDArray[np.int64]) -> int:
    """A pair's vote on ends the square root of `square` apart."""
    gain = 1 << _VOTE_BITS if square <= cost[2] else 0
    return int(gain - cost[1])


@compiled
def _fixed(flow: np.float32) -> int:
    """A flow component with 12 fractional bits; lengths above 8 count as 8, so that sums stay within 64 bits."""
    return int(np.rint(min(max(flow, np.float32(-8)), np.float32(8)) * np.float32(1 << _FLOW_BITS)))
