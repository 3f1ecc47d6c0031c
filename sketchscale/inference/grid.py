"""The tile grid of an image, and weights of overlapping tiles that sum to one; any number of axes.

    tile 0   ├──────────────┤            the grid starts at pixel 0 and steps by tile - overlap; it depends on the
    tile 1            ├──────────────┤   image and the model, never on chunks, blocks or workers
    weight   ▔▔▔▔▔▔▔▔▔▔╲╱▔▔▔▔▔▔▔╲╱▔▔▔    linear ramps over the overlap; 1 where a tile has no neighbour

A tile that reaches past the image is padded by mirroring (`symmetric`), so all tiles have the same shape.

A block adds all tiles that cover it in raster order. So a pixel's sum has the same terms in the same order for any
blocks, and the same bits.

Source: ours.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.geometry import Box

__all__ = ["TileGrid", "axis_weights", "blend_box", "pad_tile", "shortened", "tile_grid"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """The network's tiles over an array.

    Attributes:
        shape: of the array.
        tile: shape of a tile.
        overlap: of neighbouring tiles, per axis; at most half a tile, so that at most two tiles meet on an axis.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    overlap: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(t < 1 or not 0 <= o <= t // 2 for t, o in zip(self.tile, self.overlap, strict=True)):
            raise InputError.of(
                found=f"tiles of {self.tile} px with overlap {self.overlap} px",
                expected="an overlap of at most half a tile",
                fix="change --tile or --overlap",
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of tiles along each axis."""
        sizes = zip(self.shape, self.tile, self.overlap, strict=True)
        return tuple(max(1, -(-(n - o) // (t - o))) for n, t, o in sizes)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def index(self, position: int) -> tuple[int, ...]:
        """Return the place along each axis of the tile at this position in raster order."""
        return tuple(int(i) for i in np.unravel_index(position, self.counts))

    def box(self, position: int) -> Box:
        """Return the tile's box, which may reach past the array at the far ends."""
        sizes = zip(self.index(position), self.tile, self.overlap, strict=True)
        start = tuple(i * (t - o) for i, t, o in sizes)
        return Box(start, tuple(a + t for a, t in zip(start, self.tile, strict=True)))

    def covering(self, box: Box) -> Iterator[int]:
        """Yield the positions of the tiles that overlap a box, in raster order."""
        sizes = zip(box.start, box.stop, self.tile, self.overlap, self.counts, strict=True)
        ranges = [range(max(0, (a - t) // (t - o) + 1), min(n, (b - 1) // (t - o) + 1)) for a, b, t, o, n in sizes]
        for index in itertools.product(*ranges):
            yield functools.reduce(lambda place, i: place * i[1] + i[0], zip(index, self.counts, strict=True), 0)


def tile_grid(
    shape: Sequence[int], tile: int, overlap: int, stride: int, sizes: Callable[[int], Sequence[int]] | None = None
) -> TileGrid:
    """Return the grid of a model over an array.

    Args:
        tile, overlap: of the model, along y and x.
        stride: of the network, along y and x.
        sizes: returns a size along y and x as sizes along every axis, see NetworkConfig; None where all are alike.

    Raises:
        InputError: a tile below 16 px, or not a multiple of the stride.
    """
    if tile < 16 or tile % stride:
        raise InputError.of(
            found=f"a tile of {tile} px", expected=f"at least 16 px, a multiple of {stride}", fix="change --tile"
        )
    tiles, overlaps = ((side,) * len(shape) if sizes is None else tuple(sizes(side)) for side in (tile, overlap))
    return TileGrid(shape=tuple(shape), tile=tiles, overlap=overlaps)


def shortened(grid: TileGrid, stride: int | Sequence[int]) -> TileGrid:
    """Return the grid with shorter tiles where the array is shorter: multiples of the stride, at least twice it.

    Args:
        stride: of the network along each axis, or along all.

    A section of 40 planes by 2000 px is padded to 40 by 512, not to 512 by 512.

    >>> shortened(tile_grid((10, 300), 128, 64, 8), 8)
    TileGrid(shape=(10, 300), tile=(16, 128), overlap=(8, 64))
    """
    strides = (stride,) * len(grid.shape) if isinstance(stride, int) else stride
    tile = tuple(min(t, s * max(2, -(-n // s))) for n, t, s in zip(grid.shape, grid.tile, strides, strict=True))
    overlap = tuple(min(o, t // 2) for o, t in zip(grid.overlap, tile, strict=True))
    return TileGrid(shape=grid.shape, tile=tile, overlap=overlap)


def pad_tile(pixels: npt.NDArray[Any], tile: Sequence[int]) -> npt.NDArray[Any]:
    """Pad the last axes to the shape of a tile by mirroring, where the array's far ends cut it.

    >>> pad_tile(np.array([[[1, 2]]]), (1, 5))[0, 0]
    array([1, 2, 2, 1, 1])
    """
    leading = pixels.ndim - len(tile)
    missing = [(0, 0)] * leading + [(0, t - n) for t, n in zip(tile, pixels.shape[leading:], strict=True)]
    return np.pad(pixels, missing, mode="symmetric")


def axis_weights(index: int, count: int, tile: int, overlap: int) -> Float32:
    """Return the weights along one axis of the tile at `index` of `count`; neighbours' ramps sum to one.

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


def blend_box(grid: TileGrid, box: Box, read: Callable[[int, Box], npt.NDArray[np.floating]]) -> Float32:
    """Return the blended fields of a box.

    Args:
        box: inside the array, not empty.
        read: (position, part): fields (..., *part.shape) of a part of a tile, in the tile's coordinates.

    Returns:
        (..., *box.shape), float32, with the leading axes of `read`.
    """
    result: Float32 | None = None
    for position in grid.covering(box):
        tile = grid.box(position)
        common = tile.intersect(box)
        sizes = zip(grid.index(position), grid.counts, grid.tile, grid.overlap, strict=True)
        within = common.relative_to(tile.start)
        ramps = [axis_weights(*size)[part] for size, part in zip(sizes, within.slices, strict=True)]
        part = read(position, within).astype(np.float32) * functools.reduce(np.multiply.outer, ramps)
        if result is None:
            result = np.zeros((*part.shape[: part.ndim - len(grid.shape)], *box.shape), np.float32)
        place: Any = (..., *common.relative_to(box.start).slices)
        result[place] += part
    if result is None:
        raise InputError(f"box {box} is empty or outside an array of {grid.shape}")
    return result
