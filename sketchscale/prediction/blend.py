"""One tile grid per image, and the weights with which overlapping tiles sum to one.

    tile 0   ├──────────────┤            the grid starts at pixel (0, 0) and steps by `stride`; it depends on the
    tile 1            ├──────────────┤   image and the model, never on chunks, blocks or workers
    weight   ▔▔▔▔▔▔▔▔▔▔╲╱▔▔▔▔▔▔▔╲╱▔▔▔    linear ramps over the overlap; 1 where a tile has no neighbour

A tile that reaches past the image is padded by mirroring (`symmetric`), so every tile has one shape.

A block gathers every tile that covers it and adds them in raster order. A pixel's sum therefore has the same terms in
the same order whatever the block, and is the same to the bit.

Source: ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.geometry import Box

__all__ = ["TileGrid", "axis_weights", "blend_box"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """The network's tiles over a plane.

    Attributes:
        shape: of the plane, (y, x).
        tile: side of a tile in pixels.
        overlap: pixels shared by neighbouring tiles; at most half a tile, so that at most two tiles meet on an axis.
    """

    shape: tuple[int, int]
    tile: int
    overlap: int

    def __post_init__(self) -> None:
        if self.tile < 16 or not 0 <= self.overlap <= self.tile // 2:
            raise InputError.of(
                found=f"tile {self.tile} px with overlap {self.overlap} px",
                expected="a tile of at least 16 px and an overlap of at most half of it",
                fix="change --tile or --overlap",
            )

    @property
    def stride(self) -> int:
        return self.tile - self.overlap

    @property
    def counts(self) -> tuple[int, int]:
        """Tiles along y and x."""
        y, x = (max(1, -(-(n - self.overlap) // self.stride)) for n in self.shape)
        return y, x

    def __len__(self) -> int:
        return self.counts[0] * self.counts[1]

    def index(self, position: int) -> tuple[int, int]:
        """Row and column of the tile at this place in raster order."""
        row, column = divmod(position, self.counts[1])
        return row, column

    def position(self, row: int, column: int) -> int:
        return row * self.counts[1] + column

    def box(self, position: int) -> Box:
        """The tile's pixels; may reach past the plane at the far edges."""
        start = tuple(i * self.stride for i in self.index(position))
        return Box(start, tuple(a + self.tile for a in start))

    def covering(self, box: Box) -> Iterator[int]:
        """Positions of the tiles that overlap a box, in raster order."""
        ranges = [
            range(max(0, (a - self.tile) // self.stride + 1), min(n, (b - 1) // self.stride + 1))
            for a, b, n in zip(box.start, box.stop, self.counts, strict=True)
        ]
        for row, column in itertools.product(*ranges):
            yield self.position(row, column)


def axis_weights(index: int, count: int, tile: int, overlap: int) -> Float32:
    """Weights along one axis of the tile at `index` of `count`; neighbours' ramps sum to one.

    >>> axis_weights(0, 2, 4, 2)
    array([1.  , 1.  , 0.75, 0.25], dtype=float32)
    """
    weights = np.ones(tile, np.float32)
    ramp = (np.arange(overlap, dtype=np.float32) + np.float32(0.5)) / np.float32(max(overlap, 1))
    if index > 0:
        weights[:overlap] = ramp
    if index < count - 1:
        weights[tile - overlap :] = np.float32(1) - ramp
    return weights


def blend_box(grid: TileGrid, box: Box, read_tile: Callable[[int], npt.NDArray[np.floating]]) -> Float32:
    """The blended fields of a box.

    Args:
        box: inside the plane.
        read_tile: position to the tile's fields, (channel, tile, tile).

    Returns:
        (channel, y, x), float32.
    """
    result: Float32 | None = None
    for position in grid.covering(box):
        tile_box = grid.box(position)
        common = tile_box.intersect(box)
        wy, wx = (
            axis_weights(i, n, grid.tile, grid.overlap)[a - t : b - t]
            for i, n, a, b, t in zip(
                grid.index(position), grid.counts, common.start, common.stop, tile_box.start, strict=True
            )
        )
        part = read_tile(position)[(slice(None), *common.relative_to(tile_box.start).slices)].astype(np.float32)
        if result is None:
            result = np.zeros((part.shape[0], *box.shape), np.float32)
        result[(slice(None), *common.relative_to(box.start).slices)] += part * (wy[:, None] * wx[None, :])
    if result is None:
        raise InputError(f"box {box} is empty or outside a plane of {grid.shape}")
    return result
