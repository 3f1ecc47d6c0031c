"""Common borders of touching pieces: what the pairs of facing pixels say for and against one object.

A pair is a pixel and its neighbour to the right or below, in different pieces; the block whose core holds the first of
the two sees it. Each pair says three things, and a border the sum, or the maximum, over its pairs:

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
from sketchscale.integration.euler import EndPoints
from sketchscale.integration.fixed_point import compiled, half_values
from sketchscale.integration.region import Region

__all__ = ["Borders", "plane_borders", "tolls"]

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


def tolls(config: IntegrationConfig) -> npt.NDArray[np.int64]:
    """What each pair costs: of the flow's vote, of the ends' vote; and the square of the radius for ends, px.

    Without a `join_share` a pair costs all that it can say, so that no border's ends speak for joining.
    """
    share = 1.0 if config.join_share is None else config.join_share
    costs = [round(value * 2**_VOTE_BITS) for value in (config.agreement, share)]
    return np.array([*costs, config.join_radius**2], np.int64)


def plane_borders(
    found: npt.NDArray[np.uint32], points: EndPoints, region: Region, config: IntegrationConfig
) -> Borders:
    """Borders of a block's pieces, over the pairs whose first pixel is in the core.

    Args:
        found: shape of `region.kept`: the pixel's local id, 0 for background.
        points: of the same region.
    """
    rows, columns = region.core.shape
    borders = Borders.empty(_count_pairs(found, rows, columns))
    width = region.window.shape[1]
    _find_pairs(found, points.ends, width, points.bits, half_values(), rows, columns, tolls(config), *borders.arrays)
    return borders.merged()


@compiled
def _count_pairs(found: npt.NDArray[np.uint32], rows: int, columns: int) -> int:
    """Pairs of neighbouring pixels of different objects: right and below, the first pixel within rows and columns."""
    count = 0
    for y in range(rows):
        for x in range(columns):
            here = found[y, x]
            if here:
                if x + 1 < found.shape[1] and found[y, x + 1] and found[y, x + 1] != here:
                    count += 1
                if y + 1 < found.shape[0] and found[y + 1, x] and found[y + 1, x] != here:
                    count += 1
    return count


@compiled
def _find_pairs(
    found: npt.NDArray[np.uint32],
    ends: npt.NDArray[np.int32],
    width: int,
    bits: npt.NDArray[np.uint16],
    value: npt.NDArray[np.float32],
    rows: int,
    columns: int,
    toll: npt.NDArray[np.int64],
    pair: npt.NDArray[np.int64],
    saddle: npt.NDArray[np.float32],
    vote: npt.NDArray[np.int64],
    near: npt.NDArray[np.int64],
) -> None:
    """What every pair of pixels that `_count_pairs` counts says; ends are indices into rows of `width`."""
    n = 0
    for y in range(rows):
        for x in range(columns):
            here = found[y, x]
            if here:
                for dy, dx in ((0, 1), (1, 0)):
                    v, u = y + dy, x + dx
                    if v < found.shape[0] and u < found.shape[1] and found[v, u] and found[v, u] != here:
                        pair[n, 0], pair[n, 1] = min(here, found[v, u]), max(here, found[v, u])
                        saddle[n] = min(value[bits[2, y, x]], value[bits[2, v, u]])
                        vote[n] = -toll[0]
                        for axis in range(2):
                            vote[n] += fixed(value[bits[axis, y, x]]) * fixed(value[bits[axis, v, u]])
                        down = ends[y, x] // width - ends[v, u] // width
                        right = ends[y, x] % width - ends[v, u] % width
                        near[n] = near_vote(down * down + right * right, toll)
                        n += 1


@compiled
def near_vote(square: int, toll: npt.NDArray[np.int64]) -> int:
    """A pair's vote on ends the square root of `square` apart."""
    gain = 1 << _VOTE_BITS if square <= toll[2] else 0
    return int(gain - toll[1])


@compiled
def fixed(flow: np.float32) -> int:
    """A flow component with 12 fractional bits; lengths above 8 count as 8, so that sums stay within 64 bits."""
    return int(np.rint(min(max(flow, np.float32(-8)), np.float32(8)) * np.float32(1 << _FLOW_BITS)))
